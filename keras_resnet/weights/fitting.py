"""Fit trained weights into a network that differs slightly from the one they were trained in."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.images.preprocessing import BETWEEN, PREPROCESSING

Arrays = Mapping[str, list[np.ndarray]]  # by layer name, in the order of `layer.weights`

_NOTE = "keras_resnet."  # prefix of the file attributes that are ours; Keras ignores them
_OPTIONS = "options"  # the attribute that is JSON
HEADS = ("head", "aux")  # prefixes of the layers that a network without the top does not have
_IMAGE_CHANNELS = 3


def arrays_of(model: keras.Model) -> Arrays:
    """Return the weights of a model by layer name."""
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


@dataclass(frozen=True)
class Note:
    """The facts that our `.weights.h5` files store about their weights. Keras' files have none.

    Attributes:
        network: registry name. It is needed because plain20 and resnet20 have the same arrays, and
            so have v1 and v1.5.
        preprocessing: preprocessing used in training.
        data: training data, by its tensorflow-datasets name.
        options: the fields in which the network differs from the registered one, e.g. {"depths":
            (6, 6, 6)}.
    """

    network: str | None = None
    preprocessing: str | None = None
    data: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the note into a weights file."""
        with h5py.File(path, "r+") as file:
            for key, value in asdict(self).items():
                if value:
                    file.attrs[_NOTE + key] = json.dumps(value) if key == _OPTIONS else value


def read_note(path: Path) -> Note:
    """Read the note that `Note.write` wrote into a `.weights.h5` file; empty if there is none.

    Raises:
        UserError: the preprocessing is unknown, or the file cannot express it.
    """
    try:
        with h5py.File(path) as file:
            said = {f.name: file.attrs.get(_NOTE + f.name) for f in fields(Note)}
            note = Note(**{**said, _OPTIONS: _parsed(said[_OPTIONS])})
            layers = [layer["vars"].attrs.get("name") for layer in file["layers"].values()]
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError):
        return Note()  # reading the weights later reports what is wrong with the file
    if note.preprocessing is None and BETWEEN in layers:
        raise UserError(
            f"{path} was saved from a model with a layer '{BETWEEN}', and a weights file does not "
            "store what that layer does. Save the whole model: model.save('NAME.keras')."
        )
    if note.preprocessing not in (None, *PREPROCESSING):
        raise UserError(f"{path} names an unknown preprocessing: '{note.preprocessing}'.")
    return note


def _parsed(options: str | None) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(options or "{}")
    return {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}


def fit(arrays: Arrays, model: keras.Model, source: str, before: Collection[str] = ()) -> None:
    """Copy `arrays` into the layers with the same names, in place.

    `source` names the weights in messages. Layers in `before` are not part of the network and are
    left alone. These differences are allowed, with a message on stderr:

    - A classifier with another number of classes, or missing in `arrays`, stays new.
    - A first convolution for images that are not RGB gets an adapted kernel.
    - A model without the top takes the arrays of its layers.

    Raises:
        UserError: the weights belong to another network. The message names the first layer, and
            nothing was copied.
    """
    layers = [layer for layer in model.layers if layer.weights and layer.name not in before]
    mine = {layer.name: layer for layer in layers}
    left = [name for name in arrays if name not in mine and not name.startswith(HEADS)]
    if left:
        raise UserError(
            f"{source} are not for '{model.name}', which has no layer '{left[0]}'. "
            "To use a file of another library, run: keras-resnet weights import."
        )
    fitted, notes = {}, []
    for name, layer in mine.items():
        if name not in arrays and name.startswith(HEADS):
            notes.append(f"'{name}' is new and untrained, because {source} do not have it")
            continue
        if name not in arrays:
            raise UserError(f"{source} are not for '{model.name}': they have nothing for '{name}'.")
        values, note = _fitted(arrays[name], layer, source, model)
        fitted[name] = values
        notes += [note] if note else []
    for name, values in fitted.items():
        if values is not None:
            mine[name].set_weights(values)
    for note in notes:
        print(f"{model.name}: {note}", file=sys.stderr)


def _fitted(
    values: list[np.ndarray], layer: keras.Layer, source: str, model: keras.Model
) -> tuple[list[np.ndarray] | None, str]:
    """Return the arrays for a layer (None: leave it as it is) and a message for the user."""
    theirs = [value.shape for value in values]
    ours = [tuple(weight.shape) for weight in layer.weights]
    if theirs == ours:
        return values, ""
    if _is_classifier(layer) and theirs[0][:-1] == ours[0][:-1]:
        return None, (
            f"the classifier '{layer.name}' is new and untrained, because {source} have "
            f"{theirs[0][-1]} classes and this model has {ours[0][-1]}"
        )
    if len(ours[0]) == 4 and theirs[0][2] == _IMAGE_CHANNELS and _without(2, theirs, ours):
        kernel, *rest = values
        return [adapted(kernel, ours[0][2]), *rest], (
            f"'{layer.name}' was adapted from RGB to {ours[0][2]} channel(s)"
        )
    if any(isinstance(other, keras.layers.Flatten) for other in model.layers):
        raise UserError(
            f"{source} do not fit '{layer.name}' of '{model.name}' ({theirs[0]}, {ours[0]}): its "
            "dense layers need the image size of the weights. Remove input_shape, or use "
            "include_top=False."
        )
    raise UserError(
        f"{source} do not fit '{layer.name}' of '{model.name}': they have the shapes {theirs}, the "
        f"layer has {ours}."
    )


def _is_classifier(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Dense) and layer.name.startswith(HEADS)


def _without(axis: int, theirs: list[tuple[int, ...]], ours: list[tuple[int, ...]]) -> bool:
    """Return True if the shapes are equal except for one axis of the first."""
    first = [tuple(s for i, s in enumerate(shapes[0]) if i != axis) for shapes in (theirs, ours)]
    return first[0] == first[1] and theirs[1:] == ours[1:]


def adapted(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Adapt a first convolution's kernel (height, width, 3, filters) to images that are not RGB.

    For grey images it is the sum over RGB, which gives the same as three equal channels. Otherwise
    the three channels are repeated and scaled to keep the size of the output. timm does both.
    """
    if channels == 1:
        return np.asarray(kernel.sum(axis=2, keepdims=True))
    repeated = np.take(kernel, np.arange(channels) % _IMAGE_CHANNELS, axis=2)
    return repeated * np.float32(_IMAGE_CHANNELS / channels)

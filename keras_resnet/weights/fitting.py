"""Trained weights in a network that is not quite the one they were trained in."""

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

_NOTE = "keras_resnet."  # how attributes of the file begin that Keras does not look at
_OPTIONS = "options"  # the one that is JSON
HEADS = ("head", "aux")  # how the layers begin that a network without the top leaves out
_IMAGE_CHANNELS = 3


def arrays_of(model: keras.Model) -> Arrays:
    """The weights of a model."""
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


@dataclass(frozen=True)
class Note:
    """What a `.weights.h5` file of ours says of itself; one that Keras wrote says nothing.

    Attributes:
        network: registry name: plain20 and resnet20 have the same arrays, v1 and v1.5 too.
        preprocessing: what the weights were trained with.
        data: what they were trained on, by tensorflow-datasets' name.
        options: the fields in which the network differs from the one of that name, e.g. {"depths":
            (6, 6, 6)}.
    """

    network: str | None = None
    preprocessing: str | None = None
    data: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Put it into a file."""
        with h5py.File(path, "r+") as file:
            for key, value in asdict(self).items():
                if value:
                    file.attrs[_NOTE + key] = json.dumps(value) if key == _OPTIONS else value


def read_note(path: Path) -> Note:
    """What `Note.write` put into a `.weights.h5` file, if it did.

    Raises:
        UserError: a preprocessing that there is not, or one that got lost.
    """
    try:
        with h5py.File(path) as file:
            said = {f.name: file.attrs.get(_NOTE + f.name) for f in fields(Note)}
            note = Note(**{**said, _OPTIONS: _parsed(said[_OPTIONS])})
            layers = [layer["vars"].attrs.get("name") for layer in file["layers"].values()]
    except (OSError, KeyError, json.JSONDecodeError):
        return Note()  # whoever reads the weights says what is wrong with the file
    if note.preprocessing is None and BETWEEN in layers:
        raise UserError(
            f"{path} was saved from a model with a layer '{BETWEEN}', and a file of weights does "
            "not keep what that does. Save the whole model: model.save('NAME.keras')."
        )
    if note.preprocessing not in (None, *PREPROCESSING):
        raise UserError(f"{path} says preprocessing '{note.preprocessing}', which there is not.")
    return note


def _parsed(options: str | None) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(options or "{}")
    return {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}


def fit(arrays: Arrays, model: keras.Model, source: str, before: Collection[str] = ()) -> None:
    """Copy `arrays` into the layers of the same names, in place; `source` names them in messages.

    A classifier of another width, or one that they lack, stays new, a first convolution that takes
    other than RGB is adapted, and a model without the top takes what it has; a message on stderr
    says so. Nothing else may differ, but for the layers in `before`, which are not the network's.

    Raises:
        UserError: these are weights of another network; the message names the first layer, and
            nothing was copied.
    """
    layers = [layer for layer in model.layers if layer.weights and layer.name not in before]
    mine = {layer.name: layer for layer in layers}
    left = [name for name in arrays if name not in mine and not name.startswith(HEADS)]
    if left:
        raise UserError(
            f"{source} are not of '{model.name}', which has no layer '{left[0]}'. "
            "A file of another library: keras-resnet weights import."
        )
    fitted, notes = {}, []
    for name, layer in mine.items():
        if name not in arrays and name.startswith(HEADS):
            notes.append(f"'{name}' is new and untrained, since {source} are without it")
            continue
        if name not in arrays:
            raise UserError(f"{source} are not of '{model.name}': they have nothing for '{name}'.")
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
    """What goes into a layer (None: it stays as it is), and what is to be said of it."""
    theirs = [value.shape for value in values]
    ours = [tuple(weight.shape) for weight in layer.weights]
    if theirs == ours:
        return values, ""
    if _is_classifier(layer) and theirs[0][:-1] == ours[0][:-1]:
        return None, (
            f"the classifier '{layer.name}' is new and untrained, since {source} know "
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
            "dense layers know the image size. Leave input_shape out, or the top "
            "(include_top=False)."
        )
    raise UserError(
        f"{source} do not fit '{layer.name}' of '{model.name}': {theirs} there, {ours} here."
    )


def _is_classifier(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Dense) and layer.name.startswith(HEADS)


def _without(axis: int, theirs: list[tuple[int, ...]], ours: list[tuple[int, ...]]) -> bool:
    """Whether the shapes are the same but for one axis of the first."""
    first = [tuple(s for i, s in enumerate(shapes[0]) if i != axis) for shapes in (theirs, ours)]
    return first[0] == first[1] and theirs[1:] == ours[1:]


def adapted(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A first convolution's kernel (height, width, 3, filters) for other than RGB images.

    Grey: the sum over RGB, which answers a grey image as three equal channels did. Otherwise the
    three are repeated, and scaled so that as much comes out (both as timm does).
    """
    if channels == 1:
        return np.asarray(kernel.sum(axis=2, keepdims=True))
    repeated = np.take(kernel, np.arange(channels) % _IMAGE_CHANNELS, axis=2)
    return repeated * np.float32(_IMAGE_CHANNELS / channels)

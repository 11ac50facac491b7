"""What `weights=` accepts, and how it gets into a network."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import keras

from keras_resnet import registry
from keras_resnet.errors import UserError
from keras_resnet.files import expanded
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.labels import Known, known
from keras_resnet.weights import cache, catalog
from keras_resnet.weights.catalog import Entry
from keras_resnet.weights.fitting import Note, fit, read_note
from keras_resnet.weights.foreign.keras_files import by_name
from keras_resnet.weights.foreign.read import read

# Nothing, a file, a tag of the catalog ("imagenet/torchvision_v2"), or what a tag means.
Weights = str | Path | Entry | None

SUFFIX = ".weights.h5"
_LOAD_KERAS = ". A whole model: keras.models.load_model, which export(model) takes"
_WHOLE = (".keras", ".h5", ".hdf5")  # endings that a whole Keras model may have
_FOREIGN = (".pth", ".pt", ".th", ".bin", ".safetensors", ".h5", ".hdf5", ".keras")


def resolve(name: str, weights: Weights) -> Path | Entry | None:
    """What `weights=` of network `name` means: nothing, a file, or weights of the catalog.

    Raises:
        UserError: no such file or tag, or a file of another library.
    """
    if weights is None:
        return weights
    if not isinstance(weights, str | Path | Entry):
        raise UserError(f"weights= takes a tag or a {SUFFIX} file; received {weights!r}.")
    if not isinstance(weights, Entry):
        path = expanded(weights)
        if path.name.endswith(SUFFIX):
            if not path.is_file():
                raise UserError(f"No such weights file: {path}")
            weights = path
        elif path.is_dir() and not (path / "model.keras").is_file():
            raise UserError(f"{path} is a folder; weights= takes a tag or a {SUFFIX} file.")
        elif path.suffix.lower() in _FOREIGN or path.exists():
            raise UserError(
                f"weights= takes a {SUFFIX} file; make one: keras-resnet weights import {path} "
                f"--as {name}" + _LOAD_KERAS * (path.suffix.lower() in _WHOLE)
            )
        else:
            weights = catalog.find(name, str(weights))
    of = about(weights).network
    if of not in (None, name) and name in registry.list_models():
        raise UserError(f"The weights '{weights}' are of '{of}', not of '{name}'.")
    return weights


def about(weights: Path | Entry | None) -> Note:
    """What is known of resolved weights: their network, and what they were trained with."""
    if weights is None:
        return Note()
    if isinstance(weights, Entry):
        return Note(weights.model, weights.preprocessing, weights.data)
    return read_note(weights)


def known_with(weights: Path | Entry | None) -> Known:
    """The class names and the crop that belong to resolved weights."""
    data = about(weights).data
    if not isinstance(weights, Entry):
        return known(data, weights and weights.parent)
    measured = weights.evaluation
    crop = SingleCrop(measured.resize, measured.size, measured.interpolation)
    return known(data, crop=crop)


def classes_in(weights: Path | Entry | None) -> int | None:
    """The width of the classifier in a `.weights.h5` file; None if it has none, or is none."""
    if not isinstance(weights, Path):
        return None
    head = by_name(weights, lambda dataset: dataset.shape).get("head")
    return None if head is None else int(head[0][-1])


def load(model: keras.Model, weights: Path | Entry | None, before: Collection[str] = ()) -> None:
    """Load `weights` into `model` in place; None leaves it as it is.

    Weights of the catalog are fetched if they are not there yet, and their hash is checked. The
    layers named in `before` come before the network and are left alone.

    Raises:
        UserError: no such file, weights that are not there and cannot be fetched, a wrong hash, or
            weights of another network.
    """
    if weights is None:
        return
    if isinstance(weights, Path):
        fit(by_name(weights), model, f"the weights in {weights}", before)
        return
    path = cache.fetch(weights)
    arrays = read(path, weights.model).arrays(model, before) if weights.url else by_name(path)
    fit(arrays, model, f"the weights '{weights}'", before)

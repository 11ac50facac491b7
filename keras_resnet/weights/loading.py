"""Resolve `weights=` and load the weights into a network."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import keras

from keras_resnet import registry
from keras_resnet.errors import UserError
from keras_resnet.files import expanded
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.labels import Known, known
from keras_resnet.weights import cache, catalog, hub
from keras_resnet.weights.catalog import Entry
from keras_resnet.weights.fitting import Arrays, Note, fit, read_note
from keras_resnet.weights.foreign.forms import FORMS
from keras_resnet.weights.foreign.keras_files import by_name, is_ours
from keras_resnet.weights.foreign.read import Foreign, read

# The meaning of `weights=`: nothing, a file of ours, catalog weights, a file of Keras Applications.
Resolved = Path | Entry | Foreign | None
# The values of `weights=`: those, the path of a file, a tag ("imagenet/torchvision_v2"), or an
# address of the Hugging Face Hub ("hf://timm/resnet50d.ra2_in1k").
Weights = str | Resolved

SUFFIX = ".weights.h5"
_LOAD_KERAS = ". For a whole model use keras.models.load_model; export(model) takes the result"
_KERAS = (".h5", ".hdf5", ".keras")  # suffixes that a whole Keras model may have
_FOREIGN = (".pth", ".pt", ".th", ".bin", ".safetensors", *_KERAS)


def resolve(name: str, weights: Weights) -> Resolved:
    """Return the meaning of `weights=` for network `name`: nothing, a file, or catalog weights.

    If it is a file of the Keras Applications network with that name, it is read here. An address of
    the Hub is fetched and read here, see `hub.fetch`.

    Raises:
        UserError: the file or the tag does not exist, or the file is of another library.
    """
    if weights is None:
        return weights
    if not isinstance(weights, str | Path | Entry | Foreign):
        raise UserError(f"weights= must be a tag or a {SUFFIX} file; received {weights!r}.")
    if isinstance(weights, str) and weights.startswith(hub.SCHEME):
        return hub.fetch(weights, name)
    if not isinstance(weights, Entry | Foreign):
        path = expanded(weights)
        if _is_other_keras_file(path) and name in registry.list_models():
            return read(path, name)
        if path.name.endswith(SUFFIX):
            if not path.is_file():
                raise UserError(f"No such weights file: {path}")
            weights = path
        elif path.is_dir() and not (path / "model.keras").is_file():
            raise UserError(f"weights= must be a tag or a {SUFFIX} file; {path} is a folder.")
        elif path.suffix.lower() in _FOREIGN or path.exists():
            raise UserError(
                f"weights= must be a tag or a {SUFFIX} file. To make one, run: keras-resnet "
                f"weights import {path} --as {name}" + _LOAD_KERAS * (path.suffix.lower() in _KERAS)
            )
        else:
            weights = catalog.find(name, str(weights))
    of = about(weights).network
    if of not in (None, name) and name in registry.list_models():
        raise UserError(f"The weights '{weights}' are for '{of}', not for '{name}'.")
    return weights


def _is_other_keras_file(path: Path) -> bool:
    return path.suffix.lower() in _KERAS and path.is_file() and not is_ours(path)


def about(weights: Resolved) -> Note:
    """Return the known facts about resolved weights: network, preprocessing and data."""
    if weights is None:
        return Note()
    if isinstance(weights, hub.Published):
        return weights.note
    if isinstance(weights, Foreign):
        return Note(next(form.model for form in FORMS if form.family == weights.family))
    if isinstance(weights, Entry):
        return Note(weights.model, weights.preprocessing, weights.data)
    return read_note(weights)


def known_with(weights: Resolved) -> Known:
    """Return the class names and the crop that belong to resolved weights."""
    data = about(weights).data
    if isinstance(weights, Entry):
        measured = weights.evaluation
        crop = SingleCrop(measured.resize, measured.size, measured.interpolation)
        return known(data, crop=crop)
    if isinstance(weights, hub.Published):
        return known(data, crop=weights.crop)
    path = weights.path if isinstance(weights, Foreign) else weights
    return known(data, path and path.parent)


def classes_in(weights: Resolved) -> int | None:
    """Return the number of classes in a file; None for catalog weights or without a classifier."""
    if isinstance(weights, Foreign):
        return weights.contents.classes
    if not isinstance(weights, Path):
        return None
    head = by_name(weights, lambda dataset: dataset.shape).get("head")
    return None if head is None else int(head[0][-1])


def load(model: keras.Model, weights: Resolved, before: Collection[str] = ()) -> None:
    """Load `weights` into `model` in place. None leaves the model as it is.

    Weights of the catalog are downloaded if necessary, and their hash is checked. Layers named in
    `before` come before the network and are left alone.

    Raises:
        UserError: the file does not exist, the download fails, the hash is wrong, or the weights
            are for another network.
    """
    if weights is None:
        return
    arrays: Arrays
    if isinstance(weights, Path):
        arrays, source = by_name(weights), f"the weights in {weights}"
    elif isinstance(weights, Foreign):
        arrays, source = weights.arrays(model, before), f"the weights in {weights.path}"
    else:
        path, source = cache.fetch(weights), f"the weights '{weights}'"
        is_theirs = bool(weights.url)
        arrays = read(path, weights.model).arrays(model, before) if is_theirs else by_name(path)
    fit(arrays, model, source, before)

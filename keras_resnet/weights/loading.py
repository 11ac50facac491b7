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
from keras_resnet.weights.fitting import Arrays, Note, fit, read_note
from keras_resnet.weights.foreign.forms import FORMS
from keras_resnet.weights.foreign.keras_files import by_name, is_ours
from keras_resnet.weights.foreign.read import Foreign, read

# What `weights=` means: nothing, a file of ours, a tag's weights, a file of Keras Applications.
Resolved = Path | Entry | Foreign | None
# What it takes: that, the path of a file, or a tag of the catalog ("imagenet/torchvision_v2").
Weights = str | Resolved

SUFFIX = ".weights.h5"
_LOAD_KERAS = ". A whole model: keras.models.load_model, which export(model) takes"
_KERAS = (".h5", ".hdf5", ".keras")  # endings that a whole Keras model may have
_FOREIGN = (".pth", ".pt", ".th", ".bin", ".safetensors", *_KERAS)


def resolve(name: str, weights: Weights) -> Resolved:
    """What `weights=` of network `name` means: nothing, a file, or weights of the catalog.

    A file of Keras Applications' network of that name is read here.

    Raises:
        UserError: no such file or tag, or a file of another library.
    """
    if weights is None:
        return weights
    if not isinstance(weights, str | Path | Entry | Foreign):
        raise UserError(f"weights= takes a tag or a {SUFFIX} file; received {weights!r}.")
    if not isinstance(weights, Entry | Foreign):
        path = expanded(weights)
        if _is_other_keras_file(path) and name in registry.list_models():
            return read(path, name)
        if path.name.endswith(SUFFIX):
            if not path.is_file():
                raise UserError(f"No such weights file: {path}")
            weights = path
        elif path.is_dir() and not (path / "model.keras").is_file():
            raise UserError(f"{path} is a folder; weights= takes a tag or a {SUFFIX} file.")
        elif path.suffix.lower() in _FOREIGN or path.exists():
            raise UserError(
                f"weights= takes a {SUFFIX} file; make one: keras-resnet weights import {path} "
                f"--as {name}" + _LOAD_KERAS * (path.suffix.lower() in _KERAS)
            )
        else:
            weights = catalog.find(name, str(weights))
    of = about(weights).network
    if of not in (None, name) and name in registry.list_models():
        raise UserError(f"The weights '{weights}' are of '{of}', not of '{name}'.")
    return weights


def _is_other_keras_file(path: Path) -> bool:
    return path.suffix.lower() in _KERAS and path.is_file() and not is_ours(path)


def about(weights: Resolved) -> Note:
    """What is known of resolved weights: their network, and what they were trained with."""
    if weights is None:
        return Note()
    if isinstance(weights, Foreign):
        return Note(next(form.model for form in FORMS if form.family == weights.family))
    if isinstance(weights, Entry):
        return Note(weights.model, weights.preprocessing, weights.data)
    return read_note(weights)


def known_with(weights: Resolved) -> Known:
    """The class names and the crop that belong to resolved weights."""
    data = about(weights).data
    if isinstance(weights, Entry):
        measured = weights.evaluation
        crop = SingleCrop(measured.resize, measured.size, measured.interpolation)
        return known(data, crop=crop)
    path = weights.path if isinstance(weights, Foreign) else weights
    return known(data, path and path.parent)


def classes_in(weights: Resolved) -> int | None:
    """The width of the classifier in a file; None if it has none, or is none."""
    if isinstance(weights, Foreign):
        return weights.contents.classes
    if not isinstance(weights, Path):
        return None
    head = by_name(weights, lambda dataset: dataset.shape).get("head")
    return None if head is None else int(head[0][-1])


def load(model: keras.Model, weights: Resolved, before: Collection[str] = ()) -> None:
    """Load `weights` into `model` in place; None leaves it as it is.

    Weights of the catalog are fetched if they are not there yet, and their hash is checked. The
    layers named in `before` come before the network and are left alone.

    Raises:
        UserError: no such file, weights that are not there and cannot be fetched, a wrong hash, or
            weights of another network.
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

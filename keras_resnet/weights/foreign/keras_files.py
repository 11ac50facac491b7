"""Keras' weight files as arrays by layer. Nothing in the files is executed.

There are two HDF5 layouts. Keras 1 and 2 store the layers in order, alone or in a whole model, and
Keras Applications still publishes such files. Keras 3 has another layout, in `.weights.h5` and
`.keras` files.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.files import require_bounded
from keras_resnet.weights.fitting import Arrays, arrays_of
from keras_resnet.weights.foreign.forms import their_class
from keras_resnet.weights.foreign.keras_weights import are_known

_HDF5 = b"\x89HDF\r\n\x1a\n"
_INNER = "model.weights.h5"
_OURS = ("stem", "stage1")  # prefixes of the first layers with weights in our networks

Layers = list[list[tuple[int, ...]]]  # the shapes of every layer with weights


def _read(dataset: h5py.Dataset) -> np.ndarray:
    return np.asarray(dataset[()])


def is_keras(path: Path, start: bytes) -> bool:
    """Return True if a file that begins with `start` is HDF5 or a `.keras` archive."""
    if start.startswith(_HDF5):
        return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _INNER in archive.namelist()


def shapes(path: Path) -> Layers:
    """Return the shapes of every layer with weights, the classifier last.

    Raises:
        UserError: the file is damaged, has another layout, or is a file of keras_resnet.
    """
    layers = _layers(path, lambda dataset: tuple(dataset.shape))
    if is_ours(path):
        raise UserError(
            f"{path} is a file of keras_resnet. It needs no import: pass it as weights=."
        )
    return [weights for _, weights in layers]


def is_ours(path: Path) -> bool:
    """Return True if the file holds the weights of a network of keras_resnet.

    Raises:
        UserError: the file is damaged or has another layout.
    """
    names = [name for name, _ in _layers(path, lambda dataset: None)]
    return not _has_order(path) and any(name.startswith(_OURS) for name in names)


def arrays(path: Path) -> list[list[np.ndarray]]:
    """Return the arrays of every layer with weights, the classifier last.

    Raises:
        UserError: the file is damaged or has another layout.
    """
    return [weights for _, weights in _layers(path, _read)]


def classes(layers: Layers) -> int | None:
    """Return the number of classes; None if the last layer is no classifier."""
    kernel_and_bias = layers[-1] if layers else []
    if len(kernel_and_bias) == 2 and len(kernel_and_bias[0]) == 2:
        return kernel_and_bias[1][0]
    return None


def expected(name: str) -> str:
    """Return, for messages, the network that a Keras file for our network `name` must hold."""
    theirs = their_class(name)
    if theirs:
        return f"keras.applications.{theirs}"
    return "model of Keras Applications or MLPerf Tiny"


def how_to_load(path: Path) -> str:
    """Return, for messages, how to load a file of a network that is not ours in Keras itself.

    Raises:
        UserError: the file is damaged.
    """
    with _opened(path) as file:
        whole = zipfile.is_zipfile(path) or "model_config" in file.attrs
    if whole:
        made = f'model = keras.models.load_model("{path}")'
    else:
        made = f'build your network in Keras, then model.load_weights("{path}")'
    return f"To use a network of your own, import nothing: {made}, and then export(model, …)."


def by_name(path: Path, take: Callable[[h5py.Dataset], Any] = _read) -> dict[str, list[Any]]:
    """Return the arrays (or what `take` returns for each) by layer name.

    Raises:
        UserError: the file is damaged or has another layout.
    """
    return dict(_layers(path, take))


def by_their_names(path: Path, theirs: str, count: int | None) -> Arrays:
    """Return the arrays for class `theirs` of `keras.applications`, by the class's layer names.

    Args:
        path: the file.
        theirs: name of the class.
        count: number of classes; None for a file without the top.

    Raises:
        UserError: the file is damaged or does not fit the class.
    """
    layers = by_name(path)
    if are_known(layers):
        return layers
    # Before 3.6, Keras wrote no names, only a class and a number. A user's copy may have other
    # names. Keras' own network gives the order.
    return arrays_of(model(path, theirs, count, None))


def model(path: Path, theirs: str, count: int | None, size: int | None) -> keras.Model:
    """Build class `theirs` of `keras.applications` for `count` classes, with the file's weights.

    Returns:
        A model that returns logits, or its last feature map if `count` is None. It takes images of
        `size`×`size` pixels, or of its own size if `size` is None.

    Raises:
        UserError: the file at `path` does not fit the class.
    """
    shape = None if size is None else (size, size, 3)
    build = getattr(keras.applications, theirs)
    top = {} if count is None else {"classes": count, "classifier_activation": None}
    source = build(weights=None, input_shape=shape, include_top=count is not None, **top)
    if _has_order(path):
        _set(source, arrays(path), path)
    else:
        _load(source, path)
    return source


def _set(source: keras.Model, values: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    """Set the weights in the order of the layers, as Keras itself reads this layout."""
    layers = [layer for layer in source.layers if layer.weights]
    mine = [[tuple(weight.shape) for weight in layer.weights] for layer in layers]
    if mine != [[array.shape for array in layer] for layer in values]:
        raise UserError(f"{path} does not fit keras.applications' {source.name}.")
    for layer, layer_values in zip(layers, values, strict=True):
        layer.set_weights(layer_values)


def _load(source: keras.Model, path: Path) -> None:
    """Load the weights with Keras, which needs this file name."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            inner = path
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    require_bounded(archive, path)
                    inner = Path(archive.extract(_INNER, folder))
            elif not path.name.endswith(".weights.h5"):
                inner = Path(shutil.copyfile(path, Path(folder, _INNER)))
            source.load_weights(inner)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip() or type(error).__name__
        raise UserError(
            f"{path} does not fit keras.applications' {source.name}: {reason.splitlines()[0]}"
        ) from error


# Layouts ------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open the HDF5 file, also inside a `.keras`.

    Raises:
        UserError: the file is damaged, even if this shows only in the `with` block.
    """
    try:
        if not zipfile.is_zipfile(path):
            with h5py.File(path) as file:
                yield file
            return
        with (
            _bounded(path) as archive,
            archive.open(_INNER) as inner,
            h5py.File(inner) as file,
        ):
            yield file
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged, or is no weights file of Keras ({error}).") from error


def _bounded(path: Path) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(path)
    require_bounded(archive, path)
    return archive


def _layers(path: Path, take: Callable[[h5py.Dataset], Any]) -> list[tuple[str, list[Any]]]:
    """Return the name of every layer with weights, and what `take` returns for each weight."""
    with _opened(path) as file:
        if _is_in_order(file):
            layers = _in_order(file)
        elif "layers" in file:
            layers = _by_class(file)
        else:
            raise UserError(f"{path} is an HDF5 file, but it holds no layers of a Keras model.")
        return [
            (name, [take(_checked(x, file)) for x in weights])
            for name, weights in layers
            if weights
        ]


def _has_order(path: Path) -> bool:
    """Return True if the file has the layout of Keras 1 or 2."""
    with _opened(path) as file:
        return _is_in_order(file)


def _is_in_order(file: h5py.File) -> bool:
    return "model_weights" in file or any(key.startswith("layer_names") for key in file.attrs)


def _in_order(file: h5py.File) -> list[tuple[str, list[h5py.Dataset]]]:
    """Return the layers of a Keras 1 or 2 file, whose order is in attributes."""
    group = file.get("model_weights", file)
    return [
        (layer, [group[layer][weight] for weight in _names(group[layer], "weight_names")])
        for layer in _names(group, "layer_names")
    ]


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names, which Keras splits if it is too long for one attribute."""
    keys = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(keys)}" in group.attrs:
        keys.append(f"{attribute}{len(keys)}")
    names = [name for key in keys for name in group.attrs[key]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _by_class(file: h5py.File) -> list[tuple[str, list[h5py.Dataset]]]:
    """Return the layers of a Keras 3 file, numbered per class. Dense layers come last, as the last
    one is the classifier."""
    groups = {key: group["vars"] for key, group in file["layers"].items() if "vars" in group}

    def place(key: str) -> tuple[bool, int]:
        number = re.search(r"_(\d+)$", key)
        return key.startswith("dense"), int(number[1]) if number else 0

    return [
        (
            str(groups[key].attrs.get("name", "")),
            [groups[key][str(index)] for index in range(len(groups[key]))],
        )
        for key in sorted(groups, key=place)
    ]


def _checked(dataset: h5py.Dataset, file: h5py.File) -> h5py.Dataset:
    """Refuse dangerous features of HDF5: data in other files, and small data that expands."""
    elsewhere = dataset.file.id != file.id and dataset.file.filename != file.filename
    if elsewhere or dataset.is_virtual or dataset.external:
        raise ValueError(f"'{dataset.name}' is in another file")
    if dataset.id.get_storage_size() < dataset.nbytes:
        raise ValueError(f"'{dataset.name}' is declared larger than its data")
    return dataset

"""Keras' weight files, as arrays by layer: nothing in them is executed.

Two layouts of HDF5: that of Keras 1 and 2, which Keras Applications still publishes, with layers in
their order (alone or in a whole model), and that of Keras 3 (`.weights.h5`, and in a `.keras`).
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
from keras_resnet.weights.fitting import Arrays, arrays_of
from keras_resnet.weights.foreign.forms import their_class
from keras_resnet.weights.foreign.keras_weights import are_known

_HDF5 = b"\x89HDF\r\n\x1a\n"
_INNER = "model.weights.h5"
_OURS = ("stem", "stage1")  # how the first layers with weights are called in our networks

Layers = list[list[tuple[int, ...]]]  # the shapes of every layer with weights


def _read(dataset: h5py.Dataset) -> np.ndarray:
    return np.asarray(dataset[()])


def is_keras(path: Path, start: bytes) -> bool:
    """Whether a file that begins with `start` is HDF5 or a `.keras` archive."""
    if start.startswith(_HDF5):
        return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _INNER in archive.namelist()


def shapes(path: Path) -> Layers:
    """The shapes of every layer with weights, the classifier last.

    Raises:
        UserError: damaged, of another layout, or a file of keras_resnet.
    """
    layers = _layers(path, lambda dataset: tuple(dataset.shape))
    if is_ours(path):
        raise UserError(
            f"{path} is a file of keras_resnet itself: no import is needed, give it as weights=."
        )
    return [weights for _, weights in layers]


def is_ours(path: Path) -> bool:
    """Whether the file is of a network of keras_resnet.

    Raises:
        UserError: damaged, or of another layout.
    """
    names = [name for name, _ in _layers(path, lambda dataset: None)]
    return not _has_order(path) and any(name.startswith(_OURS) for name in names)


def arrays(path: Path) -> list[list[np.ndarray]]:
    """The weights of every layer that has some, the classifier last.

    Raises:
        UserError: damaged, or of another layout.
    """
    return [weights for _, weights in _layers(path, _read)]


def classes(layers: Layers) -> int | None:
    """The width of the classifier; None if the last layer is none."""
    kernel_and_bias = layers[-1] if layers else []
    if len(kernel_and_bias) == 2 and len(kernel_and_bias[0]) == 2:
        return kernel_and_bias[1][0]
    return None


def expected(name: str) -> str:
    """For messages: what a Keras file of our network `name` could be of."""
    theirs = their_class(name)
    if theirs:
        return f"keras.applications.{theirs}"
    return "model of Keras Applications or MLPerf Tiny"


def how_to_load(path: Path) -> str:
    """For messages: what Keras itself makes of a file that is of none of our networks.

    Raises:
        UserError: it is damaged.
    """
    with _opened(path) as file:
        whole = zipfile.is_zipfile(path) or "model_config" in file.attrs
    if whole:
        made = f'model = keras.models.load_model("{path}")'
    else:
        made = f'build your network in Keras, then model.load_weights("{path}")'
    return f"A network of your own needs no import: {made}; export(model, …) takes it."


def by_name(path: Path, take: Callable[[h5py.Dataset], Any] = _read) -> dict[str, list[Any]]:
    """The weights (or what `take` takes of them) by layer name.

    Raises:
        UserError: damaged, or of another layout.
    """
    return dict(_layers(path, take))


def by_their_names(path: Path, theirs: str, count: int | None) -> Arrays:
    """The weights of class `theirs` of `keras.applications` by the names its layers have now.

    Args:
        path: the file.
        theirs: the class.
        count: how many classes it has; None: it has no top.

    Raises:
        UserError: damaged, or the file does not fit the class.
    """
    layers = by_name(path)
    if are_known(layers):
        return layers
    # Before 3.6 Keras wrote no names, but a class and a number, and a user's copy may have others.
    # Keras' own network knows the order.
    return arrays_of(model(path, theirs, count, None))


def model(path: Path, theirs: str, count: int | None, size: int | None) -> keras.Model:
    """Build class `theirs` of `keras.applications` for `count` classes, with the file's weights.

    Returns:
        A model that gives logits, or without a `count` its last feature map; it takes `size` pixels
        a side, its own size if None.

    Raises:
        UserError: the file does not fit it.
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
    """In the order of the layers, as Keras itself reads this layout."""
    layers = [layer for layer in source.layers if layer.weights]
    mine = [[tuple(weight.shape) for weight in layer.weights] for layer in layers]
    if mine != [[array.shape for array in layer] for layer in values]:
        raise UserError(f"{path} does not fit keras.applications' {source.name}.")
    for layer, layer_values in zip(layers, values, strict=True):
        layer.set_weights(layer_values)


def _load(source: keras.Model, path: Path) -> None:
    """By Keras, which wants the file to be called so."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            inner = path
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
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
        UserError: it is damaged (also if that shows only in the `with` block).
    """
    try:
        if not zipfile.is_zipfile(path):
            with h5py.File(path) as file:
                yield file
            return
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(_INNER) as inner,
            h5py.File(inner) as file,
        ):
            yield file
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged, or no weights file of Keras ({error}).") from error


def _layers(path: Path, take: Callable[[h5py.Dataset], Any]) -> list[tuple[str, list[Any]]]:
    """The name of every layer with weights, and what `take` takes of each."""
    with _opened(path) as file:
        if _is_in_order(file):
            layers = _in_order(file)
        elif "layers" in file:
            layers = _by_class(file)
        else:
            raise UserError(f"{path} is HDF5, but holds no layers of a Keras model.")
        return [
            (name, [take(_checked(x, file)) for x in weights])
            for name, weights in layers
            if weights
        ]


def _has_order(path: Path) -> bool:
    """Whether the file is of Keras 1 or 2."""
    with _opened(path) as file:
        return _is_in_order(file)


def _is_in_order(file: h5py.File) -> bool:
    return "model_weights" in file or any(key.startswith("layer_names") for key in file.attrs)


def _in_order(file: h5py.File) -> list[tuple[str, list[h5py.Dataset]]]:
    """Keras 1 and 2: the order is in attributes."""
    group = file.get("model_weights", file)
    return [
        (layer, [group[layer][weight] for weight in _names(group[layer], "weight_names")])
        for layer in _names(group, "layer_names")
    ]


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names, which Keras splits where it is too long for one attribute."""
    keys = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(keys)}" in group.attrs:
        keys.append(f"{attribute}{len(keys)}")
    names = [name for key in keys for name in group.attrs[key]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _by_class(file: h5py.File) -> list[tuple[str, list[h5py.Dataset]]]:
    """Keras 3: numbered per class. The classifier is the last dense layer, so these come last."""
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
    """Refuse what HDF5 can do besides: read from other files, make much of few bytes."""
    elsewhere = dataset.file.id != file.id and dataset.file.filename != file.filename
    if elsewhere or dataset.is_virtual or dataset.external:
        raise ValueError(f"'{dataset.name}' is in another file")
    if dataset.id.get_storage_size() < dataset.nbytes:
        raise ValueError(f"'{dataset.name}' is declared larger than it is")
    return dataset

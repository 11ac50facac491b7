"""Read weight files of other libraries as arrays by our layer names, whatever the file is called.

The first bytes tell the kind of file. No code in it runs: `torch_files` reads pickles safely, and
only the arrays of a Keras model are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open

from keras_resnet import registry
from keras_resnet.errors import UserError
from keras_resnet.weights.fitting import Arrays
from keras_resnet.weights.foreign import keras_files
from keras_resnet.weights.foreign.forms import WITHOUT_TOP, Form, matching, require_form
from keras_resnet.weights.foreign.keras_weights import in_order, keras_arrays
from keras_resnet.weights.foreign.torch_files import as_float32, read_shapes, read_state_dict
from keras_resnet.weights.foreign.torch_names import FAMILIES, family_of, rename
from keras_resnet.weights.foreign.torch_weights import torch_arrays, weights_of

Shape = tuple[int, ...]

# First bytes of files that are no weights, and the text for the message.
_NO_WEIGHTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file: run 'git lfs pull' there"),
    (b"<", "an HTML or XML page, not weights: it is probably an answer of the web server"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"\xfd7zXZ", "compressed with xz: unpack it first"),
)


@dataclass(frozen=True)
class Contents:
    """The facts needed to build a network for a file.

    Attributes:
        classes: number of classes; None if the file has no classifier (Keras Applications only).
        auxiliary: True if the file has auxiliary classifiers (GoogLeNet, Inception v3).
        library: "PyTorch" (torchvision, timm, others), "Keras Applications" or "MLPerf Tiny".
    """

    classes: int | None
    auxiliary: bool
    library: str


@dataclass(frozen=True)
class Foreign:
    """A weights file that was read.

    Attributes:
        path: the file.
        contents: the facts needed to build its network.
        family: family of the names (a key of `torch_names.FAMILIES`), or the class in
            `keras.applications`.
        weights: a state dict (PyTorch), arrays by layer name (Keras Applications), or arrays in the
            order of the layers (MLPerf Tiny).
    """

    path: Path
    contents: Contents
    family: str
    weights: Any

    def arrays(self, model: keras.Model, before: Collection[str] = ()) -> Arrays:
        """Return the arrays for the layers of our `model` except those in `before`.

        See `fitting.fit` for the differences allowed.

        Raises:
            UserError: the networks do not correspond.
        """
        try:
            return _ARRAYS[self.contents.library](self.weights, model, before)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error


_ARRAYS: Mapping[str, Callable[[Any, keras.Model, Collection[str]], Arrays]] = {
    "PyTorch": torch_arrays,
    "Keras Applications": keras_arrays,
    "MLPerf Tiny": in_order,
}


@dataclass(frozen=True)
class _Header:
    """The facts about a file that are known before its arrays are read."""

    contents: Contents
    family: str
    forms: tuple[Form, ...]


def contents(path: Path, name: str, state_dict: str | None = None) -> Contents:
    """Inspect a foreign file for network `name` without reading its arrays.

    Args:
        path: as for `read`.
        name: registry name.
        state_dict: as for `read`.

    Raises:
        UserError: the file does not exist, is no weights file, or belongs to another network (the
            message names it).
    """
    return _header(path, name, state_dict).contents


def read(path: Path, name: str, state_dict: str | None = None) -> Foreign:
    """Read a foreign file for network `name`.

    Args:
        path: a PyTorch file (`.pth`, `.pt`, `.th`, `.bin`); `.safetensors` with PyTorch's names;
            the `.h5`, `.weights.h5` or `.keras` file of a Keras Applications model with the top; or
            MLPerf Tiny's `pretrainedResnet.h5`.
        name: registry name.
        state_dict: selects one of several state dicts in a PyTorch checkpoint, e.g. "model_ema".

    Raises:
        UserError: as for `contents`, or the file is damaged.
    """
    header = _header(path, name, state_dict)
    found, kind = header.contents, _kind(path)
    weights: Any
    if found.library == "PyTorch":
        weights = _STATE_DICTS[kind].numbers(path, state_dict)
    elif found.library == "MLPerf Tiny":
        weights = keras_files.arrays(path)
    else:
        weights = keras_files.by_their_names(path, header.family, found.classes)
    return Foreign(path, found, header.family, weights)


# Kinds of files -----------------------------------------------------------------------------------


def _kind(path: Path) -> str:
    """Return the kind of a file, from its first bytes."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a weights file.")
    if not path.exists():
        raise UserError(f"No such weights file: {path}")
    if not path.is_file():
        raise UserError(f"{path} is a device or a pipe, not a file; give a weights file.")
    with path.open("rb") as file:
        start = file.read(64)
    for beginning, what in _NO_WEIGHTS:
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(beginning):
            raise UserError(f"{path} is {what}.")
    if keras_files.is_keras(path, start):
        return "keras"
    if start[8:9] == b"{":  # after the length of the header
        return "safetensors"
    if start.startswith((b"PK", b"\x80")):  # a zip, a pickle
        return "pickle"
    what = f"begins with {start[:12]!r}" if start else "is empty"
    raise UserError(
        f"{path} {what}. It must be a PyTorch file, safetensors, HDF5 or a .keras archive."
    )


@dataclass(frozen=True)
class _StateDict:
    """The two functions that read a kind of file with a state dict."""

    shapes: Callable[[Path, str | None], Mapping[str, Shape]]
    numbers: Callable[[Path, str | None], Mapping[str, np.ndarray]]


def _safetensors(take: Callable[[Any, str], Any]) -> Callable[[Path, str | None], dict[str, Any]]:
    def read_file(path: Path, state_dict: str | None) -> dict[str, Any]:
        _require_no_choice(path, state_dict)
        try:
            with safe_open(path, framework="numpy") as file:
                return {name: take(file, name) for name in file.keys()}  # noqa: SIM118
        # TypeError, AttributeError: 8-bit floats, which NumPy does not have
        except (SafetensorError, OSError, TypeError, AttributeError, KeyError) as error:
            raise UserError(
                f"{path} is a damaged safetensors file, or has a dtype that NumPy lacks ({error})."
            ) from error

    return read_file


_STATE_DICTS: Mapping[str, _StateDict] = {
    "pickle": _StateDict(read_shapes, read_state_dict),
    "safetensors": _StateDict(
        _safetensors(lambda file, name: tuple(file.get_slice(name).get_shape())),
        _safetensors(lambda file, name: as_float32(file.get_tensor(name))),
    ),
}


def _require_no_choice(path: Path, state_dict: str | None) -> None:
    if state_dict is not None:
        raise UserError(
            f"{path} is no PyTorch checkpoint, so it has no state dict '{state_dict}' to choose. "
            "Remove --state-dict (state_dict=)."
        )


# Contents of the files ----------------------------------------------------------------------------


def _header(path: Path, name: str, state_dict: str | None) -> _Header:
    registry.architecture(name)
    kind = _kind(path)
    if kind == "keras":
        _require_no_choice(path, state_dict)
        header = _keras_header(path, name)
    else:
        header = _torch_header(path, _STATE_DICTS[kind].shapes(path, state_dict))
    require_form(header.forms, name, str(path))
    return header


def _torch_header(path: Path, shapes: Mapping[str, Shape]) -> _Header:
    entries = weights_of(shapes)
    family = family_of(entries)
    places = {rename(name, FAMILIES[family]) or name: shape for name, shape in entries.items()}
    if not places.keys() - entries.keys():
        some = ", ".join(list(entries)[:3])
        raise UserError(
            f"{path} has entries such as {some or '(none)'}, which no network of this package has. "
            f"Known names are those of: {'; '.join(FAMILIES)}."
        )
    if len(places.get("head.bias", ())) != 1:
        raise UserError(
            f"{path} has no classifier (its names were read as: {family}). Use a file with it."
        )
    return _Header(
        Contents(
            classes=places["head.bias"][0],
            auxiliary=any(place.startswith("aux") for place in places),
            library="PyTorch",
        ),
        family,
        tuple(matching("PyTorch", _numbers(places), family)),
    )


def _numbers(places: Mapping[str, Shape]) -> int:
    heads = ("head.", "aux")
    return sum(math.prod(shape) for place, shape in places.items() if not place.startswith(heads))


def _keras_header(path: Path, name: str) -> _Header:
    """Return the header of a Keras file. Its form must be known: layer names are not enough."""
    layers = keras_files.shapes(path)
    classes = keras_files.classes(layers)
    numbers = sum(math.prod(shape) for layer in layers for shape in layer)
    if classes is None:
        forms = tuple(matching(WITHOUT_TOP, numbers))
    else:
        numbers -= sum(math.prod(shape) for shape in layers[-1])
        libraries = ("Keras Applications", "MLPerf Tiny")
        forms = tuple(form for library in libraries for form in matching(library, numbers))
    if not forms:
        what = "has no classifier at its end" if classes is None else f"has {classes} classes"
        raise UserError(
            f"{path} has {len(layers)} layers with weights and {what}. It must be a whole "
            f"{keras_files.expected(name)} with the top. {keras_files.how_to_load(path)}"
        )
    library = "Keras Applications" if classes is None else forms[0].library
    return _Header(Contents(classes, False, library), forms[0].family, forms)

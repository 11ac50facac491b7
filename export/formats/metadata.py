"""Metadata in a TFLite file: what it is, what its input means, the names of its classes.

The schema is TensorFlow Lite's metadata_schema.fbs (identifier "M001"), which MediaPipe and Android
Studio read: a FlatBuffer of its own in a buffer of the file that is called TFLITE_METADATA, and
labels.txt in a zip archive behind the file's last byte (`unzip -l FILE.tflite` lists it).

The model's own bytes stay as they are, at a multiple of 16: a new root is put in front of them,
with new lists of buffers and of metadata that point to the old ones. Unpacking and packing the
whole file would lose the alignment of the weights.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.export.runtimes.base import INPUT, OUTPUT
from keras_resnet.images.labels import LABELS

NAME = "TFLITE_METADATA"
_BUFFERS, _METADATA = 4, 6  # fields of the schema's Model
_TENSOR_AXIS_LABELS, _NORMALIZATION = np.int8(2), np.uint8(1)
_FEATURE, _IMAGE = np.uint8(1), np.uint8(2)
_COLORS, _UNKNOWN = {"RGB": np.int8(1), "grey": np.int8(2)}, np.int8(0)
_NUMBERS = {
    np.int8: number_types.Int8Flags,
    np.uint8: number_types.Uint8Flags,
    np.int32: number_types.Int32Flags,
    np.uint32: number_types.Uint32Flags,
}


@dataclass(frozen=True)
class About:
    """What is said of a model, in free text; "" says nothing.

    Attributes:
        description: "" is replaced by what the model takes and gives.
        author: who trained it.
        license: of the weights.
        version: of the model.
    """

    description: str = ""
    author: str = ""
    license: str = ""
    version: str = ""

    @classmethod
    def parse(cls, texts: Sequence[str]) -> About:
        """Read ["author=Jane Doe", "license=MIT", ...].

        Raises:
            UserError: no "=".
            UnknownNameError: no such field, with the nearest one.
        """
        pairs = [text.partition("=")[::2] for text in texts]
        known = [field.name for field in fields(cls)]
        for name, value in pairs:
            if not value:
                raise UserError(f"Expected NAME=TEXT, e.g. author=me; received '{name}'.")
            if name not in known:
                raise UnknownNameError("metadata", name, known, "")
        return cls(**dict(pairs))


UNSAID = About()


@dataclass(frozen=True)
class Interface:
    """What a model takes and gives.

    Attributes:
        name: of the model.
        input: as in the manifest: shape (height, width, channels), color, raw_pixels, range.
        outputs: how many numbers it gives.
        labels: the names of its classes, if they are known.
    """

    name: str
    input: dict[str, Any]
    outputs: int
    labels: Sequence[str] | None

    @property
    def output_names(self) -> Sequence[str] | None:
        """A name for each output, as clients ask for: one output is the second class's."""
        return self.labels if self.labels is None else self.labels[-self.outputs :]

    @property
    def description(self) -> str:
        """A sentence on each end."""
        height, width, _ = self.input["shape"]
        low, high = self.input["range"]
        return (
            f"{self.name}: classifies an image. Takes one image of {height}×{width} pixels, "
            f"{self.input['color']} {low:g}…{high:g}; gives {self._given}."
        )

    @property
    def _given(self) -> str:
        if self.outputs > 1:
            return f"{self.outputs} scores"
        second = "the second class" if self.labels is None else f"'{self.labels[1]}'"
        return f"one score, that of {second}"


def add(data: bytes, about: About, interface: Interface) -> bytes:
    """Return a TFLite file that computes the same and carries metadata.

    Args:
        data: a TFLite file without metadata, of one image and one vector.
        about: free texts.
        interface: what the model takes and gives. A float input is marked as pixels 0...255 (mean
            0, standard deviation 1) if `raw_pixels` says so; else clients have to know themselves.
    """
    builder = flatbuffers.Builder()
    builder.Finish(_put(builder, _model(about, interface)), b"M001")
    described = _with_buffer(data, bytes(builder.Output()))
    if interface.output_names is None:
        return described
    stream = io.BytesIO(described)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:  # clients do not inflate
        entry = zipfile.ZipInfo(LABELS)  # of 1980, so that equal models give equal files
        archive.writestr(entry, "\n".join(interface.output_names) + "\n")
    return stream.getvalue()


def labels(path: Path) -> tuple[str, ...] | None:
    """Return the class names that a TFLite file carries; None if it has none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if LABELS not in archive.namelist():
            return None
        return tuple(archive.read(LABELS).decode().splitlines())


# Tables of the schema: a tuple is a table, its fields in the schema's order; None is left out. ----


def _model(about: About, interface: Interface) -> tuple[Any, ...]:
    graph = (None, None, [_image(interface)], [_scores(interface)])
    description = about.description or interface.description
    texts = (interface.name, description, about.version or None)
    who = (about.author or None, about.license or None)
    return (*texts, [graph], *who, None, "1.0.0")  # the oldest parser that knows all of it


def _image(interface: Interface) -> tuple[Any, ...]:
    height, width, _ = interface.input["shape"]
    low, high = (np.array([value], "float32") for value in interface.input["range"])
    size = (np.uint32(width), np.uint32(height))
    content = (_IMAGE, (_COLORS.get(interface.input["color"], _UNKNOWN), size))
    normalization = (np.array([0], "float32"), np.array([1], "float32"))
    units = [(_NORMALIZATION, normalization)] if interface.input["raw_pixels"] else None
    return (INPUT, "The image.", None, content, units, (high, low))


def _scores(interface: Interface) -> tuple[Any, ...]:
    file = (LABELS, "A class name a line.", _TENSOR_AXIS_LABELS)
    files = None if interface.output_names is None else [file]
    return (OUTPUT, "A score for each class.", None, (_FEATURE, ()), None, None, files)


# FlatBuffers, written from the back to the front --------------------------------------------------


def _put(builder: flatbuffers.Builder, value: Any) -> Any:
    """Write a string, bytes, numbers, a list of tables or a table; return where it lies.

    A number of NumPy's lies in its table and an `int` is a place already: both come back unchanged.
    """
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, bytes):
        builder.StartVector(1, len(value), 16)  # as the schema wants of buffers
        builder.head -= len(value)
        builder.Bytes[builder.head : builder.head + len(value)] = value
        return builder.EndVector()
    if isinstance(value, list):
        places = [_put(builder, item) for item in value]
        builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()
    return _put_table(builder, value) if isinstance(value, tuple) else value


def _put_table(builder: flatbuffers.Builder, table: tuple[Any, ...]) -> int:
    places = [_put(builder, value) for value in table]
    builder.StartObject(len(table))
    for slot, place in enumerate(places):
        if isinstance(place, np.generic):
            builder.Prepend(_NUMBERS[type(place)], place.item())
        elif place is not None:
            builder.PrependUOffsetTRelative(place)
        if place is not None:
            builder.Slot(slot)
    return int(builder.EndObject())


def _with_buffer(data: bytes, content: bytes) -> bytes:
    """The same model with one buffer more, which its metadata calls `NAME`."""
    data += bytes(-len(data) % 16)
    builder = flatbuffers.Builder(len(data))
    builder.Bytes[:] = data
    builder.head, builder.minalign = 0, 16
    root = _Existing(data)
    buffers = [*root.items(_BUFFERS), (content,)]
    entry = (NAME, np.uint32(len(buffers) - 1))
    version = np.uint32(root.version)
    model: list[Any] = [version, *(root.place(slot) for slot in range(1, root.slots))]
    model += [None] * (_METADATA + 1 - len(model))
    model[_BUFFERS], model[_METADATA] = buffers, [*root.items(_METADATA), entry]
    builder.Finish(_put(builder, tuple(model)), b"TFL3")
    return bytes(builder.Output())


class _Existing:
    """The root of a file; places are counted from the end, as a builder does."""

    def __init__(self, data: bytes) -> None:
        self._size = len(data)
        self._table = Table(data, int.from_bytes(data[:4], "little"))
        vtable = self._table.Pos - self._table.Get(number_types.Int32Flags, self._table.Pos)
        self.slots = self._table.Get(number_types.Uint16Flags, vtable) // 2 - 2
        self.version = self._table.Get(number_types.Uint32Flags, self._position(0))

    def place(self, slot: int) -> int | None:
        """Where what the field points to lies."""
        position = self._position(slot)
        return self._size - self._table.Indirect(position) if position else None

    def items(self, slot: int) -> list[int]:
        """Where the tables of a vector lie."""
        position = self._position(slot)
        if not position:
            return []
        start = self._table.Indirect(position)
        count = self._table.Get(number_types.Uint32Flags, start)
        places = (start + 4 + 4 * index for index in range(count))
        return [self._size - self._table.Indirect(place) for place in places]

    def _position(self, slot: int) -> int:
        offset = self._table.Offset(4 + 2 * slot) if slot < self.slots else 0
        return int(self._table.Pos + offset) if offset else 0

"""Metadata in a TFLite file: its description, the meaning of its input, the names of its classes.

The schema is TensorFlow Lite's metadata_schema.fbs (identifier "M001"), which MediaPipe and Android
Studio read. The metadata is a FlatBuffer in the file's buffer TFLITE_METADATA. labels.txt is in a
zip archive behind the file's last byte (`unzip -l FILE.tflite` lists it).

The model's own bytes stay unchanged, at a multiple of 16. A new root is put in front of them. Its
new lists of buffers and metadata point to the old ones. Unpacking and packing the whole file would
lose the alignment of the weights.
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

from keras_resnet.arguments import checked, require_fields
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.export.runtimes.base import INPUT, OUTPUT
from keras_resnet.files import MOST_TEXT
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
    """Free texts about a model; "" leaves a text out.

    Attributes:
        description: a description; "" stands for a sentence on the model's input and output.
        author: the author of the model.
        license: the licence of the weights.
        version: the version of the model.
    """

    description: str = ""
    author: str = ""
    license: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        """Refuse a field that is no string.

        Raises:
            UserError: the message has the field.
        """
        require_fields(self)

    @classmethod
    @checked
    def parse(cls, texts: Sequence[str]) -> About:
        """Read ["author=Jane Doe", "license=MIT", ...].

        Raises:
            UserError: a text without "=".
            UnknownNameError: an unknown field; the message suggests the nearest one.
        """
        pairs = [text.partition("=")[::2] for text in texts]
        known = [field.name for field in fields(cls)]
        for name, value in pairs:
            if not value:
                raise UserError(
                    f"--about must be NAME=TEXT; received '{name}'. "
                    "Example: --about author=me (about=)."
                )
            if name not in known:
                raise UnknownNameError("metadata", name, known, "")
        return cls(**dict(pairs))


UNSAID = About()


@dataclass(frozen=True)
class Interface:
    """The input and output of a model.

    Attributes:
        name: the model's name.
        input: the manifest's entry: shape (height, width, channels), color, raw_pixels, range.
        outputs: number of outputs.
        labels: the class names, or None if unknown.
    """

    name: str
    input: dict[str, Any]
    outputs: int
    labels: Sequence[str] | None

    @property
    def output_names(self) -> Sequence[str] | None:
        """A name for each output; a single output belongs to the second class."""
        return self.labels if self.labels is None else self.labels[-self.outputs :]

    @property
    def description(self) -> str:
        """A description of the model's input and output."""
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
    """Return a TFLite file that computes the same and contains metadata.

    Args:
        data: a TFLite file without metadata that maps one image to one vector.
        about: free texts.
        interface: the model's input and output. If `raw_pixels` is true, a float input is marked
            as pixels 0...255 (mean 0, standard deviation 1). Otherwise clients must know the
            normalisation themselves.
    """
    builder = flatbuffers.Builder()
    builder.Finish(_put(builder, _model(about, interface)), b"M001")
    described = _with_buffer(data, bytes(builder.Output()))
    if interface.output_names is None:
        return described
    stream = io.BytesIO(described)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:  # clients do not decompress
        entry = zipfile.ZipInfo(LABELS)  # dated 1980, so that equal models give equal files
        archive.writestr(entry, "\n".join(interface.output_names) + "\n")
    return stream.getvalue()


def labels(path: Path) -> tuple[str, ...] | None:
    """Return the class names inside a TFLite file; None if it has none.

    Raises:
        UserError: they are damaged or would fill the memory.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if LABELS not in archive.namelist():
                return None
            size = archive.getinfo(LABELS).file_size
            if size > MOST_TEXT:
                raise UserError(f"it has {size:,} bytes; at most {MOST_TEXT:,} are read")
            return tuple(archive.read(LABELS).decode().splitlines())
    except Exception as error:  # zipfile and zlib raise unrelated types for a damaged archive
        raise UserError(f"{path} has a {LABELS} inside that cannot be read: {error}") from error


# Tables of the schema: a tuple is a table with fields in the schema's order; None is left out. ----


def _model(about: About, interface: Interface) -> tuple[Any, ...]:
    graph = (None, None, [_image(interface)], [_scores(interface)])
    description = about.description or interface.description
    texts = (interface.name, description, about.version or None)
    who = (about.author or None, about.license or None)
    return (*texts, [graph], *who, None, "1.0.0")  # the oldest parser that can read all of it


def _image(interface: Interface) -> tuple[Any, ...]:
    height, width, _ = interface.input["shape"]
    low, high = (np.array([value], "float32") for value in interface.input["range"])
    size = (np.uint32(width), np.uint32(height))
    content = (_IMAGE, (_COLORS.get(interface.input["color"], _UNKNOWN), size))
    normalization = (np.array([0], "float32"), np.array([1], "float32"))
    units = [(_NORMALIZATION, normalization)] if interface.input["raw_pixels"] else None
    return (INPUT, "The image.", None, content, units, (high, low))


def _scores(interface: Interface) -> tuple[Any, ...]:
    file = (LABELS, "One class name per line.", _TENSOR_AXIS_LABELS)
    files = None if interface.output_names is None else [file]
    return (OUTPUT, "A score for each class.", None, (_FEATURE, ()), None, None, files)


# FlatBuffers, which are written from back to front ------------------------------------------------


def _put(builder: flatbuffers.Builder, value: Any) -> Any:
    """Write a string, bytes, numbers, a list of tables or a table; return its position.

    A NumPy number is stored in its table, and an `int` is already a position. Both are returned
    unchanged.
    """
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, bytes):
        builder.StartVector(1, len(value), 16)  # the schema's alignment of buffers
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
    """Return the same model with one more buffer, which its metadata calls `NAME`."""
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
    """The root table of a file. Positions are counted from the end, as in a builder."""

    def __init__(self, data: bytes) -> None:
        self._size = len(data)
        self._table = Table(data, int.from_bytes(data[:4], "little"))
        vtable = self._table.Pos - self._table.Get(number_types.Int32Flags, self._table.Pos)
        self.slots = self._table.Get(number_types.Uint16Flags, vtable) // 2 - 2
        self.version = self._table.Get(number_types.Uint32Flags, self._position(0))

    def place(self, slot: int) -> int | None:
        """Return the position that a field points to; None if the field is absent."""
        position = self._position(slot)
        return self._size - self._table.Indirect(position) if position else None

    def items(self, slot: int) -> list[int]:
        """Return the positions of a vector's tables."""
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

"""The table of formats: what each file is called, how it is written and what that needs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.export import batch_norms, browser, optimize, saved_model, tflite


@dataclass
class Source:
    """What every format is written from.

    Attributes:
        model: float32, of stock layers and a fixed image size.
        name: names the files.
        labels: the class names, where they are known.
        conversion: the arguments of `tflite.convert`.
        scratch: a folder for what is made in between.
        rewrites: what was rewritten for the TFLite files, for the manifest.
    """

    model: keras.Model
    name: str
    labels: list[str] | None
    conversion: dict[str, Any]
    scratch: Path
    rewrites: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def batch_one(self) -> Path:
        """The SavedModel of one image that TFLite files are converted from."""
        path = self.scratch / "batch_one"
        folded, self.rewrites = batch_norms.to_depthwise(optimize.fold_rescaling(self.model))
        saved_model.write(folded, path, batch=1)
        return path


@dataclass(frozen=True)
class Format:
    """One row.

    Attributes:
        file: the file's or folder's name, with `{name}` for the model's.
        write: writes it to the path it is given.
        needs: (module, extra) of the packages that write and check it.
    """

    file: str
    write: Callable[[Source, Path], None]
    needs: tuple[tuple[str, str], ...] = ()


def _saved_model(source: Source, path: Path) -> None:
    saved_model.write(source.model, path)


def _tflite(precision: str, *needs: tuple[str, str]) -> Format:
    def write(source: Source, path: Path) -> None:
        path.write_bytes(tflite.convert(source.batch_one, precision, **source.conversion))

    return Format(f"{{name}}-{precision}.tflite", write, (("ai_edge_litert", "export"), *needs))


def _web(source: Source, path: Path) -> None:
    conversion = {**source.conversion, "input_type": "uint8"}  # what LiteRT.js takes
    data = tflite.convert(source.batch_one, "int8", **conversion)
    browser.write(path, data, source.name, source.labels)


FORMATS = {
    "savedmodel": Format("saved_model", _saved_model),
    "tflite-float32": _tflite("float32"),
    "tflite-float16": _tflite("float16"),
    "tflite-dynamic": _tflite("dynamic"),
    "tflite-int8": _tflite("int8"),
    "tflite-int16x8": _tflite("int16x8"),
    "tflite-int4": _tflite("int4", ("ai_edge_quantizer", "export")),
    "web": Format("{name}-web", _web, (("ai_edge_litert", "export"),)),
}


def known(formats: Any) -> tuple[str, ...]:
    """Return the names in `formats`, each once, if all are formats whose packages are installed.

    Raises:
        UserError: an unknown one, or no list.
        MissingExtraError: a package is not installed.
    """
    if isinstance(formats, str) or not formats:
        raise UserError(f"formats is a list of {', '.join(FORMATS)}; received {formats!r}.")
    for kind in formats:
        if kind not in FORMATS:
            raise UnknownNameError("format", kind, FORMATS, "")
        for module, extra in FORMATS[kind].needs:
            require(module, extra)
    return tuple(dict.fromkeys(formats))

"""The table of formats: what each file is called, how it is written and what that needs."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.export import (
    batch_norms,
    interchange,
    optimize,
    saved_model,
    serving,
    tflite,
)


@dataclass
class Source:
    """What every format is written from.

    Attributes:
        model: float32, of stock layers and a fixed image size.
        name: names the files.
        labels: the class names, where they are known.
        service: what a server does around the model.
        conversion: the arguments of `tflite.convert`.
        scratch: a folder for what is made in between.
        rewrites: what was rewritten for all files but the SavedModel, for the manifest.
    """

    model: keras.Model
    name: str
    labels: list[str] | None
    service: serving.Service
    conversion: dict[str, Any]
    scratch: Path
    rewrites: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def folded(self) -> keras.Model:
        """The model with fewer operations that compute the same."""
        folded, self.rewrites = batch_norms.to_depthwise(optimize.fold_rescaling(self.model))
        return folded

    @functools.cached_property
    def batch_one(self) -> Path:
        """The SavedModel of one image that TFLite files are converted from."""
        path = self.scratch / "batch_one"
        saved_model.write(self.folded, path, batch=1)
        return path

    @functools.cached_property
    def onnx(self) -> Path:
        """The float32 ONNX file, which the int8 one is made from."""
        path = self.scratch / "float32.onnx"
        interchange.write_onnx(self.folded, path)
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
    serving.write(source.model, path, source.labels, source.service)


def _tflite(precision: str, *needs: tuple[str, str]) -> Format:
    def write(source: Source, path: Path) -> None:
        path.write_bytes(tflite.convert(source.batch_one, precision, **source.conversion))

    return Format(f"{{name}}-{precision}.tflite", write, (("ai_edge_litert", "export"), *needs))


def _onnx(source: Source, path: Path) -> None:
    shutil.copyfile(source.onnx, path)


def _onnx_int8(source: Source, path: Path) -> None:
    interchange.quantize_onnx(source.onnx, path, source.conversion["calibration"])


def _openvino(source: Source, path: Path) -> None:
    interchange.write_openvino(source.folded, path, source.name)


_ONNX = (("onnx", "onnx"), ("tf2onnx", "onnx"), ("onnxruntime", "onnx"))

FORMATS = {
    "savedmodel": Format("saved_model", _saved_model),
    "tflite-float32": _tflite("float32"),
    "tflite-float16": _tflite("float16"),
    "tflite-dynamic": _tflite("dynamic"),
    "tflite-int8": _tflite("int8"),
    "tflite-int16x8": _tflite("int16x8"),
    "tflite-int4": _tflite("int4", ("ai_edge_quantizer", "export")),
    "onnx": Format("{name}.onnx", _onnx, _ONNX),
    "onnx-int8": Format("{name}-int8.onnx", _onnx_int8, _ONNX),
    "openvino": Format("openvino", _openvino, (("openvino", "openvino"),)),
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

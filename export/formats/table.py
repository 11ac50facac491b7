"""The table of formats: the name of each file, the function that writes it, and its packages."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.export.formats import (
    litert_js,
    micro,
    saved_model,
    serving,
    tolerance,
    usage,
    web,
)
from keras_resnet.export.formats.onnx import quantize_onnx, write_onnx
from keras_resnet.export.formats.openvino import write_openvino
from keras_resnet.export.formats.tflite import convert, metadata, ranges
from keras_resnet.export.formats.tflite.options import Quantization
from keras_resnet.export.formats.tolerance import Tolerance
from keras_resnet.export.formats.usage import Usage
from keras_resnet.export.rewrites import batch_norms, fold_rescaling
from keras_resnet.files import plain_name


@dataclass
class Source:
    """The common source of all formats.

    Attributes:
        model: a float32 model of stock layers with a fixed image size.
        name: prefix of the file names.
        labels: the class names, or None if unknown.
        service: the work of a server before and after the model.
        input: the manifest's entry on the input of the files.
        about: texts for the metadata of TFLite files; None leaves the metadata out.
        batch: batch size of TFLite files: 1, or None for any number.
        calibration: the images for measuring ranges, if any.
        quantization: the options of int8 files.
        scratch: a folder for intermediate files.
        rewrites: the manifest's record of rewrites, which apply to all files but the SavedModel.
    """

    model: keras.Model
    name: str
    labels: list[str] | None
    service: serving.Service
    input: dict[str, Any]
    about: metadata.About | None
    batch: int | None
    calibration: np.ndarray | None
    quantization: Quantization
    scratch: Path
    rewrites: dict[str, list[Any]] = field(
        default_factory=lambda: {
            "rescaling_to_convolution": [],
            "batch_norm_to_depthwise": [],
            "left": [],
        }
    )
    _converted: dict[tuple[Path, str, tuple[str, ...]], bytes] = field(default_factory=dict)

    @functools.cached_property
    def folded(self) -> keras.Model:
        """The model rewritten with fewer operations; it computes the same function."""
        scales = [
            {"layer": name, "into": convolution.name}
            for name, convolution in fold_rescaling.foldable(self.model).items()
        ]
        folded, report = batch_norms.to_depthwise(fold_rescaling.fold_rescaling(self.model))
        self.rewrites = {"rescaling_to_convolution": scales, **report}
        return folded

    @functools.cached_property
    def has_ranges(self) -> bool:
        """True if the model is quantization-aware: its ranges are trained, not measured."""
        return ranges.has_ranges(self.model)

    @functools.cached_property
    def batch_one(self) -> Path:
        """The SavedModel of batch 1, rewritten for TFLite."""
        return self._saved(1)

    @functools.cached_property
    def for_tflite(self) -> Path:
        """The SavedModel for converting to TFLite files."""
        return self.batch_one if self.batch == 1 else self._saved(self.batch)

    def _saved(self, batch: int | None) -> Path:
        path = self.scratch / f"batch_{batch or 'any'}"
        saved_model.write(self.folded, path, batch)
        return path

    def converted(self, saved_model: Path, precision: str, input_type: str = "") -> bytes:
        """Convert a SavedModel to TFLite. A file that is needed again is converted once.

        `input_type` is the type that the format needs; default the type chosen by the user.
        """
        chosen = replace(self.quantization, input_type=input_type or self.quantization.input_type)
        # Only int8 has options: see `convert.quantized`.
        options = (chosen.method, chosen.input_type, *chosen.keep_float)
        key = (saved_model, precision, options if precision == "int8" else ())
        if key not in self._converted:
            self._converted[key] = self._convert(saved_model, precision, chosen)
        return self._converted[key]

    def _convert(self, saved_model: Path, precision: str, chosen: Quantization) -> bytes:
        if precision == "float32":
            return convert.float32(saved_model)
        if self.has_ranges:
            return convert.trained(saved_model, chosen)
        float_file = self.converted(saved_model, "float32")
        return convert.quantized(float_file, precision, self.calibration, chosen)

    @functools.cached_property
    def onnx(self) -> Path:
        """The float32 ONNX file, which is also the source of the int8 file."""
        path = self.scratch / "float32.onnx"
        write_onnx(self.folded, path)
        return path

    def described(self, data: bytes) -> bytes:
        """Return a TFLite file with its metadata, or unchanged if metadata is not wanted."""
        if self.about is None:
            return data
        outputs = self.model.output_shape[-1]
        interface = metadata.Interface(self.name, self.input, outputs, self.labels)
        return metadata.add(data, self.about, interface)


@dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes:
        file: the name of the file or folder, with `{name}` for the model's name.
        write: a function that writes the format to a path.
        tolerance: the limits of its difference from the Keras model.
        usage: instructions for running it, for the model card.
        needs: (module, extra) of the packages that write and check it.
        fetch: a function that gets the parts that pip does not install, or raises UserError.
    """

    file: str
    write: Callable[[Source, Path], None]
    tolerance: Tolerance
    usage: Usage
    needs: tuple[tuple[str, str], ...] = ()
    fetch: Callable[[], object] | None = None


# (module, extra)
_LITERT = (("ai_edge_litert", "export"), ("ai_edge_quantizer", "export"))
_ONNX = (("onnx", "onnx"), ("tf2onnx", "onnx"), ("onnxruntime", "onnx"))
_OPENVINO = (("openvino", "openvino"),)


def _saved_model(source: Source, path: Path) -> None:
    serving.write(source.model, path, source.name, source.labels, source.service)


def _tflite(precision: str, allowed: Tolerance) -> Format:
    def write(source: Source, path: Path) -> None:
        path.write_bytes(source.described(source.converted(source.for_tflite, precision)))

    name = f"{{name}}-{precision}.tflite"
    return Format(name, write, allowed, usage.TFLITE, _LITERT)


def _micro(source: Source, path: Path) -> None:
    data = source.converted(source.batch_one, "int8", input_type="int8")  # its kernels take int8
    micro.write(path, data, source.name, source.labels, source.service.answers)


def _onnx(source: Source, path: Path) -> None:
    shutil.copyfile(source.onnx, path)


def _onnx_int8(source: Source, path: Path) -> None:
    quantize_onnx(source.onnx, path, source.calibration)


def _openvino(source: Source, path: Path) -> None:
    write_openvino(source.folded, path, plain_name(source.name))


def _web(source: Source, path: Path) -> None:
    data = source.converted(source.batch_one, "int8", input_type="uint8")  # LiteRT.js takes uint8
    web.write(path, data, source.name, source.labels, source.service)


FORMATS = {
    "savedmodel": Format("saved_model", _saved_model, tolerance.FLOAT32, usage.SAVED_MODEL),
    "tflite-float32": _tflite("float32", tolerance.FLOAT32),
    "tflite-float16": _tflite("float16", tolerance.FLOAT16),
    "tflite-dynamic": _tflite("dynamic", tolerance.INT8),
    "tflite-int8": _tflite("int8", tolerance.INT8),
    "tflite-int16x8": _tflite("int16x8", tolerance.INT8),
    "tflite-int4": _tflite("int4", tolerance.INT4),
    "onnx": Format("{name}.onnx", _onnx, tolerance.FLOAT32, usage.ONNX, _ONNX),
    "onnx-int8": Format("{name}-int8.onnx", _onnx_int8, tolerance.INT8, usage.ONNX, _ONNX),
    "openvino": Format("openvino", _openvino, tolerance.FLOAT32, usage.OPENVINO, _OPENVINO),
    "micro": Format("{name}-micro", _micro, tolerance.INT8, usage.MICRO, _LITERT),
    "web": Format("{name}-web", _web, tolerance.INT8, usage.WEB, _LITERT, litert_js.node_modules),
}


def known(formats: Any) -> tuple[str, ...]:
    """Return `formats` without duplicates, after checking the names and the installed packages.

    Raises:
        UserError: an unknown format, an empty list, or a string instead of a list.
        MissingExtraError: a package is not installed.
    """
    if isinstance(formats, str) or not formats:
        raise UserError(
            f"formats must be a list with names from {', '.join(FORMATS)}; received {formats!r}."
        )
    for kind in formats:
        if kind not in FORMATS:
            full = f"tflite-{kind}"  # by its letters alone, int8 is nearer to onnx-int8
            raise UnknownNameError("format", kind, FORMATS, "", meant=full * (full in FORMATS))
        for module, extra in FORMATS[kind].needs:
            require(module, extra)
    return tuple(dict.fromkeys(formats))

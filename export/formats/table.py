"""The table of formats: what each file is called, how it is written and what that needs."""

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
    int8_ranges,
    litert_js,
    metadata,
    micro,
    saved_model,
    serving,
    tflite,
    tolerance,
    usage,
    web,
)
from keras_resnet.export.formats.onnx import quantize_onnx, write_onnx
from keras_resnet.export.formats.openvino import write_openvino
from keras_resnet.export.formats.tolerance import Tolerance
from keras_resnet.export.formats.usage import Usage
from keras_resnet.export.quantization import Quantization
from keras_resnet.export.rewrites import batch_norms, fold_rescaling
from keras_resnet.files import plain_name


@dataclass
class Source:
    """What every format is written from.

    Attributes:
        model: float32, of stock layers and a fixed image size.
        name: names the files.
        labels: the class names, where they are known.
        service: what a server does around the model.
        input: what the files take, as in the manifest.
        about: what TFLite files say of the model; None leaves their metadata out.
        batch: images that TFLite files take at once: 1, or None for any number.
        calibration: the images that ranges are measured on, if any.
        quantization: the choices of int8 files.
        scratch: a folder for what is made in between.
        rewrites: what was rewritten for all files but the SavedModel, for the manifest.
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
    _converted: dict[tuple[Path, str, str], bytes] = field(default_factory=dict)

    @functools.cached_property
    def folded(self) -> keras.Model:
        """The model with fewer operations that compute the same."""
        scales = [
            {"layer": name, "into": convolution.name}
            for name, convolution in fold_rescaling.foldable(self.model).items()
        ]
        folded, report = batch_norms.to_depthwise(fold_rescaling.fold_rescaling(self.model))
        self.rewrites = {"rescaling_to_convolution": scales, **report}
        return folded

    @functools.cached_property
    def has_ranges(self) -> bool:
        """Whether the model was trained quantized: its ranges are its own, none are measured."""
        return int8_ranges.has_ranges(self.model)

    @functools.cached_property
    def batch_one(self) -> Path:
        """The SavedModel of one image, rewritten for TFLite."""
        return self._saved(1)

    @functools.cached_property
    def for_tflite(self) -> Path:
        """The SavedModel that TFLite files are converted from."""
        return self.batch_one if self.batch == 1 else self._saved(self.batch)

    def _saved(self, batch: int | None) -> Path:
        path = self.scratch / f"batch_{batch or 'any'}"
        saved_model.write(self.folded, path, batch)
        return path

    def converted(self, saved_model: Path, precision: str, input_type: str = "") -> bytes:
        """A TFLite file of it; what two formats need, as `web` and `tflite-int8`, is made once.

        `input_type` is what the format needs; default the chosen one.
        """
        chosen = replace(self.quantization, input_type=input_type or self.quantization.input_type)
        key = (saved_model, precision, chosen.input_type)
        if key not in self._converted:
            self._converted[key] = tflite.convert(
                saved_model, precision, self.calibration, chosen, has_ranges=self.has_ranges
            )
        return self._converted[key]

    @functools.cached_property
    def onnx(self) -> Path:
        """The float32 ONNX file, which the int8 one is made from."""
        path = self.scratch / "float32.onnx"
        write_onnx(self.folded, path)
        return path

    def described(self, data: bytes) -> bytes:
        """A TFLite file with its metadata, unless that is to be left out."""
        if self.about is None:
            return data
        outputs = self.model.output_shape[-1]
        interface = metadata.Interface(self.name, self.input, outputs, self.labels)
        return metadata.add(data, self.about, interface)


@dataclass(frozen=True)
class Format:
    """One row.

    Attributes:
        file: the file's or folder's name, with `{name}` for the model's.
        write: writes it to the path it is given.
        tolerance: how far it may be from the Keras model.
        usage: how it is run, for the model card.
        needs: (module, extra) of the packages that write and check it.
        fetch: gets what it needs and pip does not install, or raises UserError.
    """

    file: str
    write: Callable[[Source, Path], None]
    tolerance: Tolerance
    usage: Usage
    needs: tuple[tuple[str, str], ...] = ()
    fetch: Callable[[], object] | None = None


# (module, extra)
_LITERT = (("ai_edge_litert", "export"),)
_ONNX = (("onnx", "onnx"), ("tf2onnx", "onnx"), ("onnxruntime", "onnx"))
_OPENVINO = (("openvino", "openvino"),)


def _saved_model(source: Source, path: Path) -> None:
    serving.write(source.model, path, source.name, source.labels, source.service)


def _tflite(precision: str, allowed: Tolerance, *needs: tuple[str, str]) -> Format:
    def write(source: Source, path: Path) -> None:
        path.write_bytes(source.described(source.converted(source.for_tflite, precision)))

    name = f"{{name}}-{precision}.tflite"
    return Format(name, write, allowed, usage.TFLITE, (*_LITERT, *needs))


def _micro(source: Source, path: Path) -> None:
    data = source.converted(source.batch_one, "int8", input_type="int8")  # what its kernels take
    micro.write(path, data, source.name, source.labels, source.service.answers)


def _onnx(source: Source, path: Path) -> None:
    shutil.copyfile(source.onnx, path)


def _onnx_int8(source: Source, path: Path) -> None:
    quantize_onnx(source.onnx, path, source.calibration)


def _openvino(source: Source, path: Path) -> None:
    write_openvino(source.folded, path, plain_name(source.name))


def _web(source: Source, path: Path) -> None:
    data = source.converted(source.batch_one, "int8", input_type="uint8")  # what LiteRT.js takes
    web.write(path, data, source.name, source.labels, source.service)


FORMATS = {
    "savedmodel": Format("saved_model", _saved_model, tolerance.FLOAT32, usage.SAVED_MODEL),
    "tflite-float32": _tflite("float32", tolerance.FLOAT32),
    "tflite-float16": _tflite("float16", tolerance.FLOAT16),
    "tflite-dynamic": _tflite("dynamic", tolerance.INT8),
    "tflite-int8": _tflite("int8", tolerance.INT8),
    "tflite-int16x8": _tflite("int16x8", tolerance.INT8),
    "tflite-int4": _tflite("int4", tolerance.INT4, ("ai_edge_quantizer", "export")),
    "onnx": Format("{name}.onnx", _onnx, tolerance.FLOAT32, usage.ONNX, _ONNX),
    "onnx-int8": Format("{name}-int8.onnx", _onnx_int8, tolerance.INT8, usage.ONNX, _ONNX),
    "openvino": Format("openvino", _openvino, tolerance.FLOAT32, usage.OPENVINO, _OPENVINO),
    "micro": Format("{name}-micro", _micro, tolerance.INT8, usage.MICRO, _LITERT),
    "web": Format("{name}-web", _web, tolerance.INT8, usage.WEB, _LITERT, litert_js.node_modules),
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
            full = f"tflite-{kind}"  # int8 is nearer to onnx-int8 by its letters
            raise UnknownNameError("format", kind, FORMATS, "", meant=full * (full in FORMATS))
        for module, extra in FORMATS[kind].needs:
            require(module, extra)
    return tuple(dict.fromkeys(formats))

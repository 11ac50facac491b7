"""SavedModel → TFLite, in float or integers: batch 1, same signature names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export.formats.tflite import edits, int4, keep_float, quantizer, ranges
from keras_resnet.export.formats.tflite.options import DEFAULT, Quantization
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.lazy import quiet_stderr

NEEDS_CALIBRATION = ("int8", "int16x8")
_RECIPES: dict[str, Callable[[bytes], quantizer.Recipe]] = {
    "float16": lambda _: quantizer.float16(),
    "dynamic": lambda _: quantizer.dynamic(),
    "int4": lambda float_file: int4.recipe(tflite_graph.operations(tflite_graph.read(float_file))),
}
INT16X8_IS_SLOW = (
    "tflite-int16x8 is far slower than float32 on CPUs, because LiteRT runs its convolutions on "
    "reference kernels. Use it for accelerators with their own kernels, or to measure the gain "
    "from 16-bit activations."
)


def float32(saved_model: Path) -> bytes:
    """Convert a SavedModel (see `saved_model.write`) to a float32 file.

    Raises:
        UserError: an unsupported operation.
    """
    return _converted(_converter(saved_model), "tflite-float32")


def trained(saved_model: Path, quantization: Quantization) -> bytes:
    """Convert a quantization-aware model, which has its ranges, to int8.

    Raises:
        UserError: an unsupported operation.
    """
    converter = _converter(saved_model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    dtype = tf.as_dtype(quantization.input_type)
    converter.inference_input_type = converter.inference_output_type = dtype
    return _converted(converter, "tflite-int8")


def _converter(saved_model: Path) -> Any:
    return tf.lite.TFLiteConverter.from_saved_model(str(saved_model))


def _converted(converter: Any, kind: str) -> bytes:
    try:
        with quiet_stderr(), warnings.catch_warnings(action="ignore"):
            data: bytes = converter.convert()
    except Exception as error:  # the converter raises its own types, RuntimeError or ValueError
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"TensorFlow's converter cannot convert this model to {kind}: {lines[0][:300]}"
        ) from error
    return edits.with_short_names(data)


def quantized(
    float_file: bytes,
    precision: str,
    calibration: np.ndarray | None = None,
    quantization: Quantization = DEFAULT,
) -> bytes:
    """Quantize the result of `float32`.

    Args:
        float_file: the content of a float32 file.
        precision: "float16" (float16 weights, half the bytes); "dynamic" (int8 weights, float
            activations); "int8" (all integer, per-channel weights); "int16x8" (int16 activations,
            int8 weights: accurate, but most runtimes only have slow kernels for it); "int4" (4-bit
            weights, float activations).
        calibration: (n, height, width, channels) as the model takes them; for int8 and int16x8.
        quantization: the options of an int8 file. They do not apply to int16x8: int16 has 65,536
            steps, enough for the whole range of the activations.

    Raises:
        UserError: no calibration images, an unknown layer to keep in float32, or a model that
            ai-edge-quantizer cannot quantize.
    """
    if precision in NEEDS_CALIBRATION:
        samples = pinned(f"tflite-{precision}", calibration)
    if precision == "int8":
        return _int8(float_file, samples, quantization)
    if precision == "int16x8":
        measured = ranges.measure(float_file, ranges.MIN_MAX, samples)
        return quantizer.quantize(float_file, quantizer.int16x8(), measured)
    return quantizer.quantize(float_file, _RECIPES[precision](float_file))


def _int8(float_file: bytes, samples: np.ndarray, chosen: Quantization) -> bytes:
    measured = ranges.measure(float_file, chosen.method, samples)
    kept = keep_float.nodes(float_file, chosen.keep_float)
    recipe = quantizer.int8(kept, float_borders=chosen.input_type == "float32")
    fitting = edits.with_room_for_biases(float_file, measured)
    data = quantizer.quantize(fitting, recipe, measured)
    data = edits.run_in_integers(data, measured, kept)
    if chosen.input_type == "float32":
        return data
    return edits.with_borders(data, chosen.input_type, measured)


def pinned(kind: str, calibration: np.ndarray | None) -> np.ndarray:
    """Return the calibration images as float32, with the exact range 0...255 if they are pixels.

    Two corner pixels of one image are set to 0 and 255. The input's scale is then exactly 1, so
    each byte is a pixel's value, and the range is not estimated.

    Raises:
        UserError: the format `kind` needs calibration images, and none are given.
    """
    if calibration is None or len(calibration) == 0:
        raise UserError(
            f"{kind} needs calibration images; received none. Pass some hundred from the training "
            "data: calibration=images (--data NAME|FOLDER)."
        )
    samples = calibration.astype("float32")
    if calibration.dtype == np.uint8:
        samples[0, 0, 0], samples[0, -1, -1] = 0.0, 255.0
    return samples

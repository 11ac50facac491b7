"""SavedModel → TFLite, in float or integers: batch 1, same signature names."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export.formats import int4, int8_ranges
from keras_resnet.export.formats.quantization import DEFAULT, Quantization
from keras_resnet.export.runtimes.base import INPUT
from keras_resnet.lazy import quiet_stderr

NEEDS_CALIBRATION = ("int8", "int16x8")
INT16X8_IS_SLOW = (
    "tflite-int16x8 is far slower than float32 on CPUs, because LiteRT runs its convolutions on "
    "reference kernels. Use it for accelerators with their own kernels, or to measure the gain "
    "from 16-bit activations."
)


def convert(
    saved_model: Path,
    precision: str,
    calibration: np.ndarray | None = None,
    quantization: Quantization = DEFAULT,
    *,
    has_ranges: bool = False,
) -> bytes:
    """Convert a SavedModel of batch 1 (see `saved_model.write`).

    Args:
        saved_model: the folder of the SavedModel.
        precision: "float32"; "float16" (float16 weights, half the bytes); "dynamic" (int8 weights,
            float activations); "int8" (all integer, per-channel weights); "int16x8" (int16
            activations, int8 weights: accurate, but most runtimes only have slow kernels for it);
            "int4" (4-bit weights, float activations).
        calibration: (n, height, width, channels) as the model takes them; for int8 and int16x8.
        quantization: the options of an int8 file. They do not apply to int16x8: int16 has 65,536
            steps, enough for the whole range of the activations.
        has_ranges: True for a quantization-aware model: its ranges are not measured.

    Raises:
        UserError: no calibration images, or an unsupported operation.
    """
    if precision == "int4":
        float32 = convert(saved_model, "float32")
        with quiet_stderr():
            return int4.quantize(float32)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in NEEDS_CALIBRATION and not has_ranges:
        samples = pinned(f"tflite-{precision}", calibration)
        # int8_ranges measures the ranges of an int8 file; it needs one image to mark the places.
        shown = samples[:1] if precision == "int8" else samples
        converter.representative_dataset = lambda: ({INPUT: image[None]} for image in shown)
    if precision == "int8":
        if not has_ranges:  # this set of operations needs images for measuring
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        dtype = tf.as_dtype(quantization.input_type)
        converter.inference_input_type = converter.inference_output_type = dtype
    elif precision == "int16x8":
        mode = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [mode]
    try:
        with quiet_stderr(), warnings.catch_warnings(action="ignore"):
            if precision == "int8" and not has_ranges:
                method, kept = quantization.method, quantization.keep_float
                return int8_ranges.convert(converter, method, samples, kept)
            data: bytes = converter.convert()
    except UserError:
        raise
    except Exception as error:  # the converter raises its own types, RuntimeError or ValueError
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"TensorFlow's converter cannot convert this model to tflite-{precision}: "
            f"{lines[0][:300]}"
        ) from error
    return data


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

"""Keras model → ONNX, in float or integers: any batch size, channels last, same names."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import UserError, require
from keras_resnet.export.formats.tflite import convert
from keras_resnet.export.formats.tflite.ranges import has_ranges
from keras_resnet.export.runtimes.base import INPUT, OUTPUT
from keras_resnet.layers import kernel_convolution
from keras_resnet.lazy import quiet_stderr

OPSET = 17  # from 2022: ONNX runtimes read it, and nothing here needs a later one
_CATCH_ERRORS = "TF2ONNX_CATCH_ERRORS"


class _Conv2D(keras.layers.Conv2D):
    """A grouped convolution as one operation of the graph.

    Keras' own grouped convolution calls an XLA-compiled function, which neither converter reads.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return kernel_convolution(self, inputs, kernel)


def write_onnx(model: keras.Model, path: Path) -> None:
    """Write `model` (float32, stock layers): float32 `images` (batch, h, w, c) → `predictions`.

    Raises:
        UserError: tf2onnx lacks an operation, or the model is quantization-aware.
    """
    onnx, tf2onnx = require("onnx", "onnx"), require("tf2onnx", "onnx")
    if has_ranges(model):
        raise UserError(
            "A quantization-aware model cannot be exported to ONNX, because tf2onnx does not "
            "support its rounding operations. Export it as tflite-int8, or export the float model "
            "that it was trained from as onnx-int8."
        )
    function = inference_function(model)
    with quietly(), _in_place():
        try:
            converted, _ = tf2onnx.convert.from_function(
                function, input_signature=function.input_signature, opset=OPSET
            )
        except Exception as error:  # tf2onnx and TensorFlow raise types of their own
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"tf2onnx cannot convert this model: {first[:300]}") from error
    # tf2onnx does not stop at unknown operations.
    unknown = {node.op_type for node in converted.graph.node if not _is_known(onnx, node)}
    if unknown:
        raise UserError(f"tf2onnx cannot write these operations: {', '.join(sorted(unknown))}.")
    for value in (*converted.graph.input, *converted.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(converted)
    onnx.save_model(converted, str(path))


def quantize_onnx(float_file: Path, path: Path, calibration: np.ndarray | None) -> None:
    """Write the int8 version of an ONNX file, with QuantizeLinear and DequantizeLinear operations.

    Weights are int8 per output channel. Activations are uint8, with the least and largest value
    seen as their range. x86 has an instruction for this pair of types. Without VNNI, the
    instruction adds two products in 16 bits. Weights therefore use 7 of their 8 bits (-64...64),
    so that the sum fits (2 · 255 · 64 < 2^15). With all 8 bits it would saturate silently. Other
    pairs of types never saturate, but take twice the time (benchmarks/README.md). Input and output
    stay float32. The softmax does too: it costs little and would be rounded to steps of 1/256.

    Raises:
        UserError: no calibration images.
    """
    onnx = require("onnx", "onnx")
    quantization = require("onnxruntime.quantization", "onnx")
    samples = convert.pinned("onnx-int8", calibration)
    nodes = onnx.load(str(float_file)).graph.node
    with quietly():
        quantization.quantize_static(
            str(float_file),
            str(path),
            _Images(samples),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=True,
            nodes_to_exclude=[node.name for node in nodes if node.op_type == "Softmax"],
        )


class _Images:
    """A data reader for ONNX Runtime's calibration: dictionaries of inputs, then None.

    It gives one image at a time. Sixteen take three times the memory and no less time (ResNet-50).
    """

    def __init__(self, images: np.ndarray) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None]}


def inference_function(model: keras.Model) -> Any:
    """Return the model as a TensorFlow function whose signature has the usual names."""
    import tensorflow as tf

    plain = _with_plain_groups(model)
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name=INPUT)
    return tf.function(
        lambda images: {OUTPUT: plain(images, training=False)}, input_signature=[spec]
    )


def _with_plain_groups(model: keras.Model) -> keras.Model:
    def rebuild(layer: keras.Layer) -> keras.Layer:
        grouped = type(layer) is keras.layers.Conv2D and layer.groups > 1
        kind = _Conv2D if grouped and layer.data_format == "channels_last" else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy.set_weights(model.get_weights())
    return copy


def _is_known(onnx: Any, node: Any) -> bool:
    return bool(onnx.defs.has(node.op_type, node.domain))


@contextmanager
def _in_place() -> Iterator[None]:
    """Let tf2onnx optimize its graph without a copy of all weights before each of its passes.

    The copies would only serve if a pass failed. Without them the conversion of a ResNet-50 takes
    half the time and half the memory. (Any value of the variable has this effect in tf2onnx 1.17.)
    """
    before = os.environ.get(_CATCH_ERRORS)
    os.environ[_CATCH_ERRORS] = "FALSE"
    try:
        yield
    finally:
        del os.environ[_CATCH_ERRORS]
        os.environ |= {} if before is None else {_CATCH_ERRORS: before}


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the converters' logs and warnings; real problems arrive as exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with quiet_stderr(), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(previous)

"""float32 TFLite → smaller types, by ai-edge-quantizer.

A recipe is a list of steps for ai-edge-quantizer, as plain values that a manifest can hold. A step
for one operation overrides those for all operations, which stand before it.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_resnet.errors import UserError, require
from keras_resnet.export.formats.tflite.ranges import Range
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.lazy import quiet_stderr

Recipe = list[dict[str, Any]]
_HALF = {
    "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
    "compute_precision": "FLOAT",
    "explicit_dequantize": True,
}
_NONE: dict[str, Any] = {"algorithm_key": "no_quantize", "op_config": {}}
_FLOAT_BORDERS = [_NONE | {"regex": ".*", "operation": border} for border in ("INPUT", "OUTPUT")]


def float16() -> Recipe:
    """Return the recipe for float16 kernels. A runtime turns them into float32 when it loads."""
    step = {"regex": ".*", "algorithm_key": "float_casting", "op_config": _HALF}
    return [step | {"operation": kind} for kind in tflite_graph.WITH_KERNEL]


def dynamic() -> Recipe:
    """Return the recipe for int8 kernels; activations are quantized while the file runs.

    Kernels of less than 1024 weights stay in float32: rounding them saves little, and the first
    one sees the pixels.
    """
    return plain(recipes().dynamic_legacy_wi8_afp32())


def int8(float_operations: Iterable[str] = (), *, float_borders: bool = False) -> Recipe:
    """Return the recipe for int8 kernels and int8 activations.

    Args:
        float_operations: names of operations (their first outputs) that stay in float32.
        float_borders: True lets the input and the output of the file stay in float32.
    """
    steps = [*plain(recipes().static_wi8_ai8()), *_not_quantized(float_operations)]
    return [*steps, *_FLOAT_BORDERS] if float_borders else steps


def int16x8() -> Recipe:
    """Return the recipe for int8 kernels and int16 activations, float32 for input and output."""
    return [*plain(recipes().static_wi8_ai16()), *_FLOAT_BORDERS]


def named(operation: str) -> str:
    """Return the pattern for the `regex` of a step that is for one operation alone."""
    return f"^{re.escape(operation)};?$"


def plain(steps: Any) -> Recipe:
    """Return a recipe of ai-edge-quantizer's with strings instead of enumerations."""
    content: Recipe = json.loads(json.dumps(steps))
    return content


def quantize(float_file: bytes, recipe: Recipe, ranges: Mapping[str, Range] | None = None) -> bytes:
    """Quantize a float32 TFLite file.

    Args:
        float_file: the content of the file.
        recipe: the steps.
        ranges: {tensor name: (least, most)} of the activations, for int8 and int16x8.

    Raises:
        MissingExtraError: ai-edge-quantizer is not installed.
        UserError: ai-edge-quantizer cannot convert the file.
    """
    quantizer = require("ai_edge_quantizer.quantizer", "export")
    measured = {
        name: {"min": np.array([least], "float32"), "max": np.array([most], "float32")}
        for name, (least, most) in (ranges or {}).items()
    }
    try:
        with quiet_stderr(), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            made = quantizer.Quantizer(bytearray(float_file), recipe).quantize(
                measured or None, enable_progress_bar=False, enable_progress_report=False
            )
    except Exception as error:  # of any kind: it does not say which ones
        raise UserError(f"ai-edge-quantizer cannot quantize this model: {error}") from error
    # It writes large constants behind the model, where older runtimes do not look for them.
    return tflite_graph.pack(tflite_graph.read(bytes(made.quantized_model)))


def _not_quantized(operations: Iterable[str]) -> Recipe:
    """Return steps that leave operations in float32."""
    return [_NONE | {"regex": named(name), "operation": "*"} for name in operations]


def recipes() -> Any:
    """Return ai-edge-quantizer's module of recipes.

    Raises:
        MissingExtraError: it is not installed.
    """
    return require("ai_edge_quantizer.recipe", "export")

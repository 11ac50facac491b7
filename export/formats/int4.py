"""4-bit weights, by ai-edge-quantizer, which converts a float32 `.tflite` file."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any

from keras_resnet.errors import UserError, require
from keras_resnet.export.runtimes import tflite_graph

_FOUR_BITS = ("CONV_2D", "FULLY_CONNECTED")


def recipe() -> list[dict[str, Any]]:
    """Return the recipe for ai-edge-quantizer, as plain values for the manifest.

    Kernels have 4 bits and a scale per output channel. Activations stay float32 in the file and are
    quantized to 8 bits while it runs. OCTAV (Sakr et al. 2022) chooses each scale for the least
    squared error, so a few large weights are clipped. A scale set by the largest weight would leave
    the other weights only a few of the 15 levels. Depthwise kernels have 8 bits, because LiteRT has
    no 4-bit code for them.

    Raises:
        MissingExtraError: ai-edge-quantizer is not installed.
    """
    recipes = require("ai_edge_quantizer.recipe", "export")
    octav = recipes.AlgorithmName.OCTAV
    content = recipes.dynamic_wi8_afp32()
    for kind in _FOUR_BITS:
        content += recipes.dynamic_wi4c_afp32(operation_name=kind, algorithm_key=octav)
    plain: list[dict[str, Any]] = json.loads(json.dumps(content))  # turns enumerations into strings
    return plain


def quantize(float_file: bytes) -> bytes:
    """Convert the kernels of a float32 TFLite file to 4 bits.

    Raises:
        MissingExtraError: ai-edge-quantizer is not installed.
        UserError: ai-edge-quantizer cannot convert the file.
    """
    quantizer = require("ai_edge_quantizer.quantizer", "export")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a summary
            result = quantizer.Quantizer(bytearray(float_file), recipe()).quantize()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"ai-edge-quantizer cannot convert this model to tflite-int4: {error}"
        ) from error
    return bytes(result.quantized_model)


def problems(operations: Sequence[tflite_graph.Operation]) -> list[str]:
    """Return a problem if kernels are not in 4 bits: the quantizer skips unsupported ones."""
    wide = {item.layer for item in operations if item.kind in _FOUR_BITS and item.kernel != "INT4"}
    return [f"kernels that are not in 4 bits: {sorted(wide)}"] if wide else []

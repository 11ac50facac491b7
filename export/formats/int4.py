"""4-bit weights, by ai-edge-quantizer, which converts a float32 `.tflite` file."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

from keras_resnet.errors import UserError, require
from keras_resnet.export.runtimes import tflite_graph

_FOUR_BITS = ("CONV_2D", "FULLY_CONNECTED")
EIGHT_BIT_SHARE = 0.1  # of the weights; export/README.md has what it costs and gains


def eight_bit(found: Sequence[tflite_graph.Operation]) -> list[tflite_graph.Operation]:
    """Return the operations whose kernels keep 8 bits: the first, then the smallest ones.

    Together they have at most a tenth of the weights, so the file grows by a twentieth at most. A
    small kernel has few weights that could average out each other's rounding. The first one sees
    the pixels, whose rounding no later layer mends.
    """
    kernels = [item for item in found if item.kind in _FOUR_BITS]
    order = sorted(kernels, key=lambda item: (item is not kernels[0], item.weights))
    totals = itertools.accumulate(item.weights for item in order)
    most = EIGHT_BIT_SHARE * sum(item.weights for item in kernels)
    return [item for item, total in zip(order, totals, strict=True) if total <= most]


def recipe(found: Sequence[tflite_graph.Operation]) -> list[dict[str, Any]]:
    """Return the recipe for ai-edge-quantizer, as plain values for the manifest.

    Kernels have 4 bits and a scale per output channel, except for those of `eight_bit`. Activations
    stay float32 in the file and are quantized to 8 bits while it runs. OCTAV (Sakr et al. 2022)
    chooses each scale for the least squared error, so a few large weights are clipped. A scale set
    by the largest weight would leave the other weights only a few of the 15 levels. Depthwise
    kernels have 8 bits, because LiteRT has no 4-bit code for them.

    Args:
        found: the operations of the file in float32 or in 4 bits.

    Raises:
        MissingExtraError: ai-edge-quantizer is not installed.
    """
    recipes = require("ai_edge_quantizer.recipe", "export")
    octav = recipes.AlgorithmName.OCTAV
    content = recipes.dynamic_wi8_afp32()
    for kind in _FOUR_BITS:
        content += recipes.dynamic_wi4c_afp32(operation_name=kind, algorithm_key=octav)
    for item in eight_bit(found):
        content += [step | {"regex": re.escape(item.name)} for step in recipes.dynamic_wi8_afp32()]
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
            steps = recipe(tflite_graph.operations(tflite_graph.read(float_file)))
            result = quantizer.Quantizer(bytearray(float_file), steps).quantize()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"ai-edge-quantizer cannot convert this model to tflite-int4: {error}"
        ) from error
    return bytes(result.quantized_model)


def problems(operations: Sequence[tflite_graph.Operation]) -> list[str]:
    """Return a problem if other kernels are not in 4 bits: the quantizer skips unsupported ones."""
    wide = {item.layer for item in operations if item.kind in _FOUR_BITS and item.kernel != "INT4"}
    wide -= {item.layer for item in eight_bit(operations)}
    return [f"kernels that are not in 4 bits: {sorted(wide)}"] if wide else []

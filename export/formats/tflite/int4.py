"""The recipe for 4-bit weights."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from keras_resnet.export.formats.tflite import quantizer
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


def recipe(found: Sequence[tflite_graph.Operation]) -> quantizer.Recipe:
    """Return the recipe for ai-edge-quantizer.

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
    recipes = quantizer.recipes()
    eight = quantizer.plain(recipes.dynamic_wi8_afp32())
    octav = recipes.AlgorithmName.OCTAV
    content = [*eight]
    for kind in _FOUR_BITS:
        four = recipes.dynamic_wi4c_afp32(operation_name=kind, algorithm_key=octav)
        content += quantizer.plain(four)
    for item in eight_bit(found):
        content += [step | {"regex": quantizer.named(item.name)} for step in eight]
    return content


def problems(operations: Sequence[tflite_graph.Operation]) -> list[str]:
    """Return a problem if other kernels are not in 4 bits: the quantizer skips unsupported ones."""
    wide = {item.layer for item in operations if item.kind in _FOUR_BITS and item.kernel != "INT4"}
    wide -= {item.layer for item in eight_bit(operations)}
    return [f"kernels that are not in 4 bits: {sorted(wide)}"] if wide else []

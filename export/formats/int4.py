"""4-bit weights, through ai-edge-quantizer, which works on a float32 `.tflite`."""

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
    """What ai-edge-quantizer is told, as it lies in the manifest.

    Kernels in 4 bits, a scale per output channel; activations stay float32 in the file and are
    quantized to 8 bits as it runs. OCTAV (Sakr et al. 2022) chooses each scale for the least
    squared error, so that a few large weights are clipped; a scale by the largest weight leaves
    the others few of the 15 levels. Depthwise kernels, for which there is no 4-bit code in LiteRT,
    have 8 bits.

    Raises:
        MissingExtraError: ai-edge-quantizer is not installed.
    """
    recipes = require("ai_edge_quantizer.recipe", "export")
    octav = recipes.AlgorithmName.OCTAV
    content = recipes.dynamic_wi8_afp32()
    for kind in _FOUR_BITS:
        content += recipes.dynamic_wi4c_afp32(operation_name=kind, algorithm_key=octav)
    plain: list[dict[str, Any]] = json.loads(json.dumps(content))  # its names are enumerations
    return plain


def quantize(float_file: bytes) -> bytes:
    """Turn the kernels of a float32 TFLite file into 4 bits.

    Raises:
        MissingExtraError: ai-edge-quantizer is not installed.
        UserError: it refuses the file.
    """
    quantizer = require("ai_edge_quantizer.quantizer", "export")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a summary
            result = quantizer.Quantizer(bytearray(float_file), recipe()).quantize()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"ai-edge-quantizer refuses this model as tflite-int4: {error}") from error
    return bytes(result.quantized_model)


def problems(operations: Sequence[tflite_graph.Operation]) -> list[str]:
    """Say which kernels of a file are not in 4 bits: the quantizer leaves out what it cannot."""
    wide = {item.layer for item in operations if item.kind in _FOUR_BITS and item.kernel != "INT4"}
    return [f"kernels that are not in 4 bits: {sorted(wide)}"] if wide else []

"""4-bit weights, through ai-edge-quantizer, which works on a float32 `.tflite`."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any

from keras_resnet.errors import UserError, require
from keras_resnet.export import graphs


def recipe() -> list[dict[str, Any]]:
    """What ai-edge-quantizer is told, as it lies in the manifest.

    Kernels in 4 bits, a scale per output channel; activations stay float32 in the file and are
    quantized to 8 bits as it runs. OCTAV (Sakr et al. 2022) chooses each scale for the least squared
    error, so that a few large weights are clipped; the alternative, a scale by the largest weight,
    leaves the others with few of the 15 levels.

    Raises:
        MissingExtraError: ai-edge-quantizer is not installed.
    """
    recipes = require("ai_edge_quantizer.recipe", "export")
    content = recipes.dynamic_wi4_afp32(algorithm_key=recipes.AlgorithmName.OCTAV)
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


def problems(operations: Sequence[graphs.Operation]) -> list[str]:
    """Say which kernels of a file are not in 4 bits: the quantizer leaves out what it cannot."""
    wide = sorted({item.layer for item in operations if item.kernel not in ("", "INT4")})
    return [f"kernels that are not in 4 bits: {wide}"] if wide else []

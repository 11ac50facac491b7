"""int8 files in which some layers stay in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_resnet import keras_compat
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.export.runtimes import tflite_graph

INT8_FORMATS = ("tflite-int8", "micro", "web")  # all layers are integers, except `keep_float`


def require_layers(layers: Sequence[str], model: Any) -> None:
    """Check that `layers` are layers of the Keras model.

    Raises:
        UnknownNameError: a layer is unknown; the message suggests the nearest one.
    """
    known = [layer.name for layer in keras_compat.all_layers(model)]
    for name in layers:
        if name not in known:
            see = f"'keras-resnet profile' lists the layers of '{model.name}'."
            raise UnknownNameError("layer", name, known, see)


def problems(
    operations: Sequence[tflite_graph.Operation], keep_float: Sequence[str], float_input: bool
) -> list[str]:
    """Return problems of an int8 file: layers wrongly in float, or wrongly in integers."""
    kept = set(keep_float)
    borders = tflite_graph.BORDERS if kept or float_input else ()
    inner = [item for item in operations if item.kind not in borders]
    in_float = [item for item in inner if item.in_float]
    strays = [item for item in in_float if kept.isdisjoint(item.layers)]
    found = [_left_in_float(strays, keep_float)] if strays else []
    quantized = _layers(item for item in inner if not item.in_float) | (kept - _layers(in_float))
    if wrong := sorted(kept & quantized):
        found.append(f"layers not left in float: {wrong}")
    return found


def _left_in_float(strays: Sequence[tflite_graph.Operation], keep_float: Sequence[str]) -> str:
    kinds = sorted({item.kind for item in strays})
    # Borders have no layer: they exist only because of the operations between them.
    layers = dict.fromkeys(item.layer for item in strays if item.kind not in tflite_graph.BORDERS)
    problem = f"operations left in float: {kinds}"
    if not layers:
        return problem
    names = ",".join([*keep_float, *layers])
    return f"{problem}. To accept them, export with --keep-float {names}"


def _layers(operations: Any) -> set[str]:
    return {layer for item in operations for layer in item.layers}


def nodes(float_file: bytes, keep_float: Sequence[str]) -> list[str]:
    """Return the output names of these layers' operations; the quantizer takes those names.

    Raises:
        UserError: the file has no operation named after one of those layers.
    """
    operations = tflite_graph.operations(tflite_graph.read(float_file))
    for layer in keep_float:
        if layer not in _layers(operations):
            raise UserError(
                f"The file has no operation named after the layer '{layer}': the converter merged "
                "it into another operation or removed it. 'keras-resnet layers' lists the names "
                "of an export's operations; pass one of those to keep_float (--keep-float)."
            )
    return [item.name for item in operations if not set(keep_float).isdisjoint(item.layers)]

"""Changes to a TFLite file that neither TensorFlow's converter nor ai-edge-quantizer makes."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from keras_resnet.export.formats.tflite import ranges
from keras_resnet.export.formats.tflite.ranges import Range
from keras_resnet.export.runtimes import tflite_graph

# LiteRT has integer code for them, which ai-edge-quantizer 0.10 does not know.
_WITH_INTEGERS = ("LEAKY_RELU", "RELU6", "ELU", "REDUCE_MAX")
_TOP = 128  # the distance from int8 to uint8
_INT8 = 127  # the largest weight
_LARGEST_BIAS = 2**30  # half of int32, which leaves room for the sum


def with_short_names(converted: bytes) -> bytes:
    """Return the file with shorter names of its tensors: a thirtieth of the int8 file of ResNet-8.

    The converter joins the names of everything that it fused, mostly several times per layer. One
    for each layer is enough to find the layers again.
    """
    model = tflite_graph.read(converted)
    for graph in model.subgraphs:
        taken = {tensor.name for tensor in graph.tensors}
        for tensor in graph.tensors:
            short = ";".join(tflite_graph.one_part_per_layer(tensor.name.decode())).encode()
            if short not in taken:  # names must stay unique
                taken.add(short)
                tensor.name = short
    return min(tflite_graph.pack(model), converted, key=len)


def with_room_for_biases(float_file: bytes, measured: Mapping[str, Range]) -> bytes:
    """Return the float32 file with larger weights where int32 could not hold a channel's bias.

    A bias has the scale of its channel's weights times that of the input. If training has left a
    channel almost without weights, that scale is so small that the bias overflows, which
    ai-edge-quantizer 0.10 does not notice. Here the largest weight of such a channel grows until
    the bias fits. The sum changes by less than 1e-4 of the bias.

    Args:
        float_file: the content of the file.
        measured: {tensor name: (least, most)} of the activations.
    """
    model = tflite_graph.read(float_file)
    (graph,) = model.subgraphs
    changed = False
    for item in tflite_graph.operations(model):
        if not item.kernel or len(item.inputs) < 3:
            continue
        entry, kernel, bias = (graph.tensors[i] for i in item.inputs[:3])
        weights, biases = (model.buffers[tensor.buffer].data for tensor in (kernel, bias))
        if weights is None or biases is None:  # the result of another operation
            continue
        step = ranges.step(measured[entry.name.decode()])
        needed = _INT8 * np.abs(biases.view("float32")) / (step * _LARGEST_BIAS)
        axis = -1 if item.kind == "DEPTHWISE_CONV_2D" else 0
        grown = _with_largest_weights(weights.view("float32").reshape(kernel.shape), needed, axis)
        changed |= not np.array_equal(grown.view("uint8").ravel(), weights)
        model.buffers[kernel.buffer].data = grown.view("uint8").ravel()
    return tflite_graph.pack(model) if changed else float_file


def _with_largest_weights(weights: np.ndarray, least: np.ndarray, axis: int) -> np.ndarray:
    """Return weights whose largest one in each channel has at least the magnitude `least`."""
    channels = np.moveaxis(weights, axis, 0).copy()
    flat = channels.reshape(len(least), -1)
    places = np.arange(len(least)), np.abs(flat).argmax(1)
    sizes = np.maximum(np.abs(flat[places]), least)
    flat[places] = np.copysign(sizes, flat[places])
    return np.ascontiguousarray(np.moveaxis(channels, 0, axis))


def run_in_integers(
    quantized: bytes, measured: Mapping[str, Range], float_operations: Collection[str]
) -> bytes:
    """Return the file with integers in operations that were left in float32 without need.

    Args:
        quantized: an int8 file.
        measured: {tensor name: (least, most)} of the activations.
        float_operations: names of operations (their first outputs) that shall stay in float32.
    """
    model = tflite_graph.read(quantized)
    (graph,) = model.subgraphs
    found = tflite_graph.operations(model)
    if not any(item.in_float for item in found):
        return quantized
    known = _integers_around(graph, found)
    operators: list[Any] = []
    for item, operator in zip(found, graph.operators, strict=True):
        operators.append(operator)
        if item.kind not in _WITH_INTEGERS or not item.in_float or item.name in float_operations:
            continue
        codes = {kind: tflite_graph.operator_code(model, kind) for kind in tflite_graph.BORDERS}
        entry, end = item.inputs[0], item.outputs[0]
        chosen = [
            known.get(index) or _int8_quantization(measured[graph.tensors[index].name.decode()])
            for index in (entry, end)
        ]
        if item.kind == "REDUCE_MAX":  # its integers have one scale
            chosen[1] = chosen[0]
        pairs = zip((entry, end), chosen, strict=True)
        inside = [_add_int8(graph, index, quantization) for index, quantization in pairs]
        known[end] = chosen[1]
        operator.inputs, operator.outputs = [inside[0], *item.inputs[1:]], [inside[1]]
        operators.insert(-1, tflite_graph.operator(codes["QUANTIZE"], [entry], [inside[0]]))
        operators.append(tflite_graph.operator(codes["DEQUANTIZE"], [inside[1]], [end]))
    graph.operators = operators
    _drop_round_trips(model, graph)
    return tflite_graph.pack(model)


def _integers_around(graph: Any, found: Sequence[tflite_graph.Operation]) -> dict[int, Any]:
    """Return {float tensor: the scale and zero point of the integers it comes from or becomes}.

    Runtimes want them equal to the last bit where an operation needs one scale.
    """
    known: dict[int, Any] = {}
    for item in found:
        if item.kind == "QUANTIZE":
            known.setdefault(item.inputs[0], graph.tensors[item.outputs[0]].quantization)
    for item in found:
        if item.kind == "DEQUANTIZE":
            known[item.outputs[0]] = graph.tensors[item.inputs[0]].quantization
    return known


def _add_int8(graph: Any, index: int, quantization: Any) -> int:
    """Add a tensor of the same values in int8; return its index."""
    inside = copy.deepcopy(graph.tensors[index])
    inside.type = tflite_graph.type_code("INT8")
    inside.quantization = quantization
    inside.name += b"_int8"
    graph.tensors.append(inside)
    return len(graph.tensors) - 1


def _int8_quantization(range_: Range, dtype: str = "int8") -> Any:
    scale = ranges.step(range_)
    zero = -_TOP - round(min(range_[0], 0.0) / scale)
    return tflite_graph.quantization(scale, zero + _TOP * (dtype == "uint8"))


def _drop_round_trips(model: Any, graph: Any) -> None:
    """Remove changes from integers to float32 and back to the same integers.

    If the integers have another scale, one operation from integers to integers is left.
    """
    found = list(zip(tflite_graph.operations(model), graph.operators, strict=True))
    sources = {item.outputs[0]: item.inputs[0] for item, _ in found if item.kind == "DEQUANTIZE"}
    same: dict[int, int] = {}
    kept = []
    for item, operator in found:
        operator.inputs = [same.get(int(index), int(index)) for index in operator.inputs]
        if item.kind in ("QUANTIZE", "SHAPE") and item.inputs[0] in sources:
            source = sources[item.inputs[0]]
            source = same.get(source, source)
            operator.inputs = [source]
            if item.kind == "QUANTIZE" and _equal(graph, source, item.outputs[0]):
                same[item.outputs[0]] = source
                continue
        kept.append((item, operator))
    graph.outputs = [same.get(int(index), int(index)) for index in graph.outputs]
    read = {*graph.outputs, *(index for _, operator in kept for index in operator.inputs)}
    graph.operators = [
        operator for item, operator in kept if item.kind != "DEQUANTIZE" or item.outputs[0] in read
    ]


def _equal(graph: Any, one: int, other: int) -> bool:
    """Return True if two tensors have the same integers for the same values."""
    a, b = (graph.tensors[index] for index in (one, other))
    x, y = a.quantization, b.quantization
    return bool(a.type == b.type and x.scale[0] == y.scale[0] and x.zeroPoint[0] == y.zeroPoint[0])


def with_borders(quantized: bytes, dtype: str, measured: Mapping[str, Range]) -> bytes:
    """Let an int8 file take and give `dtype`: an operation at an end changes the type.

    ai-edge-quantizer gives a file whose input is int8. Its output is int8, too, or float32 if the
    last operation stays in float32.

    Args:
        quantized: a file with one input and one output.
        dtype: "int8" or "uint8".
        measured: {tensor name: (least, most)} of the activations.
    """
    model = tflite_graph.read(quantized)
    (graph,) = model.subgraphs
    (entry,), (end,) = graph.inputs, graph.outputs
    code = tflite_graph.operator_code(model, "QUANTIZE")
    if tflite_graph.tensor_type(graph.tensors[entry]) != dtype.upper():
        graph.inputs = [_add_border(graph, entry, dtype, measured)]
        graph.operators.insert(0, tflite_graph.operator(code, graph.inputs, [entry]))
    if tflite_graph.tensor_type(graph.tensors[end]) != dtype.upper():
        graph.outputs = [_add_border(graph, end, dtype, measured)]
        graph.operators.append(tflite_graph.operator(code, [end], graph.outputs))
    for signature in model.signatureDefs:
        signature.inputs[0].tensorIndex = int(graph.inputs[0])
        signature.outputs[0].tensorIndex = int(graph.outputs[0])
    return tflite_graph.pack(model)


def _add_border(graph: Any, index: int, dtype: str, measured: Mapping[str, Range]) -> int:
    """Add a tensor like `index` in another type, which takes over its name; return its index."""
    inner = graph.tensors[index]
    outer = copy.deepcopy(inner)
    outer.type = tflite_graph.type_code(dtype.upper())
    if tflite_graph.tensor_type(inner) == "INT8":
        known = inner.quantization
        outer.quantization = tflite_graph.quantization(known.scale[0], known.zeroPoint[0] + _TOP)
    else:
        outer.quantization = _int8_quantization(measured[inner.name.decode()], dtype)
    inner.name += b"_inside"
    graph.tensors.append(outer)
    return len(graph.tensors) - 1

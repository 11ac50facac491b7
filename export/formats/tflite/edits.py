"""Changes to a TFLite file that neither TensorFlow's converter nor ai-edge-quantizer makes."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from keras_resnet.export.formats.tflite.ranges import Range
from keras_resnet.export.runtimes import tflite_graph

# LiteRT has integer code for them, which ai-edge-quantizer 0.10 does not know.
_WITH_INTEGERS = ("LEAKY_RELU", "RELU6", "REDUCE_MAX")
_TOP = 128  # the distance from int8 to uint8
_INT8 = 127  # the largest weight
_LARGEST_BIAS = 2**30  # half of int32, which leaves room for the sum
_TINY = 1e-30


def with_short_names(converted: bytes) -> bytes:
    """Return the file with shorter names of its tensors: a twentieth of a small int8 file.

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


def with_room_for_biases(float_file: bytes, ranges: Mapping[str, Range]) -> bytes:
    """Return the float32 file with larger weights where int32 could not hold a channel's bias.

    A bias has the scale of its channel's weights times that of the input. If training has left a
    channel almost without weights, that scale is so small that the bias overflows, which
    ai-edge-quantizer 0.10 does not notice. Here the largest weight of such a channel grows until
    the bias fits. The sum changes by less than 1e-4 of the bias.

    Args:
        float_file: the content of the file.
        ranges: {tensor name: (least, most)} of the activations.
    """
    model = tflite_graph.read(float_file)
    (graph,) = model.subgraphs
    for item in tflite_graph.operations(model):
        if not item.kernel or len(item.inputs) < 3:
            continue
        entry, kernel, bias = (graph.tensors[i] for i in item.inputs[:3])
        least, most = ranges[entry.name.decode()]
        step = (max(most, 0.0) - min(least, 0.0)) / 255
        biases = np.abs(model.buffers[bias.buffer].data.view("float32"))
        needed = _INT8 * biases / (max(step, _TINY) * _LARGEST_BIAS)
        weights = model.buffers[kernel.buffer].data.view("float32").reshape(kernel.shape)
        axis = -1 if item.kind == "DEPTHWISE_CONV_2D" else 0
        channels = np.moveaxis(weights, axis, 0).reshape(len(biases), -1).copy()
        places = np.arange(len(biases)), np.abs(channels).argmax(1)
        small = np.abs(channels[places]) < needed
        if small.any():
            signs = np.where(channels[places] < 0, -1, 1)
            channels[places] = np.where(small, signs * needed, channels[places])
            moved = channels.reshape(np.moveaxis(weights, axis, 0).shape)
            whole = np.ascontiguousarray(np.moveaxis(moved, 0, axis))
            model.buffers[kernel.buffer].data = whole.view("uint8").ravel()
    return tflite_graph.pack(model)


def run_in_integers(quantized: bytes, float_operations: Collection[str]) -> bytes:
    """Return the file with integers in operations that were left in float32 without need.

    Each of them stands between a DEQUANTIZE and a QUANTIZE, which are removed with it.

    Args:
        quantized: an int8 file.
        float_operations: names of operations (their first outputs) that shall stay in float32.
    """
    model = tflite_graph.read(quantized)
    (graph,) = model.subgraphs
    found = list(zip(tflite_graph.operations(model), graph.operators, strict=True))
    makers = {item.outputs[0]: item for item, _ in found}
    replaced = set()
    for item, operator in found:
        before = makers.get(item.inputs[0])
        after = [(other, its) for other, its in found if item.outputs[0] in other.inputs]
        if item.kind not in _WITH_INTEGERS or item.name in float_operations or before is None:
            continue
        if before.kind != "DEQUANTIZE" or {other.kind for other, _ in after} != {"QUANTIZE"}:
            continue
        (first, _), *others = after
        operator.inputs = [before.inputs[0], *operator.inputs[1:]]
        operator.outputs = [first.outputs[0]]
        replaced.add(first)
        for _, its in others:  # readers with a scale of their own
            its.inputs = [first.outputs[0]]
    read = {*graph.outputs, *(index for operator in graph.operators for index in operator.inputs)}
    graph.operators = [
        operator
        for item, operator in found
        if item not in replaced and (item.kind != "DEQUANTIZE" or item.outputs[0] in read)
    ]
    return tflite_graph.pack(model)


def with_borders(quantized: bytes, dtype: str, scores: Range) -> bytes:
    """Let an int8 file take and give `dtype`: an operation at an end changes the type.

    ai-edge-quantizer gives a file whose input is int8. Its output is int8, too, or float32 if the
    last operation stays in float32.

    Args:
        quantized: a file with one input and one output.
        dtype: "int8" or "uint8".
        scores: the range of the output.
    """
    model = tflite_graph.read(quantized)
    (graph,) = model.subgraphs
    (entry,), (end,) = graph.inputs, graph.outputs
    code = tflite_graph.operator_code(model, "QUANTIZE")
    if tflite_graph.tensor_type(graph.tensors[entry]) != dtype.upper():
        graph.inputs = [_add_border(graph, entry, dtype, scores)]
        graph.operators.insert(0, tflite_graph.operator(code, graph.inputs, [entry]))
    if tflite_graph.tensor_type(graph.tensors[end]) != dtype.upper():
        graph.outputs = [_add_border(graph, end, dtype, scores)]
        graph.operators.append(tflite_graph.operator(code, [end], graph.outputs))
    for signature in model.signatureDefs:
        signature.inputs[0].tensorIndex = int(graph.inputs[0])
        signature.outputs[0].tensorIndex = int(graph.outputs[0])
    return tflite_graph.pack(model)


def _add_border(graph: Any, index: int, dtype: str, scores: Range) -> int:
    """Add a tensor like `index` in another type, which takes over its name; return its index."""
    inner = graph.tensors[index]
    outer = copy.deepcopy(inner)
    outer.type = tflite_graph.type_code(dtype.upper())
    if tflite_graph.tensor_type(inner) == "INT8":
        scale, zero = inner.quantization.scale[0], int(inner.quantization.zeroPoint[0])
    else:
        least, most = min(scores[0], 0.0), max(scores[1], 0.0)
        scale = (most - least) / 255
        zero = -128 - round(least / scale)
    outer.quantization = tflite_graph.quantization(scale, zero + _TOP * (dtype == "uint8"))
    inner.name += b"_inside"
    graph.tensors.append(outer)
    return len(graph.tensors) - 1

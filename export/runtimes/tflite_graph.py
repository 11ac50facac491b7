"""Read the operations of a TFLite file, with the Keras layers that each one was made from.

The converter names a tensor after everything that it fused into one operation, as in
`resnet20_1/stem_relu_1/Relu;resnet20_1/stem_bn_1/batchnorm/add_1;resnet20_1/stem_conv_1/convolution`.
Each part has the model, the layer and its operation, with a number that Keras appends when it
traces.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from keras_resnet.errors import require

BORDERS = ("QUANTIZE", "DEQUANTIZE")  # conversions between integers and floats; not a layer
WITH_KERNEL = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# Names of the multiplication with a kernel, in Keras 3, tf_keras and TensorFlow.
_KERNEL = re.compile(r"(convolution|Conv2D|depthwise\w*|separable_conv2d|MatMul)\d*")
_NUMBERED = re.compile(r"(.+)_\d+")


@dataclass(frozen=True)
class Operation:
    """One operation of a file.

    Attributes:
        kind: the name in TFLite's schema (CONV_2D, ADD, ...), or a custom operation's name.
        inputs, outputs: indices of tensors.
        name: the name of its first output.
        layers: the layers it computes; the first one gives the operation its name.
        in_float: True if it reads or writes floats.
        kernel: the type of its kernel in the schema: FLOAT32, INT8, INT4; "" without a kernel.
        weights: the number of weights in its kernel; 0 without a kernel.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    name: str
    layers: tuple[str, ...]
    in_float: bool
    kernel: str
    weights: int

    @property
    def layer(self) -> str:
        """The layer that gives the operation its name."""
        return self.layers[0]


def read(data: bytes) -> Any:
    """Read a TFLite file into the `ModelT` object of TFLite's schema."""
    model = _schema().ModelT.InitFromPackedBuf(data, 0)
    for buffer in model.buffers:  # ai-edge-quantizer writes large constants behind the model
        if buffer.offset:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any) -> bytes:
    """Return the bytes of a file from the `ModelT` object of `read`."""
    import flatbuffers

    class Aligned(flatbuffers.Builder):
        """A builder whose constants begin at multiples of 16 bytes, as TFLite's schema demands."""

        def CreateNumpyVector(self, x: np.ndarray) -> int:
            if x.dtype == np.uint8:
                self.Prep(16, x.nbytes)
            offset: int = super().CreateNumpyVector(x)
            return offset

    builder = Aligned(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operations(model: Any) -> tuple[Operation, ...]:
    """Return the operations of a model from `read`, in the order they run."""
    found: list[Operation] = []
    for graph in model.subgraphs:
        found += _named(model, graph, [_nameless(model, graph, item) for item in graph.operators])
    return tuple(found)


def one_part_per_layer(name: str) -> list[str]:
    """Return the parts of a tensor's name that `operations` needs, one for each layer.

    It is the last part of a layer, or the multiplication with its kernel.
    """
    kept: dict[str, str] = {}
    for part in filter(None, name.split(";")):
        layer = part.rpartition("/")[0].removesuffix("/batchnorm")
        before = kept.pop(layer, "")
        kept[layer] = before if _is_kernel(before) else part
    return list(kept.values())


def last_operation(found: Sequence[Operation]) -> Operation:
    """Return the operation that makes the output of a one-graph file, before any type change."""
    last = found[-1]
    while last.kind in BORDERS:
        before = [item for item in found if set(item.outputs) & set(last.inputs)]
        if not before:
            break
        last = before[-1]
    return last


def in_float32(found: Iterable[Operation]) -> bool:
    """Return True if a file with these operations is entirely float32: no integers, no float16."""
    return all(item.kind not in BORDERS and item.kernel in ("", "FLOAT32") for item in found)


def tensor_type(tensor: Any) -> str:
    """Return the type of a tensor by its name in TFLite's schema, such as "INT8"."""
    return _names("TensorType")[tensor.type]


def type_code(name: str) -> int:
    """Return the number of a tensor type in TFLite's schema."""
    code: int = getattr(_schema().TensorType, name)
    return code


def operator_code(model: Any, kind: str) -> int:
    """Return the index of an operation's kind in the model's list; add it if it is missing."""
    builtin = getattr(_schema().BuiltinOperator, kind)
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            return index
    code = _schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def operator(code: int, inputs: list[int], outputs: list[int]) -> Any:
    """Return an operation without options, for `graph.operators`."""
    made = _schema().OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, inputs, outputs
    return made


def quantization(scale: float, zero_point: int) -> Any:
    """Return the parameters of a tensor: real value = (integer - zero point) * scale."""
    made = _schema().QuantizationParametersT()
    made.scale, made.zeroPoint = [scale], [zero_point]
    return made


def _schema() -> Any:
    return require("ai_edge_litert.schema_py_generated", "export")


@cache
def _names(enumeration: str) -> dict[int, str]:
    values = vars(getattr(_schema(), enumeration)).items()
    return {code: name for name, code in values if name[0] != "_"}


def _kind(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return str(code.customCode.decode())
    return _names("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _nameless(model: Any, graph: Any, operator: Any) -> Operation:
    kind = _kind(model, operator)
    inputs, outputs = (
        tuple(int(i) for i in tensors if i >= 0) for tensors in (operator.inputs, operator.outputs)
    )
    types = [tensor_type(graph.tensors[i]) for i in (*inputs, *outputs)]
    has_kernel = kind in WITH_KERNEL
    return Operation(
        kind=kind,
        inputs=inputs,
        outputs=outputs,
        name=graph.tensors[outputs[0]].name.decode() if outputs else "",
        layers=(),
        in_float=any(name.startswith("FLOAT") for name in types),
        kernel=types[1] if has_kernel else "",
        weights=math.prod(map(int, graph.tensors[inputs[1]].shape)) if has_kernel else 0,
    )


def _named(model: Any, graph: Any, found: list[Operation]) -> Iterator[Operation]:
    """Yield the same operations with their layers."""
    ends = _output_names(model, graph, found)
    # A kernel is named after its layer alone; layers may share other constants.
    texts = [[graph.tensors[item.inputs[1]].name.decode()] if item.kernel else [] for item in found]
    parts = [
        [part for name in (*more, item.name) for part in name.split(";")]
        for more, item in zip(texts, found, strict=True)
    ]
    layers = _layers(found, parts)
    mains = [
        item.name
        if item.kind in BORDERS or not item.outputs
        else _main(item, of, layers) or ends.get(item.outputs[0], item.name)
        for item, of in zip(found, parts, strict=True)
    ]
    taken = set(mains)
    for item, main, of in zip(found, mains, parts, strict=True):
        others = [layers[part] for part in of if item.kind not in BORDERS and layers[part]]
        # The converter merges equal constants, so a name may include layers of other operations.
        own = [layer for layer in others if layer not in taken]
        yield replace(item, layers=tuple(dict.fromkeys([main, *own])))


def _main(operation: Operation, parts: list[str], layers: dict[str, str]) -> str:
    """Return the layer with the kernel; without a kernel, the operation's layer before fusing."""
    if operation.kernel:
        for part in parts:
            if _is_kernel(part) and layers[part]:
                return layers[part]
    return next((layers[part] for part in reversed(parts) if layers[part]), "")


def _is_kernel(part: str) -> bool:
    return _KERNEL.fullmatch(part.rpartition("/")[2]) is not None


def _layers(found: list[Operation], parts: list[list[str]]) -> dict[str, str]:
    """Return the layer of each name part: `stem_conv` for `resnet20_1/stem_conv_1/convolution`.

    Keras 3 appends a number to every layer. If all layers have one, it is removed. It stays if
    two kernels would get the same name, because tf_keras numbers the layers themselves.
    """
    models = {
        tuple(_path(part)[:depth])
        for item, of in zip(found, parts, strict=True)
        for part in of
        if item.kernel and _is_kernel(part)
        for depth in range(1, len(_path(part)) - 1)
    }
    layers = {part: _layer(_path(part), models) for of in parts for part in of}
    numbered = {layer: _NUMBERED.fullmatch(layer) for layer in layers.values() if layer}
    plain = {layer: match[1] for layer, match in numbered.items() if match}
    mains = {
        item.inputs[1]: main
        for item, of in zip(found, parts, strict=True)
        if item.kernel and (main := _main(item, of, layers))
    }
    unique = len({plain.get(main) for main in mains.values()}) == len(mains)
    if len(plain) < len(numbered) or not unique:
        return layers
    return {part: plain.get(layer, "") for part, layer in layers.items()}


def _path(part: str) -> list[str]:
    return [step for step in part.split("/") if step != "StatefulPartitionedCall"]


def _layer(path: list[str], models: set[tuple[str, ...]]) -> str:
    """Return the layer directly inside the innermost model; "" if there is none."""
    depth = max((d for d in range(1, len(path) - 1) if tuple(path[:d]) in models), default=1)
    return "" if len(path) < 2 else path[min(depth, len(path) - 2)]


def _output_names(model: Any, graph: Any, found: list[Operation]) -> dict[int, str]:
    """Return the signature's name of each output tensor, since those tensors do not name a layer.

    The name belongs to the operation that computes the output, not to the one that converts it.
    """
    names = {
        output.tensorIndex: output.name.decode()
        for signature in model.signatureDefs or ()
        if model.subgraphs[signature.subgraphIndex] is graph
        for output in signature.outputs
    }
    for item in reversed(found):
        if item.kind in BORDERS and item.outputs[0] in names:
            names[item.inputs[0]] = names[item.outputs[0]]
    return names

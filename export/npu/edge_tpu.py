"""The documented rules of Coral's Edge TPU: coral.ai/docs/edgetpu/models-intro.

The compiler maps one connected part of the graph, from the first operation that fits up to the
first one that does not. All other operations run on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_resnet.export.runtimes.tflite_graph import Operation, tensor_type

HOW = "by the documented rules of the Edge TPU; not compiled"
_BYTES = ("INT8", "UINT8")
_INNERMOST = 3  # dimensions that may be larger than 1
_LONGEST_SOFTMAX = 16_000


@dataclass(frozen=True)
class _Call:
    """An operation with its options and tensors."""

    options: Any
    inputs: list[Any]
    outputs: list[Any]
    constants: list[np.ndarray | None]  # the values of each input that is a constant

    def option(self, name: str, default: int = 0) -> int:
        return int(getattr(self.options, name, default) or default)


def left_on_cpu(model: Any, found: Sequence[Operation]) -> list[tuple[str, str]]:
    """Return (kind, reason) of every operation of a TFLite model that stays on the CPU.

    Args:
        model: the model from `tflite_graph.read`.
        found: its operations, from `tflite_graph.operations`.
    """
    calls = [_call(model, graph, item) for graph in model.subgraphs for item in graph.operators]
    reasons = [_reason(item.kind, call) for item, call in zip(found, calls, strict=True)]
    fits = [not reason for reason in reasons]
    first = fits.index(True) if True in fits else len(fits)
    end = fits.index(False, first) if False in fits[first:] else len(fits)
    return [
        (item.kind, reason or f"it comes after {found[end].kind}, which is on the CPU")
        for place, (item, reason) in enumerate(zip(found, reasons, strict=True))
        if not first <= place < end
    ]


def _call(model: Any, graph: Any, operator: Any) -> _Call:
    inputs = [graph.tensors[i] for i in operator.inputs if i >= 0]
    return _Call(
        operator.builtinOptions,
        inputs,
        [graph.tensors[i] for i in operator.outputs],
        [_constant(model, tensor) for tensor in inputs],
    )


def _constant(model: Any, tensor: Any) -> np.ndarray | None:
    data = model.buffers[tensor.buffer].data
    return None if data is None or len(data) == 0 else np.asarray(data, np.uint8)


def _reason(kind: str, call: _Call) -> str:
    """Return why an operation stays on the CPU; "" if it fits."""
    if kind not in _RULES:
        return "the Edge TPU does not have it"
    reasons = [_of_tensor(tensor) for tensor in (*call.inputs[:1], *call.outputs)]
    reasons += [rule(call) for rule in _RULES[kind]]
    return next(filter(None, reasons), "")


def _of_tensor(tensor: Any) -> str:
    shape = _sides(tensor.shape)
    if -1 in (*shape, *_sides(tensor.shapeSignature)):
        return "a size is not fixed (export with --batch 1)"
    if tensor_type(tensor) not in _BYTES:
        return f"it has {tensor_type(tensor).lower()} values, not 8-bit integers"
    if any(side > 1 for side in shape[:-_INNERMOST]):
        return f"more than {_INNERMOST} dimensions are larger than 1"
    return ""


def _sides(shape: Any) -> list[int]:
    return [] if shape is None else [int(side) for side in shape]


def _no_activation(call: _Call) -> str:
    return "it has a fused activation" if call.option("fusedActivationFunction") else ""


def _one_dilation(call: _Call) -> str:
    sides = (call.option("dilationHFactor", 1), call.option("dilationWFactor", 1))
    return "its dilation differs in height and width" if len(set(sides)) > 1 else ""


def _keeps_batch(call: _Call) -> str:
    axes = _integers(call, 1)
    return "it reduces the batch" if axes is None or 0 in axes else ""


def _reduces_depth_by_four(call: _Call) -> str:
    axes, shape = _integers(call, 1), _sides(call.inputs[0].shape)
    reduced = axes is not None and {len(shape) - 1, -1} & set(axes)
    return "it reduces channels that are no multiple of 4" if reduced and shape[-1] % 4 else ""


def _pads_no_batch(call: _Call) -> str:
    pads = _integers(call, 1)
    return "it pads the batch" if pads is None or any(pads[:2]) else ""


def _joins_zeros_only(call: _Call) -> str:
    constants = [values for values in call.constants if values is not None]
    if constants and (len(call.inputs) != 2 or any(values.any() for values in constants)):
        return "it joins a constant that is not zero"
    return ""


def _flat_softmax(call: _Call) -> str:
    shape = _sides(call.inputs[0].shape)
    if any(side > 1 for side in shape[:-1]):
        return "its input has more than one dimension"
    longest = f"it has more than {_LONGEST_SOFTMAX:,} inputs"
    return longest if shape[-1] > _LONGEST_SOFTMAX else ""


def _single_steps(call: _Call) -> str:
    steps = _integers(call, 3)
    return "its strides are not all 1" if steps is None or set(steps) != {1} else ""


def _default_weights(call: _Call) -> str:
    return "its weights are shuffled" if call.option("weightsFormat") else ""


def _integers(call: _Call, place: int) -> list[int] | None:
    """Return the values of an int32 input that is a constant."""
    values = call.constants[place] if place < len(call.constants) else None
    return None if values is None else np.frombuffer(values.tobytes(), "<i4").tolist()


_Rule = Callable[[_Call], str]
# TFLite's names of Coral's table of supported operations. What the table says only in part, such as
# "certain reshapes might not be mapped", counts as supported.
_RULES: dict[str, tuple[_Rule, ...]] = {
    **dict.fromkeys(
        (
            *("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "RSQRT"),
            *("RELU", "RELU6", "RELU_N1_TO_1", "PRELU", "LOGISTIC", "TANH", "QUANTIZE"),
            *("RESHAPE", "EXPAND_DIMS", "SQUEEZE", "PACK", "SLICE", "SPLIT", "TRANSPOSE"),
            *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"),
            *("L2_NORMALIZATION", "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        ),
        (),
    ),
    "CONV_2D": (_one_dilation,),
    "DEPTHWISE_CONV_2D": (_one_dilation,),
    "FULLY_CONNECTED": (_default_weights,),
    "AVERAGE_POOL_2D": (_no_activation,),
    "MAX_POOL_2D": (_no_activation,),
    "CONCATENATION": (_no_activation, _joins_zeros_only),
    "MEAN": (_keeps_batch, _reduces_depth_by_four),
    "SUM": (_keeps_batch,),
    "REDUCE_MAX": (_keeps_batch,),
    "REDUCE_MIN": (_keeps_batch,),
    "PAD": (_pads_no_batch,),
    "SOFTMAX": (_flat_softmax,),
    "STRIDED_SLICE": (_single_steps,),
}

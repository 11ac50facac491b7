"""A functional model as a list of layer calls, with the counts of each call.

The conventions are those of `keras_resnet/analysis/profile.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_resnet import keras_compat
from keras_resnet.analysis.layer_rules import (
    IN_PLACE,
    PIXEL,
    Field,
    Pair,
    is_weighted,
    multiply_adds,
    receptive_field,
)
from keras_resnet.display.notebook import html_table
from keras_resnet.errors import UserError

InputShape = tuple[int | None, int | None, int]


@dataclass(frozen=True)
class Count:
    """The parameters, operations and memory of one or more layers, for one image.

    Attributes:
        name: name of the layer, or of the sum.
        trainable: number of trainable parameters.
        non_trainable: number of other parameters.
        multiply_adds: multiply-adds of convolutions and dense layers.
        activation_bytes: bytes of the new tensors that are written.
    """

    name: str
    trainable: int
    non_trainable: int
    multiply_adds: int
    activation_bytes: int

    @property
    def parameters(self) -> int:
        """Number of all parameters, trainable or not."""
        return self.trainable + self.non_trainable

    def __repr__(self) -> str:
        """Return one line."""
        return f"{self._about()}: {', '.join(' '.join(pair[::-1]) for pair in self._figures())}"

    def _repr_html_(self) -> str:
        return html_table((self._about(), ""), self._figures())

    def _about(self) -> str:
        return self.name

    def _figures(self) -> list[tuple[str, str]]:
        return [
            ("parameters", f"{self.parameters:,}"),
            ("multiply-adds", f"{self.multiply_adds:,}"),
            ("activation bytes", f"{self.activation_bytes:,}"),
        ]


@dataclass(frozen=True, repr=False)
class LayerCount(Count):
    """The counts of one layer call. The other fields are those of `Count`.

    Attributes:
        type: class of the layer.
        output_shape: shape of the output without the batch.
        receptive_field: size (height, width) in pixels; None means the whole image.
        jump: distance (height, width) in pixels between the fields of neighbouring values; None if
            there are no neighbours.
        follows: the last layer with a kernel on the way to this layer, or the layer itself.
    """

    type: str
    output_shape: tuple[int, ...]
    receptive_field: Pair | None
    jump: Pair | None
    follows: str

    def _about(self) -> str:
        return f"{self.name} ({self.type}, output {'×'.join(map(str, self.output_shape))})"

    @property
    def stage(self) -> str:
        """The layer's name up to the first underscore: stem, stage1, ..., head."""
        return self.name.partition("_")[0]

    @property
    def block(self) -> str:
        """The residual unit ("stage2_block1"), or the stage if there is no unit."""
        second = self.name.split("_")[1:2]
        has_block = bool(second) and second[0].startswith("block")
        return f"{self.stage}_{second[0]}" if has_block else self.stage


@dataclass(frozen=True)
class _Step:
    """One call of a layer. Tensors are given by their key in `Graph.tensors`."""

    operation: Any
    inputs: list[int]
    outputs: list[int]


class Graph:
    """The calls of a functional model in order, with the shape of every tensor."""

    def __init__(self, model: Any, input_shape: InputShape | None = None) -> None:
        self.model = model
        if isinstance(model, keras.Sequential) and getattr(model, "inputs", None):
            self.model = keras.Model(model.inputs, model.outputs, name=model.name)
        if not hasattr(self.model, "operations"):
            raise UserError(
                "profile() needs a functional or sequential Keras model with a known input; "
                f"received {type(model).__name__}."
            )
        self.tensors: dict[int, Any] = {}  # id of the model's KerasTensor → one with known shape
        self.steps: list[_Step] = []
        self._set_inputs(input_shape)
        for call in keras_compat.calls_in(self.model):
            self._add(call)
        self._find_buffers()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (height, width, channels) of the first input."""
        return self._shape(id(self.model.inputs[0]))[1:]

    def _set_inputs(self, input_shape: InputShape | None) -> None:
        inputs = self.model.inputs
        self.same_shapes = input_shape is None
        if input_shape is not None:
            _require_shape(input_shape)
            shape = (None, *input_shape)
            if len(inputs) != 1 or len(inputs[0].shape) != len(shape):
                raise UserError(
                    f"input_shape {tuple(input_shape)} needs a model with one input and as many "
                    f"axes; this model has {[tuple(x.shape[1:]) for x in inputs]}."
                )
            self.tensors[id(inputs[0])] = keras.KerasTensor(shape, inputs[0].dtype)
        for tensor in inputs:
            self._require_known(tensor.name, self.tensors.setdefault(id(tensor), tensor))

    def _require_known(self, name: str, tensor: Any) -> None:
        if None in tensor.shape[1:]:
            raise UserError(
                f"The image size of the model is free ('{name}': {tuple(tensor.shape[1:])}). "
                "Give one: profile(model, input_shape=(224, 224, 3)), or --input-shape 224,224,3."
            )

    def _add(self, call: keras_compat.Call) -> None:
        operation = call.operation
        if isinstance(operation, keras.Model):
            raise UserError(
                f"'{operation.name}' is a model inside the model, which profile() does not count. "
                "Profile it separately, or call its layers on the outer model's tensors."
            )
        inputs = [id(tensor) for tensor in call.inputs]
        outputs = [id(tensor) for tensor in call.outputs]
        if inputs:
            given = call.outputs if self.same_shapes else self._compute(call)
            self.tensors.update(zip(outputs, given, strict=True))
        for number in outputs:
            self._require_known(operation.name, self.tensors[number])
        self.steps.append(_Step(operation, inputs, outputs))

    def _compute(self, call: keras_compat.Call) -> list[Any]:
        """Return a layer's outputs for an image of another size than the model was built for."""
        operation = call.operation
        args, kwargs = keras.tree.map_structure(
            lambda x: self.tensors.get(id(x), x), (call.args, call.kwargs)
        )
        axes = getattr(getattr(operation, "input_spec", None), "axes", None) or {}
        shape = self._shape(id(call.inputs[0]))
        misfit = any(size is not None and shape[axis] != size for axis, size in axes.items())
        try:
            outputs = None if misfit else operation.compute_output_spec(*args, **kwargs)
        except ValueError:
            outputs = None
        if outputs is None or any(0 in tensor.shape for tensor in keras.tree.flatten(outputs)):
            raise UserError(
                f"This model does not take input_shape {self.input_shape}: its layer "
                f"'{operation.name}' gets {shape[1:]}, but was built for "
                f"{tuple(call.inputs[0].shape[1:])}."
            )
        return keras.tree.flatten(outputs)

    def _shape(self, number: int) -> tuple[int, ...]:
        return tuple(self.tensors[number].shape)

    def _find_buffers(self) -> None:
        """Give every tensor a buffer: a new one, or that of the input that it overwrites."""
        self.reads: dict[int, int] = {}
        for step in self.steps:
            for number in step.inputs:
                self.reads[number] = self.reads.get(number, 0) + 1
        for tensor in self.model.outputs:
            self.reads[id(tensor)] = self.reads.get(id(tensor), 0) + 1
        self.bytes = {number: _bytes(tensor) for number, tensor in self.tensors.items()}
        self.buffer = {number: number for number in self.tensors}
        images = {id(tensor) for tensor in self.model.inputs}
        for step in self.steps:
            if not isinstance(step.operation, IN_PLACE):
                continue
            source, target = step.inputs[0], step.outputs[0]
            fits = self.bytes[source] == self.bytes[target]
            if fits and self.reads[source] == 1 and source not in images:
                self.buffer[target] = self.buffer[source]

    def _new_bytes(self, step: _Step) -> int:
        return sum(self.bytes[number] for number in step.outputs if self.buffer[number] == number)

    def count(self) -> Iterable[LayerCount]:
        """Yield the counts of every call."""
        fields: dict[int, Field] = {}
        leaders: dict[int, int] = {}  # by tensor, the last step with a kernel before it
        counted: set[int] = set()
        for index, step in enumerate(self.steps):
            operation = step.operation
            output = self._shape(step.outputs[0])
            field = self._field(step, fields, output)
            own = is_weighted(operation) or not step.inputs
            leader = index if own else max(leaders[number] for number in step.inputs)
            fields.update(dict.fromkeys(step.outputs, field))
            leaders.update(dict.fromkeys(step.outputs, leader))
            trainable, frozen = (0, 0) if id(operation) in counted else _parameters(operation)
            counted.add(id(operation))
            yield LayerCount(
                name=operation.name,
                type=type(operation).__name__,
                output_shape=output[1:],
                trainable=trainable,
                non_trainable=frozen,
                multiply_adds=multiply_adds(operation, output),
                activation_bytes=self._new_bytes(step),
                receptive_field=field.size,
                jump=field.jump,
                follows=self.steps[leader].operation.name,
            )

    def _field(self, step: _Step, fields: dict[int, Field], output: tuple[int, ...]) -> Field:
        if not step.inputs:
            return PIXEL if len(output) == 4 else Field()
        shapes = [self._shape(number) for number in step.inputs]
        return receptive_field(
            step.operation, [fields[number] for number in step.inputs], shapes, output
        )

    def peak_bytes(self) -> int:
        """Return the largest sum of live buffers."""
        waiting: dict[int, int] = {}  # remaining reads, by buffer
        for number, count in self.reads.items():
            buffer = self.buffer[number]
            waiting[buffer] = waiting.get(buffer, 0) + count
        live = peak = 0
        for step in self.steps:
            live += self._new_bytes(step)
            peak = max(peak, live)
            for number in step.inputs:
                waiting[self.buffer[number]] -= 1
            ended = {self.buffer[number] for number in (*step.inputs, *step.outputs)}
            live -= sum(self.bytes[buffer] for buffer in ended if not waiting.get(buffer))
        return peak


def _bytes(tensor: Any) -> int:
    return math.prod(tensor.shape[1:]) * tf.as_dtype(tensor.dtype).size


def _parameters(operation: Any) -> tuple[int, int]:
    trainable, frozen = (
        sum(math.prod(weight.shape) for weight in getattr(operation, kind, ()))
        for kind in ("trainable_weights", "non_trainable_weights")
    )
    return trainable, frozen


def _require_shape(shape: Any) -> None:
    """Refuse what is no shape.

    Raises:
        UserError: it is no list of whole numbers.
    """
    is_list = isinstance(shape, list | tuple)
    if not is_list or not all((type(x) is int and x > 0) or x is None for x in shape):
        raise UserError(f"input_shape must be like (224, 224, 3); received {shape!r:.100}.")

"""Follow the channels of a network: find tied channels, and build the network without some of them.

Every tensor gets a number for each of its channels (its last axis). A layer that makes channels (a
convolution, a Dense layer) gets new numbers. A layer that works channel by channel passes them on.
An addition ties its inputs' channels together. Two channels that must be kept or removed together
have the same root (union-find). These are the channels that a stage's shortcut adds, the channels
that a zero-padded shortcut (He 2015, option A) shifts, and the channels of one group of a grouped
convolution. Removing a root's channels gives exactly the network's result with those channels at
zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

import keras
import numpy as np
from keras import layers

from keras_resnet.analysis.graph import Graph
from keras_resnet.analysis.layer_rules import IN_PLACE, is_weighted
from keras_resnet.analysis.layer_rules import multiply_adds as layer_multiply_adds
from keras_resnet.errors import UserError
from keras_resnet.layers import to_stock
from keras_resnet.models.auxiliary import inference_model
from keras_resnet.recipes.training import transfer

Numbers = np.ndarray  # the numbers of a tensor's channels, in order

# Layers that treat every channel separately.
_CHANNELWISE = (
    *IN_PLACE,
    *(layers.MaxPooling2D, layers.AveragePooling2D, layers.AdaptiveAveragePooling2D),
    *(layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D),
    *(layers.ZeroPadding2D, layers.Cropping2D, layers.UpSampling2D),
)
_ELEMENTWISE = (
    *(layers.Add, layers.Subtract, layers.Average),
    *(layers.Multiply, layers.Maximum, layers.Minimum),
)
_MIXING_ACTIVATIONS = {"softmax", "log_softmax", "sparsemax"}
_HELD = 0  # the channel that is always kept, together with all channels tied to it


@dataclass(frozen=True)
class Family:
    """A group of filters to choose from.

    Attributes:
        makers: the layers that make these channels; several layers if additions tie them.
        roots: the roots of the channels.
    """

    makers: frozenset[str]
    roots: Numbers

    @property
    def size(self) -> int:
        """The number of filters."""
        return len(self.roots)


class Channels:
    """The channels of a classifier.

    Attributes:
        model: the network in stock float32 layers, without auxiliary classifiers.
        of: the numbers of a tensor's channels, by the tensor's number in `graph.tensors`.
        roots: the root of each channel, which stands for all channels tied to it.

    Raises:
        UserError: a free image size, a layer that is called twice, or a layer that channels cannot
            be followed through; the message has its name.
    """

    def __init__(self, model: keras.Model) -> None:
        model = transfer.functional(model)
        if None in model.inputs[0].shape[1:]:
            raise UserError(
                f"Filter pruning needs a fixed image size, to count multiply-adds; '{model.name}' "
                "takes any size. Build it with input_shape=(height, width, 3)."
            )
        self.model = to_stock(inference_model(model))
        self.graph = Graph(self.model)
        self.of: dict[int, Numbers] = {}
        self._parents = [_HELD]
        self._makers = [""]  # the layer that made a channel
        self._layers: set[int] = set()
        for step in self.graph.steps:
            self._add(step)
        for tensor in self.graph.model.outputs:
            self._hold(self.of[id(tensor)])
        self.roots = np.array([self._root(number) for number in range(len(self._parents))])

    # Following the channels ---------------------------------------------------------------------

    def _add(self, step: Any) -> None:
        if id(step.operation) in self._layers:
            _refuse(step.operation, "is called more than once")
        self._layers.add(id(step.operation))
        shape = self.graph.tensors[step.outputs[0]].shape
        numbers = self._follow(step, shape)
        if len(step.outputs) > 1 or len(numbers) != shape[-1]:
            _refuse(step.operation, "does not keep the channels")
        if _mixes(step.operation):
            self._hold(numbers)
        self.of[step.outputs[0]] = numbers

    def _follow(self, step: Any, shape: tuple[int, ...]) -> Numbers:
        """Return the channel numbers of a layer's output."""
        layer, inputs = step.operation, [self.of[number] for number in step.inputs]
        first = getattr(layer, "data_format", "channels_last") == "channels_first"
        if isinstance(layer, layers.InputLayer):
            return self._hold(self._new(layer, shape[-1]))
        if isinstance(layer, layers.ZeroPadding2D) and first:
            before, after = (self._new(layer, count) for count in layer.padding[1])
            return np.concatenate([before, inputs[0], after])
        if first:
            _refuse(layer, "has channels_first, so it does not keep the last axis apart")
        if isinstance(layer, layers.DepthwiseConv2D):
            return np.repeat(inputs[0], layer.depth_multiplier)
        if is_weighted(layer):
            return self._convolved(layer, inputs[0], shape[-1])
        if isinstance(layer, layers.Concatenate):
            return self._concatenated(layer, inputs, len(shape))
        if isinstance(layer, _ELEMENTWISE):
            return self._united(inputs)
        if isinstance(layer, (layers.Flatten, layers.Reshape)):
            return self._reshaped(step, inputs[0], shape)
        if not isinstance(layer, _CHANNELWISE):
            _refuse(layer, "has no rule for the dependence between its channels")
        if isinstance(layer, layers.BatchNormalization) and layer.axis not in (-1, len(shape) - 1):
            _refuse(layer, "does not normalise the last axis")
        return inputs[0]

    def _new(self, layer: Any, count: int) -> Numbers:
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        self._makers.extend([layer.name] * count)
        return np.arange(start, start + count)

    def _convolved(self, layer: Any, inputs: Numbers, count: int) -> Numbers:
        """Return new channels. A grouped convolution ties whole groups, with their inputs."""
        numbers, groups = self._new(layer, count), getattr(layer, "groups", 1)
        if groups > 1:
            parts = (inputs.reshape(groups, -1), numbers.reshape(groups, -1))
            for group in np.concatenate(parts, axis=1):
                self._unite(group, np.full_like(group, group[0]))
        return numbers

    def _concatenated(self, layer: Any, inputs: list[Numbers], rank: int) -> Numbers:
        if layer.axis not in (-1, rank - 1):
            _refuse(layer, "does not concatenate the last axis")
        return np.concatenate(inputs)

    def _united(self, inputs: list[Numbers]) -> Numbers:
        """Tie the inputs' channels together; always keep inputs that are broadcast along them."""
        count = max(len(numbers) for numbers in inputs)
        whole, *others = [numbers for numbers in inputs if len(numbers) == count]
        for numbers in others:
            self._unite(whole, numbers)
        for numbers in inputs:
            if len(numbers) != count:
                self._hold(numbers)
        return whole

    def _reshaped(self, step: Any, inputs: Numbers, shape: tuple[int, ...]) -> Numbers:
        if shape[-1] == len(inputs):
            return inputs
        if len(shape) > 2:
            _refuse(step.operation, "moves channels among the other axes")
        return np.tile(inputs, shape[-1] // len(inputs))

    # Union-find ---------------------------------------------------------------------------------

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def _unite(self, first: Numbers, second: Numbers) -> None:
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self._root(one), self._root(other)))
            self._parents[high] = low  # the lower number, so that _HELD stays a root

    def _hold(self, numbers: Numbers) -> Numbers:
        self._unite(numbers, np.full_like(numbers, _HELD))
        return numbers

    # Removable filters, and the smaller network -------------------------------------------------

    def families(self) -> list[Family]:
        """Return the removable roots, grouped by the layers that make them.

        Without residual connections, a family is the filters of one layer.
        """
        makers: dict[int, set[str]] = {}
        for number, root in enumerate(self.roots.tolist()):
            makers.setdefault(root, set()).add(self._makers[number])
        families: dict[frozenset[str], list[int]] = {}
        for root, names in makers.items():
            if root != _HELD:
                families.setdefault(frozenset(names), []).append(root)
        return [Family(makers, np.array(roots)) for makers, roots in families.items()]

    def mask(self, kept_roots: Numbers) -> np.ndarray:
        """Return a mask of the channels with these roots and the channels that are always kept."""
        kept = np.zeros(len(self.roots), bool)
        kept[_HELD] = True
        kept[kept_roots] = True
        return kept[self.roots]

    def multiply_adds(self, kept: np.ndarray) -> int:
        """Return the multiply-adds with only the `kept` channels, as in `keras_resnet.profile`."""
        total = 0
        for step in self.graph.steps:
            if not is_weighted(step.operation):
                continue
            whole = layer_multiply_adds(step.operation, self.graph.tensors[step.outputs[0]].shape)
            inputs, outputs = kept[self.of[step.inputs[0]]], kept[self.of[step.outputs[0]]]
            if getattr(step.operation, "groups", 1) > 1 or _is_depthwise(step.operation):
                total += whole * int(outputs.sum()) // outputs.size
            else:
                left = int(inputs.sum()) * int(outputs.sum())
                total += whole * left // (inputs.size * outputs.size)
        return total

    def without(self, kept: np.ndarray) -> keras.Model:
        """Return the network with only the `kept` channels and their weights, in stock layers."""
        steps = {step.operation.name: step for step in self.graph.steps}

        def rebuild(layer: Any) -> Any:
            changes = self._changes(steps[layer.name], kept)
            return type(layer).from_config({**layer.get_config(), **changes})

        smaller = keras.models.clone_model(self.model, clone_function=rebuild)
        for layer in self.model.layers:
            if layer.weights:
                weights = self._weights(steps[layer.name], kept)
                smaller.get_layer(layer.name).set_weights(weights)
        return smaller

    def _changes(self, step: Any, kept: np.ndarray) -> dict[str, Any]:
        """Return the changes to a layer's config for the new number of channels."""
        layer, mask = step.operation, kept[self.of[step.outputs[0]]]
        count = int(mask.sum())
        if isinstance(layer, layers.Conv2D):
            groups = count * layer.groups // layer.filters  # always a whole number
            return {"filters": count, "groups": groups if layer.groups > 1 else 1}
        if isinstance(layer, layers.Dense):
            return {"units": count}
        if isinstance(layer, layers.Reshape):
            return {"target_shape": (*self.graph.tensors[step.outputs[0]].shape[1:-1], count)}
        if isinstance(layer, layers.ZeroPadding2D) and layer.data_format == "channels_first":
            before, after = layer.padding[1]
            pads = (int(mask[:before].sum()), int(mask[mask.size - after :].sum()))
            return {"padding": (layer.padding[0], pads)}
        return {}

    def _weights(self, step: Any, kept: np.ndarray) -> list[np.ndarray]:
        """Return a layer's weights for the kept channels.

        Weights are cut on the last axis; kernels also on the axis before it.
        """
        layer, weights = step.operation, step.operation.get_weights()
        inputs, outputs = kept[self.of[step.inputs[0]]], kept[self.of[step.outputs[0]]]
        if _is_depthwise(layer):  # kernel: (height, width, channels, multiplier)
            return [weights[0][:, :, inputs], *(bias[outputs] for bias in weights[1:])]
        if is_weighted(layer) and getattr(layer, "groups", 1) == 1:
            weights[0] = weights[0][..., inputs, :]
        return [w[..., outputs] if w.shape[-1:] == outputs.shape else w for w in weights]


def filter_scores(layer: Any) -> np.ndarray | None:
    """Return the mean |w| of each filter of a convolution or Dense layer, by output channel."""
    if not is_weighted(layer):
        return None
    kernel = np.abs(layer.get_weights()[0])
    if _is_depthwise(layer):
        kernel = kernel.reshape(-1, math.prod(kernel.shape[2:]))
    scores: np.ndarray = kernel.reshape(-1, kernel.shape[-1]).mean(axis=0)
    return scores


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, layers.DepthwiseConv2D)


def _mixes(layer: Any) -> bool:
    """Return True if the layer's result depends on the number or the identity of its channels."""
    if isinstance(layer, layers.Rescaling):
        return np.ndim(layer.scale) > 0 or np.ndim(layer.offset) > 0
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    mixing = (layers.Softmax, layers.Normalization)
    return isinstance(layer, mixing) or activation in _MIXING_ACTIVATIONS


def _refuse(layer: Any, why: str) -> NoReturn:
    raise UserError(
        f"The filters of this network cannot be pruned: {type(layer).__name__} '{layer.name}' "
        f"{why}. Replace this layer, or use another network."
    )

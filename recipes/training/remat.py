"""Gradient rematerialisation: keep few activations for the backward pass, compute the others again.

Chen et al., 2016 (arXiv:1604.06174), section 3: the network is cut into segments. Only the inputs
of the segments are kept. The backward pass computes a segment's activations again when it needs
them, so a step takes about one more forward pass. In a residual network a segment is about one
unit.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_resnet import keras_compat
from keras_resnet.errors import ZooWarning, warn

# Shorter segments are joined: the inputs of all segments stay in memory.
_LEAST_LAYERS = 8


class Rematerialised:
    """A functional model for training that keeps only the inputs of its segments.

    A segment with random layers (dropout, stochastic depth) is not computed again, since it would
    draw other numbers; its activations are kept. After an output in the middle of the network
    (auxiliary classifiers, features for distillation) there is only one segment.

    Args:
        model: a functional model with one input; its variables are shared.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        ends = [model.inputs[0], *_cuts(model), model.output]
        self.segments = [keras.Model(*pair) for pair in itertools.pairwise(ends)]
        if sum(not _is_random(segment) for segment in self.segments) < len(self.segments) / 2 + 1:
            warn(
                f"train.remat saves little memory with '{model.name}': only segments between two "
                "additions and without dropout or stochastic depth are computed again. To save "
                "memory, use --set train.accumulate=2",
                ZooWarning,
            )

    def __call__(self, images: Any, *, training: bool) -> Any:
        """Return the outputs of the model, in its own structure."""
        x = tf.cast(images, self.model.inputs[0].dtype)
        for segment in self.segments:
            run = _segment_call(segment, training)
            x = run(x) if _is_random(segment) else tf.recompute_grad(run)(x)
        return x


def _cuts(model: keras.Model) -> Iterator[Any]:
    """Yield the tensors that are the only connection between what is before and after them."""
    calls = list(keras_compat.calls_in(model))
    outputs = {id(tensor) for tensor in keras.tree.flatten(model.output)}
    uses = Counter(id(tensor) for call in calls for tensor in call.inputs) + Counter(outputs)
    several = Counter(id(call.operation) for call in calls)  # above 1: it has no one output
    waiting: dict[int, int] = {}  # the tensors that later calls read, with the number of readings
    layers = 0
    for call in calls:
        waiting |= {id(tensor): uses[id(tensor)] for tensor in call.outputs}
        for tensor in call.inputs:
            waiting[id(tensor)] -= 1
        waiting = {tensor: number for tensor, number in waiting.items() if number}
        layers += 1
        cut = next((tensor for tensor in call.outputs if id(tensor) in waiting), None)
        is_alone = len(waiting) == 1 and not outputs & waiting.keys()
        if cut is None or not is_alone or several[id(call.operation)] > 1:
            continue
        if layers >= _LEAST_LAYERS:
            yield cut
            layers = 0


def _is_random(layer: keras.Layer) -> bool:
    """Return True for a layer or model with random numbers: their state is no weight."""
    return len(layer.non_trainable_variables) > len(layer.non_trainable_weights)


def _segment_call(segment: keras.Model, training: bool) -> Callable[[Any], Any]:
    """Return a function that runs `segment`. Only its first call updates the BN statistics."""
    norms = (
        layer
        for layer in keras_compat.all_layers(segment)
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    statistics = [weight for norm in norms for weight in norm.non_trainable_weights]
    calls = itertools.count()

    def run(x: Any) -> Any:
        if not next(calls):
            return segment(x, training=training)
        kept = [tf.identity(tf.convert_to_tensor(variable)) for variable in statistics]
        outputs = segment(x, training=training)
        for variable, value in zip(statistics, kept, strict=True):
            variable.assign(value)
        return outputs

    return run

"""Gradient rematerialisation: keep few activations for the backward pass, compute the others again.

Chen et al., 2016 (arXiv:1604.06174), section 3: the network is cut into segments. Only the inputs
of the segments are kept. The backward pass computes a segment's activations again when it needs
them, so a step takes about one more forward pass. In a residual network a segment is about one
unit.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import tensorflow as tf

from keras_resnet import keras_compat

# Shorter segments are joined: the inputs of all segments stay in memory.
_LEAST_LAYERS = 8


class Rematerialised:
    """A functional model for training that keeps only the inputs of its segments.

    A segment with random layers (dropout) is not computed again, since it would draw other numbers;
    its activations are kept.

    Args:
        model: a functional model with one input; its variables are shared.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        ends = [model.input, *_cuts(model), model.output]
        self.segments = [keras.Model(*pair) for pair in itertools.pairwise(ends)]

    def __call__(self, images: Any, *, training: bool) -> Any:
        """Return the outputs of the model, in its own structure."""
        x = tf.cast(images, self.model.input.dtype)
        for segment in self.segments:
            run = _segment_call(segment, training)
            x = run(x) if any(map(_is_random, segment.layers)) else tf.recompute_grad(run)(x)
        return x


def _cuts(model: keras.Model) -> Iterator[Any]:
    """Yield the tensors that are the only connection between what is before and after them."""
    calls = list(keras_compat.calls_in(model))
    outputs = {id(tensor) for tensor in keras.tree.flatten(model.output)}
    uses = Counter(id(tensor) for call in calls for tensor in call.inputs) + Counter(outputs)
    waiting: dict[int, int] = {}  # the tensors that later calls read, with the number of readings
    layers = 0
    for call in calls:
        waiting |= {id(tensor): uses[id(tensor)] for tensor in call.outputs}
        for tensor in call.inputs:
            waiting[id(tensor)] -= 1
        waiting = {tensor: number for tensor, number in waiting.items() if number}
        layers += 1
        if layers >= _LEAST_LAYERS and len(waiting) == 1 and not outputs & waiting.keys():
            yield call.outputs[0]
            layers = 0


def _is_random(layer: keras.Layer) -> bool:
    """Return True for a layer with a generator of random numbers, whose state is no weight."""
    return len(layer.non_trainable_variables) > len(layer.non_trainable_weights)


def _segment_call(segment: keras.Model, training: bool) -> Callable[[Any], Any]:
    """Return a function that runs `segment`. Only its first call updates the BN statistics."""
    calls = itertools.count()

    def run(x: Any) -> Any:
        with _kept_statistics(segment.layers) if next(calls) else nullcontext():
            return segment(x, training=training)

    return run


@contextmanager
def _kept_statistics(layers: Sequence[keras.Layer]) -> Iterator[None]:
    """Train in the body without new BN statistics: a momentum of 1 keeps the old ones."""
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 1.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

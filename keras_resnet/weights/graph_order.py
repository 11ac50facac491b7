"""Weights of networks whose layers have no names to speak of: paired along the graph."""

from __future__ import annotations

import keras
import numpy as np

from keras_resnet.errors import UserError


def copy_in_graph_order(source: keras.Model, target: keras.Model) -> None:
    """Copy the weights of `source` into `target`, a network of the same graph, in place.

    The n-th layer with weights of one is the n-th of the other, counted depth first from the
    outputs, inputs in their order. Where `source` has BN without gamma, `target`'s is 1.

    Raises:
        UserError: the networks do not correspond; the message names the first layer.
    """
    theirs, ours = ([x for x in layers_in_order(m) if x.weights] for m in (source, target))
    for layer, other in zip(ours, theirs, strict=False):
        values = other.get_weights()
        if isinstance(other, keras.layers.BatchNormalization) and not other.scale:
            values.insert(0, np.ones_like(values[0]))
        if [v.shape for v in values] != [tuple(w.shape) for w in layer.weights]:
            raise UserError(f"The weights of '{other.name}' do not fit '{layer.name}'.")
        layer.set_weights(values)
    if len(ours) != len(theirs):
        raise UserError(
            f"'{source.name}' has {len(theirs)} layers with weights, '{target.name}' {len(ours)}."
        )


def layers_in_order(model: keras.Model) -> list[keras.Layer]:
    """Every layer after those it depends on, depth first from the outputs.

    `model.layers` sorts by the distance to the output, which a padding layer more changes.
    """
    order: list[keras.Layer] = []
    seen: set[int] = set()
    # No recursion: Inception-ResNet v2 is hundreds of layers deep.
    stack = [(tensor._keras_history.operation, False) for tensor in reversed(model.outputs)]
    while stack:
        layer, inputs_done = stack.pop()
        if inputs_done:
            order.append(layer)
        elif id(layer) not in seen:
            seen.add(id(layer))
            stack.append((layer, True))
            inputs = keras.tree.flatten(layer.input)
            stack += [(tensor._keras_history.operation, False) for tensor in reversed(inputs)]
    return order

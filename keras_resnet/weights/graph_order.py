"""The order of layers that have no names to speak of: along the graph."""

from __future__ import annotations

import keras


def weighted_in_graph_order(model: keras.Model) -> list[keras.Layer]:
    """Layers with weights, depth first from the outputs, each after those it depends on.

    Two models of one graph have them in the same order, in whichever they were built. (No
    recursion: 780 layers deep.)
    """
    order: list[keras.Layer] = []
    seen: set[int] = set()
    stack = [(tensor._keras_history.operation, False) for tensor in reversed(model.outputs)]
    while stack:
        layer, inputs_done = stack.pop()
        if inputs_done:
            order += [layer] if layer.weights else []
        elif id(layer) not in seen:
            seen.add(id(layer))
            stack.append((layer, True))
            inputs = keras.tree.flatten(layer.input)
            stack += [(tensor._keras_history.operation, False) for tensor in reversed(inputs)]
    return order

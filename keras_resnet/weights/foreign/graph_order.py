"""The order of layers along the graph, for layers without useful names."""

from __future__ import annotations

import keras

from keras_resnet import keras_compat


def layers_in_order(model: keras.Model) -> list[keras.Layer]:
    """Return every layer after those it depends on, depth first from the outputs.

    `model.layers` sorts by the distance to the output, which changes with one more padding layer.
    """
    order: list[keras.Layer] = []
    seen: set[int] = set()
    # Not recursive: Inception-ResNet v2 is hundreds of layers deep.
    stack = [(keras_compat.producer(tensor), False) for tensor in reversed(model.outputs)]
    while stack:
        layer, inputs_done = stack.pop()
        if inputs_done:
            order.append(layer)
        elif id(layer) not in seen:
            seen.add(id(layer))
            stack.append((layer, True))
            inputs = keras.tree.flatten(layer.input)
            stack += [(keras_compat.producer(tensor), False) for tensor in reversed(inputs)]
    return order

"""Weights of PyTorch's networks (torchvision, timm, public CIFAR weights) in our layer names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_resnet import keras_compat
from keras_resnet.errors import UserError
from keras_resnet.weights.foreign.torch_names import FAMILIES, rename

# Our variables under PyTorch's names.
_ENTRIES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def from_torch(state_dict: Mapping[str, Any], target: keras.Model) -> None:
    """Copy the state dict of a PyTorch network into our network of the same form, in place.

    Which library and family it is follows from the names. Nothing is copied unless every entry
    has a place and every weight of `target` an entry.

    Args:
        state_dict: arrays or CPU tensors by name, e.g. of torchvision's `resnet50` (for
            `resnet50v1_5`) or of `read_state_dict`. A `module.` prefix and `num_batches_tracked`
            are ignored.
        target: ours, with the top and as many classes; build it so, and take what you need.

    Raises:
        UserError: the networks do not correspond; the message names the first entry or layer.
    """
    entries = weights_of(state_dict)
    places = {
        f"{layer.name}.{_ENTRIES[variable.name]}": (layer, variable)
        for layer in target.layers
        for variable in layer.weights
    }
    family = max(FAMILIES, key=lambda f: sum(rename(n, FAMILIES[f]) in places for n in entries))
    advice = f"The names were read as: {family}. Is '{target.name}' that network, with the top?"
    fitted = []
    for name, value in entries.items():
        place = rename(name, FAMILIES[family])
        if place not in places:
            would_be = f" (it would be '{place}')" if place else ""
            raise UserError(f"'{target.name}' has no place for '{name}'{would_be}. {advice}")
        layer, variable = places.pop(place)
        array = _arrange(np.asarray(value), layer)
        if array.shape != tuple(variable.shape):
            raise UserError(
                f"'{name}' is {np.shape(value)} and does not fit {variable.name} of "
                f"'{layer.name}', {tuple(variable.shape)}. {advice}"
            )
        fitted.append((variable, array))
    if places:
        layer, variable = next(iter(places.values()))
        raise UserError(
            f"The state dict has nothing for {variable.name} of '{layer.name}', "
            f"{tuple(variable.shape)}. {advice}"
        )
    for variable, array in fitted:
        variable.assign(array)


def weights_of(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are weights, without the `module.` of a wrapped network."""
    return {
        name.removeprefix("module."): value
        for name, value in state_dict.items()
        if not name.endswith("num_batches_tracked")
    }


def _arrange(value: np.ndarray, layer: keras.Layer) -> np.ndarray:
    """Put the axes of a kernel in Keras' order; vectors stay as they are."""
    if isinstance(layer, keras.layers.Dense) and value.ndim > 1:
        if value.shape[2:] == (1, 1):  # timm's pre-activation classifier is a 1×1 convolution
            value = value[:, :, 0, 0]
        if flattened := _flattened_shape(layer):
            # PyTorch flattens (channels, height, width), Keras (height, width, channels).
            height, width, channels = flattened
            value = value.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        return value.reshape(value.shape[0], -1).T
    if value.ndim == 4:  # (out, in, height, width) → (height, width, in, out)
        return value.transpose(2, 3, 1, 0)
    return value


def _flattened_shape(layer: keras.Layer) -> tuple[int, int, int] | None:
    """Shape of the features that `layer` takes flattened, or None."""
    before = keras_compat.producer(layer.input)
    while isinstance(before, (keras.layers.Dropout, keras.layers.Activation)):
        before = keras_compat.producer(before.input)
    return before.input.shape[1:] if isinstance(before, keras.layers.Flatten) else None

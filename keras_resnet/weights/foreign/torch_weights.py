"""Translate weights of PyTorch networks (torchvision, timm, public CIFAR weights) to our layers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np

from keras_resnet import keras_compat
from keras_resnet.errors import UserError
from keras_resnet.weights.fitting import HEADS, Arrays, fit
from keras_resnet.weights.foreign.torch_names import FAMILIES, family_of, rename

# Our variables under PyTorch's names.
_ENTRIES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# DataParallel, torch.compile, and attributes in which a custom class keeps the network.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.", "encoder.")


def from_torch(state_dict: Mapping[str, Any], model: keras.Model) -> None:
    """Copy the state dict of a PyTorch network into our network of the same form, in place.

    Args:
        state_dict: arrays or tensors by name, as for `torch_arrays`.
        model: our network. See `fitting.fit` for the differences allowed.

    Raises:
        UserError: the networks do not correspond. Nothing was copied.
    """
    fit(torch_arrays(state_dict, model), model, "the entries of the state dict")


def torch_arrays(
    state_dict: Mapping[str, Any], model: keras.Model, before: Collection[str] = ()
) -> Arrays:
    """Convert the arrays of a PyTorch state dict to the names, axes and order of our layers.

    The names show the library and the family. The network is needed for the axes, because PyTorch
    flattens a map in another order. Classifiers that it does not have are left out.

    Args:
        state_dict: arrays or CPU tensors by name, e.g. from torchvision's `resnet50` (for
            `resnet50v1_5`) or from `read_state_dict`. Prefixes of wrappers (`module.`, `model.`, …)
            and `num_batches_tracked` are ignored.
        model: our network. It may have no top, other classes or other channels.
        before: names of layers that come before the network.

    Raises:
        UserError: an entry has no place in our network, or one of our layers has no entry.
    """
    layers = {layer.name: layer for layer in model.layers if layer.name not in before}
    entries = weights_of(state_dict)
    family = family_of(entries)
    advice = f"The names were read as: {family}. Check that '{model.name}' is that network."
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, value in entries.items():
        ours, _, kind = (rename(name, FAMILIES[family]) or "").rpartition(".")
        if ours in layers and kind in _kinds(layers[ours]):
            found.setdefault(ours, {})[kind] = _arrange(np.asarray(value), layers[ours])
        elif ours in layers or not ours.startswith(HEADS):
            would_be = f" (it would be '{ours}.{kind}')" if ours else ""
            raise UserError(f"'{model.name}' has no place for '{name}'{would_be}. {advice}")
    for layer, values in found.items():
        if missing := [kind for kind in _kinds(layers[layer]) if kind not in values]:
            raise UserError(f"There is no '{missing[0]}' for '{layer}'. {advice}")
    return {name: [found[name][k] for k in _kinds(layers[name])] for name in found}


def _kinds(layer: keras.Layer) -> list[str]:
    """Return PyTorch's names for a layer's variables, in Keras' order."""
    return [_ENTRIES[variable.name] for variable in layer.weights]


def weights_of(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are weights, without the prefixes of wrappers."""
    entries = {k: v for k, v in state_dict.items() if not k.endswith("num_batches_tracked")}
    while wrapper := _wrapper(entries):
        entries = {name.removeprefix(wrapper): value for name, value in entries.items()}
    return entries


def _wrapper(names: Collection[str]) -> str:
    """Return the prefix in _WRAPPERS that all names have, or "" if there is none."""
    common = (w for w in _WRAPPERS if names and all(name.startswith(w) for name in names))
    return next(common, "")


def _arrange(value: np.ndarray, layer: keras.Layer) -> np.ndarray:
    """Put the axes of a kernel in Keras' order. Vectors stay as they are."""
    if isinstance(layer, keras.layers.Dense) and value.ndim > 1:
        if value.shape[2:] == (1, 1):  # timm's pre-activation classifier is a 1×1 convolution
            value = value[:, :, 0, 0]
        flattened = _flattened_shape(layer)
        # For another image size it does not fit; `fit` will report that.
        if flattened and math.prod(flattened) == value.shape[1]:
            # PyTorch flattens (channels, height, width), Keras (height, width, channels).
            height, width, channels = flattened
            value = value.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        return value.reshape(value.shape[0], -1).T
    if value.ndim == 4:  # (out, in, height, width) → (height, width, in, out)
        return value.transpose(2, 3, 1, 0)
    return value


def _flattened_shape(layer: keras.Layer) -> tuple[int, int, int] | None:
    """Return the shape of the features that `layer` gets flattened, or None."""
    before = keras_compat.producer(layer.input)
    while isinstance(before, (keras.layers.Dropout, keras.layers.Activation)):
        before = keras_compat.producer(before.input)
    return before.input.shape[1:] if isinstance(before, keras.layers.Flatten) else None

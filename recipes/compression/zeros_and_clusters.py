"""Zeros and shared values in the kernels of convolutions and dense layers.

This module finds the traces of pruning and clustering in a model, and sets each layer's share of
zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import UnknownNameError, UserError

_SPARSE = 0.3  # a larger share of zeros than training alone leaves, including dead filters
_PRUNED = 0.005  # the same without dead filters: half the least sparsity that prune accepts
_SHARED = 4  # least number of weights per value in clustered kernels


def find(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the kernels for pruning and clustering, by layer: all but the first convolution's.

    The first convolution has a hundredth of the weights and reads the image itself. Depthwise
    kernels are not included either; they have only a few weights per channel.
    """
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    layers = [layer for layer in model.layers if isinstance(layer, kinds)]
    return {layer.name: layer.get_weights()[0] for layer in layers[1:]}


def report(model: keras.Model) -> dict[str, Any]:
    """Return the share of zeros in all kernels, and the most distinct values in a channel."""
    found = find(model)
    return {"zeros": round(zeros(found), 4), "distinct_values": most_values(found)}


def zeros(found: Mapping[str, np.ndarray]) -> float:
    """Return the share of weights that are exactly 0; 0 without weights."""
    size = sum(kernel.size for kernel in found.values())
    return float(sum((kernel == 0).sum() for kernel in found.values()) / max(size, 1))


def most_values(found: Mapping[str, np.ndarray]) -> int:
    """Return the largest number of distinct values in an output channel of any kernel."""
    return max(
        len(np.unique(channel))
        for kernel in found.values()
        for channel in kernel.reshape(-1, kernel.shape[-1]).T
    )


def _is_pruned(found: Mapping[str, np.ndarray]) -> bool:
    """Return True if the weights were pruned.

    Training alone leaves zeros only in dead filters: weight decay takes their whole kernels to 0,
    and the weights that read them. Zeros among other weights come from pruning, even if they are
    few.
    """
    scattered = sum(_scattered_zeros(kernel) for kernel in found.values())
    size = sum(kernel.size for kernel in found.values())
    return scattered > _PRUNED * size or zeros(found) >= _SPARSE


def _scattered_zeros(kernel: np.ndarray) -> int:
    """Count the zeros whose input channel and output channel also have other weights."""
    weights = kernel.reshape(-1, *kernel.shape[-2:]) != 0
    alive = weights.any(axis=(0, 2), keepdims=True) & weights.any(axis=(0, 1), keepdims=True)
    return int((alive & ~weights).sum())


def _is_clustered(found: Mapping[str, np.ndarray]) -> bool:
    """Return True if weights other than zeros share their values."""
    weights = [kernel[kernel != 0] for kernel in found.values()]
    return 0 < _SHARED * sum(len(np.unique(w)) for w in weights) <= sum(w.size for w in weights)


# The zeros and clusters to keep during further training -------------------------------------------

PRESERVED = {"none": (False, False), "sparsity": (True, False), "clusters": (False, True)}
PRESERVED |= {"both": (True, True)}


def preserved(model: keras.Model, choice: str) -> tuple[bool, bool]:
    """Return (keep zeros, keep clusters) for `model`.

    Args:
        model: the start network.
        choice: a key of PRESERVED, or "auto" to keep the zeros and clusters that exist.

    Raises:
        UserError: an unknown choice, or the network has no such zeros or clusters.
    """
    found = find(model)
    is_sparse, is_clustered = _is_pruned(found), _is_clustered(found)
    if choice == "auto":
        return is_sparse, is_clustered
    if choice not in PRESERVED:
        raise UnknownNameError("compress.preserve", choice, ("auto", *PRESERVED), "")
    if PRESERVED[choice][0] and not zeros(found):
        raise UserError(
            f"compress.preserve = '{choice}', but no weight in the kernels of '{model.name}' is "
            "zero. Prune it first: keras-resnet prune MODEL"
        )
    if PRESERVED[choice][1] and not is_clustered:
        raise UserError(
            f"compress.preserve = '{choice}', but the weights of '{model.name}' are not clustered "
            f"(a channel has up to {most_values(found)} values). Cluster it first: keras-resnet "
            "cluster MODEL"
        )
    return PRESERVED[choice]


# The share of zeros of each layer ----------------------------------------------------------------


def _uniform(found: Mapping[str, np.ndarray], share: float) -> dict[str, float]:
    """Return the same share for all layers."""
    return dict.fromkeys(found, share)


def _lamp(found: Mapping[str, np.ndarray], share: float) -> dict[str, float]:
    """Return LAMP's shares (arXiv:2010.07611).

    A weight's score is w², divided by the sum of all w² of its layer that are not smaller. One
    threshold on these scores gives the zeros of all layers.
    """
    scores = {}
    for name, kernel in found.items():
        squares = np.sort(np.square(kernel, dtype="float64"), axis=None)
        left = np.cumsum(squares[::-1])[::-1]
        scores[name] = np.divide(squares, left, out=np.zeros_like(left), where=left > 0)
    ranked = np.sort(np.concatenate(list(scores.values())))
    threshold = ranked[round(share * len(ranked))]
    return {name: float((layer < threshold).mean()) for name, layer in scores.items()}


ALLOCATIONS: dict[str, Callable[[Mapping[str, np.ndarray], float], dict[str, float]]] = {
    "lamp": _lamp,
    "uniform": _uniform,
}


def shares(found: Mapping[str, np.ndarray], share: float, allocation: str) -> dict[str, float]:
    """Return the share of zeros of each kernel, so that `share` of all weights become zero.

    Raises:
        UnknownNameError: an unknown allocation.
    """
    if allocation not in ALLOCATIONS:
        raise UnknownNameError("compress.allocation", allocation, ALLOCATIONS, "")
    return ALLOCATIONS[allocation](found, share)

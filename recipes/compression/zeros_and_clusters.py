"""Zeros and distinct values in the kernels of convolutions and dense layers: what pruning and
clustering make, what is found in a model, and which share of zeros each layer can bear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import UnknownNameError, UserError

_SPARSE = 0.3  # more zeros than any training leaves behind, dead filters among them
_PRUNED = 0.005  # the same without those: half of the least sparsity that prune takes
_SHARED = 4  # weights to a value, at least, where there are clusters


def find(model: keras.Model) -> dict[str, np.ndarray]:
    """The kernels that are pruned and clustered, by layer: all but the first convolution's.

    It has a hundredth of the weights and reads the image itself; depthwise kernels, a few weights
    for each channel, are no kernels of this kind.
    """
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    layers = [layer for layer in model.layers if isinstance(layer, kinds)]
    return {layer.name: layer.get_weights()[0] for layer in layers[1:]}


def report(model: keras.Model) -> dict[str, Any]:
    """The share of zeros in all kernels, and the most distinct values that a channel has."""
    found = find(model)
    return {"zeros": round(zeros(found), 4), "distinct_values": most_values(found)}


def zeros(found: Mapping[str, np.ndarray]) -> float:
    """The share of weights that are exactly 0; of no weights, 0."""
    size = sum(kernel.size for kernel in found.values())
    return float(sum((kernel == 0).sum() for kernel in found.values()) / max(size, 1))


def most_values(found: Mapping[str, np.ndarray]) -> int:
    """The most distinct values in one output channel of any kernel."""
    return max(
        len(np.unique(channel))
        for kernel in found.values()
        for channel in kernel.reshape(-1, kernel.shape[-1]).T
    )


def _is_pruned(found: Mapping[str, np.ndarray]) -> bool:
    """Whether weights were made zeros.

    Training leaves none but those of filters that died, whose kernels weight decay takes to 0 as a
    whole, with what reads them; zeros among other weights are pruning's, even where they are few.
    """
    scattered = sum(_scattered_zeros(kernel) for kernel in found.values())
    size = sum(kernel.size for kernel in found.values())
    return scattered > _PRUNED * size or zeros(found) >= _SPARSE


def _scattered_zeros(kernel: np.ndarray) -> int:
    """How many zeros are in an input and an output channel that have other weights."""
    weights = kernel.reshape(-1, *kernel.shape[-2:]) != 0
    alive = weights.any(axis=(0, 2), keepdims=True) & weights.any(axis=(0, 1), keepdims=True)
    return int((alive & ~weights).sum())


def _is_clustered(found: Mapping[str, np.ndarray]) -> bool:
    """Whether weights share their values, zeros apart."""
    weights = [kernel[kernel != 0] for kernel in found.values()]
    return 0 < _SHARED * sum(len(np.unique(w)) for w in weights) <= sum(w.size for w in weights)


# What is kept while a network is trained on -------------------------------------------------------

PRESERVED = {"none": (False, False), "sparsity": (True, False), "clusters": (False, True)}
PRESERVED |= {"both": (True, True)}


def preserved(model: keras.Model, choice: str) -> tuple[bool, bool]:
    """Whether the zeros and whether the clusters of `model` are to be kept.

    Args:
        model: what training starts from.
        choice: a key of PRESERVED, or "auto": what is there is kept.

    Raises:
        UserError: an unknown choice, or one for what is not there.
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
            f"compress.preserve = '{choice}', but the weights of '{model.name}' share no values "
            f"(up to {most_values(found)} in a channel). Cluster it first: keras-resnet cluster "
            "MODEL"
        )
    return PRESERVED[choice]


# How many zeros each layer gets ------------------------------------------------------------------


def _uniform(found: Mapping[str, np.ndarray], share: float) -> dict[str, float]:
    """The same share in all."""
    return dict.fromkeys(found, share)


def _lamp(found: Mapping[str, np.ndarray], share: float) -> dict[str, float]:
    """By one threshold on w² over the sum of all w² of its layer not smaller (arXiv:2010.07611)."""
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
    """The share of zeros of each kernel, for `share` of all of them.

    Raises:
        UnknownNameError: no such allocation.
    """
    if allocation not in ALLOCATIONS:
        raise UnknownNameError("compress.allocation", allocation, ALLOCATIONS, "")
    return ALLOCATIONS[allocation](found, share)

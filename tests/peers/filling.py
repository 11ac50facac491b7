"""Weights and images that both sides of the parity proof make from names alone (numpy only).

Uniform numbers, because they are the same to the bit on every machine; normal ones use libm.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np


def fill(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """The values of the parameter or buffer `name` of a PyTorch state dict, float32.

    Kernels have variance `gain / fan_in`. BN statistics are none of a new network's: scale and
    variance in 0.5...1.5, offset and mean around 0.
    """
    low, high = (0.5, 1.5)
    if len(shape) > 1:
        high = math.sqrt(3 * gain / math.prod(shape[1:]))
        low = -high
    elif name.endswith(("bias", "running_mean")):
        low, high = (-0.3, 0.3)
    unit = _generator(name).random(shape, np.float32)
    return np.float32(low) + unit * np.float32(high - low)


def state(shapes: Mapping[str, tuple[int, ...]], gain: float) -> dict[str, np.ndarray]:
    """Every entry of a state dict."""
    return {name: fill(name, tuple(shape), gain) for name, shape in shapes.items()}


def images(size: int) -> np.ndarray:
    """Two images, (2, size, size, 3), patches under noise (noise alone averages out)."""
    generator = _generator(f"images{size}")
    patch = np.arange(size) * 4 // size
    patches = generator.random((2, 4, 4, 3), np.float32)[:, patch][:, :, patch] * 3
    return patches + generator.random((2, size, size, 3), np.float32) - 2


def sample(maps: np.ndarray) -> np.ndarray:
    """Some 64 numbers of feature maps (batch, height, width, channels), all over them.

    An odd step, so that no channel is seen more than others: their number is a power of 2.
    """
    return maps.ravel()[:: maps.size // 64 | 1].astype("float32")


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))

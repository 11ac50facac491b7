"""Random variations of a whole batch at once, each a pure function of a stateless seed.

A batch is a function of (seed, step), so a resumed run sees the very images the uninterrupted run
would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_resnet.errors import UnknownNameError
from keras_resnet.recipes.config import AugmentConfig

Augment = Callable[[Any, Any], Any]

FLIPS = ("none", "random", "alternating")


def _pad_and_crop(images: Any, seed: Any, *, mode: str, pad: int) -> Any:
    """Cut each image out of its padded self at a random offset."""
    batch, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    seeds = tf.random.split(seed, 2)
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]], mode=mode)

    def offsets(key: Any, length: int) -> Any:
        first = tf.random.stateless_uniform([batch, 1], key, 0, 2 * pad + 1, dtype=tf.int32)
        return first + tf.range(length)

    cropped = tf.gather(padded, offsets(seeds[0], height), axis=1, batch_dims=1)
    cropped = tf.gather(cropped, offsets(seeds[1], width), axis=2, batch_dims=1)
    return tf.ensure_shape(cropped, images.shape)


def pad_crop(images: Any, seed: Any) -> Any:
    """Pad 4 zeros, random crop (He 2015, section 4.2). uint8 in, uint8 out."""
    return _pad_and_crop(images, seed, mode="CONSTANT", pad=4)


def reflect_crop(images: Any, seed: Any) -> Any:
    """Pad 4 mirrored pixels, random crop."""
    return _pad_and_crop(images, seed, mode="REFLECT", pad=4)


def shift(images: Any, seed: Any) -> Any:
    """Shift by up to an eighth of the width, edges mirrored: for digits and letters."""
    return _pad_and_crop(images, seed, mode="SYMMETRIC", pad=images.shape[2] // 8)


def none(images: Any, seed: Any) -> Any:
    """The images as they are."""
    return images


CROPS: dict[str, Augment] = {
    "pad": pad_crop,
    "reflect": reflect_crop,
    "shift": shift,
    "none": none,
}


def flip(images: Any, mirrored: Any) -> Any:
    """Mirror the images for which `mirrored` (batch,) is true."""
    return tf.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def mirrored(kind: str, coins: Any, epoch: Any, key: Any) -> Any:
    """Which images are mirrored, bool (batch,).

    "random" tosses a coin for each; "alternating" keeps the coin each image was given at the start
    and turns it over every epoch, so that two epochs show both sides of every image
    (arXiv:2404.00498, section 3.6).

    Args:
        kind: one of FLIPS.
        coins: the coins of these images, bool (batch,).
        epoch: the pass over the split, int64.
        key: stateless seed of the batch.
    """
    if kind == "none":
        return tf.zeros_like(coins)
    if kind == "random":
        return tf.random.stateless_uniform(tf.shape(coins), key) < 0.5
    return coins ^ (epoch % 2 == 1)


def resize_at(step: Any, images: Any, sizes: Sequence[tuple[int, int]]) -> Any:
    """Resize a batch to the side of `step`; `sizes` are (first step, pixels a side) in order."""
    if not sizes:
        return images
    starts = tf.constant([start for start, _ in sizes], tf.int64)
    index = tf.reduce_sum(tf.cast(starts <= step, tf.int32)) - 1
    side = tf.constant([side for _, side in sizes])[index]
    return tf.cond(
        tf.reduce_all(tf.equal(tf.shape(images)[1:3], side)),
        lambda: images,
        lambda: tf.cast(
            tf.round(tf.image.resize(images, [side, side], antialias=True)), images.dtype
        ),
    )


def check(config: AugmentConfig) -> None:
    """Refuse unknown names.

    Raises:
        UnknownNameError: no such crop or flip.
    """
    for key, value, known in (("crop", config.crop, CROPS), ("flip", config.flip, FLIPS)):
        if value not in known:
            raise UnknownNameError(f"augment.{key}", value, known, "")

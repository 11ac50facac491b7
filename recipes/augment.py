"""Random variations of a whole batch at once, each a pure function of a stateless seed.

A batch is a function of (seed, step), so a resumed run sees the very images the uninterrupted run
would have seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_resnet.errors import UnknownNameError

Augment = Callable[[Any, Any], Any]


def _shift_and_flip(images: Any, seed: Any, *, mode: str, pad: int, flip: bool) -> Any:
    """Cut each image out of its padded self at a random offset; mirror half of them if `flip`."""
    batch, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    seeds = tf.random.split(seed, 3)
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]], mode=mode)

    def offsets(key: Any) -> Any:
        return tf.random.stateless_uniform([batch, 1], key, 0, 2 * pad + 1, dtype=tf.int32)

    rows = offsets(seeds[0]) + tf.range(height)
    columns = tf.tile(tf.range(width)[None], [batch, 1])
    if flip:
        mirrored = tf.random.stateless_uniform([batch, 1], seeds[2]) < 0.5
        columns = tf.where(mirrored, width - 1 - columns, columns)
    columns += offsets(seeds[1])
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    cropped = tf.gather(cropped, columns, axis=2, batch_dims=1)
    return tf.ensure_shape(cropped, images.shape)


def pad_crop_flip(images: Any, seed: Any) -> Any:
    """Pad 4 zeros, random crop, random flip (He 2015, section 4.2). uint8 in, uint8 out."""
    return _shift_and_flip(images, seed, mode="CONSTANT", pad=4, flip=True)


def shift(images: Any, seed: Any) -> Any:
    """Shift by up to an eighth of the width, edges mirrored, no flip: for digits and letters."""
    return _shift_and_flip(images, seed, mode="SYMMETRIC", pad=images.shape[2] // 8, flip=False)


def none(images: Any, seed: Any) -> Any:
    """The images as they are."""
    return images


AUGMENTATIONS: dict[str, Augment] = {"pad_crop_flip": pad_crop_flip, "shift": shift, "none": none}


def augmentation(name: str) -> Augment:
    """Look up an augmentation.

    Raises:
        UnknownNameError: no such augmentation.
    """
    if name not in AUGMENTATIONS:
        raise UnknownNameError("augmentation", name, AUGMENTATIONS, "")
    return AUGMENTATIONS[name]

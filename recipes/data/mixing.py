"""Targets, and mixup and CutMix, which mix every image of a batch and its target with the next."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def targets(labels: Any, classes: int) -> Any:
    """Return the targets float32 (batch, classes) of class numbers (batch,), or of targets."""
    return tf.cast(labels, tf.float32) if labels.shape.rank == 2 else tf.one_hot(labels, classes)


def mix(images: Any, targets: Any, seed: Any, mixup_alpha: float, cutmix_alpha: float) -> Any:
    """Apply `mixup` or `cutmix`, if its alpha is above 0. If both are, toss a coin for the batch.

    Args:
        images: uint8 (batch, height, width, channels).
        targets: float32 (batch, classes).
        seed: stateless seed of the batch.
        mixup_alpha: alpha of the distribution Beta(alpha, alpha); 0: never.
        cutmix_alpha: the same for CutMix.

    Returns:
        Images and targets with the same shapes and types.
    """
    coin_seed, seed = tf.unstack(tf.random.split(seed, 2))
    if not cutmix_alpha:
        return mixup(images, targets, seed, mixup_alpha)
    if not mixup_alpha:
        return cutmix(images, targets, seed, cutmix_alpha)
    return tf.cond(
        tf.random.stateless_uniform([], coin_seed) < 0.5,
        lambda: mixup(images, targets, seed, mixup_alpha),
        lambda: cutmix(images, targets, seed, cutmix_alpha),
    )


def mixup(images: Any, targets: Any, seed: Any, alpha: float) -> Any:
    """Average each image with the next (arXiv:1710.09412), with one weight for the batch."""
    kept = beta(seed, alpha)
    first, second = tf.cast(images, tf.float32), tf.cast(_next(images), tf.float32)
    mixed = tf.cast(second + kept * (first - second) + 0.5, images.dtype)
    return mixed, _mean(targets, kept)


def cutmix(images: Any, targets: Any, seed: Any, alpha: float) -> Any:
    """Replace a rectangle of each image by the next image's (arXiv:1905.04899).

    The whole batch has the same rectangle. The targets are weighted by the number of exchanged
    pixels, after the rectangle is clipped at the border.
    """
    seeds = tf.random.split(seed, 2)
    side = tf.sqrt(1.0 - beta(seeds[0], alpha))  # side of the rectangle / side of the image
    centre = tf.random.stateless_uniform([2], seeds[1])

    def span(middle: Any, length: Any) -> Any:
        pixel = (tf.range(tf.cast(length, tf.float32)) + 0.5) / tf.cast(length, tf.float32)
        return tf.abs(pixel - middle) < side / 2

    rows, columns = span(centre[0], tf.shape(images)[1]), span(centre[1], tf.shape(images)[2])
    exchanged = rows[:, None] & columns[None, :]
    kept = 1.0 - tf.reduce_mean(tf.cast(exchanged, tf.float32))
    return tf.where(exchanged[..., None], _next(images), images), _mean(targets, kept)


def beta(seed: Any, alpha: float) -> Any:
    """Draw a float32 number from Beta(alpha, alpha)."""
    # In float64, gammas of a small alpha seldom underflow. If both do, 0 is as good as 1.
    first, second = tf.unstack(tf.random.stateless_gamma([2], seed, alpha, dtype=tf.float64))
    return tf.cast(tf.math.divide_no_nan(first, first + second), tf.float32)


def _next(batch: Any) -> Any:
    """Return each image's partner: its neighbour, since the batch is already in random order."""
    return tf.roll(batch, -1, axis=0)


def _mean(targets: Any, kept: Any) -> Any:
    return kept * targets + (1.0 - kept) * _next(targets)

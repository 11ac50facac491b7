"""Losses on logits, and the loss scale that keeps gradients in float16's range."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def _cross_entropy(targets: Any, logits: Any) -> Any:
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def _binary_cross_entropy(targets: Any, logits: Any) -> Any:
    """Return the mean over classes of each class's own loss (arXiv:2110.00476, section 4.1)."""
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


LOSSES = {"cross_entropy": _cross_entropy, "binary_cross_entropy": _binary_cross_entropy}


class LossScale(tf.Module):
    """Dynamic loss scaling for float16: halve on overflow, double after `growth` good steps."""

    def __init__(self, initial: float = 2.0**15, growth: int = 2000) -> None:
        """Start at `initial`."""
        super().__init__()
        self.growth = growth
        self.scale = tf.Variable(initial, trainable=False, dtype=tf.float32)
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64)

    def update(self, finite: Any) -> None:
        """Update the scale after one step."""
        good = tf.where(finite, self.good_steps + 1, 0)
        grown = tf.where(good >= self.growth, self.scale * 2.0, self.scale)
        self.scale.assign(tf.where(finite, grown, tf.maximum(self.scale / 2.0, 1.0)))
        self.good_steps.assign(tf.where(good >= self.growth, tf.zeros_like(good), good))

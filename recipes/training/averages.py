"""Averaged weights."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class Averages(tf.Module):
    """An exponential moving average of all weights, including BN statistics, one per replica.

    The decay is min(decay, (1 + t) / (10 + t)). It starts low, so the first weights are forgotten.
    """

    def __init__(self, model: keras.Model, decay: float) -> None:
        """Start from the model's weights."""
        super().__init__()
        self.model, self.decay = model, decay
        self.shadows = [
            tf.Variable(
                tf.convert_to_tensor(weight),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN,
            )
            for weight in model.weights
        ]

    def update(self, step: Any) -> None:
        """Move the averages towards the weights after update `step`; call in replica context."""
        t = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(self.decay, (1.0 + t) / (10.0 + t))
        for shadow, weight in zip(self.shadows, self.model.weights, strict=True):
            value = tf.convert_to_tensor(weight)
            shadow.assign_sub(tf.cast(rate, value.dtype) * (shadow - value))

    def swap_in(self) -> None:
        """Put the averages into the model."""
        for weight, shadow in zip(self.model.weights, self.shadows, strict=True):
            weight.assign(shadow.numpy())

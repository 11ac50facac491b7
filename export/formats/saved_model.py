"""Keras model → SavedModel, with every variable written once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_resnet.export.runtimes.base import INPUT, OUTPUT


class _Serving(tf.Module):
    """The model behind one signature: float32 `images` (batch, h, w, c) → `predictions`.

    It holds the model's TensorFlow variables and nothing else of the model, for two reasons.
    `model.export` tracks each weight as a Keras and as a TensorFlow variable and writes it twice.
    The TFLite converter freezes only weights that it sees as a `tf.Variable`.
    """

    def __init__(self, model: keras.Model, batch: int | None) -> None:
        super().__init__()
        self.weights = [variable.value for variable in model.variables]
        spec = tf.TensorSpec([batch, *model.input_shape[1:]], tf.float32, name=INPUT)
        self.serve = tf.function(
            lambda images: {OUTPUT: model(images, training=False)}, input_signature=[spec]
        )


def write(model: keras.Model, path: Path, batch: int | None = None) -> None:
    """Write `model` (float32, stock layers) to the folder `path` with signature serving_default.

    `batch` fixes the batch size; None leaves it open.
    """
    module = _Serving(model, batch)
    save(module, path, {"serving_default": module.serve.get_concrete_function()})


def save(module: tf.Module, path: Path, signatures: dict[str, Any]) -> None:
    """Call `tf.saved_model.save` without its log lines on assets, which would show in notebooks."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        tf.saved_model.save(module, str(path), signatures=signatures)
    finally:
        logger.setLevel(level)

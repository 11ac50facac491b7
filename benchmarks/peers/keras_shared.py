"""The common parts of the two Keras peers, our loop and stock `fit`."""

from __future__ import annotations

import importlib.metadata
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from turns import WARM_UP, Turns

from keras_resnet import registry

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 1e-4


def network(options: dict[str, Any]) -> keras.Model:
    """Return the model from uint8 pixels to logits, under the precision's dtype policy."""
    keras.config.set_dtype_policy(options["precision"])
    size = options["image_size"]
    return registry.create_model(
        options["model"],
        input_shape=(size, size, 3),
        classifier_activation=None,
        include_preprocessing=True,
    )


def one_batch_repeated(options: dict[str, Any]) -> tf.data.Dataset:
    """Return endless batches of noise, so that steps are measured without the input pipeline."""
    rng = np.random.default_rng(0)
    size, batch = options["image_size"], options["batch_size"]
    images = rng.integers(0, 256, (batch, size, size, 3)).astype("uint8")
    labels = rng.integers(0, options["classes"], batch).astype("int32")
    return tf.data.Dataset.from_tensors((images, labels)).repeat()


def read_images(options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of an epoch, which `images.py` wrote."""
    size = options["image_size"]
    images = np.fromfile(f"{options['data']}/images.uint8", "uint8").reshape(-1, size, size, 3)
    return images, np.fromfile(f"{options['data']}/labels.int64", "int64").astype("int32")


def facts(model: keras.Model) -> dict[str, Any]:
    """Return the facts for the benchmark, before the first turn."""
    return {
        "parameters": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        "versions": {name: importlib.metadata.version(name) for name in ("keras", "tensorflow")},
    }


class EpochTurns(keras.callbacks.Callback):
    """A callback that makes every epoch a turn; the first turn begins after the warm-up steps.

    A turn ends when the next epoch would begin, so that what is saved and logged in between counts.
    """

    def __init__(self, turns: Turns) -> None:
        """Start without waiting until the warm-up is over."""
        super().__init__()
        self.turns, self.warm = turns, False
        self.steps = self.logged = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the step; after the warm-up's last step, report and wait."""
        self.steps += 1
        self.last_step = time.perf_counter()
        if not self.warm and self.steps == WARM_UP:
            self.warm = True
            self.turns.answer(**facts(self.model))
            self._wait()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Report the previous epoch and wait for this epoch's turn."""
        if epoch > 0:
            end = time.perf_counter()
            self.turns.report(
                images=self.steps * self.turns.options["batch_size"],
                seconds=end - self.began,
                stall_s=end - self.last_step,
                input_wait=self.input_seconds and self.input_seconds / (end - self.began),
            )
            self._wait()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the input waiting time that our loop logs; `fit` does not log it."""
        logs = logs or {}
        self.input_seconds = None
        if "input_wait" in logs:
            images = (logs["step"] - self.logged) * self.turns.options["batch_size"]
            self.input_seconds = logs["input_wait"] * images / logs["images_per_second"]
            self.logged = logs["step"]

    def _wait(self) -> None:
        self.turns.wait()
        self.steps, self.began = 0, time.perf_counter()

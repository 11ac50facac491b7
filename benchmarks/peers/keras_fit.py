"""Keras' `compile` and `fit`, as in its guides: with our layers, or with stock layers."""

from __future__ import annotations

import time
from typing import Any

import keras
import tensorflow as tf
from keras_shared import (
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    EpochTurns,
    facts,
    network,
    one_batch_repeated,
    read_images,
)
from turns import WARM_UP, Turns

from keras_resnet.layers import BatchNormalization


class StepTurns(keras.callbacks.Callback):
    """A callback that makes every few steps of an endless epoch a turn."""

    def __init__(self, turns: Turns) -> None:
        """Begin with the warm-up as the first "turn"."""
        super().__init__()
        self.turns, self.left, self.warm = turns, WARM_UP, False
        self.ms: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock; `fit` fetches the batch after this."""
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop the clock; at the turn's last step report and wait."""
        self.ms.append(1e3 * (time.perf_counter() - self.began))
        self.left -= 1
        if self.left:
            return
        if self.warm:
            self.turns.report(ms=self.ms)
        else:
            self.turns.answer(**facts(self.model))
        self.warm, self.ms, self.left = True, [], self.turns.wait()


def stock(model: keras.Model) -> keras.Model:
    """Return the same network with Keras' own BatchNormalization, each layer in its precision."""

    def rebuild(layer: keras.Layer) -> keras.Layer:
        ours = type(layer) is BatchNormalization
        cls = keras.layers.BatchNormalization if ours else type(layer)
        return cls.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=rebuild)


def augmented_batches(turns: Turns) -> tf.data.Dataset:
    """Shift each image by up to 4 pixels and flip it, by Keras' layers on whole batches.

    RandomCrop would cut all images of a batch at the same place; RandomTranslation with zeros
    around the image is the layer that does what padding and cropping each image does.
    """
    options = turns.options
    images, labels = read_images(options)
    factor = 4 / options["image_size"]
    layers = [
        keras.layers.RandomTranslation(
            factor, factor, fill_mode="constant", interpolation="nearest", dtype="float32"
        ),
        keras.layers.RandomFlip("horizontal", dtype="float32"),
    ]

    def augment(images: Any, labels: Any) -> tuple[Any, Any]:
        for layer in layers:
            images = layer(images, training=True)
        return images, labels

    batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(labels))
    batches = batches.batch(options["batch_size"], drop_remainder=True)
    return batches.map(augment, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    turns = Turns()
    model = network(turns.options)
    if turns.options["stock"]:
        model = stock(model)
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    forever = 10**6
    if turns.options["data"]:
        batches = augmented_batches(turns)
        model.fit(batches, epochs=forever, verbose=0, callbacks=[EpochTurns(turns)])
    else:
        batches = one_batch_repeated(turns.options)
        model.fit(batches, steps_per_epoch=forever, verbose=0, callbacks=[StepTurns(turns)])


if __name__ == "__main__":
    main()

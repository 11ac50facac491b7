"""Our training: `recipes.loop.Loop` for steps, `recipes.train.run` for epochs."""

from __future__ import annotations

import tempfile
from pathlib import Path

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

from keras_resnet.recipes import Dataset, Split, load_config, train
from keras_resnet.recipes.data import datasets
from keras_resnet.recipes.training.loop import Loop


def steps(turns: Turns) -> None:
    """Time single updates with one batch."""
    model = network(turns.options)
    loop = Loop(
        tf.distribute.get_strategy(),
        model,
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        batch_size=turns.options["batch_size"],
        weight_decay=WEIGHT_DECAY,
        remat=turns.options.get("remat", False),
    )
    batches = loop.distribute(one_batch_repeated(turns.options))
    for _ in range(WARM_UP):
        loop.train_step(batches)
    turns.answer(**facts(model))
    turns.timed_steps(lambda: loop.train_step(batches))


def epochs(turns: Turns) -> None:
    """Run `keras-resnet train cifar10/resnet20`, including logs and checkpoints."""
    images, labels = read_images(turns.options)
    names = tuple(str(label) for label in range(turns.options["classes"]))
    split = Split(images, labels)
    # Every peer reads the same arrays from a file; here they stand in for a dataset by name.
    dataset = Dataset("benchmark", split, split.sample(0), split.sample(1), names)
    datasets.load_dataset = lambda *_, **__: dataset
    overrides = {
        "data.validation": 0,
        "train.precision": turns.options["precision"],
        "train.remat": turns.options.get("remat", False),
    }
    config = load_config("cifar10/resnet20", overrides)
    with tempfile.TemporaryDirectory() as folder:
        train.run(config, Path(folder) / "run", callbacks=[EpochTurns(turns)])


if __name__ == "__main__":
    turns = Turns()
    epochs(turns) if turns.options["data"] else steps(turns)

"""Evaluate a model or an exported file on a labelled split, every image counted once.

keras-resnet evaluate RUN [--split test]
keras-resnet evaluate FILE --data cifar10
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.export import runtimes
from keras_resnet.recipes.data import AnySplit, evaluation_batches

_BATCH = 64


def measure(runtime: runtimes.Runtime, split: AnySplit) -> dict[str, Any]:
    """Return {"accuracy", "loss", "n"}: top-1 and mean cross entropy over `split`.

    Raises:
        UserError: the images or the labels do not fit the model.
    """
    hits, loss, count = 0, 0.0, len(split)
    for images, labels, weights in evaluation_batches(
        split, min(_BATCH, count)
    ).as_numpy_iterator():
        real = weights > 0
        labels, probabilities = labels[real], runtime.probabilities(images[real])
        if labels.max() >= probabilities.shape[-1]:
            raise UserError(
                f"The data has labels up to {labels.max()}, the model knows "
                f"{probabilities.shape[-1]} classes."
            )
        hits += int((probabilities.argmax(-1) == labels).sum())
        right = probabilities[np.arange(len(labels)), labels]
        loss -= float(np.log(np.maximum(right, 1e-7)).sum())
    return {"accuracy": hits / count, "loss": loss / count, "n": count}


def measure_model(model: keras.Model, split: AnySplit) -> dict[str, Any]:
    """`measure` of a Keras model in memory."""
    return measure(runtimes.KerasRuntime(model), split)


if __name__ == "__main__":
    from keras_resnet.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))

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
from keras_resnet.recipes.data import Split


def measure(runtime: runtimes.Runtime, split: Split) -> dict[str, Any]:
    """Return {"accuracy", "loss", "n"}: top-1 and mean cross entropy over `split`.

    Raises:
        UserError: the images or the labels do not fit the model.
    """
    probabilities = runtime.probabilities(split.images)
    classes = probabilities.shape[-1]
    if split.labels.max() >= classes:
        raise UserError(
            f"The data has labels up to {split.labels.max()}, the model knows {classes} classes."
        )
    hits = probabilities.argmax(-1) == split.labels
    right = probabilities[np.arange(len(split)), split.labels]
    loss = float(-np.log(np.maximum(right, 1e-7)).mean())
    return {"accuracy": float(hits.mean()), "loss": loss, "n": len(split)}


def measure_model(model: keras.Model, split: Split) -> dict[str, Any]:
    """`measure` of a Keras model in memory."""
    return measure(runtimes.KerasRuntime(model), split)


if __name__ == "__main__":
    from keras_resnet.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))

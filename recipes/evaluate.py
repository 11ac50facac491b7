"""Evaluate a model or an exported file on a labelled split; every image counts once.

keras-resnet evaluate RUN [--split test]
keras-resnet evaluate FILE --data cifar10
keras-resnet evaluate RUN --crops 10
keras-resnet evaluate RUN --scales 224,256,384,480,640
keras-resnet evaluate FILE --data imagenet2012 --resize 232 --interpolation bicubic
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np

from keras_resnet.arguments import checked
from keras_resnet.display.bars import progress
from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.base import Runtime
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.images.answers import Answers
from keras_resnet.recipes.data.datasets import AnySplit
from keras_resnet.recipes.data.protocol import SINGLE_CROP, Protocol, predictions
from keras_resnet.recipes.runs.scores import (
    ACCURACY,
    AVERAGE_PRECISION,
    AveragePrecision,
    per_class,
)


@checked
def measure(runtime: Runtime, split: AnySplit, protocol: Protocol = SINGLE_CROP) -> dict[str, Any]:
    """Evaluate an opened `runtime` on every image of `split`, with the crops of `protocol`.

    Returns:
        {"accuracy", "loss", "n", "macro", "per_class", "protocol"}: top-1; mean cross entropy (of
        several sigmoids the binary one, averaged over the classes); the number of images;
        precision, recall and F1 averaged over the classes that have images, and those of each
        class (see `Scores.to_dict`); `Protocol.record`. With more than 5 classes also "top5". If
        the images have several labels, "accuracy" is the share of right answers for every image
        and class, and there is "mean_average_precision" (see `AveragePrecision`) and no "top5".

    Raises:
        UserError: the images, the labels or the protocol do not fit the model.
    """
    record = protocol.record(runtime, split)  # raises errors before `len` reads all images
    if split.labels.ndim == 2:
        return {**_measure_several(runtime, split, protocol), "protocol": record}
    hits, loss, count = np.zeros(5, int), 0.0, len(split)  # hits of the first guess, second, ...
    guesses: list[np.ndarray] = []
    with progress("evaluating", count) as advance:
        for probabilities, labels in predictions(runtime, split, protocol):
            classes = probabilities.shape[-1]
            if labels.max() >= classes:
                raise UserError(
                    f"The data has labels up to {labels.max()}, but the model has only {classes} "
                    "classes. Evaluate it on the dataset it was trained on."
                )
            best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :5]
            hits[: best.shape[1]] += (best == labels[:, None]).sum(0)
            guesses.append(best[:, 0])
            loss += float(_cross_entropy(probabilities, labels, runtime.answers()).sum())
            advance(len(labels))
    result = {"accuracy": int(hits[0]) / count, "loss": loss / count, "n": count}
    if classes > 5:
        result["top5"] = int(hits.sum()) / count
    scores = per_class(split.labels, np.concatenate(guesses), classes)
    return {**result, **scores.to_dict(), "protocol": record}


def _measure_several(runtime: Runtime, split: AnySplit, protocol: Protocol) -> dict[str, Any]:
    """Evaluate on images that have any number of labels each."""
    answers, classes, count = runtime.answers(), split.labels.shape[1], len(split)
    if not answers.independent or answers.classes != classes:
        ending = "" if answers.independent else f" and ends in {answers.activation}"
        raise UserError(
            f"The data has {classes} labels, of which an image can have any number. The model has "
            f"{answers.classes} classes{ending}. Evaluate a model with a sigmoid for each label."
        )
    precision, loss = AveragePrecision(classes), 0.0
    guesses: list[np.ndarray] = []
    with progress("evaluating", count) as advance:
        for probabilities, labels in predictions(runtime, split, protocol):
            inside = np.clip(probabilities.astype("float64"), 1e-7, 1 - 1e-7)
            precision.update_state(labels, np.log(inside) - np.log1p(-inside))
            loss -= float(np.log(np.where(labels, inside, 1 - inside)).mean(-1).sum())
            guesses.append(answers.decisions(probabilities).astype("uint8"))
            advance(len(labels))
    guessed = np.concatenate(guesses)
    return {
        ACCURACY: float((guessed == split.labels).mean()),
        AVERAGE_PRECISION: round(float(precision.result()), 6),
        "loss": loss / count,
        "n": count,
        **per_class(split.labels, guessed, classes).to_dict(),
    }


def _cross_entropy(probabilities: np.ndarray, labels: np.ndarray, answers: Answers) -> np.ndarray:
    """Return every image's cross entropy; for several sigmoids, the mean over the classes."""
    right = probabilities[np.arange(len(labels)), labels][:, None]
    if answers.independent:
        is_class = labels[:, None] == np.arange(answers.classes)
        right = np.where(is_class, probabilities, 1 - probabilities)
    return np.asarray(-np.log(np.maximum(right, 1e-7)).mean(-1))


@checked
def measure_model(
    model: keras.Model, split: AnySplit, protocol: Protocol = SINGLE_CROP
) -> dict[str, Any]:
    """Evaluate a Keras `model` in memory on every image of `split`, with the crops of `protocol`.

    See `measure` for the result.

    Raises:
        UserError: see `measure`.
    """
    return measure(KerasRuntime(model), split, protocol)


if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["evaluate", *sys.argv[1:]]))

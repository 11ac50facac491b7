"""A model's answers on a split, and statistics of them: confusion matrix, scores, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_resnet.display.bars import progress
from keras_resnet.display.notebook import brief
from keras_resnet.export.runtimes.base import Runtime
from keras_resnet.images.listing import spaced
from keras_resnet.recipes.data.datasets import AnySplit
from keras_resnet.recipes.data.protocol import SINGLE_CROP, predictions
from keras_resnet.recipes.runs.scores import Scores, confusion, per_class

BINS = 15  # bins of the reliability diagram, as in arXiv:1706.04599


@dataclass(frozen=True)
class Outcomes:
    """Answers to n images of known classes.

    If the images have several labels, every class of every image is one answer, yes or no. Labels,
    guesses and confidences are then of shape (n, classes).

    Attributes:
        labels: the true classes, int (n,); of several labels 0 or 1.
        guesses: the classes with the highest probability, int (n,); of several labels 0 or 1.
        confidences: the probabilities of the guesses, float (n,).
        classes: the number of classes.
    """

    labels: np.ndarray
    guesses: np.ndarray
    confidences: np.ndarray
    classes: int

    def __repr__(self) -> str:
        """Return one line, with arrays as their type and shape."""
        return brief(self)

    @property
    def multi_label(self) -> bool:
        """True if the images have several labels."""
        return self.labels.ndim == 2

    @property
    def accuracy(self) -> float:
        """The share of correct guesses."""
        return float((self.labels == self.guesses).mean())

    def confusion(self) -> np.ndarray:
        """Count the images of each (true class, predicted class): int (classes, classes)."""
        return confusion(self.labels, self.guesses, self.classes)

    def per_class(self) -> Scores:
        """Return precision, recall and F1 of each class."""
        return per_class(self.labels, self.guesses, self.classes)

    def examples(self, number: int, count: int) -> np.ndarray:
        """Return the places of some evenly spaced images of class `number`."""
        several = self.multi_label
        places = np.flatnonzero(self.labels[:, number] if several else self.labels == number)
        return places[spaced(len(places), count)]

    def confused(self, count: int) -> list[tuple[int, int, int]]:
        """Return the most frequent confusions as (true class, guessed class, count), sorted."""
        wrong = self.confusion()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, wrong.shape)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [
            (row, column, int(wrong[row, column])) for row, column in pairs if wrong[row, column]
        ]

    def worst(self, count: int) -> np.ndarray:
        """Return the places of the wrong guesses with the highest confidence, highest first.

        Of several labels, the place of a guess is `image * classes + class`.
        """
        wrong = np.flatnonzero(self.labels != self.guesses)
        return wrong[np.argsort(-self.confidences.ravel()[wrong], kind="stable")[:count]]

    def reliability(self) -> Reliability:
        """Return confidence against accuracy in `BINS` bins of equal width."""
        confidences, right = self.confidences.ravel(), (self.labels == self.guesses).ravel()
        bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
        counts = np.bincount(bins, minlength=BINS)
        sums = [np.bincount(bins, x, minlength=BINS) for x in (confidences, right)]
        confidence, accuracy = (
            np.divide(x, counts, out=np.full(BINS, np.nan), where=counts > 0) for x in sums
        )
        return Reliability(counts, confidence, accuracy)


@dataclass(frozen=True)
class Reliability:
    """The count, mean confidence and accuracy of each confidence bin; NaN for empty bins."""

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    def __repr__(self) -> str:
        """Return one line, with arrays as their type and shape."""
        return brief(self)

    @property
    def error(self) -> float:
        """The expected calibration error: the mean of |accuracy - confidence| over the answers."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((gaps * self.counts).sum() / self.counts.sum())


def collect(runtime: Runtime, split: AnySplit) -> Outcomes:
    """Run every image of `split` through the model, as `evaluate` does."""
    parts: list[Sequence[np.ndarray]] = []
    with progress("evaluating", len(split)) as advance:
        for probabilities, labels in predictions(runtime, split, SINGLE_CROP):
            parts.append((labels, *_guessed(probabilities, labels.ndim == 2)))
            advance(len(labels))
    labels, guesses, confidences = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Outcomes(labels.astype(int), guesses, confidences, runtime.classes)


def _guessed(probabilities: np.ndarray, multi_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the guesses and their probabilities."""
    if multi_label:
        return (probabilities > 0.5).astype(int), np.maximum(probabilities, 1 - probabilities)
    return probabilities.argmax(-1), probabilities.max(-1)

"""Precision, recall and F1 of every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_resnet.display.notebook import brief

_DIGITS = 6  # of a share in JSON: exact for a million images


@dataclass(frozen=True)
class Scores:
    """The scores of each class, float (classes,).

    Attributes:
        precision: of the images predicted as the class, the share that is right; 0 without any.
        recall: of the images of the class, the share that is right; 0 without any.
        f1: the harmonic mean of the two.
        n: the number of images of the class, int (classes,).
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    n: np.ndarray

    def __repr__(self) -> str:
        """Return one line, with arrays as their type and shape."""
        return brief(self)

    def macro(self) -> dict[str, float]:
        """Return the mean of each score over the classes that have images."""
        present = self.n > 0
        return {name: float(values[present].mean()) for name, values in self._shares().items()}

    def to_dict(self) -> dict[str, Any]:
        """Return "macro", and "per_class": a list for each score, in the order of the classes."""
        macro = {name: round(value, _DIGITS) for name, value in self.macro().items()}
        columns = {name: values.round(_DIGITS).tolist() for name, values in self._shares().items()}
        return {"macro": macro, "per_class": {**columns, "n": self.n.tolist()}}

    def _shares(self) -> dict[str, np.ndarray]:
        return {"precision": self.precision, "recall": self.recall, "f1": self.f1}


def confusion(labels: np.ndarray, guesses: np.ndarray, classes: int) -> np.ndarray:
    """Count the images of each (true class, predicted class): int (classes, classes)."""
    counts = np.bincount(labels.astype(int) * classes + guesses, minlength=classes**2)
    return counts.reshape(classes, classes)


def per_class(labels: np.ndarray, guesses: np.ndarray, classes: int) -> Scores:
    """Return the scores of each class, as scikit-learn defines them (0 where it warns).

    Args:
        labels: the true classes, int (n,).
        guesses: the predicted classes, int (n,).
        classes: their number.
    """
    right = np.bincount(labels[labels == guesses], minlength=classes)
    true, predicted = (np.bincount(x, minlength=classes) for x in (labels, guesses))

    def share(of: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(of, whole, out=np.zeros(classes), where=whole > 0)

    f1 = share(2 * right, true + predicted)
    return Scores(share(right, predicted), share(right, true), f1, true)

"""The scores of a classifier: precision, recall and F1 of every class, and average precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_resnet.display.notebook import brief
from keras_resnet.recipes.data.labels import counts

ACCURACY, AVERAGE_PRECISION = "accuracy", "mean_average_precision"
_DIGITS = 6  # of a share in JSON: exact for a million images
_THRESHOLDS, _MOST = 1000, 16.0  # logits are told apart up to ±16, in steps of 0.03


class AveragePrecision(keras.metrics.AUC):
    """The mean average precision (mAP) of several labels: what chooses the best epoch.

    It is the area under the curve of precision over recall, averaged over the classes that have
    images. It asks only how well the logits order the images, so it needs no threshold.
    """

    def __init__(self, classes: int) -> None:
        """Build the counts for `classes` classes."""
        super().__init__(_THRESHOLDS, "PR", multi_label=True, num_labels=classes)

    def update_state(self, labels: Any, logits: Any, weights: Any = None) -> None:
        """Count `labels` 0 or 1 and `logits`, both (n, classes), with `weights` (n,)."""
        # Keras has thresholds at equal steps from 0 to 1, and any rising function keeps the order.
        inside = keras.ops.cast(logits, "float32") / (2 * _MOST) + 0.5
        super().update_state(labels, keras.ops.clip(inside, 0, 1), weights)

    def result(self) -> Any:
        """Return the mean over the classes that have images; 0 if none has."""
        has_images = self.true_positives[0] + self.false_negatives[0] > 0
        present = keras.ops.sum(keras.ops.cast(has_images, "float32"))
        # Keras takes the mean over all classes, and the area of a class without images is 0.
        return super().result() * self.num_labels / keras.ops.maximum(present, 1.0)


def deciding(results: Mapping[str, Any], prefix: str = "") -> str:
    """Return the key of the score that tells which of several `results` is better.

    That is the accuracy, or with several labels for each image the mean average precision: most
    labels do not apply to an image, so a model without any answer is right for most of them.
    """
    precision = f"{prefix}{AVERAGE_PRECISION}"
    return precision if precision in results else f"{prefix}{ACCURACY}"


def spoken(key: str) -> str:
    """Return a score's key as words: "mean average precision"."""
    return key.removeprefix("val_").replace("_", " ")


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
        """Return the mean of each score over the classes that have images; 0 if none has."""
        present: Any = self.n > 0 if self.n.any() else slice(None)
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
        labels: the true classes, int (n,); of several labels 0 or 1, (n, classes).
        guesses: the predicted classes, int (n,); of several labels 0 or 1, (n, classes).
        classes: their number.
    """
    agreed = labels * guesses if labels.ndim == 2 else labels[labels == guesses]
    right, true, predicted = (counts(x, classes) for x in (agreed, labels, guesses))

    def share(of: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(of, whole, out=np.zeros(classes), where=whole > 0)

    f1 = share(2 * right, true + predicted)
    return Scores(share(right, predicted), share(right, true), f1, true)

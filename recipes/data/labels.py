"""The labels of images: one class for each, or several.

One class     int32 (n,): the number of the class
Several       uint8 (n, classes): 1 for each class of the image, else 0; all may be 0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the number of images of each class, int (classes,)."""
    if labels.ndim == 2:
        return np.asarray(labels.sum(0, dtype="int64"))
    return np.bincount(labels, minlength=classes)


def described(label: Any, names: Sequence[str]) -> str:
    """Return the label of one image as text; without `names`, classes are numbers.

    Args:
        label: a class number, or a row of 0 and 1.
        names: the class names, by class number.
    """
    numbers = np.flatnonzero(label).tolist() if np.ndim(label) else [int(label)]
    return ", ".join(names[number] if names else str(number) for number in numbers) or "no label"

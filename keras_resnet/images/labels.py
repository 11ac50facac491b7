"""From class numbers to names: what a network trained on a known data set says."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_resnet.errors import UnknownNameError, UserError

_FOLDER = Path(__file__).parent / "class_names"


class Prediction(NamedTuple):
    """A class and its score, in the order of Keras Applications' tuples."""

    id: str  # WordNet's for ImageNet, e.g. "n02123045"; else the name again
    name: str
    probability: float  # or logit: whatever the network gave


def class_names(data: str) -> tuple[str, ...]:
    """Return the names of a data set's classes, in the order of its labels.

    Args:
        data: "imagenet2012" (torchvision's names) or "cifar10"; tensorflow-datasets' names of them.

    Raises:
        UnknownNameError: no names are known for `data`.
    """
    return tuple(name for _, name in _classes(data))


def class_ids(data: str) -> tuple[str, ...]:
    """Return the ids of a data set's classes: WordNet's for ImageNet, else the names again.

    Raises:
        UnknownNameError: no names are known for `data`.
    """
    return tuple(identifier for identifier, _ in _classes(data))


@functools.cache
def _classes(data: str) -> tuple[tuple[str, str], ...]:
    """Ids and names from class_names/: a line is "id<TAB>name", or the name alone."""
    known = sorted(path.stem for path in _FOLDER.glob("*.txt"))
    if data not in known:
        raise UnknownNameError("data set with class names", data, known, "")
    lines = (_FOLDER / f"{data}.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines]
    return tuple((pair[0], pair[-1]) for pair in pairs)


def decode_predictions(
    predictions: Any, top: int = 5, data: str = "imagenet2012"
) -> list[list[Prediction]]:
    """Name the highest scores of each image, as Keras Applications' function does.

    Args:
        predictions: (batch, classes), probabilities or logits.
        top: how many classes to name, the highest first; all where there are fewer.
        data: what the network was trained on, see `class_names`.

    Returns:
        For each image its `Prediction`s: tuples of id, name and score.

    Raises:
        UserError: `predictions` has not two dimensions or not a score for each class of `data`, or
            `top` is less than 1, or a score is NaN or infinite.
        UnknownNameError: no names are known for `data`.
    """
    classes = _classes(data)
    scores = np.asarray(predictions)
    if scores.ndim != 2 or scores.shape[1] != len(classes):
        counts = {path.stem: len(_classes(path.stem)) for path in sorted(_FOLDER.glob("*.txt"))}
        known = ", ".join(f"data='{name}' ({count} classes)" for name, count in counts.items())
        raise UserError(
            f"decode_predictions(data='{data}') expects predictions of shape (batch, "
            f"{len(classes)}); received {scores.shape}. Names are known for {known}."
        )
    if top < 1:
        raise UserError(f"top is 1 or more; received {top}.")
    if wrong := np.count_nonzero(~np.isfinite(scores).all(-1)):
        raise UserError(
            f"decode_predictions: {wrong} of {len(scores)} rows have scores that are not finite "
            "(NaN or infinity). The weights are damaged, or the images hold such numbers."
        )
    order = np.argsort(-scores.astype("float64"), axis=1, kind="stable")[:, :top]
    return [
        [Prediction(classes[i][0], classes[i][1], float(row[i])) for i in best]
        for row, best in zip(scores, order.tolist(), strict=True)
    ]

"""From class numbers to names: what a network trained on a known data set says."""

from __future__ import annotations

import functools
import weakref
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_resnet.errors import UnknownNameError, UserError

if TYPE_CHECKING:
    import keras

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


# What the weights that were loaded into a model were trained on.
_TRAINED_ON: MutableMapping[Any, str] = weakref.WeakKeyDictionary()


def remember(model: keras.Model, data: str) -> None:
    """Keep, as long as `model` lives, what its weights were trained on, for `classes_of`."""
    _TRAINED_ON[model] = data


def classes_of(model: keras.Model | str | Path) -> tuple[tuple[str, str], ...]:
    """Ids and names of the classes of a model with the catalog's weights, or of a run or export.

    Raises:
        UserError: they are not known; the message says how they can be given.
    """
    if isinstance(model, str | Path):
        folder = Path(model) if Path(model).is_dir() else Path(model).parent
        if not Path(model).exists() or not (folder / "labels.txt").is_file():
            raise UserError(
                f"There is no labels.txt at {model}. Give a Keras model, the folder of a run or an "
                f"export, or a file in one; for a data set {_data_in_words()}."
            )
        names = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
        return tuple((name, name) for name in names)
    if model not in _TRAINED_ON:
        raise UserError(
            f"It is not known what the weights of '{model.name}' were trained on. Give "
            f"{_data_in_words()}, or the folder of its run instead of the model."
        )
    return _classes(_TRAINED_ON[model])


def _data_in_words() -> str:
    counts = {path.stem: len(_classes(path.stem)) for path in sorted(_FOLDER.glob("*.txt"))}
    return " or ".join(f"data='{name}' ({count} classes)" for name, count in counts.items())


def decode_predictions(
    predictions: Any,
    model: keras.Model | str | Path | None = None,
    top: int = 5,
    data: str | None = None,
) -> list[list[Prediction]]:
    """Name the highest scores of each image, as Keras Applications' function does.

    Args:
        predictions: (batch, classes), probabilities or logits.
        model: what gave them: a model with weights of the catalog, the folder of a run or of an
            export, or a file in one. Without it and `data` the classes are ImageNet's.
        top: how many classes to name, the highest first; all where there are fewer. Keras'
            `decode_predictions(predictions, 3)` means this, too.
        data: what the network was trained on, see `class_names`.

    Returns:
        For each image its `Prediction`s: tuples of id, name and score.

    Raises:
        UserError: `predictions` has not two dimensions or not a score for each class, `top` is less
            than 1, a score is NaN or infinite, both `model` and `data` are given, or the classes of
            `model` are not known.
        UnknownNameError: no names are known for `data`.
    """
    if isinstance(model, int):
        return decode_predictions(predictions, top=model, data=data)
    if model is not None and data is not None:
        raise UserError("Give decode_predictions the model or data=, not both.")
    classes = _classes(data or "imagenet2012") if model is None else classes_of(model)
    scores = np.asarray(predictions)
    if scores.ndim != 2 or scores.shape[1] != len(classes):
        whose = f"data='{data or 'imagenet2012'}'" if model is None else "this model"
        raise UserError(
            f"decode_predictions for {whose} expects predictions of shape (batch, {len(classes)}); "
            f"received {scores.shape}. Names are known for {_data_in_words()}."
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

"""Class names of known data sets and of trained models."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_resnet.arguments import checked
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.files import expanded, require_small_text
from keras_resnet.images.answers import Answers, class_count, names_of, told_by
from keras_resnet.keras_compat import producer
from keras_resnet.text import is_safe

if TYPE_CHECKING:
    import keras

    from keras_resnet.images.crop import SingleCrop

LABELS = "labels.txt"  # the file next to a model with its class names, one per line
_FOLDER = Path(__file__).parent / "class_names"


class Prediction(NamedTuple):
    """A class and its score, in the order of Keras Applications' tuples."""

    id: str  # for ImageNet the WordNet id, e.g. "n02123045"; otherwise the name
    name: str
    probability: float  # or logit, if the network returns logits


@checked
def class_names(data: str) -> tuple[str, ...]:
    """Return the names of a data set's classes, in the order of its labels.

    Args:
        data: "imagenet2012" (torchvision's names) or "cifar10", as in tensorflow-datasets.

    Raises:
        UnknownNameError: no names are known for `data`.
    """
    return tuple(name for _, name in _classes(data))


@checked
def class_ids(data: str) -> tuple[str, ...]:
    """Return the ids of a data set's classes: WordNet ids for ImageNet, otherwise the names.

    Raises:
        UnknownNameError: no names are known for `data`.
    """
    return tuple(identifier for identifier, _ in _classes(data))


@functools.cache
def _classes(data: str) -> tuple[tuple[str, str], ...]:
    """Read ids and names from class_names/. A line is "id<TAB>name", or the name alone."""
    known = sorted(path.stem for path in _FOLDER.glob("*.txt"))
    if data not in known:
        raise UnknownNameError("data set with class names", data, known, "")
    lines = (_FOLDER / f"{data}.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines]
    return tuple((pair[0], pair[-1]) for pair in pairs)


def classes_of(model: keras.Model | str | Path) -> tuple[tuple[str, str], ...]:
    """Return ids and names of the classes of a model with catalog weights, a run or an export.

    Raises:
        UserError: they are not known. The message says how to give them.
    """
    if isinstance(model, str | Path):
        path = expanded(model)
        folder = path if path.is_dir() else path.parent
        names = read_labels(folder) if path.exists() else None
        if names is None:
            raise UserError(
                f"There is no {LABELS} for {model}. Give a Keras model, the folder of a run or an "
                f"export, or a file in one. For a data set give {_data_in_words()}."
            )
        return tuple((name, name) for name in names)
    found = known_of(model)
    if found.labels is None or found.ids is None:
        raise UserError(
            f"The classes of '{model.name}' are not known, because the data of its weights is not. "
            f"Give {_data_in_words()}, or the folder of its run instead of the model."
        )
    return tuple(zip(found.ids, found.labels, strict=True))


def _data_in_words() -> str:
    counts = {path.stem: len(_classes(path.stem)) for path in sorted(_FOLDER.glob("*.txt"))}
    return " or ".join(f"data='{name}' ({count} classes)" for name, count in counts.items())


@checked
def decode_predictions(
    predictions: Any,
    model: keras.Model | str | Path | int | None = None,
    top: int = 5,
    data: str | None = None,
) -> list[list[Prediction]]:
    """Name the highest scores of each image, like the function of Keras Applications.

    Args:
        predictions: (batch, classes), probabilities or logits.
        model: the source of the predictions: a model with catalog weights, the folder of a run or
            an export, or a file in one. Without `model` and `data`, the classes are ImageNet's.
        top: number of classes to name, the highest first; all if there are fewer. The call
            `decode_predictions(predictions, 3)`, as in Keras, works too.
        data: the training data, see `class_names`.

    Returns:
        For each image a list of `Prediction`: tuples of id, name and score.

    Raises:
        UserError: `predictions` does not have the shape (batch, classes), `top` is less than 1, a
            score is NaN or infinite, both `model` and `data` are given, or the classes of `model`
            are not known.
        UnknownNameError: no names are known for `data`.
    """
    if isinstance(model, int):
        return decode_predictions(predictions, top=model, data=data)
    if model is not None and data is not None:
        raise UserError("Give decode_predictions either a model or data=, not both.")
    classes = _classes(data or "imagenet2012") if model is None else classes_of(model)
    scores = np.asarray(predictions)
    if scores.ndim == 2 and scores.shape[1] == 1 and len(classes) <= 2:
        classes, scores = _both(classes, scores)
    if scores.ndim != 2 or scores.shape[1] != len(classes):
        whose = f"data='{data or 'imagenet2012'}'" if model is None else "this model"
        raise UserError(
            f"decode_predictions for {whose} needs predictions of shape (batch, {len(classes)}); "
            f"received {scores.shape}. Names are known for {_data_in_words()}."
        )
    if top < 1:
        raise UserError(f"top must be 1 or more; received {top}.")
    if wrong := np.count_nonzero(~np.isfinite(scores).all(-1)):
        raise UserError(
            f"decode_predictions: {wrong} of {len(scores)} rows have scores that are not finite "
            "(NaN or infinity). Check the weights and the images for such numbers."
        )
    order = np.argsort(-scores.astype("float64"), axis=1, kind="stable")[:, :top]
    return [
        [Prediction(classes[i][0], classes[i][1], float(row[i])) for i in best]
        for row, best in zip(scores, order.tolist(), strict=True)
    ]


def _both(
    classes: tuple[tuple[str, str], ...], scores: np.ndarray
) -> tuple[tuple[tuple[str, str], ...], np.ndarray]:
    """Return both classes of a model with one output, and the probabilities of both."""
    ids, names = (names_of(part, 1) or () for part in zip(*classes, strict=True))
    if not np.isfinite(scores).all():
        return tuple(zip(ids, names, strict=True)), np.repeat(scores, 2, axis=1)
    answers = Answers(told_by(scores), 1)
    return tuple(zip(ids, names, strict=True)), answers.probabilities(scores)


# Trained models -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """The facts that are known about a trained model besides its weights.

    Attributes:
        labels: names of its classes, in the order of its outputs; None if unknown.
        ids: ids of its classes, see `class_ids`; None if unknown.
        crop: the crop with which its accuracy was measured; None if not recorded.
    """

    labels: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    crop: SingleCrop | None = None


_KNOWN: dict[bytes, Known] = {}  # by a hash of the classifier's weights


def known(data: str | None, folder: Path | None = None, crop: SingleCrop | None = None) -> Known:
    """Return the known facts about a model. A labels.txt in its `folder` has priority over `data`.

    Args:
        data: the training data, see `class_names`; None if unknown.
        folder: the folder of its file, if it has one.
        crop: see `Known`.
    """
    if folder is not None and (names := read_labels(folder)) is not None:
        return Known(names, names, crop)
    if data is None:
        return Known(crop=crop)
    return Known(class_names(data), class_ids(data), crop)


def read_labels(folder: Path) -> tuple[str, ...] | None:
    """Return the class names in the labels.txt of `folder`; None if there is no such file.

    Raises:
        UserError: the file is too large, or not in UTF-8.
    """
    path = folder / LABELS
    if not path.is_file():
        return None
    require_small_text(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not in UTF-8 ({error.reason} in line "
            f"{error.object[: error.start].count(10) + 1}). Save it as UTF-8, a name per line."
        ) from error
    return tuple(text.removesuffix("\n").split("\n")) if text else ()


def require_class_names(names: Iterable[str], where: str = "") -> None:
    """Refuse class names that are not one visible line. Call it before the work.

    A line break, also a less known one such as U+2028, would split the name in labels.txt. Bytes
    that are no UTF-8 cannot be written there. A terminal would obey an escape.

    Args:
        names: the names.
        where: the folder of the class folders, for the message.

    Raises:
        UserError: the message has the first such name.
    """
    for name in names:
        if not is_safe(name):
            mend = f"Rename the folder in {where}." if where else "Rename the class."
            raise UserError(
                "A class name must be a single line in labels.txt, in UTF-8 and without invisible "
                f"characters; received {name!r}. {mend}"
            )


def remember(model: keras.Model, what: Known) -> None:
    """Remember in this process the known facts about a classifier that was built and loaded.

    The key is a hash of the classifier's weights. The facts therefore hold for every model with
    these weights: a copy, a copy in stock layers, one loaded from a file. They no longer hold after
    further training, which may have changed the classes.

    A model with another number of classes than names is not remembered, because its classifier is
    new.
    """
    if not what.labels:  # before the weights are hashed
        return
    key = _classifier(model)
    if key is not None and class_count(model.output_shape[-1]) == len(what.labels):
        _KNOWN[key] = what


def known_of(model: keras.Model) -> Known:
    """Return the known facts about `model`, if it has catalog weights or comes from a run.

    Nothing is known about a model whose outputs are not exactly the classifier's, such as a few of
    them or all in another order.
    """
    key = _classifier(model)
    return Known() if key is None else _KNOWN.get(key, Known())


@checked
def labels_of(model: keras.Model) -> tuple[str, ...] | None:
    """Return the names of the model's classes, in the order of its outputs; None if unknown.

    They are known for models with catalog weights, for models with a `.weights.h5` of ours that
    records its data or has a labels.txt next to it, and for models of runs (`Run.keras_model`).
    """
    return known_of(model).labels


def _classifier(model: keras.Model) -> bytes | None:
    """Return a hash of the weights of the classifier layer; None if there is none."""
    from keras import layers

    if len(getattr(model, "outputs", None) or ()) != 1:
        return None
    after = (layers.Activation, layers.Softmax, layers.Dropout, layers.Identity)
    last = producer(model.outputs[0])
    while isinstance(last, after):
        last = producer(last.input)
    if not getattr(last, "weights", None):
        return None
    arrays = [np.asarray(weight, "float32") for weight in last.weights[-2:]]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).digest()

"""From class numbers to names: of data sets that are known, and of trained models."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.files import expanded
from keras_resnet.images.answers import Answers, class_count, names_of, told_by
from keras_resnet.keras_compat import producer

if TYPE_CHECKING:
    import keras

    from keras_resnet.images.crop import SingleCrop

LABELS = "labels.txt"  # beside a model: its class names, one a line
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


def classes_of(model: keras.Model | str | Path) -> tuple[tuple[str, str], ...]:
    """Ids and names of the classes of a model with the catalog's weights, or of a run or export.

    Raises:
        UserError: they are not known; the message says how they can be given.
    """
    if isinstance(model, str | Path):
        path = expanded(model)
        folder = path if path.is_dir() else path.parent
        names = read_labels(folder) if path.exists() else None
        if names is None:
            raise UserError(
                f"There is no {LABELS} at {model}. Give a Keras model, the folder of a run or an "
                f"export, or a file in one; for a data set {_data_in_words()}."
            )
        return tuple((name, name) for name in names)
    found = known_of(model)
    if found.labels is None or found.ids is None:
        raise UserError(
            f"It is not known what the weights of '{model.name}' were trained on. Give "
            f"{_data_in_words()}, or the folder of its run instead of the model."
        )
    return tuple(zip(found.ids, found.labels, strict=True))


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
    if scores.ndim == 2 and scores.shape[1] == 1 and len(classes) <= 2:
        classes, scores = _both(classes, scores)
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


def _both(
    classes: tuple[tuple[str, str], ...], scores: np.ndarray
) -> tuple[tuple[tuple[str, str], ...], np.ndarray]:
    """The classes and probabilities of both classes that one output tells apart."""
    ids, names = (names_of(part, 1) or () for part in zip(*classes, strict=True))
    if not np.isfinite(scores).all():
        return tuple(zip(ids, names, strict=True)), np.repeat(scores, 2, axis=1)
    answers = Answers(told_by(scores), 1)
    return tuple(zip(ids, names, strict=True)), answers.probabilities(scores)


# Trained models -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """What is known of a trained model besides its weights.

    Attributes:
        labels: the names of its classes, in the order of its outputs; None: not known.
        ids: their ids, see `class_ids`; None: not known.
        crop: how images are cut for it, as its accuracy was measured; None: not recorded.
    """

    labels: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    crop: SingleCrop | None = None


_KNOWN: dict[bytes, Known] = {}  # by the numbers of the classifier


def known(data: str | None, folder: Path | None = None, crop: SingleCrop | None = None) -> Known:
    """What is known of a model: a labels.txt in its `folder` comes before the names of its `data`.

    Args:
        data: what it was trained on, see `class_names`; None if that is not known.
        folder: where its file is, if it has one.
        crop: see `Known`.
    """
    if folder is not None and (names := read_labels(folder)) is not None:
        return Known(names, names, crop)
    if data is None:
        return Known(crop=crop)
    return Known(class_names(data), class_ids(data), crop)


def read_labels(folder: Path) -> tuple[str, ...] | None:
    """The class names in the labels.txt of `folder`; None if there is no such file."""
    path = folder / LABELS
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else None


def remember(model: keras.Model, what: Known) -> None:
    """Remember in this process what is known of a classifier that was built and loaded.

    It is remembered by the numbers of the classifier, so it holds for every model that has them:
    a copy, one in stock layers, one loaded from a file. It no longer holds for a model that was
    trained further, which may have learned other classes.

    A model with another number of classes than there are names is not remembered: its classifier
    is new.
    """
    if not what.labels:  # before the weights are hashed
        return
    key = _classifier(model)
    if key is not None and class_count(model.output_shape[-1]) == len(what.labels):
        _KNOWN[key] = what


def known_of(model: keras.Model) -> Known:
    """What is known of `model`: its weights are of the catalog, or its run is of this process.

    Nothing is known of a model that ends in other outputs than the classifier's, such as a few of
    them or all in another order.
    """
    key = _classifier(model)
    return Known() if key is None else _KNOWN.get(key, Known())


def labels_of(model: keras.Model) -> tuple[str, ...] | None:
    """The names of the model's classes, in the order of its outputs; None if they are not known.

    They are known of models with weights of the catalog, with a `.weights.h5` of ours that says
    its data or has a labels.txt beside it, and of models of runs (`Run.keras_model`).
    """
    return known_of(model).labels


def _classifier(model: keras.Model) -> bytes | None:
    """A hash of the weights of the layer that gives the classes; None where there is none."""
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

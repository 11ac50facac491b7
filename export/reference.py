"""The images for checking exported files, with the Keras model's answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.display.notebook import brief
from keras_resnet.errors import UserError
from keras_resnet.files import read_arrays
from keras_resnet.images.answers import Answers, told_by

REFERENCE = "reference.npz"
_REFERENCE_IMAGES, _REFERENCE_BYTES = 64, 8 * 2**20


@dataclass(frozen=True)
class Reference:
    """Images with the Keras model's answers, and with labels if they are known.

    Attributes:
        images: (n, height, width, channels), uint8 RGB 0...255 or as the model takes them.
        outputs: (n, outputs), the Keras model's outputs for the images.
        labels: class numbers (n,); for independent classes 0 or 1 each, (n, classes); None if
            unknown.
        source: a description of the images.
        activation: activation of the outputs: "softmax", "sigmoid" or "linear".
    """

    images: np.ndarray
    outputs: np.ndarray
    labels: np.ndarray | None
    source: str
    activation: str

    def __repr__(self) -> str:
        """Return one line, with arrays as their type and shape."""
        return brief(self)

    @property
    def answers(self) -> Answers:
        """The rules for reading the outputs."""
        return Answers(self.activation, self.outputs.shape[-1])

    @property
    def one_class(self) -> bool:
        """True if the labels give each image exactly one class, whatever the model's outputs."""
        return self.labels is not None and self.labels.ndim == 1

    @property
    def accuracy(self) -> float | None:
        """The Keras model's own accuracy on the images; None without labels."""
        if self.labels is None:
            return None
        return self.answers.accuracy(self.outputs, self.labels)


def write_reference(folder: Path, reference: Reference) -> None:
    """Write up to 64 of the images, at most about 8 MiB, with the Keras model's answers."""
    per_image = max(1, reference.images[0].nbytes)
    count = min(_REFERENCE_IMAGES, max(1, _REFERENCE_BYTES // per_image), len(reference.images))
    arrays: dict[str, Any] = {
        "images": reference.images[:count],
        "outputs": reference.outputs[:count],
        "source": np.array(reference.source),
        "activation": np.array(reference.activation),
    }
    if reference.labels is not None:
        arrays["labels"] = reference.labels[:count]
    np.savez_compressed(folder / REFERENCE, **arrays)


def read_reference(folder: Path) -> Reference:
    """Read the images and answers in an export `folder` (plain arrays, no pickle).

    Raises:
        UserError: the record is missing or damaged.
    """
    path = folder / REFERENCE
    try:
        arrays = read_arrays(path)
        _require_shapes(**arrays)
    except (UserError, TypeError) as error:  # TypeError: an array is missing, or there are others
        raise UserError(
            f"{path} is missing or damaged ({error}). Export again: keras-resnet export MODEL"
        ) from error
    labels, outputs = arrays.get("labels"), arrays["outputs"]
    activation = arrays.get("activation")  # absent in older exports
    return Reference(
        arrays["images"],
        outputs,
        labels,
        str(arrays["source"]),
        told_by(outputs) if activation is None else str(activation),
    )


def _require_shapes(
    images: np.ndarray,
    outputs: np.ndarray,
    source: np.ndarray,
    labels: np.ndarray | None = None,
    activation: np.ndarray | None = None,
) -> None:
    """Refuse arrays that do not belong together.

    Raises:
        UserError: a type or shape is wrong.
    """
    numbers = [array for array in (images, outputs, labels) if array is not None]
    texts = [array for array in (source, activation) if array is not None]
    fits = (
        (images.ndim, outputs.ndim) == (4, 2)
        and len({len(array) if array.ndim else 0 for array in numbers}) == 1
        and images.size > 0
        and all(array.dtype.kind in "buif" for array in numbers)
        and all(array.dtype.kind == "U" and not array.ndim for array in texts)
    )
    if not fits:
        raise UserError("its arrays are not images with answers")

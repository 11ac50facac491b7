"""What every family derives from: `Network`, its trunk and its classifier."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from keras import layers

from keras_resnet.errors import UserError, require_choices
from keras_resnet.images import preprocessing

Tensor = Any  # a KerasTensor; Keras ships no types


@dataclass(frozen=True)
class Trunk:
    """What a network's layers before its head give; maps are (batch, height, width, channels).

    Attributes:
        output: the last feature map.
        features: the last map of every resolution ("stage1", "stage2", ...), as pyramids want them.
        auxiliary: where auxiliary classifiers branch off: "aux1", ...
    """

    output: Tensor
    features: dict[str, Tensor]
    auxiliary: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Network(ABC):
    """What `build` needs to know. Every field is an option of the network's builder.

    Attributes:
        dropout: rate before the classifier (VGG and AlexNet: at each hidden dense layer).
        preprocessing: how its images are normalised, a key of
            `keras_resnet.images.preprocessing.PREPROCESSING`.
        input_size: pixels a side of its images, where `build` is given no `input_shape`.
        classes: width of the classifier, where neither `classes` nor weights say another.
    """

    dropout: float = 0.0
    preprocessing: str = "torch"
    input_size: int = 224
    classes: int = 1000

    def __post_init__(self) -> None:
        """Check what would otherwise fail deep inside Keras.

        Raises:
            UserError: an impossible rate, or a choice that there is not.
        """
        require_choices(self)
        check_rate("dropout", self.dropout)
        preprocessing.require_mode(self.preprocessing)

    @property
    @abstractmethod
    def min_size(self) -> int:
        """Pixels a side of the smallest image the network takes."""

    @abstractmethod
    def trunk(self, x: Tensor) -> Trunk:
        """Build the layers from the (preprocessed) images to the last feature map."""

    def head(self, x: Tensor, classes: int) -> Tensor:
        """Global average pooling and the classifier: from the last feature map to logits."""
        x = layers.GlobalAveragePooling2D(dtype="float32", name="head_pool")(x)
        return classifier(x, classes, self.dropout)

    def auxiliary_head(self, name: str, x: Tensor, classes: int) -> Tensor:
        """Build the auxiliary classifier `name` on its branch `x`, to logits."""
        raise NotImplementedError(f"{type(self).__name__} has no auxiliary classifiers.")


def check_rate(name: str, rate: float) -> None:
    """Raise UserError unless `rate` is a chance below 1."""
    if not 0 <= rate < 1:
        raise UserError(f"{name} is a chance from 0 to below 1; received {rate}.")


def classifier(x: Tensor, classes: int, dropout: float) -> Tensor:
    """Dropout and the dense layer `head`, in float32 under every dtype policy."""
    if dropout:
        x = layers.Dropout(dropout, dtype="float32", name="head_dropout")(x)
    return layers.Dense(classes, dtype="float32", name="head")(x)


def allow_recursion(units: int) -> None:
    """Keras walks a functional graph recursively: to build it, and to clone or load it later.

    Python's limit of 1000 frames is too low for the 600 units of ResNet-1202, so it is raised, and
    stays so. Twelve a unit, and a thousand for the rest, leave room.
    """
    needed = 12 * units + 1000
    if sys.getrecursionlimit() < needed:
        sys.setrecursionlimit(needed)

"""The base class of every family: `Network`, with its trunk and its classifier."""

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
    """The outputs of the layers before the head. Maps are (batch, height, width, channels).

    Attributes:
        output: the last feature map.
        features: the last map at each resolution ("stage1", "stage2", ...), for feature pyramids.
        auxiliary: the maps at which the auxiliary classifiers ("aux1", ...) branch off.
    """

    output: Tensor
    features: dict[str, Tensor]
    auxiliary: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Network(ABC):
    """The description of a network that `build` needs. Every field is an option of its builder.

    Attributes:
        dropout: rate before the classifier. VGG and AlexNet apply it to each hidden dense layer.
        preprocessing: normalisation of the images, a key of
            `keras_resnet.images.preprocessing.PREPROCESSING`.
        input_size: height and width of the images in pixels, if `build` gets no `input_shape`.
        classes: number of classes, if neither the argument `classes` nor the weights give one.
    """

    dropout: float = 0.0
    preprocessing: str = "torch"
    input_size: int = 224
    classes: int = 1000

    def __post_init__(self) -> None:
        """Check the fields, which would otherwise fail deep inside Keras.

        Raises:
            UserError: a rate is out of range or an option is unknown.
        """
        require_choices(self)
        check_rate("dropout", self.dropout)
        preprocessing.require_mode(self.preprocessing)

    @property
    @abstractmethod
    def min_size(self) -> int:
        """Height and width in pixels of the smallest image that the network takes."""

    @abstractmethod
    def trunk(self, x: Tensor) -> Trunk:
        """Build the layers from the (preprocessed) images to the last feature map."""

    def head(self, x: Tensor, classes: int) -> Tensor:
        """Build global average pooling and the classifier: from the last feature map to logits."""
        x = layers.GlobalAveragePooling2D(dtype="float32", name="head_pool")(x)
        return classifier(x, classes, self.dropout)

    def auxiliary_head(self, name: str, x: Tensor, classes: int) -> Tensor:
        """Build the auxiliary classifier `name` on the map `x`; return its logits."""
        raise NotImplementedError(f"{type(self).__name__} has no auxiliary classifiers.")


def check_rate(name: str, rate: float) -> None:
    """Raise UserError unless `rate` is in [0, 1)."""
    if not 0 <= rate < 1:
        raise UserError(f"{name} must be in [0, 1); received {rate}.")


def classifier(x: Tensor, classes: int, dropout: float) -> Tensor:
    """Build dropout and the dense layer `head`, in float32 under every dtype policy."""
    if dropout:
        x = layers.Dropout(dropout, dtype="float32", name="head_dropout")(x)
    return layers.Dense(classes, dtype="float32", name="head")(x)


def allow_recursion(units: int) -> None:
    """Raise Python's recursion limit if a network with this many units needs it.

    Keras walks a functional graph recursively to build, clone or load it. Python's limit of 1000
    frames is too low for the 600 units of ResNet-1202. 12 frames per unit and 1000 for the rest are
    enough. The limit stays raised, because the model may be cloned or loaded later.
    """
    needed = 12 * units + 1000
    if sys.getrecursionlimit() < needed:
        sys.setrecursionlimit(needed)

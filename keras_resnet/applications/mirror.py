"""The functions of `keras.applications` with our networks. The other modules here export them.

A network takes the output of its module's `preprocess_input`. There is one difference to Keras:
where Keras converts RGB to BGR (ResNet v1, VGG), neither the function nor the network does so here.
"""

from __future__ import annotations

from typing import Any, Protocol

import keras
import numpy as np

from keras_resnet import registry
from keras_resnet.errors import UserError
from keras_resnet.images import labels
from keras_resnet.images.preprocessing import preprocess
from keras_resnet.weights.loading import Weights


class Application(Protocol):
    """A network with the arguments and the defaults of `keras.applications`."""

    def __call__(
        self,
        include_top: bool = True,
        weights: Weights = "imagenet",
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Any = "softmax",
        name: str = ...,
    ) -> keras.Model:
        """Build the network."""


class PreprocessInput(Protocol):
    """The `preprocess_input` function of a module."""

    def __call__(self, x: Any, data_format: str | None = None) -> Any:
        """Normalise images."""


def _application(network: str, name: str) -> Application:
    """Return the function `name`, which builds `network` (registry name) with Keras' arguments."""

    def application(
        include_top: bool = True,
        weights: Weights = "imagenet",
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: Any = "softmax",
        name: str = network,
    ) -> keras.Model:
        if not include_top and input_tensor is None and input_shape is None:
            input_shape = (None, None, 3)  # Keras' default there
        return registry.create_model(
            network,
            include_top=include_top,
            weights=weights,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name,
        )

    application.__name__ = application.__qualname__ = name
    application.__doc__ = f"""Build our {name} with the arguments of `keras.applications.{name}`.

    Prepare its images with `preprocess_input` of this module, not of Keras.

    Args:
        include_top: True ends in the classifier. With False images may have any size.
        weights: "imagenet" (downloaded once), another tag of `keras_resnet.list_weights`, the path
            of a file of Keras Applications or of keras_resnet, or None for random weights.
        input_tensor: a Keras tensor to build on instead of a new input.
        input_shape: (height, width, channels).
        pooling: pooling of the last feature map when `include_top` is False: "avg", "max" or None.
        classes: number of classes.
        classifier_activation: "softmax" returns probabilities, None returns logits.
        name: name of the model.

    Returns:
        A model from (batch, height, width, channels) to (batch, classes); without the top as in
        Keras. Its layers have the names of keras_resnet.

    Raises:
        UserError: the shape, the pooling or the weights are not possible.
    """
    return application


def _preprocess_input(network: str) -> PreprocessInput:
    """Return the `preprocess_input` function for `network`, a registry name."""

    def preprocess_input(x: Any, data_format: str | None = None) -> Any:
        """Normalise images for the networks of this module, as Keras does but in RGB.

        Args:
            x: RGB 0...255, (batch, height, width, channels) or one image: an array, which is not
                changed, or a tensor.
            data_format: None or "channels_last".

        Returns:
            float32 of the same shape: an array for an array, a tensor for a tensor.

        Raises:
            UserError: the images have other dimensions, or the channels are first.
        """
        if data_format not in (None, "channels_last"):
            raise UserError(
                f"data_format must be None or 'channels_last'; received {data_format!r}. Move the "
                "channels last: numpy.moveaxis(x, -3, -1)."
            )
        return preprocess(x, network)

    return preprocess_input


# In Keras two pairs of classes share a name. In our list, which is torchvision's, all names differ.
_KERAS_NAMES = {"n02012849": "crane", "n03710721": "maillot"}


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, Any]]]:
    """Name the highest of ImageNet's 1000 classes with Keras' names. Needs no download.

    Args:
        preds: (batch, 1000), the output of a network.
        top: number of classes to name, the highest first.

    Returns:
        For each image a list of tuples (WordNet id, name, score).

    Raises:
        UserError: `preds` has another shape.
    """
    scores = np.asarray(preds)
    return [
        [
            (p.id, _KERAS_NAMES.get(p.id, p.name.replace(" ", "_")), scores.dtype.type(p[2]))
            for p in best
        ]
        for best in labels.decode_predictions(scores, top=top, data="imagenet2012")
    ]


ResNet50 = _application("resnet50", "ResNet50")
ResNet101 = _application("resnet101", "ResNet101")
ResNet152 = _application("resnet152", "ResNet152")
ResNet50V2 = _application("resnet50v2", "ResNet50V2")
ResNet101V2 = _application("resnet101v2", "ResNet101V2")
ResNet152V2 = _application("resnet152v2", "ResNet152V2")
VGG16 = _application("vgg16", "VGG16")
VGG19 = _application("vgg19", "VGG19")
DenseNet121 = _application("densenet121", "DenseNet121")
DenseNet169 = _application("densenet169", "DenseNet169")
DenseNet201 = _application("densenet201", "DenseNet201")
InceptionV3 = _application("inception_v3", "InceptionV3")
InceptionResNetV2 = _application("inception_resnet_v2", "InceptionResNetV2")

preprocess_resnet = _preprocess_input("resnet50")
preprocess_resnet_v2 = _preprocess_input("resnet50v2")
preprocess_vgg = _preprocess_input("vgg16")
preprocess_densenet = _preprocess_input("densenet121")
preprocess_inception = _preprocess_input("inception_v3")
preprocess_inception_resnet = _preprocess_input("inception_resnet_v2")

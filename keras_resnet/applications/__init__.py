"""`keras.applications` with the networks of this package: change only the import line.

`from keras_resnet.applications.resnet50 import ResNet50, preprocess_input, decode_predictions`.
"""

from keras_resnet.applications import (
    densenet,
    inception_resnet_v2,
    inception_v3,
    resnet,
    resnet50,
    resnet_v2,
    vgg16,
    vgg19,
)
from keras_resnet.applications.mirror import (
    VGG16,
    VGG19,
    DenseNet121,
    DenseNet169,
    DenseNet201,
    InceptionResNetV2,
    InceptionV3,
    ResNet50,
    ResNet50V2,
    ResNet101,
    ResNet101V2,
    ResNet152,
    ResNet152V2,
)

__all__ = [
    "VGG16",
    "VGG19",
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
    "InceptionResNetV2",
    "InceptionV3",
    "ResNet50",
    "ResNet50V2",
    "ResNet101",
    "ResNet101V2",
    "ResNet152",
    "ResNet152V2",
    "densenet",
    "inception_resnet_v2",
    "inception_v3",
    "resnet",
    "resnet50",
    "resnet_v2",
    "vgg16",
    "vgg19",
]

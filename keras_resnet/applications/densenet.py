"""`keras.applications.densenet` with our networks."""

from keras_resnet.applications.mirror import (
    DenseNet121,
    DenseNet169,
    DenseNet201,
    decode_predictions,
)
from keras_resnet.applications.mirror import preprocess_densenet as preprocess_input

__all__ = ["DenseNet121", "DenseNet169", "DenseNet201", "decode_predictions", "preprocess_input"]

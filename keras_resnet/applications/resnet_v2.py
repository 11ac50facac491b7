"""`keras.applications.resnet_v2` with our networks."""

from keras_resnet.applications.mirror import (
    ResNet50V2,
    ResNet101V2,
    ResNet152V2,
    decode_predictions,
)
from keras_resnet.applications.mirror import preprocess_resnet_v2 as preprocess_input

__all__ = ["ResNet50V2", "ResNet101V2", "ResNet152V2", "decode_predictions", "preprocess_input"]

"""`keras.applications.resnet` with our networks."""

from keras_resnet.applications.mirror import ResNet50, ResNet101, ResNet152, decode_predictions
from keras_resnet.applications.mirror import preprocess_resnet as preprocess_input

__all__ = ["ResNet50", "ResNet101", "ResNet152", "decode_predictions", "preprocess_input"]

"""`keras.applications.vgg16` with our networks."""

from keras_resnet.applications.mirror import VGG16, decode_predictions
from keras_resnet.applications.mirror import preprocess_vgg as preprocess_input

__all__ = ["VGG16", "decode_predictions", "preprocess_input"]

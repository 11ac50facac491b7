"""`keras.applications.vgg19` with our networks."""

from keras_resnet.applications.mirror import VGG19, decode_predictions
from keras_resnet.applications.mirror import preprocess_vgg as preprocess_input

__all__ = ["VGG19", "decode_predictions", "preprocess_input"]

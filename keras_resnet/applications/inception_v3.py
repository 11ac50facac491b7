"""`keras.applications.inception_v3` with our networks."""

from keras_resnet.applications.mirror import InceptionV3, decode_predictions
from keras_resnet.applications.mirror import preprocess_inception as preprocess_input

__all__ = ["InceptionV3", "decode_predictions", "preprocess_input"]

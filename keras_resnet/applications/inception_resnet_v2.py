"""`keras.applications.inception_resnet_v2` with our networks."""

from keras_resnet.applications.mirror import InceptionResNetV2, decode_predictions
from keras_resnet.applications.mirror import preprocess_inception_resnet as preprocess_input

__all__ = ["InceptionResNetV2", "decode_predictions", "preprocess_input"]

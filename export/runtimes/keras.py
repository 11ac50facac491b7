"""Keras models, in memory and from a .keras file."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_resnet.errors import UserError, require_tensorflow
from keras_resnet.export.runtimes.base import Runtime, classifier_shape
from keras_resnet.models.load import load_keras as load_keras


class KerasRuntime(Runtime):
    """A Keras model in memory."""

    def __init__(self, model: Any) -> None:
        """Compile `model` for inference.

        Raises:
            UserError: the model is not an image classifier, or Keras' backend is not TensorFlow.
        """
        require_tensorflow("Running a Keras model in keras_resnet.export")
        import tensorflow as tf

        from keras_resnet.models.ending import activation_of  # imports Keras

        self.input_shape, self.outputs = classifier_shape(model)
        self.name = f"The Keras model '{model.name}'"
        self.activation = activation_of(model.outputs[0])
        self._model = model
        images = tf.TensorSpec((None, *model.input_shape[1:]), "float32")  # traced once
        self._infer = tf.function(lambda x: model(x, training=False), input_signature=[images])

    def _run(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._infer(images.astype("float32")), dtype="float32")

    def any_size(self) -> Runtime:
        """Return the same layers and weights on an input of free size.

        Raises:
            UserError: a layer needs the fixed size, like a Dense behind a Flatten.
        """
        if self.input_shape[:2] == (None, None):
            return self
        import keras

        def free(image: Any) -> Any:
            shape = (None, None, image.shape[-1])
            return keras.Input(shape, dtype=image.dtype, name=image.name)

        try:
            inputs = keras.tree.map_structure(free, self._model.input)
            model = keras.models.clone_model(self._model, input_tensors=inputs)
            model.set_weights(self._model.get_weights())
        except (ValueError, TypeError) as error:
            height, width = self.input_shape[:2]
            raise UserError(
                f"'{self._model.name}' takes only images of {height}×{width}, because there is no "
                "global pooling before its classifier. It cannot take whole images of other "
                "sizes. Evaluate it on crops: --crops 10."
            ) from error
        return KerasRuntime(model)

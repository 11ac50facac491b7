"""Run SavedModel folders with TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.base import (
    Runtime,
    require_image_shape,
)
from keras_resnet.export.runtimes.locate import PROGRAM, saved_model_folder
from keras_resnet.export.runtimes.saved_model_graph import require_allowed
from keras_resnet.export.runtimes.trust import is_trusted
from keras_resnet.images.answers import LINEAR, SIGMOID, SOFTMAX, Answers, noise


class SavedModelRuntime(Runtime):
    """A SavedModel folder, run through its serving_default signature.

    A SavedModel from this package gives its `predictions` for images of the model's own size.
    """

    def __init__(self, path: Path) -> None:
        """Load the folder, or the newest version in it. No class of this package is needed.

        Raises:
            UserError: it is damaged, has operations that are not allowed (`saved_model_graph`), or
                is not a classifier of one image.
        """
        import tensorflow as tf

        folder = saved_model_folder(path)
        if not is_trusted():
            require_allowed(folder / PROGRAM)
        try:
            # Keep the loaded object: its signatures need it.
            self._loaded = tf.saved_model.load(str(folder))
            self._serve = self._loaded.signatures["serving_default"]
        except Exception as error:  # damaged files make TensorFlow raise unrelated types
            raise UserError(
                f"{path} is not a readable SavedModel with the signature serving_default. "
                "Export again: keras-resnet export MODEL --formats savedmodel"
            ) from error
        inputs = self._serve.structured_input_signature[1]
        outputs = self._serve.structured_outputs
        if len(outputs) > 1 and self.output_name in outputs:
            outputs = {self.output_name: outputs[self.output_name]}
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(
                f"{path} must have one input, and one output or one named '{self.output_name}'; "
                f"received {len(inputs)} and {len(outputs)}."
            )
        ((self.input_name, spec),) = inputs.items()
        ((self.output_name, output),) = outputs.items()
        require_image_shape(path, spec.shape, output.shape)
        self.input_shape, self.outputs = self._image_shape(spec), int(output.shape[-1])
        self.name = str(path)
        self._has_probabilities = "probabilities" in self._serve.structured_outputs
        self.input_dtype, self.output_dtype = spec.dtype.name, output.dtype.name

    def answers(self) -> Answers:
        """Return the rules for reading the outputs, inferred from `probabilities` if present."""
        if self.activation is None and self._has_probabilities:
            images = noise(self.input_shape)
            given, wanted = self.predict(images), self._answer(images, "probabilities")
            if np.allclose(given, wanted[:, -self.outputs :], atol=1e-6):
                sums = np.allclose(given.sum(-1), 1, atol=1e-3) and self.outputs > 1
                self.activation = SOFTMAX if sums else SIGMOID
            else:
                self.activation = LINEAR
        return super().answers()

    def _image_shape(self, spec: Any) -> tuple[int | None, ...]:
        """Return the model's own image shape; this package's signatures take any size."""
        if answer := getattr(self._loaded, "answer", None):
            spec = answer.concrete_functions[0].structured_input_signature[0][0]
        return tuple(spec.shape[1:])

    def _run(self, images: np.ndarray) -> np.ndarray:
        return self._answer(images, self.output_name)

    def _answer(self, images: np.ndarray, name: str) -> np.ndarray:
        import tensorflow as tf

        batch = tf.constant(images.astype(self.input_dtype))
        return np.asarray(self._serve(**{self.input_name: batch})[name], dtype="float32")

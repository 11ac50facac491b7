"""`Runtime`: pixels in, the model's outputs out, as float32, whatever runs the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError

_BATCH = 64


# What runs a file besides TensorFlow, by its kind (see `located`): the module and its extra.
ENGINES = {
    ".tflite": ("ai_edge_litert.interpreter", "export"),
    ".onnx": ("onnxruntime", "onnx"),
    ".xml": ("openvino", "openvino"),
}


class Runtime:
    """A model that can be run.

    Attributes:
        input_name, output_name: of the signature.
        input_shape: (height, width, channels); None where the size is free.
        input_dtype, output_dtype: what the file itself takes and gives.
        output_step: the least difference between two outputs that a quantized file can express.
        notes: what a run here leaves open, in words.
    """

    input_name: str = "images"
    output_name: str = "predictions"
    input_shape: tuple[int | None, ...]
    classes: int
    input_dtype: str = "float32"
    output_dtype: str = "float32"
    output_step: float = 0.0
    notes: tuple[str, ...] = ()

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Run images (n, height, width, channels) → float32 (n, classes)."""
        self.require_images(images)
        batches = range(0, len(images), _BATCH)
        return np.concatenate([self._run(images[start : start + _BATCH]) for start in batches])

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """`predict`, and a softmax where the model gives no probabilities itself."""
        outputs = self.predict(images)
        if are_probabilities(outputs, self.output_step):
            return outputs
        exponentials = np.exp(outputs - outputs.max(-1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))

    def run_one(self, image: np.ndarray) -> np.ndarray:
        """Run one image (1, height, width, channels), as a device does; this is what is timed."""
        return self._run(image)

    def any_size(self) -> Runtime:
        """The same model for images of any size; itself, if it is.

        Raises:
            UserError: it is a file of one size.
        """
        if self.input_shape[:2] == (None, None):
            return self
        raise UserError(
            f"This file takes images of {self.input_shape[0]}×{self.input_shape[1]} only. "
            "Evaluate the run folder or the .keras file that it was made from."
        )

    def _run(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def require_images(self, images: np.ndarray) -> None:
        """Refuse images that are not (n, height, width, channels) of the file's size.

        Raises:
            UserError: with both sizes.
        """
        expected, received = self.input_shape, images.shape[1:]
        fits = len(received) == 3 and all(
            e is None or e == r for e, r in zip(expected, received, strict=True)
        )
        if not fits or len(images) == 0:
            raise UserError(
                f"The model takes images of (height, width, channels) = {expected}, one or more; "
                f"received a batch of shape {images.shape}."
            )


def classifier_shape(model: Any) -> tuple[tuple[int | None, ...], int]:
    """Return a Keras model's image shape (height, width, channels) and number of classes.

    Raises:
        UserError: several inputs or outputs, or no image in and one vector out.
    """
    inputs: Any = getattr(model, "input_shape", None)
    outputs: Any = getattr(model, "output_shape", None)
    one = all(
        isinstance(shape, tuple) and isinstance(shape[-1], int) for shape in (inputs, outputs)
    )
    outputs_by_name = getattr(model, "output", None)
    if isinstance(outputs_by_name, dict) and "predictions" in outputs_by_name:
        raise UserError(
            f"'{model.name}' has the outputs {', '.join(model.output)}; drop the auxiliary ones "
            "first: keras_resnet.inference_model(model)."
        )
    if not one or len(inputs) != 4 or len(outputs) != 2:
        raise UserError(
            "Expected a functional Keras model from one image (batch, height, width, channels) to "
            f"one vector (batch, classes); received {inputs} → {outputs}."
        )
    return inputs[1:], outputs[-1]


def require_image_shape(path: Path, inputs: Any, outputs: Any) -> None:
    """Refuse shapes that are not those of a batch of images and of vectors.

    Raises:
        UserError: with both.
    """
    if len(inputs) != 4 or len(outputs) != 2:
        raise UserError(
            f"{path} does not turn a batch of images into a batch of vectors: "
            f"{list(inputs)} → {list(outputs)}."
        )


def are_probabilities(outputs: np.ndarray, step: float = 0.0) -> bool:
    """Whether every row is a distribution, up to rounding to multiples of `step`."""
    slack = 1e-3 + outputs.shape[-1] * step / 2
    in_range = outputs.min() >= 0 and outputs.max() <= 1 + 1e-3
    return bool(in_range and np.abs(outputs.sum(-1) - 1).max() <= slack)


INPUT, OUTPUT = "images", "predictions"

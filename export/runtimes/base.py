"""`Runtime`: pixels in, the model's outputs out, as float32, whatever runs the file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.images.answers import SOFTMAX, Answers, class_count, noise, told_by

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
        name: what messages call it: the file, or the Keras model.
        input_shape: (height, width, channels); None where the size is free.
        outputs: how many numbers it gives for an image.
        activation: what they went through ("softmax", "sigmoid", "linear"); None until it is known.
        input_dtype, output_dtype: what the file itself takes and gives.
        output_step: the least difference between two outputs that a quantized file can express.
        notes: what a run here leaves open, in words.
    """

    input_name: str = "images"
    output_name: str = "predictions"
    name: str = "the model"
    input_shape: tuple[int | None, ...]
    outputs: int
    activation: str | None = None
    input_dtype: str = "float32"
    output_dtype: str = "float32"
    output_step: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many classes it tells apart; one output tells two apart."""
        return class_count(self.outputs)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Run images (n, height, width, channels) → float32 (n, outputs).

        Raises:
            UserError: images of another size.
            NotFiniteError: it gives NaN or infinity for one of them.
        """
        self.require_images(images)
        batches = range(0, len(images), _BATCH)
        outputs = np.concatenate([self._run(images[start : start + _BATCH]) for start in batches])
        if wrong := np.count_nonzero(~np.isfinite(outputs).all(-1)):
            raise NotFiniteError(self.name, int(wrong), len(outputs))
        return outputs

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Run images (n, height, width, channels) → the probability of every class, (n, classes).

        Raises:
            UserError: as `predict`.
        """
        outputs = self.predict(images)
        return self.answers().probabilities(outputs)

    def answers(self) -> Answers:
        """How its outputs are read.

        Where neither the file nor its manifest tells, it is shown noise, and what comes out tells:
        a line on stderr says so, unless that is a softmax, which nothing else looks like.
        """
        if self.activation is None:
            self.activation = told_by(self.predict(noise(self.input_shape)), self.output_step)
            if self.activation != SOFTMAX:
                print(
                    f"{self.name} does not say what its outputs are; they are read as "
                    f"'{self.activation}'. Say it with --activation (activation=).",
                    file=sys.stderr,
                )
        return Answers(self.activation, self.outputs)

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
    """Return a Keras model's image shape (height, width, channels) and number of outputs.

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


class NotFiniteError(UserError):
    """A model gave NaN or infinity."""

    def __init__(self, name: str, wrong: int, images: int) -> None:
        super().__init__(
            f"{name} gives outputs that are not finite (NaN or infinity) for {wrong} of {images} "
            "images. Its weights are damaged, or its training failed: take an earlier checkpoint, "
            "or train with a lower learning rate."
        )


INPUT, OUTPUT = "images", "predictions"

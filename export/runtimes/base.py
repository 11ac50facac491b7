"""`Runtime`: the common interface of all runtimes, from pixels to float32 outputs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.images.answers import SOFTMAX, Answers, class_count, noise, told_by

_BATCH = 64


# The engine for each kind of file that TensorFlow does not run (see `located`): (module, extra).
ENGINES = {
    ".tflite": ("ai_edge_litert.interpreter", "export"),
    ".onnx": ("onnxruntime", "onnx"),
    ".xml": ("openvino", "openvino"),
}


class Runtime:
    """A model that can be run.

    Attributes:
        input_name, output_name: names in the signature.
        name: the name used in messages: the file, or the Keras model.
        input_shape: (height, width, channels); None for a free size.
        outputs: number of outputs per image.
        activation: activation of the outputs ("softmax", "sigmoid", "linear"); None until known.
        input_dtype, output_dtype: types of the file's own input and output.
        output_step: the smallest difference between two outputs of a quantized file.
        notes: a sentence for each point that running the file here does not cover.
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
        """The number of classes; one output stands for two."""
        return class_count(self.outputs)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Run images (n, height, width, channels) → float32 (n, outputs).

        Raises:
            UserError: the images have another size, or the file is damaged.
            NotFiniteError: an output is NaN or infinity.
        """
        self.require_images(images)
        batches = range(0, len(images), _BATCH)
        with fails_as(f"{self.name} cannot be run"):
            parts = [self._run(images[start : start + _BATCH]) for start in batches]
            outputs = np.concatenate(parts)
        if outputs.shape != (len(images), self.outputs):
            raise UserError(
                f"{self.name} gives outputs of shape {outputs.shape} for {len(images)} images; "
                f"expected {(len(images), self.outputs)}. The file is damaged."
            )
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
        """Return the rules for reading the outputs.

        If neither the file nor its manifest gives the activation, it is inferred from the outputs
        for noise. A line on stderr then says so, except for a softmax, which is unmistakable.
        """
        if self.activation is None:
            self.activation = told_by(self.predict(noise(self.input_shape)), self.output_step)
            if self.activation != SOFTMAX:
                print(
                    f"{self.name} does not record the activation of its outputs; they are read as "
                    f"'{self.activation}'. Set it with --activation (activation=).",
                    file=sys.stderr,
                )
        return Answers(self.activation, self.outputs)

    def run_one(self, image: np.ndarray) -> np.ndarray:
        """Run one image (1, height, width, channels), as a device does. Latency is timed here."""
        return self._run(image)

    def any_size(self) -> Runtime:
        """Return this model with a free image size; `self` if the size is free already.

        Raises:
            UserError: the file has one fixed size.
        """
        if self.input_shape[:2] == (None, None):
            return self
        raise UserError(
            f"This file takes only images of {self.input_shape[0]}×{self.input_shape[1]}. "
            "Evaluate the run folder or the .keras file that it was made from."
        )

    def _run(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def require_images(self, images: np.ndarray) -> None:
        """Refuse images that are not (n, height, width, channels) of the file's size.

        Raises:
            UserError: the shapes differ; the message has both.
        """
        expected, received = self.input_shape, images.shape[1:]
        fits = len(received) == 3 and all(
            e is None or e == r for e, r in zip(expected, received, strict=True)
        )
        if not fits or len(images) == 0:
            raise UserError(
                f"The model takes one or more images of (height, width, channels) = {expected}; "
                f"received a batch of shape {images.shape}."
            )


def classifier_shape(model: Any) -> tuple[tuple[int | None, ...], int]:
    """Return a Keras model's image shape (height, width, channels) and number of outputs.

    Raises:
        UserError: the model does not map one image to one vector.
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
    """Refuse an input that is not a batch of images, or an output that is not a batch of vectors.

    Raises:
        UserError: the message has both shapes.
    """
    if len(inputs) != 4 or len(outputs) != 2:
        raise UserError(
            f"{path} must map a batch of images (4 dimensions) to a batch of vectors (2); "
            f"received {list(inputs)} → {list(outputs)}. Use the file of an image classifier."
        )


@contextmanager
def fails_as(what: str) -> Iterator[None]:
    """Turn any error in the `with` block into a UserError that begins with `what`.

    The engines raise unrelated types for a damaged file: their own, RuntimeError, ValueError, ...

    Raises:
        UserError: the first line of the error's text follows `what`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines or [type(error).__name__])[0]
        raise UserError(f"{what}: {reason[:300]}") from error


class NotFiniteError(UserError):
    """A model gave NaN or infinity."""

    def __init__(self, name: str, wrong: int, images: int) -> None:
        super().__init__(
            f"{name} gives outputs that are not finite (NaN or infinity) for {wrong} of {images} "
            "images. Its weights are damaged, or its training failed: take an earlier checkpoint, "
            "or train with a lower learning rate."
        )


INPUT, OUTPUT = "images", "predictions"

"""The teacher of a distillation: a trained network whose answers are learned, too (Hinton 2015,
arXiv:1503.02531).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.base import classifier_shape
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.images.answers import SIGMOID, SOFTMAX, class_count
from keras_resnet.models.auxiliary import inference_model
from keras_resnet.recipes.configs.schema import DistillConfig
from keras_resnet.recipes.runs import sources
from keras_resnet.recipes.training import transfer
from keras_resnet.recipes.training.transfer import Shape

_ANOTHER = (
    "Name one of the same classes: --teacher, or --set distill.teacher=RUN --set distill.weights="
)
# The least float32 that is not denormal: what a softmax has rounded to zero.
_TINY = float(np.finfo("float32").tiny)


def find_teacher(choice: DistillConfig) -> keras.Model | None:
    """Return the trained classifier that the config names; None if it names none.

    Raises:
        UserError: no such model, one without its normalisation inside, an exported file.
    """
    if not choice.teacher:
        return None
    teacher = sources.find(choice.teacher, choice.weights or None).keras_model()
    transfer.require_preprocessing(teacher)
    return inference_model(teacher)


def require_same_classes(choice: DistillConfig, names: tuple[str, ...]) -> None:
    """Refuse a teacher whose labels are known and are not these: it would teach other answers.

    Raises:
        UserError: it is one.
    """
    if not choice.teacher:
        return
    source = sources.find(choice.teacher, choice.weights or None)
    if source.labels and not source.has_classes(names):
        raise UserError(
            f"The teacher '{choice.teacher}' knows {_some(source.labels)}, the data has "
            f"{_some(names)}. {_ANOTHER}"
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def require_fit(teacher: keras.Model, shape: Shape, classes: int) -> None:
    """Refuse a teacher that cannot be shown the student's images or knows other classes.

    Raises:
        UserError: it is one.
    """
    known = class_count(classifier_shape(teacher)[1])
    if known != classes:
        raise UserError(
            f"The teacher '{teacher.name}' knows {known} classes, the data has {classes}. "
            f"{_ANOTHER}"
        )
    answers = KerasRuntime(teacher).answers()
    if answers.binary or answers.activation == SIGMOID:
        end = "has one output" if answers.binary else "ends in sigmoids"
        raise UserError(
            f"The teacher '{teacher.name}' {end}; distillation compares softmaxes over the "
            "classes. Name a teacher that ends in a softmax over the classes, or in their logits."
        )
    _on(shape, teacher)


class Teacher:
    """What a teacher adds to the loss; built in the current strategy and dtype policy.

    Args:
        model: from RGB 0...255 to logits or probabilities (batch, classes).
        choice: its temperature and its share of the loss.
        shape: of the student's images.
    """

    def __init__(self, model: keras.Model, choice: DistillConfig, shape: Shape) -> None:
        self.temperature, self.weight = choice.temperature, choice.weight
        self._gives_probabilities = KerasRuntime(model).answers().activation == SOFTMAX
        self.model = _on(shape, model)

    def mix(self, losses: Any, images: Any, logits: Any) -> Any:
        """Return the student's loss per image: `(1 - weight)` of its own, the rest the teacher's.

        That is `T² · KL(teacher ‖ student)` of the softmax at temperature T; with T² the gradients
        keep their size whatever T is (section 2). Both see the same, varied, image.
        """
        answers = tf.cast(self.model(images, training=False), tf.float32)
        if self._gives_probabilities:  # their logarithms are the logits up to a constant
            answers = tf.math.log(tf.maximum(answers, _TINY))
        wanted = tf.nn.log_softmax(answers / self.temperature)
        given = tf.nn.log_softmax(tf.cast(logits, tf.float32) / self.temperature)
        divergence = tf.reduce_sum(tf.exp(wanted) * (wanted - given), axis=-1)
        return (1 - self.weight) * losses + self.weight * self.temperature**2 * divergence


def _on(shape: Shape, model: keras.Model) -> keras.Model:
    """The same layers and weights for images of `shape`, in the current dtype policy."""
    inputs = keras.layers.Input(shape, name="images")
    try:
        copy = keras.models.clone_model(model, input_tensors=inputs, clone_function=_rebuild)
        copy.set_weights(model.get_weights())
    except ValueError as error:
        raise UserError(
            f"The teacher '{model.name}' takes images of {model.input_shape[1:]} only, the "
            f"student is shown {tuple(shape)}."
        ) from error
    return copy


def _rebuild(layer: Any) -> Any:
    """Maps in the policy's precision, vectors (the classifier and its softmax) in float32."""
    if isinstance(layer, keras.Layer) and len(layer.output.shape) == 2:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    return transfer.rebuild(layer)

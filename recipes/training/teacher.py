"""The teacher of a distillation: a trained network whose outputs are targets (arXiv:1503.02531)."""

from __future__ import annotations

from collections.abc import Mapping
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
from keras_resnet.recipes.training import features, transfer
from keras_resnet.recipes.training.transfer import Shape

_ANOTHER = (
    "Name a teacher with the same classes: --teacher, or "
    "--set distill.teacher=RUN --set distill.weights="
)
# The least normal float32, in place of probabilities that a softmax rounded to zero.
_TINY = float(np.finfo("float32").tiny)


def find_teacher(choice: DistillConfig) -> keras.Model | None:
    """Return the trained classifier that the config names as teacher; None without a teacher.

    Raises:
        UserError: no such model, a model without normalisation inside, or an exported file.
    """
    if not choice.teacher:
        return None
    teacher = sources.find(choice.teacher, choice.weights or None, keras=True).keras_model()
    transfer.require_preprocessing(teacher)
    return inference_model(teacher)


def require_same_classes(choice: DistillConfig, names: tuple[str, ...]) -> None:
    """Refuse a teacher that is known to have other classes.

    Raises:
        UserError: the teacher has other classes.
    """
    if not choice.teacher:
        return
    source = sources.find(choice.teacher, choice.weights or None, keras=True)
    if source.labels and not source.has_classes(names):
        raise UserError(
            f"The teacher '{choice.teacher}' has the classes {_some(source.labels)}, but the data "
            f"has {_some(names)}. {_ANOTHER}"
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def require_fit(teacher: keras.Model, shape: Shape, classes: int) -> None:
    """Refuse a teacher that cannot take the student's images or has another number of classes.

    Raises:
        UserError: the teacher does not fit, or does not end in a softmax or logits.
    """
    known = class_count(classifier_shape(teacher)[1])
    if known != classes:
        raise UserError(
            f"The teacher '{teacher.name}' has {known} classes, but the data has {classes}. "
            f"{_ANOTHER}"
        )
    answers = KerasRuntime(teacher).answers()
    if answers.binary or answers.activation == SIGMOID:
        end = "has one output" if answers.binary else "ends in sigmoids"
        raise UserError(
            f"The teacher '{teacher.name}' {end}, but distillation needs a softmax over the "
            "classes. Name a teacher that ends in a softmax over the classes, or in their logits."
        )
    _on(shape, teacher)


class Teacher:
    """A teacher and its part of the loss; built in the current strategy and dtype policy.

    Args:
        model: the teacher, from RGB 0...255 to logits or probabilities (batch, classes).
        choice: the temperature and the teacher's share of the loss.
        shape: the shape of the student's images.
    """

    def __init__(self, model: keras.Model, choice: DistillConfig, shape: Shape) -> None:
        self.choice = choice
        self._gives_probabilities = KerasRuntime(model).answers().activation == SOFTMAX
        self.model = features.teacher_with_features(_on(shape, model), choice)

    def watched(self, student: keras.Model) -> keras.Model:
        """Return the student with the outputs that `mix` needs, as a dictionary."""
        return features.student_with_features(student, self.choice)

    def mix(self, losses: Any, images: Any, outputs: Mapping[str, Any]) -> Any:
        """Return the loss per image: `(1 - weight)` of `losses` plus `weight` of the teacher's.

        The teacher's loss is `T² · KL(teacher ‖ student)` of the softmax at temperature T. The
        factor T² keeps the size of the gradients independent of T (section 2). Teacher and student
        see the same augmented image. The loss of the features is added.

        Args:
            losses: the losses on the labels, float32 (n,).
            images: the images that the student saw.
            outputs: the outputs of the `watched` student.
        """
        taught = self.model(images, training=False)
        answers = tf.cast(taught["predictions"], tf.float32)
        if self._gives_probabilities:  # their logarithms are the logits up to a constant
            answers = tf.math.log(tf.maximum(answers, _TINY))
        temperature, weight = self.choice.temperature, self.choice.weight
        wanted = tf.nn.log_softmax(answers / temperature)
        given = tf.nn.log_softmax(tf.cast(outputs["predictions"], tf.float32) / temperature)
        divergence = tf.reduce_sum(tf.exp(wanted) * (wanted - given), axis=-1)
        mixed = (1 - weight) * losses + weight * temperature**2 * divergence
        inner = features.feature_losses(self.choice, taught, outputs)
        return mixed + self.choice.feature_weight * inner


def _on(shape: Shape, model: keras.Model) -> keras.Model:
    """Return the same layers and weights for images of `shape`, in the current dtype policy."""
    inputs = keras.layers.Input(shape, name="images")
    try:
        copy = keras.models.clone_model(model, input_tensors=inputs, clone_function=_rebuild)
        copy.set_weights(model.get_weights())
    except ValueError as error:
        raise UserError(
            f"The teacher '{model.name}' takes only images of {model.input_shape[1:]}, but the "
            f"student gets {tuple(shape)}. Name another teacher, or train with the teacher's "
            "image size: --set data.image_size=N"
        ) from error
    return copy


def _rebuild(layer: Any) -> Any:
    """Rebuild a layer: vectors (classifier, softmax) in float32, maps in the policy's precision."""
    if isinstance(layer, keras.Layer) and len(layer.output.shape) == 2:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    return transfer.rebuild(layer)

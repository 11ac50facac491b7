"""Feature distillation: outputs of inner layers of the student are matched to the teacher's.

FitNets (arXiv:1412.6550, section 2.2) matches them through an added convolution, because its
student is narrower than its teacher. Here there is none, so both outputs must have the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.models.auxiliary import by_name
from keras_resnet.recipes.configs.schema import Config, DistillConfig

FEATURE_LOSSES = {
    "mse": keras.losses.mean_squared_error,
    "mae": keras.losses.mean_absolute_error,
    "huber": keras.losses.huber,
    "cosine_similarity": keras.losses.cosine_similarity,
}
_STUDENT, _TEACHER = 0, 1


def check(config: Config) -> None:
    """Check the names of the features and of their loss.

    Raises:
        UserError: an unknown loss, features without a teacher or for a network that is compressed,
            or an empty name.
    """
    choice = config.distill
    if choice.feature_loss not in FEATURE_LOSSES:
        raise UnknownNameError("distill.feature_loss", choice.feature_loss, FEATURE_LOSSES, "")
    if choice.features and not choice.teacher:
        raise UserError(
            "distill.features needs a teacher. Name one: --set distill.teacher=RUN, or remove "
            "distill.features."
        )
    if choice.features and config.compress.technique:
        raise UserError(
            "distill.features does not work with compress.technique, which renames the layers. "
            "Remove one of them; the teacher's answers can still be learned."
        )
    if not all(name for pair in _pairs(choice) for name in pair):
        raise UserError(
            'distill.features must be layer names, "LAYER" or "STUDENT_LAYER=TEACHER_LAYER"; '
            f"received {list(choice.features)}."
        )


def require_fit(choice: DistillConfig, student: keras.Model, teacher: keras.Model) -> None:
    """Check that the features exist in both networks and have the same shapes.

    Raises:
        UserError: a layer is unknown, or two layers have outputs of different shapes.
    """
    student_maps = _maps(student, choice, _STUDENT)
    teacher_maps = _maps(teacher, choice, _TEACHER)
    for feature, one, other in zip(choice.features, student_maps, teacher_maps, strict=True):
        if tuple(one.shape) != tuple(other.shape):
            raise UserError(
                f"The feature '{feature}' has the shape {tuple(one.shape)[1:]} in the student "
                f"'{student.name}', but {tuple(other.shape)[1:]} in the teacher '{teacher.name}'. "
                'Name two layers with the same shape: --set distill.features=["STUDENT=TEACHER"]'
            )


def student_with_features(student: keras.Model, choice: DistillConfig) -> keras.Model:
    """Return the same layers with the features added to the outputs, as a dictionary.

    The logits keep their names; the features are called `feature0`, `feature1`, … Without
    features, return `student`, which may then be a tf_keras model.
    """
    return _with_features(student, choice, _STUDENT) if choice.features else student


def teacher_with_features(teacher: keras.Model, choice: DistillConfig) -> keras.Model:
    """Return the same layers with a dictionary of outputs: `predictions`, `feature0`, …"""
    return _with_features(teacher, choice, _TEACHER)


def _with_features(model: keras.Model, choice: DistillConfig, side: int) -> keras.Model:
    maps = enumerate(_maps(model, choice, side))
    added = {f"feature{index}": value for index, value in maps}
    return keras.Model(model.input, {**by_name(model.output), **added}, name=model.name)


def feature_losses(
    choice: DistillConfig, wanted: Mapping[str, Any], given: Mapping[str, Any]
) -> Any:
    """Return the loss per image, float32 (n,): the mean over positions, summed over features.

    Args:
        choice: the names and the loss.
        wanted: the outputs of `teacher_with_features`.
        given: the outputs of `student_with_features`.
    """
    loss = FEATURE_LOSSES[choice.feature_loss]
    total = tf.zeros(tf.shape(given["predictions"])[:1])
    for name in (name for name in wanted if name != "predictions"):
        values = loss(tf.cast(wanted[name], tf.float32), tf.cast(given[name], tf.float32))
        total += tf.reduce_mean(values, axis=list(range(1, values.shape.rank)))
    return total


def _pairs(choice: DistillConfig) -> list[tuple[str, str]]:
    """Return the names (student's layer, teacher's layer) of each feature."""
    split = [feature.partition("=") for feature in choice.features]
    return [(one.strip(), (other if sign else one).strip()) for one, sign, other in split]


def _maps(model: keras.Model, choice: DistillConfig, side: int) -> list[Any]:
    layers = {layer.name: layer for layer in model.layers}
    names = [pair[side] for pair in _pairs(choice)]
    for name in names:
        if name not in layers:
            owner = ("student", "teacher")[side]
            see = "To list a network's layers: keras-resnet show NAME"
            raise UnknownNameError(f"layer of the {owner} '{model.name}'", name, layers, see)
    return [layers[name].output for name in names]

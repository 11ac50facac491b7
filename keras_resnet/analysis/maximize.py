"""Images that a network takes for a class, made by raising the logit, with tf-keras-vis."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from keras_resnet import registry
from keras_resnet.analysis import explained_model
from keras_resnet.analysis.explained_model import (
    numpy_seed,
    quiet_tf_keras_vis,
    require_tf_keras_vis,
)
from keras_resnet.arguments import checked
from keras_resnet.errors import UserError
from keras_resnet.images import preprocessing


@checked
def activation_maximization(
    model: keras.Model,
    classes: int | Sequence[int],
    *,
    steps: int = 200,
    preprocessing_mode: str | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Draw an image for each class by changing noise until the class's logit is high.

    RMSprop changes the noise along the gradient. Between steps the image is slightly shifted,
    rotated and smoothed (arXiv:1312.6034, section 2;
    https://distill.pub/2017/feature-visualization).

    Args:
        model: a functional classifier.
        classes: one class or several, with one image each.
        steps: number of updates, 1 or more.
        preprocessing_mode: the normalisation of a model that does not contain it, a key of
            `keras_resnet.images.preprocessing.PREPROCESSING`. It is known for networks of this
            package.
        seed: seed of the noise.

    Returns:
        Images (len(classes), height, width, channels), uint8 RGB, with 224 pixels a side if the
        model has no fixed size.

    Raises:
        UserError, UnknownNameError, MissingExtraError: as for `explain`.
    """
    if not (isinstance(steps, int | np.integer) and steps > 0):
        raise UserError(f"steps must be a whole number, 1 or more; received {steps!r}.")
    require_tf_keras_vis()
    copy = explained_model.prepared(model)
    chosen = explained_model.checked_classes(classes, copy)
    height, width, channels = copy.input_shape[1:]
    inputs = keras.Input((height or 224, width or 224, channels))
    scaled = preprocessing.rescale(inputs, _mode(model, preprocessing_mode))
    whole = keras.Model(inputs, copy(scaled))
    rng = np.random.default_rng(seed)
    start = rng.uniform(96, 160, (len(chosen), *whole.input_shape[1:])).astype("float32")
    with numpy_seed(seed), quiet_tf_keras_vis():
        drawn = _maximised(whole, chosen, start, steps, rng)
    return np.rint(np.clip(drawn, 0, 255)).astype("uint8")


def _maximised(
    model: keras.Model, classes: list[int], start: np.ndarray, steps: int, rng: np.random.Generator
) -> np.ndarray:
    from tf_keras_vis.activation_maximization import ActivationMaximization
    from tf_keras_vis.activation_maximization.input_modifiers import Jitter, Rotate2D
    from tf_keras_vis.utils.scores import CategoricalScore

    turn = Rotate2D(degree=1)
    turn.random_generator = rng  # the default generator has no seed
    shift = Jitter(jitter=max(1, start.shape[1] // 16))
    maximise = ActivationMaximization(model)
    return np.asarray(
        maximise(CategoricalScore(classes), start, input_modifiers=[shift, turn], steps=steps)
    )


def _mode(model: keras.Model, given: str | None) -> str:
    """Return the normalisation that turns RGB 0...255 into the model's input."""
    if given is not None:
        return given
    outside = not preprocessing.has_preprocessing(model) and model.name in registry.list_models()
    return registry.architecture(model.name).network.preprocessing if outside else "raw"

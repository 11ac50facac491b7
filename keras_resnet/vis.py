"""What tf-keras-vis needs around it: the right Keras, quiet, and its noise repeatable."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np

from keras_resnet.errors import UserError, require


def require_tf_keras_vis() -> None:
    """Import it; refuse an environment in which it would explain models of another Keras."""
    import tensorflow as tf

    try:
        ours = tf.keras.Model is keras.Model
    except ImportError:  # tf.keras is tf_keras, which is not installed
        ours = False
    if not ours:
        raise UserError(
            "tf-keras-vis works on tf.keras, which is not Keras 3 in this process: "
            "TF_USE_LEGACY_KERAS is set (importing tensorflow_model_optimization sets it, too). "
            "Unset it and start again: env -u TF_USE_LEGACY_KERAS keras-resnet explain …"
        )
    with warnings.catch_warnings(action="ignore"):  # it imports scipy's zoom by an old name
        require("tf_keras_vis.scorecam", "explain")
        require("tf_keras_vis.gradcam", "explain")


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """tf-keras-vis draws from NumPy's global generator; leave that as it was."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


@contextmanager
def quiet() -> Iterator[None]:
    """No bar on stdout of the `predict` that Score-CAM calls, and no warning of Keras' that
    tf-keras-vis hands over its one input in a list."""
    was = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The structure of `inputs`")
            yield
    finally:
        if was:
            keras.config.enable_interactive_logging()

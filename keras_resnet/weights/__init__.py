"""Weights of the networks: what `weights=` accepts, and converters from other libraries."""

from __future__ import annotations

from pathlib import Path

import keras

from keras_resnet.errors import UserError


def load(model: keras.Model, weights: str | None) -> None:
    """Load `weights` into `model` in place: None leaves it as it is, a path is read by Keras.

    Raises:
        UserError: no such file or tag, not a `.weights.h5`, or weights of another network.
    """
    if weights is None:
        return
    path = Path(weights)
    if not path.name.endswith(".weights.h5"):
        raise UserError(
            f"weights={str(weights)!r} for '{model.name}' is neither None nor the path of a "
            ".weights.h5 file. This version ships no pretrained weights."
        )
    if not path.is_file():
        raise UserError(f"No such weights file: {path}")
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(f"{path} does not hold weights of '{model.name}': {first_line}") from error

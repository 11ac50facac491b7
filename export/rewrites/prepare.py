"""The float32 copy of a model: files are made from it and compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_resnet.errors import UserError
from keras_resnet.export.rewrites.rebuild import rebuilt_on
from keras_resnet.export.runtimes.base import INPUT, classifier_shape
from keras_resnet.files import plain_name
from keras_resnet.images import preprocessing as normalisation
from keras_resnet.layers import to_stock


def prepare(
    model: keras.Model, preprocessing: str | None, size: Sequence[int] | None
) -> keras.Model:
    """Return a copy in stock layers, with a fixed image size and a normalisation in front.

    Args:
        model: a functional Keras 3 image classifier.
        preprocessing: the normalisation, a key of `PREPROCESSING`; None for none.
        size: (height, width, channels), used if the model's size is free.

    Raises:
        UserError: the model is not such a classifier, its size is free and none is given, or it
            already normalises its input.
    """
    shape, _ = classifier_shape(model)
    stock = to_stock(model)
    stock.name = plain_name(model.name)  # it becomes a scope in TensorFlow's graphs
    if isinstance(stock, keras.Sequential):
        stock = keras.Model(stock.inputs[0], stock.outputs[0], name=stock.name)
    if None in shape:
        if size is None:
            raise UserError(
                f"The model's image size is free ({shape}), but an exported file has one fixed "
                "size. Pass calibration images of that size, or build the model with an "
                "input_shape."
            )
        shape = tuple(size)
    if preprocessing is None and stock.input_shape[1:] == shape:
        return stock
    if preprocessing is not None and normalisation.has_preprocessing(model):
        raise UserError(
            f"'{model.name}' already normalises its input; received preprocessing="
            f"{preprocessing!r}. Drop preprocessing= (--preprocessing)."
        )
    inputs = keras.layers.Input(shape, name=INPUT)
    x = normalisation.rescale(inputs, preprocessing or "raw")
    return rebuilt_on(stock, inputs, x)


def as_exported(model: keras.Model, content: dict[str, Any]) -> keras.Model:
    """Return the model with the same input as the files of a manifest's `content`.

    It gets the normalisation that the export put in front, unless it has one inside. If its image
    size is free, it gets the files' size.

    Raises:
        UserError: see `prepare`.
    """
    inside = normalisation.has_preprocessing(model)
    mode = None if inside else content.get("preprocessing")  # absent in older manifests
    return prepare(model, mode, content["input"]["shape"])

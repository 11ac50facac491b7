"""Turn pixels into the input of a network, with one per-channel `Rescaling` of RGB.

Keras Applications' "caffe" mode uses BGR and ours uses RGB. Converting such weights flips the input
channels of the first convolution once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import registry
from keras_resnet.arguments import checked
from keras_resnet.errors import PixelRangeWarning, UnknownNameError, UserError, warn
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.read import read_image
from keras_resnet.keras_compat import calls_of, producer


@dataclass(frozen=True)
class Preprocessing:
    """`(x - mean) / std` per channel, for x in RGB 0...255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def layer(self, channels: int, name: str = "rescaling") -> keras.layers.Rescaling:
        """Return the stock layer. For images that are not RGB it uses the channels' average."""
        mean, std = np.array(self.mean), np.array(self.std)
        if channels != 3:
            mean, std = np.full(channels, mean.mean()), np.full(channels, std.mean())
        # float32 under every policy: in bfloat16 the error is more than a grey level.
        return keras.layers.Rescaling(
            scale=(1 / std).tolist(),
            offset=(-mean / std).tolist(),
            dtype="float32",
            name=name,
        )


# The layer from the network's preprocessing to the one of its weights (`convert`). In an ensemble
# the member's name comes before it.
BETWEEN = "rescaling_between"

PREPROCESSING: dict[str, Preprocessing | None] = {
    "raw": None,  # unchanged pixels: MLPerf Tiny
    "tf": Preprocessing((127.5,) * 3, (127.5,) * 3),  # to [-1, 1]
    "caffe": Preprocessing((123.68, 116.779, 103.939), (1.0,) * 3),
    "torch": Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    # Mean and standard deviation of CIFAR-10's training pixels, the field's usual digits.
    "cifar": Preprocessing((125.307, 122.961, 113.8575), (62.985, 62.0925, 66.7080)),
}


def require_mode(mode: str) -> None:
    """Refuse a mode that is not in `PREPROCESSING`.

    Raises:
        UnknownNameError: the message has the nearest mode.
    """
    if mode not in PREPROCESSING:
        raise UnknownNameError("preprocessing", mode, PREPROCESSING, "")


def rescale(x: Any, mode: str) -> Any:
    """Apply the `Rescaling` of `mode` to a Keras tensor of RGB 0...255 (nothing for "raw").

    Raises:
        UnknownNameError: `mode` is not in `PREPROCESSING`.
    """
    require_mode(mode)
    preprocessing = PREPROCESSING[mode]
    return x if preprocessing is None else preprocessing.layer(x.shape[-1])(x)


def convert(x: Any, given: str, wanted: str) -> Any:
    """Apply the `Rescaling` from one mode to another to a Keras tensor; nothing if they are equal.

    This is a layer at the input and not a change of the first convolution, because the zeros that
    it pads mean another colour in each mode.
    """
    if given == wanted:
        return x
    raw = Preprocessing((0.0,) * 3, (1.0,) * 3)
    before, after = (PREPROCESSING[mode] or raw for mode in (given, wanted))
    std = [b / a for b, a in zip(before.std, after.std, strict=True)]
    mean = [b - a for b, a in zip(before.mean, after.mean, strict=True)]
    # ((x·s + m) - m') / s' = (x - (m' - m)/s) / (s'/s)
    between = Preprocessing(
        tuple(-m / s for m, s in zip(mean, before.std, strict=True)), tuple(1 / s for s in std)
    )
    return between.layer(x.shape[-1], BETWEEN)(x)


def has_preprocessing(model: keras.Model) -> bool:
    """Return True if `model` contains its normalisation, so that it takes raw pixels."""
    inside = (keras.layers.Rescaling, keras.layers.Normalization)
    behind: set[int] = set()  # layers after weights; a rescaling there is part of the network
    for layer in model.layers:  # in the order of the graph, where an ensemble's members mingle
        parents = [producer(x) for call in calls_of(layer) for x in call.inputs]
        from_raw = isinstance(layer, inside) and not layer.name.endswith(BETWEEN)
        if from_raw and behind.isdisjoint(map(id, parents)):
            return True
        if layer.weights or not behind.isdisjoint(map(id, parents)):
            behind.add(id(layer))
    return False


def mode_inside(model: keras.Model) -> str | None:
    """Return the mode of the normalisation inside `model`: "raw" for none, None for another."""
    inside = [x for x in model.layers if isinstance(x, keras.layers.Rescaling)]
    if not inside:
        return "raw"
    channels = inside[0].input.shape[-1]
    for mode, preprocessing in PREPROCESSING.items():
        if preprocessing is not None:
            layer = preprocessing.layer(channels)
            if np.allclose(layer.scale, inside[0].scale) and np.allclose(
                layer.offset, inside[0].offset
            ):
                return mode
    return None


def missing_preprocessing(model: keras.Model) -> str | None:
    """Return a text if `model` is a network of this package without its normalisation inside."""
    if model.name not in registry.list_models() or has_preprocessing(model):
        return None
    mode = registry.architecture(model.name).network.preprocessing
    if mode == "raw":
        return None
    return (
        f"'{model.name}' was built without its normalisation ('{mode}') inside, so it needs images "
        "that are normalised in the same way."
    )


@checked
def preprocess(images: Any, model: keras.Model | str) -> Any:
    """Turn RGB 0...255 `images` into the input of `model`. Also called `preprocess_input`.

    Weights of Keras Applications' ResNet50, 101, 152, VGG16 and VGG19 are converted to RGB here. So
    use this function with them, or that of `keras_resnet.applications`. The `preprocess_input` of
    `keras.applications` gives BGR, which is wrong for them.

    Args:
        images: (batch, height, width, channels), or one image without the batch. An array, which is
            not changed, or a tensor, e.g. in `map` of a `tf.data.Dataset` or an input of a model.
        model: a network of this package, or its name. If the model contains its normalisation
            (`include_preprocessing=True`, models of a run), only the dtype changes.

    Returns:
        float32 of the same shape: an array for an array, a tensor for a tensor.

    Raises:
        UnknownNameError: the model (by its `name`) is not a network of this package.
        UserError: `images` are not numbers with these dimensions, or do not have the model's size.
    """
    is_tensor = keras.ops.is_tensor(images) or keras.backend.is_keras_tensor(images)
    given = images if is_tensor else np.asarray(images)
    _require_images(given)
    inside = not isinstance(model, str) and has_preprocessing(model)
    name = model if isinstance(model, str) else model.name
    mode = "raw" if inside else registry.find(name).network.preprocessing
    if not isinstance(model, str):
        _require_shape(given, model)
    if not is_tensor:
        _warn_of_other_numbers(given)
    preprocessing = PREPROCESSING[mode]
    if preprocessing is None:
        return keras.ops.cast(given, "float32") if is_tensor else given.astype("float32")
    scaled = preprocessing.layer(given.shape[-1])(given if is_tensor else given.astype("float32"))
    return scaled if is_tensor else np.asarray(scaled)


def _require_images(images: Any) -> None:
    kind = str(getattr(images.dtype, "name", images.dtype))  # Keras tensors have a string there
    if len(images.shape) not in (3, 4) or not kind.startswith(("uint", "int", "float", "bfloat")):
        raise UserError(
            "images must be a batch (batch, height, width, channels) or one image (height, width, "
            f"channels); received {tuple(images.shape)} of {images.dtype}. "
            "keras_resnet.load_images reads files."
        )


# Of the largest value. A picture resized with a cubic filter undershoots by a seventh.
_UNDERSHOOT = 0.25


def _warn_of_other_numbers(images: np.ndarray) -> None:
    """Warn if an array is not RGB 0...255, but was normalised or divided by 255 before.

    It warns only in clear cases: whole numbers 0...1 may be a dark picture.
    """
    if images.dtype.kind != "f" or not images.size:
        return
    low, high = float(images.min()), float(images.max())
    is_normalised = low < -_UNDERSHOOT * high
    is_divided = 0 <= low < high <= 1 and bool((images % 1 != 0).any())
    if is_normalised or is_divided:
        warn(
            f"The images lie in {low:.4g}…{high:.4g}, so they were normalised or divided by 255 "
            "before. keras_resnet.preprocess takes RGB 0…255: leave the other step out.",
            PixelRangeWarning,
        )


def _require_shape(images: Any, model: keras.Model) -> None:
    expected, received = model.input_shape[1:], tuple(images.shape[-3:])
    if any(e != r and None not in (e, r) for e, r in zip(expected, received, strict=True)):
        raise UserError(
            f"'{model.name}' takes images of {expected}; received {received}. "
            "keras_resnet.load_images reads files at its size."
        )


@checked
def load_images(
    paths: str | Path | Sequence[str | Path], model: keras.Model, crop: SingleCrop | None = None
) -> np.ndarray:
    """Read the image files `paths` at the size of `model`; see `read.read_image`.

    Without a `crop` the images are resized to just cover the model's size. `keras-resnet predict`
    uses the crop with which the weights were measured, e.g.
    `SingleCrop(256, interpolation="bicubic")`.

    Returns:
        RGB 0...255 (n, height, width, channels), uint8, for `preprocess`. A free size becomes 224
        pixels.

    Raises:
        UserError: there is no file, or one does not exist or is no image.
    """
    height, width, channels = model.input_shape[1:]
    files = [paths] if isinstance(paths, str | Path) else paths
    if not len(files):
        raise UserError("load_images needs one or more image files; received none.")
    return np.stack([read_image(p, (height or 224, width or 224), channels, crop) for p in files])

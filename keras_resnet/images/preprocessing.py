"""From pixels to what a network expects: one per-channel `Rescaling` on RGB for every convention.

Keras Applications' "caffe" mode is BGR; ours is RGB, and the first convolution's input channels are
flipped once, when such weights are converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import registry
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
        """The stock layer. Images that are not RGB take the average over the three channels."""
        mean, std = np.array(self.mean), np.array(self.std)
        if channels != 3:
            mean, std = np.full(channels, mean.mean()), np.full(channels, std.mean())
        # float32 under every policy: in bfloat16 the rescaling errs by more than a grey level.
        return keras.layers.Rescaling(
            scale=(1 / std).tolist(),
            offset=(-mean / std).tolist(),
            dtype="float32",
            name=name,
        )


# From what a network takes to what its weights were trained with (`convert`); in an ensemble after
# the member's name.
BETWEEN = "rescaling_between"

PREPROCESSING: dict[str, Preprocessing | None] = {
    "raw": None,  # the pixels as they are: MLPerf Tiny
    "tf": Preprocessing((127.5,) * 3, (127.5,) * 3),  # to [-1, 1]
    "caffe": Preprocessing((123.68, 116.779, 103.939), (1.0,) * 3),
    "torch": Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    # Mean and standard deviation of CIFAR-10's training pixels, the field's usual digits.
    "cifar": Preprocessing((125.307, 122.961, 113.8575), (62.985, 62.0925, 66.7080)),
}


def require_mode(mode: str) -> None:
    """Refuse what is no key of `PREPROCESSING`.

    Raises:
        UnknownNameError: with the nearest one.
    """
    if mode not in PREPROCESSING:
        raise UnknownNameError("preprocessing", mode, PREPROCESSING, "")


def rescale(x: Any, mode: str) -> Any:
    """Put the `Rescaling` of `mode` on a Keras tensor of RGB 0...255 (nothing for "raw").

    Raises:
        UnknownNameError: `mode` is not in `PREPROCESSING`.
    """
    require_mode(mode)
    preprocessing = PREPROCESSING[mode]
    return x if preprocessing is None else preprocessing.layer(x.shape[-1])(x)


def convert(x: Any, given: str, wanted: str) -> Any:
    """Put the `Rescaling` from one mode to another on a Keras tensor; none where they are one.

    A layer at the input, not a change of the first convolution: a zero that is padded there means
    another colour in each mode.
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
    """Whether `model` normalises its input itself, so that it takes raw pixels."""
    inside = (keras.layers.Rescaling, keras.layers.Normalization)
    behind: set[int] = set()  # what scales behind weights is the network's own
    for layer in model.layers:  # in the order of the graph, where an ensemble's members mingle
        parents = [producer(x) for call in calls_of(layer) for x in call.inputs]
        from_raw = isinstance(layer, inside) and not layer.name.endswith(BETWEEN)
        if from_raw and behind.isdisjoint(map(id, parents)):
            return True
        if layer.weights or not behind.isdisjoint(map(id, parents)):
            behind.add(id(layer))
    return False


def mode_inside(model: keras.Model) -> str | None:
    """The mode of the normalisation inside `model`, "raw" where there is none; None: another."""
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
    """Say so if `model` is one of the zoo's networks without the normalisation it was made for."""
    if model.name not in registry.list_models() or has_preprocessing(model):
        return None
    mode = registry.architecture(model.name).network.preprocessing
    if mode == "raw":
        return None
    return (
        f"'{model.name}' was built without its normalisation ('{mode}') inside, so it takes what "
        "it took in training."
    )


def preprocess(images: Any, model: keras.Model | str) -> Any:
    """Turn RGB 0...255 `images` into what `model` expects; also called `preprocess_input`.

    The weights of Keras Applications' ResNet50, 101, 152, VGG16 and VGG19 are turned to RGB here.
    So put this function in front of them, or that of `keras_resnet.applications`, and not the
    `preprocess_input` of `keras.applications`, which gives BGR.

    Args:
        images: (batch, height, width, channels), or one image without the batch: an array, which is
            not changed, or a tensor, e.g. in `map` of a `tf.data.Dataset` or an input of a model.
        model: a network of this zoo or its name. Where the normalisation is inside the model
            (`include_preprocessing=True`, run artefacts), only the dtype changes.

    Returns:
        float32 of the same shape: an array for an array, a tensor for a tensor.

    Raises:
        UnknownNameError: the model (by its `name`) is not of this zoo.
        UserError: `images` are no numbers of these dimensions, or not of the model's size.
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
            "Expected a batch of images (batch, height, width, channels) or one image (height, "
            f"width, channels), received {tuple(images.shape)} of {images.dtype}. "
            "keras_resnet.load_images reads files."
        )


# Of the largest value: a picture that was resized by a cubic filter undershoots by a seventh.
_UNDERSHOOT = 0.25


def _warn_of_other_numbers(images: np.ndarray) -> None:
    """Say so if an array is no RGB 0...255, but was normalised or divided by 255 before.

    Only where it can be nothing else: 0...1 in whole numbers may be a dark picture.
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
            f"'{model.name}' takes images of {expected}, received {received}. "
            "keras_resnet.load_images reads files at its size."
        )


def load_images(
    paths: Sequence[str | Path], model: keras.Model, crop: SingleCrop | None = None
) -> np.ndarray:
    """Read the image files `paths` as `model` takes them: see `read.read_image`.

    Without a `crop` they are resized to just cover the model's size; `keras-resnet predict` gives
    the one by which the weights were measured, e.g. `SingleCrop(256, interpolation="bicubic")`.

    Returns:
        RGB 0...255 (n, height, width, channels), uint8, for `preprocess`; 224 pixels a side where
        the model's size is free.

    Raises:
        UserError: a file that is absent or no image.
    """
    height, width, channels = model.input_shape[1:]
    files = [paths] if isinstance(paths, str | Path) else paths
    return np.stack([read_image(p, (height or 224, width or 224), channels, crop) for p in files])

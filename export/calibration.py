"""Calibration images: read them, refuse unusable ones, and warn about likely mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import registry
from keras_resnet.errors import UserError
from keras_resnet.export.formats.tflite import convert, keep_float
from keras_resnet.files import expanded
from keras_resnet.images import preprocessing
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.listing import read_images

# A folder gives 256 images, as on the command line. A dataset or generator may be endless, so its
# first 512 images are used (77 MB at 224×224).
FROM_FOLDER = 256
FROM_STREAM = 512

# With fewer images, single images determine the ranges of the activations.
_FEW = 32
# Largest plausible distance, in grey levels, between the images' mean pixel and the
# normalisation's. The means of ImageNet, CIFAR-10, digits and "tf" are within 50 of each other.
_FAR = 50
# The same distance from the mean pixel of photographs, for models without a normalisation. MNIST
# (white on black) has the mean pixel 33, and its inverse 222.
_PHOTOGRAPHS = 114  # ImageNet's mean pixel: "torch" in preprocessing.PREPROCESSING
_FAR_FROM_THEM = 110
# Least plausible standard deviation, in grey levels. Photographs have 50 to 70. Images in [0, 1]
# that are read as normalised images have at most 30.
_FLAT = 32
_BRIGHTEST = 255.5  # resizing in floats can end a little above 255


def images_of(given: Any, model: keras.Model, crop: SingleCrop | None) -> np.ndarray:
    """Return the calibration images as an array, from any accepted kind of source.

    Args:
        given: an array; a folder of images; a `tf.data.Dataset`, a generator, a function that
            returns one, or another iterable. Its elements are images, batches, `(images, labels)`,
            `[images]` (as in TFLite's representative datasets), or dictionaries with "image" or
            "images".
        model: the model to calibrate.
        crop: the crop for the images of a folder.

    Returns:
        (n, height, width, channels). A folder gives FROM_FOLDER images, evenly spaced by name. An
        iterable gives its first FROM_STREAM; there, whole numbers 0...255 become uint8, because
        TFLite's representative datasets are always float32.

    Raises:
        UserError: no images, images of different sizes, or no such folder.
    """
    if isinstance(given, str | Path):
        folder = expanded(given)
        if not folder.is_dir():
            raise UserError(f"calibration: no such folder: {given}. Give a folder of images.")
        return folder_images(folder, model, FROM_FOLDER, crop)
    if hasattr(given, "__array__"):
        array = np.asarray(given)
        return _as_bytes(array) if preprocessing.has_preprocessing(model) else array
    if isinstance(given, tuple) and len(given) == 2:  # (images, labels)
        return images_of(given[0], model, crop)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):  # keras.utils.PyDataset
        return _first(given[index] for index in range(len(given)))
    stream = given() if callable(given) else given
    if not isinstance(stream, Iterable):
        raise UserError(
            "calibration must be an array of images, a folder, a tf.data.Dataset, or a generator; "
            f"received a {type(given).__name__}."
        )
    return _first(stream)


def folder_images(
    folder: Path, model: keras.Model, count: int | None, crop: SingleCrop | None
) -> np.ndarray:
    """Read up to `count` images of a folder (None: all), evenly spaced by name, for `model`.

    Raises:
        UserError: no image can be read.
    """
    height, width, channels = model.input_shape[1:]
    return read_images(folder, (height or 224, width or 224), channels, crop, count)


def _first(stream: Iterable[Any]) -> np.ndarray:
    found: list[np.ndarray] = []
    count = 0
    for element in stream:
        batch = _pixels(element)
        found.append(batch if batch.ndim == 4 else batch[None])
        count += len(found[-1])
        if count >= FROM_STREAM:
            break
    if not found:
        raise UserError(
            "calibration gave no images. A generator that was used before must be created again."
        )
    if len(sizes := sorted({batch.shape[1:] for batch in found})) > 1:
        raise UserError(
            f"The calibration images have different sizes: {sizes[0]}, {sizes[1]}, …. "
            "Resize them to one size first."
        )
    return _as_bytes(np.concatenate(found)[:FROM_STREAM])


def _as_bytes(images: np.ndarray) -> np.ndarray:
    """Convert whole-number pixels 0...255 of any type to uint8; return other arrays unchanged."""
    if images.dtype == np.uint8:
        return images
    in_range = images.min(initial=0) >= 0 and 2 < images.max(initial=0) <= 255
    return images.astype("uint8") if in_range and (images % 1 == 0).all() else images


def _pixels(element: Any) -> np.ndarray:
    """Return the images of one element of a dataset or generator, without its labels."""
    while isinstance(element, tuple | list | dict):
        if isinstance(element, dict):
            names = [name for name in ("image", "images") if name in element]
            element = element[(names or list(element))[0]]
        else:
            element = element[0]
    array = np.asarray(element)
    if array.ndim not in (3, 4):
        raise UserError(
            "calibration must give images (height, width, channels) or batches of them; received "
            f"an element of shape {array.shape}."
        )
    return array


def require_images(images: np.ndarray | None, formats: Sequence[str]) -> None:
    """Refuse images that cannot give the ranges of the activations.

    Raises:
        UserError: the images contain NaN or infinity, or have the same value everywhere.
    """
    if images is None or not _calibrates(formats):
        return
    if not np.isfinite(images).all():
        raise UserError(
            "The calibration images contain values that are not finite (NaN or infinity). "
            "Remove those images."
        )
    if images.min() == images.max():
        raise UserError(
            f"Every value of the calibration images is {images.min():g}, so they do not show the "
            "ranges of the activations. Give some hundred images from the training data."
        )


def hints(
    model: keras.Model, mode: str | None, images: np.ndarray | None, formats: Sequence[str]
) -> list[str]:
    """Return warnings about likely mistakes with the calibration images, and about slow formats.

    Args:
        model: the model that `export` received.
        mode: the normalisation that `export` puts in front, if any.
        images: the calibration images, if any.
        formats: the requested formats.
    """
    found = []
    missing = preprocessing.missing_preprocessing(model)
    if missing and not mode:
        found.append(f"{missing} So do its files (see preprocessing=).")
    if "tflite-int16x8" in formats:
        found.append(convert.INT16X8_IS_SLOW)
    if images is None or not images.size:
        return found
    if _calibrates(formats) and (few := _few(images)):
        found.append(few)
    if odd := _odd_range(model, mode, images):
        found.append(odd)
    return found


def _calibrates(formats: Sequence[str]) -> bool:
    return not {*keep_float.INT8_FORMATS, "tflite-int16x8", "onnx-int8"}.isdisjoint(formats)


def _few(images: np.ndarray) -> str | None:
    count = len(images)
    if count > 1 and (images == images[:1]).all():
        return f"The {count} calibration images are all identical; use some hundred different ones."
    if (images == images[:, :1, :1]).all():
        return (
            "Each calibration image has a single colour, so they hardly show the ranges of the "
            "activations. Give some hundred images from the training data."
        )
    if count < _FEW:
        return f"{count} calibration images are few; use some hundred."
    return None


def _odd_range(model: keras.Model, mode: str | None, images: np.ndarray) -> str | None:
    """Return a warning if the images are not in the range the model takes; else None."""
    normalisation = _normalisation(model, mode)
    inside = mode or preprocessing.has_preprocessing(model)
    if inside or _is_made_for_pixels(model):
        if wrong := _not_pixels(images):
            itself = "normalises its input itself, so it " if inside else ""
            return f"The model {itself}probably takes RGB 0...255; {wrong}"
        return _unlike_training(images, normalisation)
    if normalisation is None:
        return None
    pixels = images * np.float32(np.mean(normalisation.std)) + np.mean(normalisation.mean)
    if pixels.min() < -_FAR or pixels.max() > 255 + _FAR:
        return (
            f"'{model.name}' takes normalised images; the calibration images range from "
            f"{images.min():g} to {images.max():g}. Normalise them with keras_resnet.preprocess."
        )
    return _unlike_training(pixels, normalisation)


def _unlike_training(
    pixels: np.ndarray, normalisation: preprocessing.Preprocessing | None
) -> str | None:
    """Return a warning if mean or spread differ from the normalisation's or from photographs'."""
    if normalisation is None:
        expects, expected, far = "photographs have", _PHOTOGRAPHS, _FAR_FROM_THEM
    else:
        expects = "the model's normalisation expects"
        expected, far = round(np.mean(normalisation.mean)), _FAR
    mean, spread = pixels.mean(), pixels.std()
    if abs(mean - expected) <= far and spread >= _FLAT:
        return None
    return (
        f"The calibration images have the mean pixel {mean:.0f} and the standard deviation "
        f"{spread:.0f} (in 0...255); {expects} about {expected}, and photographs spread by about "
        "60. Are they like the training images?"
    )


def _not_pixels(images: np.ndarray) -> str | None:
    if images.min() < 0:
        return (
            f"the calibration images range from {images.min():g} to {images.max():g}, as if they "
            "were already normalised."
        )
    if images.max() > _BRIGHTEST:
        return (
            f"the calibration images reach {float(images.max()):g}. Scale them to 0...255, like "
            "the training images."
        )
    if images.max() <= 2:
        return f"the calibration images reach only {float(images.max()):g}."
    return None


def _normalisation(model: keras.Model, mode: str | None) -> preprocessing.Preprocessing | None:
    """Return the normalisation in front of the model, inside it, or known from the zoo."""
    mode = mode or preprocessing.mode_inside(model)
    if mode == "raw" and model.name in registry.list_models():
        mode = registry.architecture(model.name).network.preprocessing
    return preprocessing.PREPROCESSING.get(mode or "raw")


def _is_made_for_pixels(model: keras.Model) -> bool:
    known = model.name in registry.list_models()
    return known and registry.architecture(model.name).network.preprocessing == "raw"

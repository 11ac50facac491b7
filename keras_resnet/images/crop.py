"""The central crop for evaluation and prediction.

torchvision and timm evaluate on PIL images: they decode the whole image, resize its shorter side
with PIL's antialiased filter, and crop the center. `predict` does the same with Pillow. The graphs
of a SavedModel and of evaluation use operations that equal Pillow's except for rounding. Evaluation
without a recorded protocol takes a central square (recipes/data/encoded.py), which is faster and
differs by a few grey levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from PIL import Image

from keras_resnet.arguments import require_fields
from keras_resnet.errors import UnknownNameError, UserError

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class SingleCrop:
    """A central square of the resized image.

    Attributes:
        resize: length in pixels to which the image's shorter side is resized.
        size: height and width of the crop in pixels; 0 means the model's input size.
        interpolation: one of INTERPOLATIONS.
    """

    resize: int
    size: int = 0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: a value has the wrong type, the interpolation is unknown, or the crop is
                larger than the image.
        """
        require_fields(self)
        if self.interpolation not in INTERPOLATIONS:
            raise UnknownNameError("interpolation", self.interpolation, INTERPOLATIONS, "")
        if self.resize < 1 or not 0 <= self.size <= self.resize:
            raise UserError(
                f"A crop of {self.size} does not fit in an image with a shorter side resized to "
                f"{self.resize}. Give a --resize of {max(self.size, 1)} or more."
            )

    def cut(self, image: Any) -> Any:
        """Return the crop of uint8 images (..., height, width, channels): uint8, size × size."""
        return _cover(image, (self.resize,) * 2, (self.size,) * 2, self.interpolation)

    def covers(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that a resized image must cover before `shape` is cropped.

        For a `shape` other than the crop's own size, the crop is the same part of the image.
        """
        height, width = shape
        size = self.size or min(shape)
        return round(self.resize * height / size), round(self.resize * width / size)


def shown(images: Any, shape: tuple[int, int], crop: SingleCrop | None) -> Any:
    """Prepare uint8 `images` (..., h, w, channels) for a model of `shape` (height, width).

    Images of exactly that size are returned unchanged, as they are already cropped. Others are
    resized to cover `crop.covers(shape)`, or `shape` if there is no `crop`. Then the center is
    cropped.
    """
    resize, interpolation = _how(shape, crop)
    is_cut = tf.reduce_all(tf.equal(tf.shape(images)[-3:-1], shape))
    cut = tf.cond(is_cut, lambda: images, lambda: _cover(images, resize, shape, interpolation))
    return tf.ensure_shape(cut, [*images.shape[:-3], *shape, images.shape[-1]])


def cut_by_pillow(
    image: Image.Image, shape: tuple[int, int], crop: SingleCrop | None
) -> Image.Image:
    """Prepare an image for a model of `shape` (height, width) as `shown` does, with Pillow."""
    width, height = image.size
    if (height, width) == shape:
        return image
    resize, interpolation = _how(shape, crop)
    is_high = height * resize[1] > width * resize[0]
    rows = height * resize[1] // width if is_high else resize[0]
    columns = resize[1] if is_high else width * resize[0] // height
    top, left = round((rows - shape[0]) / 2), round((columns - shape[1]) / 2)
    # In two steps, columns first: Pillow 13 takes the rows of some tall images first, and the
    # results differ. Published weights were measured with older versions.
    filter_ = Image.Resampling[interpolation.upper()]
    wide = image.resize((columns, height), filter_).crop((left, 0, left + shape[1], height))
    return wide.resize((shape[1], rows), filter_).crop((0, top, shape[1], top + shape[0]))


def _how(shape: tuple[int, int], crop: SingleCrop | None) -> tuple[tuple[int, int], str]:
    """Return the (height, width) that a resized image must cover, and the interpolation."""
    return (shape, "bilinear") if crop is None else (crop.covers(shape), crop.interpolation)


def _cover(image: Any, resize: tuple[int, int], size: tuple[int, int], interpolation: str) -> Any:
    """Resize to cover `resize` and crop `size` from the center, both (height, width)."""
    height, width = tf.unstack(tf.shape(image)[-3:-1])
    is_high = height * resize[1] > width * resize[0]  # otherwise the height just covers
    # Integer division truncates the longer side, as torchvision's transforms do.
    rows = tf.where(is_high, height * resize[1] // width, resize[0])
    columns = tf.where(is_high, resize[1], width * resize[0] // height)
    top, left = _margin(rows, size[0]), _margin(columns, size[1])
    # PIL resizes the columns first and rounds to whole grey levels before the rows. Resizing both
    # at once changes a sixth of the values by one, and overshooting edges by a dozen. TensorFlow
    # resizes the rows first and keeps the rest in float32: transposed, that is little.
    wide = _resized(_transposed(image), [columns, height], interpolation)
    wide = _transposed(wide[..., left : left + size[1], :, :])
    crop = _resized(wide, [rows, size[1]], interpolation)[..., top : top + size[0], :, :]
    return tf.ensure_shape(crop, [*image.shape[:-3], *size, image.shape[-1]])


def _transposed(image: Any) -> Any:
    leading = list(range(len(image.shape) - 3))
    return tf.transpose(image, [*leading, *(len(leading) + axis for axis in (1, 0, 2))])


def _resized(image: Any, shape: Any, interpolation: str) -> Any:
    resized = tf.image.resize(image, shape, method=interpolation, antialias=True)
    # Bicubic overshoots. Halves are rounded up; tf.round would take many times as long.
    return tf.cast(tf.clip_by_value(resized, 0.0, 255.0) + 0.5, tf.uint8)


def _margin(length: Any, size: int) -> Any:
    """Return the pixels before the crop: half of the rest, rounded to even as Python does."""
    return tf.cast(tf.round(tf.cast(length - size, tf.float32) / 2.0), tf.int32)


def decode(encoded: Any) -> Any:
    """Decode a whole JPEG or PNG with libjpeg's default settings: uint8 RGB."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(
            encoded, channels=3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE"
        ),
        lambda: tf.io.decode_png(encoded, channels=3),
    )

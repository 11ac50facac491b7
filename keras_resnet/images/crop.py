"""The central crop by which a network is evaluated and asked, as PIL cuts it, to the grey level.

torchvision and timm evaluate on PIL images: the whole image is decoded, its shorter side resized
with PIL's antialiased filter, the centre cut out. `predict` and a SavedModel's signatures do the
same in the same operations. The central square that evaluation takes without a recorded protocol
(recipes/data/encoded.py) leaves out most of that work and differs by some grey levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_resnet.errors import UnknownNameError, UserError

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class SingleCrop:
    """A central square of the resized image.

    Attributes:
        resize: pixels of the shorter side the whole image is resized to.
        size: pixels a side of the crop; 0: what the model takes.
        interpolation: one of INTERPOLATIONS.
    """

    resize: int
    size: int = 0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: no such interpolation, or a crop that is larger than the image.
        """
        if self.interpolation not in INTERPOLATIONS:
            known = f"There are {' and '.join(INTERPOLATIONS)}."
            raise UnknownNameError("interpolation", self.interpolation, INTERPOLATIONS, known)
        if self.resize < 1 or not 0 <= self.size <= self.resize:
            raise UserError(
                f"A crop of {self.size} does not fit in an image whose shorter side is resized to "
                f"{self.resize}: give a --resize of {max(self.size, 1)} or more."
            )

    def cut(self, image: Any) -> Any:
        """The crop of uint8 images (..., height, width, channels): uint8, size × size."""
        return _cover(image, (self.resize,) * 2, (self.size,) * 2, self.interpolation)

    def covers(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that an image is resized to cover before `shape` is cut out of it.

        Of another size than its own, the crop is the same part of the image.
        """
        height, width = shape
        size = self.size or min(shape)
        return round(self.resize * height / size), round(self.resize * width / size)


def shown(images: Any, shape: tuple[int, int], crop: SingleCrop | None) -> Any:
    """What a model of `shape` (height, width) is shown of uint8 images (..., h, w, channels).

    Images of that very size are shown as they are: they have been cut. Others are resized to
    `crop.covers(shape)`, or, without a crop, to just cover `shape`, and their middle is cut out.
    """
    resize = shape if crop is None else crop.covers(shape)
    interpolation = "bilinear" if crop is None else crop.interpolation
    is_cut = tf.reduce_all(tf.equal(tf.shape(images)[-3:-1], shape))
    cut = tf.cond(is_cut, lambda: images, lambda: _cover(images, resize, shape, interpolation))
    return tf.ensure_shape(cut, [*images.shape[:-3], *shape, images.shape[-1]])


def _cover(image: Any, resize: tuple[int, int], size: tuple[int, int], interpolation: str) -> Any:
    """Resize to cover `resize` and cut `size` out of the middle, both (height, width)."""
    height, width = tf.unstack(tf.shape(image)[-3:-1])
    is_high = height * resize[1] > width * resize[0]  # else its height is what just covers
    # Integer division cuts the longer side off, as torchvision's transforms do.
    rows = tf.where(is_high, height * resize[1] // width, resize[0])
    columns = tf.where(is_high, resize[1], width * resize[0] // height)
    top, left = _margin(rows, size[0]), _margin(columns, size[1])
    # PIL resizes the columns first and rounds to whole grey levels in between. Both directions
    # at once leave a sixth of the values another by one; overshooting edges by a dozen.
    # TensorFlow resizes rows first and keeps float32 of what is left: transposed, that is little.
    wide = _resized(_transposed(image), [columns, height], interpolation)
    wide = _transposed(wide[..., left : left + size[1], :, :])
    crop = _resized(wide, [rows, size[1]], interpolation)[..., top : top + size[0], :, :]
    return tf.ensure_shape(crop, [*image.shape[:-3], *size, image.shape[-1]])


def _transposed(image: Any) -> Any:
    leading = list(range(len(image.shape) - 3))
    return tf.transpose(image, [*leading, *(len(leading) + axis for axis in (1, 0, 2))])


def _resized(image: Any, shape: Any, interpolation: str) -> Any:
    resized = tf.image.resize(image, shape, method=interpolation, antialias=True)
    # Bicubic overshoots. A half goes up; tf.round takes many times as long.
    return tf.cast(tf.clip_by_value(resized, 0.0, 255.0) + 0.5, tf.uint8)


def _margin(length: Any, size: int) -> Any:
    """The pixels before the crop: half of what is over, a half to even as Python's `round`."""
    return tf.cast(tf.round(tf.cast(length - size, tf.float32) / 2.0), tf.int32)


def decode(encoded: Any) -> Any:
    """All of a JPEG or PNG as libjpeg decodes it unless told otherwise: uint8 RGB."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(
            encoded, channels=3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE"
        ),
        lambda: tf.io.decode_png(encoded, channels=3),
    )

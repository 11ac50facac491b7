"""The central crop by which published weights were measured, to the grey level.

torchvision and timm evaluate on PIL images: the whole image is decoded, its shorter side resized
with PIL's antialiased filter, the centre cut out. The central square that evaluation takes without
a recorded protocol (images.py) leaves out most of that work and differs by some grey levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.recipes.augment import to_uint8

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
        """The crop of a uint8 image (height, width, channels): uint8 (size, size, channels)."""
        height, width = tf.unstack(tf.shape(image)[:2])
        # Integer division cuts the longer side off, as torchvision's transforms do.
        shorter = tf.minimum(height, width)
        rows, columns = height * self.resize // shorter, width * self.resize // shorter
        left, top = self._margin(columns), self._margin(rows)
        # PIL resizes the columns first and rounds to whole grey levels in between. Both directions
        # at once leave a sixth of the values another by one; overshooting edges by a dozen.
        wide = self._resized(image, [height, columns])[:, left : left + self.size]
        crop = self._resized(wide, [rows, self.size])[top : top + self.size]
        return tf.ensure_shape(crop, [self.size, self.size, image.shape[-1]])

    def _resized(self, image: Any, shape: Any) -> Any:
        resized = tf.image.resize(image, shape, method=self.interpolation, antialias=True)
        return to_uint8(tf.clip_by_value(resized, 0.0, 255.0))  # bicubic overshoots

    def _margin(self, length: Any) -> Any:
        """The pixels before the crop: half of what is over, a half to even as Python's `round`."""
        return tf.cast(tf.round(tf.cast(length - self.size, tf.float32) / 2.0), tf.int32)


def decode(encoded: Any) -> Any:
    """All of a JPEG or PNG as libjpeg decodes it unless told otherwise: uint8 RGB."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(
            encoded, channels=3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE"
        ),
        lambda: tf.io.decode_png(encoded, channels=3),
    )

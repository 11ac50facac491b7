"""Image files as a network is shown them, in Python and in the graph of a SavedModel alike.

One policy for both, in one implementation: JPEG and PNG are decoded in full by TensorFlow, turned
upright as Exif says, and cut as `crop.shown` says. Grey, palette and CMYK become RGB, alpha
is dropped, of 16 bits the upper 8 are kept, of an animated PNG the still picture. What has more
than MAX_PIXELS, or one side of over MAX_RATIO times the other, is refused before it is decoded.
Python reads other kinds of files through Pillow, of an animation the first picture.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError, require
from keras_resnet.files import expanded
from keras_resnet.images import headers
from keras_resnet.images.crop import SingleCrop, shown
from keras_resnet.images.crop import decode as decode_sound

# 8192². Decoded that is 192 MiB, and as much again while it is resized.
MAX_PIXELS = 2**26
MAX_RATIO = 100  # an image of 1 × 1,000,000 would be resized to 224 × 224,000,000
_MAX_BYTES = 8 * MAX_PIXELS  # of a file: 16 bits and alpha that nothing compresses


def decode(encoded: Any, name: Any = "") -> Any:
    """Decode a JPEG or PNG (a scalar string) in a graph: uint8 (height, width, 3), RGB, upright.

    `name` starts the message of an image that is refused, e.g. "image 3: ".

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs: no JPEG or PNG, damaged, or too large.
    """
    is_jpeg = tf.io.is_jpeg(encoded)
    message = tf.strings.join([name, "it is ", headers.kind(encoded), "; expected a JPEG or PNG"])
    known = tf.debugging.Assert(is_jpeg | headers.is_png(encoded), [message])
    with tf.control_dependencies([known] if known is not None else []):
        encoded = tf.identity(encoded)
    height, width = tf.cond(
        is_jpeg,
        lambda: tuple(tf.unstack(tf.io.extract_jpeg_shape(encoded)[:2])),
        lambda: headers.png_size(encoded),
    )
    with tf.control_dependencies(require_size(height, width, name)):
        encoded = tf.identity(encoded)
    return headers.upright(decode_sound(encoded), headers.orientation(encoded))


def require_size(height: Any, width: Any, name: Any = "") -> list[Any]:
    """The operations that refuse an image of that many pixels, to be waited for."""
    longer, shorter = tf.maximum(height, width), tf.minimum(height, width)
    product = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    fits = (shorter > 0) & (product <= MAX_PIXELS) & (longer // tf.maximum(shorter, 1) < MAX_RATIO)
    size = tf.strings.join(["it has ", tf.as_string(height), "×", tf.as_string(width)])
    limits = f" pixels; at most {MAX_PIXELS:,} and sides of 1:{MAX_RATIO} are decoded"
    refusal = tf.debugging.Assert(fits, [tf.strings.join([name, size, limits])])
    return [] if refusal is None else [refusal]


def view(encoded: Any, shape: tuple[int, int, int], crop: SingleCrop | None, name: Any = "") -> Any:
    """What a model of `shape` is shown of a JPEG or PNG: uint8 of that shape; see `decode`."""
    height, width, channels = shape
    return _channels(shown(decode(encoded, name), (height, width), crop), channels)


def read_image(
    path: str | Path,
    size: tuple[int, int],
    channels: int = 3,
    crop: SingleCrop | None = None,
) -> np.ndarray:
    """Read one image file as a model is shown it.

    Args:
        path: the file.
        size: the model's (height, width).
        channels: 3, or 1 for grey.
        crop: the model's protocol; None: the image is resized to just cover `size`.

    Returns:
        uint8 (height, width, channels).

    Raises:
        UserError: no such file, not an image, a damaged or too large one (the message names it).
        MissingExtraError: it is neither JPEG nor PNG, and Pillow is not installed.
    """
    if channels not in (1, 3):
        raise UserError(f"Image files give 1 or 3 channels; the model takes {channels}.")
    path = expanded(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the images in it.")
    if not path.is_file():
        raise UserError(f"No such image: {path}")
    shape = (*size, channels)
    if not 0 < (length := path.stat().st_size) <= _MAX_BYTES:
        problem = f"it has {length:,} bytes" if length else "it is empty"
        raise UserError(f"Cannot read {path} as an image: {problem}.")
    try:
        encoded = path.read_bytes()
        if tf.io.is_jpeg(encoded) or headers.is_png(encoded):
            return np.asarray(_viewer(shape, crop)(encoded))
        return np.asarray(_cutter(shape, crop)(_read_other(path)))
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"Cannot read {path} as an image: {_reason(error)}") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}") from error


def _read_other(path: Path) -> np.ndarray:
    """What Pillow makes of a file: uint8 (height, width, 3)."""
    image_module = require("PIL.Image", "export")
    image_ops = require("PIL.ImageOps", "export")
    try:
        # Pillow warns of photographs above 89 million pixels and refuses them above twice that.
        with warnings.catch_warnings(action="ignore"), image_module.open(path) as image:
            require_size(image.height, image.width)
            upright = image_ops.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits, which convert() would clip, not scale
                upright = image_module.fromarray((np.asarray(upright) >> 8).astype("uint8"))
            return np.asarray(upright.convert("RGB"))
    except (UserError, tf.errors.InvalidArgumentError):
        raise
    except Exception as error:  # damaged files make Pillow's readers stumble over anything
        raise UserError(f"Cannot read {path} as an image: {error}") from error


@functools.cache
def _viewer(shape: tuple[int, int, int], crop: SingleCrop | None) -> Callable[[bytes], Any]:
    spec = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda encoded: view(encoded, shape, crop), input_signature=spec)


@functools.cache
def _cutter(shape: tuple[int, int, int], crop: SingleCrop | None) -> Callable[[np.ndarray], Any]:
    def cut(image: Any) -> Any:
        return _channels(shown(image, shape[:2], crop), shape[2])

    return tf.function(cut, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])


def _channels(image: Any, channels: int) -> Any:
    """RGB, or grey by Pillow's integers (ITU-R 601-2 luma)."""
    if channels == 3:
        return image
    luma = tf.reduce_sum(tf.cast(image, tf.int32) * (19595, 38470, 7471), -1, keepdims=True)
    return tf.cast((luma + 0x8000) // 0x10000, tf.uint8)


def _reason(error: tf.errors.InvalidArgumentError) -> str:
    """What people read of an error of the graph."""
    lines = [line for line in str(error.message).splitlines() if line.strip()]
    refused = re.search(r"assertion failed: \[(.*?)\]", str(error.message))
    found = refused[1] if refused else lines[0]
    return re.sub(r"\{\{.*?\}\}|\[Op:.*|\[\[.*", "", found).strip()

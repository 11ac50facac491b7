"""Image files as a network is shown them: in training, in Python, and in a SavedModel's graph.

One policy, in one implementation. What the bytes are decides, not the file's name: JPEG and PNG are
decoded by TensorFlow, other kinds (BMP, GIF, TIFF, WebP, AVIF, ...) by Pillow, which a SavedModel
does without. Every image is turned upright as Exif says. Grey, palette and CMYK become RGB, alpha
is dropped, of 16 bits the upper 8 are kept, of an animation the first picture (of an animated PNG
the still one). What has more than MAX_PIXELS, or one side of over MAX_RATIO times the other, is
refused before it is decoded.
"""

from __future__ import annotations

import functools
import io
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
        is_jpeg, lambda: headers.jpeg_size(encoded), lambda: headers.png_size(encoded)
    )
    with tf.control_dependencies(require_size(height, width, name)):
        encoded = tf.identity(encoded)
    return headers.upright(decode_sound(encoded), headers.orientation(encoded))


def png(encoded: Any) -> Any:
    """Decode a PNG in a graph as it is stored: uint8 (height, width, 3)."""
    return tf.io.decode_png(encoded, channels=3)


def png_or_other(encoded: Any) -> Any:
    """Decode what is no JPEG: a PNG as it is stored, other kinds upright (uint8, RGB).

    The graph runs only in this process: it calls Pillow.
    """

    def other() -> Any:
        image = tf.numpy_function(_by_pillow, [encoded], tf.uint8, stateful=False)
        return tf.ensure_shape(image, [None, None, 3])

    return tf.cond(headers.is_png(encoded), lambda: png(encoded), other)


def tried(encoded: Any) -> tuple[Any, Any]:
    """Decode an image once, a JPEG at an eighth of its size, to see whether it can be.

    Returns:
        How it is to be turned when it is decoded by `png_or_other` or as a JPEG (see
        `headers.upright`), int32; and whether it is a kind that only Pillow reads, bool.

    Raises:
        tf.errors.OpError: when the graph runs: it is damaged or too large, or no image.
    """

    def turned_of(pixels: Any) -> Any:
        # A graph drops what nothing is computed from, even behind a control dependency of a branch.
        return headers.orientation(encoded) * tf.minimum(tf.shape(pixels)[0], 1)

    def jpeg() -> tuple[Any, Any]:
        with tf.control_dependencies(require_size(*headers.jpeg_size(encoded))):
            small = tf.io.decode_jpeg(encoded, channels=3, ratio=8)
        return turned_of(small), tf.constant(False)

    def other() -> tuple[Any, Any]:
        is_png = headers.is_png(encoded)
        # Pillow's reader looks at the size of its images itself.
        size = tf.cond(is_png, lambda: headers.png_size(encoded), lambda: (1, 1))
        with tf.control_dependencies(require_size(*size)):
            whole = png_or_other(encoded)
        return turned_of(whole), tf.logical_not(is_png)

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, other)


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
        return np.asarray(_cutter(shape, crop)(_by_pillow(encoded)))
    except UserError as error:
        raise UserError(f"Cannot read {path} as an image: {error}") from error
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"Cannot read {path} as an image: {_reason(error)}") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}") from error


def _by_pillow(encoded: bytes) -> np.ndarray:
    """What Pillow makes of a file's bytes: uint8 (height, width, 3).

    Raises:
        UserError: why it cannot be read.
    """
    image_module = require("PIL.Image", "export")
    image_ops = require("PIL.ImageOps", "export")
    try:
        # Pillow warns of photographs above 89 million pixels and refuses them above twice that.
        with (
            warnings.catch_warnings(action="ignore"),
            image_module.open(io.BytesIO(encoded)) as image,
        ):
            require_size(image.height, image.width)
            upright = image_ops.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # convert() would clip 16 bits, not scale them
                upright = image_module.fromarray((np.asarray(upright) >> 8).astype("uint8"))
            elif upright.mode in ("I", "F"):
                raise UserError("its pixels are numbers of 32 bits; save it with 8 or 16 bits")
            return np.asarray(upright.convert("RGB"))
    except UserError:
        raise
    except tf.errors.InvalidArgumentError as error:
        raise UserError(_reason(error)) from error
    except image_module.UnidentifiedImageError as error:
        found = headers.kind(encoded).numpy().decode()
        raise UserError(f"it is {found}, which Pillow cannot read") from error
    except Exception as error:  # damaged files make Pillow's readers stumble over anything
        raise UserError(str(error)) from error


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

"""Read image files for a network: in training, in Python, and in a SavedModel's graph.

In Python, Pillow reads, resizes and crops them (`read_image`). The graphs of training and of a
SavedModel use TensorFlow's decoders, and operations that equal Pillow's except for rounding
(crop.py). The same rules hold for all three, but for one: Pillow also finds an orientation that
stands in XMP only.

- The bytes of a file tell its kind, not its name. In graphs, TensorFlow decodes JPEG and PNG.
  Pillow decodes other kinds (BMP, GIF, TIFF, WebP, AVIF, ...), which a SavedModel does not read.
- Every image is turned upright by its Exif data. Grey, palette and CMYK become RGB. Alpha is
  dropped. 16-bit images keep their upper 8 bits. An animation gives its first picture (an animated
  PNG its still one).
- An image with more than MAX_PIXELS, or with one side over MAX_RATIO times the other, is refused
  before it is decoded.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from keras_resnet.errors import UserError
from keras_resnet.files import expanded
from keras_resnet.images import headers
from keras_resnet.images.crop import SingleCrop, cut_by_pillow, shown
from keras_resnet.images.crop import decode as decode_sound

# 8192². Pillow keeps a decoded pixel in 4 bytes: 256 MiB, and as much again if it is turned.
MAX_PIXELS = 2**26
MAX_RATIO = 100  # an image of 1 × 1,000,000 would be resized to 224 × 224,000,000
_LIMITS = f" pixels; at most {MAX_PIXELS:,} and sides of 1:{MAX_RATIO} are decoded"
MAX_BYTES = 8 * MAX_PIXELS  # of a file: 16 bits with alpha, not compressible
# Pillow's names of the kinds in listing.READ. It opens others by starting a program (EPS).
_KINDS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "AVIF")


def decode(encoded: Any, name: Any = "") -> Any:
    """Decode a JPEG or PNG (a scalar string) in a graph: uint8 (height, width, 3), RGB, upright.

    `name` is the beginning of the error message for this image, e.g. "image 3: ".

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, if the image is no JPEG or PNG, is
            damaged, or is too large.
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
    """Decode a PNG in a graph, without turning it upright: uint8 (height, width, 3)."""
    return tf.io.decode_png(encoded, channels=3)


def png_or_other(encoded: Any) -> Any:
    """Decode a file that is no JPEG: a PNG as it is stored, other kinds upright (uint8, RGB).

    The graph runs only in this process, because it calls Pillow.
    """

    def other() -> Any:
        image = tf.numpy_function(_by_pillow, [encoded], tf.uint8, stateful=False)
        return tf.ensure_shape(image, [None, None, 3])

    return tf.cond(headers.is_png(encoded), lambda: png(encoded), other)


def tried(encoded: Any) -> tuple[Any, Any]:
    """Decode an image once, to see if that works. A JPEG is decoded at an eighth of its size.

    Returns:
        The orientation for `headers.upright` after decoding with `png_or_other` or as a JPEG,
        int32; and True (bool) for a kind that only Pillow reads.

    Raises:
        tf.errors.OpError: when the graph runs, if the file is damaged, too large, or no image.
    """

    def turned_of(pixels: Any) -> Any:
        # A graph drops operations with unused results, even control dependencies in a branch.
        return headers.orientation(encoded) * tf.minimum(tf.shape(pixels)[0], 1)

    def jpeg() -> tuple[Any, Any]:
        with tf.control_dependencies(require_size(*headers.jpeg_size(encoded))):
            small = tf.io.decode_jpeg(encoded, channels=3, ratio=8)
        return turned_of(small), tf.constant(False)

    def other() -> tuple[Any, Any]:
        is_png = headers.is_png(encoded)
        # Pillow's reader checks the size of its images itself.
        size = tf.cond(is_png, lambda: headers.png_size(encoded), lambda: (1, 1))
        with tf.control_dependencies(require_size(*size)):
            whole = png_or_other(encoded)
        return turned_of(whole), tf.logical_not(is_png)

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, other)


def require_size(height: Any, width: Any, name: Any = "") -> list[Any]:
    """Return the operations that refuse an image with too many pixels, as control dependencies."""
    longer, shorter = tf.maximum(height, width), tf.minimum(height, width)
    product = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    fits = (shorter > 0) & (product <= MAX_PIXELS) & (longer // tf.maximum(shorter, 1) < MAX_RATIO)
    said = [name, "it has ", tf.as_string(height), "×", tf.as_string(width), _LIMITS]
    refusal = tf.debugging.Assert(fits, [tf.strings.join(said)])
    return [] if refusal is None else [refusal]


def view(encoded: Any, shape: tuple[int, int, int], crop: SingleCrop | None, name: Any = "") -> Any:
    """Decode a JPEG or PNG for a model of `shape`: uint8 of that shape; see `decode`."""
    height, width, channels = shape
    return _channels(shown(decode(encoded, name), (height, width), crop), channels)


def read_image(
    path: str | Path,
    size: tuple[int, int],
    channels: int = 3,
    crop: SingleCrop | None = None,
) -> np.ndarray:
    """Read one image file as a model's input.

    Args:
        path: the file.
        size: the model's (height, width).
        channels: 3, or 1 for grey.
        crop: the crop of the model's protocol. None resizes the image to just cover `size`.

    Returns:
        uint8 (height, width, channels).

    Raises:
        UserError: the file does not exist, is no image, is damaged or is too large. The message
            names it.
    """
    if channels not in (1, 3):
        raise UserError(f"Image files have 1 or 3 channels, but the model takes {channels}.")
    path = expanded(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the images in it.")
    if not path.is_file():
        raise UserError(f"No such image: {path}")
    if not 0 < (length := path.stat().st_size) <= MAX_BYTES:
        problem = f"it has {length:,} bytes" if length else "it is empty"
        raise UserError(f"Cannot read {path} as an image: {problem}.")
    try:
        image = cut_by_pillow(_opened(path.read_bytes()), size, crop)
        return np.array(image.convert("L"))[..., None] if channels == 1 else np.array(image)
    except UserError as error:
        raise UserError(f"Cannot read {path} as an image: {error}") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}") from error


def image_or_error(path: str, **how: Any) -> np.ndarray | UserError:
    """Return the image of `read_image`, or its error, so that one bad file does not stop others."""
    try:
        return read_image(path, **how)
    except UserError as error:
        return error


def open_by_pillow(encoded: bytes) -> Image.Image:
    """Open an image with Pillow, as one of the kinds that this package reads."""
    Image.init()  # loads the readers
    kinds = [kind for kind in _KINDS if kind in Image.OPEN]  # Pillow may lack AVIF
    return Image.open(io.BytesIO(encoded), formats=kinds)


def _by_pillow(encoded: bytes) -> np.ndarray:
    """Decode a file's bytes with Pillow: uint8 (height, width, 3); see `_opened`."""
    return np.asarray(_opened(encoded))


def _opened(encoded: bytes) -> Image.Image:
    """Decode a file's bytes with Pillow: RGB, upright.

    Raises:
        UserError: the reason why it cannot be read.
    """
    try:
        image = open_by_pillow(encoded)
        _require_size(image.height, image.width)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):  # convert() would clip 16 bits, not scale them
            image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
        elif image.mode in ("I", "F"):
            raise UserError("its pixels have 32 bits; save it with 8 or 16 bits")
        return image if image.mode == "RGB" else image.convert("RGB")
    except UserError:
        raise
    except UnidentifiedImageError as error:
        found = headers.kind(encoded).numpy().decode()
        if found == headers.UNKNOWN_KIND:
            raise UserError(f"it is {found} (.jpg, .png, …)") from error
        raise UserError(f"it is {found}, which Pillow cannot read") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, above ours
        raise UserError(f"it has too many pixels; at most {MAX_PIXELS:,} are decoded") from error
    except Exception as error:  # a damaged file can make Pillow raise anything
        raise UserError(f"the file is damaged or cut off ({error})") from error


def _require_size(height: int, width: int) -> None:
    """Refuse a size as `require_size` does in a graph."""
    shorter, longer = sorted((height, width))
    if shorter < 1 or height * width > MAX_PIXELS or longer // shorter >= MAX_RATIO:
        raise UserError(f"it has {height}×{width}{_LIMITS}")


def _channels(image: Any, channels: int) -> Any:
    """Return RGB, or grey with Pillow's integer weights (ITU-R 601-2 luma)."""
    if channels == 3:
        return image
    luma = tf.reduce_sum(tf.cast(image, tf.int32) * (19595, 38470, 7471), -1, keepdims=True)
    return tf.cast((luma + 0x8000) // 0x10000, tf.uint8)

"""Read the first bytes of an image file in a graph: kind, size and orientation.

TensorFlow operations do this, so that training and a SavedModel on a server read them alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

UNKNOWN_KIND = "not an image of a known kind"
_STEPS = 512  # of a search, so that a forged file cannot keep a server busy
_SEGMENT = 2**16  # maximum bytes of a JPEG segment
_PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = {
    "GIF": (0, b"GIF8"),
    "BMP": (0, b"BM"),
    "WebP": (8, b"WEBP"),
    "TIFF": (0, b"II*\x00"),
    "TIFF of a big-endian machine": (0, b"MM\x00*"),
    "HEIC or AVIF": (4, b"ftyp"),
}
# The beginning of an Exif segment in 16-bit words: marker, (length,) name, terminator.
_EXIF_SEGMENT, *_EXIF_NAME = 0xFFE1, int.from_bytes(b"Ex"), int.from_bytes(b"if"), 0
_EXIF_CHUNK, _PIXEL_CHUNK = int.from_bytes(b"eXIf"), int.from_bytes(b"IDAT")
# Searching all bytes is faster than going from segment to segment, and few files have Exif data.
_MAY_HAVE_EXIF = r"\C*Exif\x00\x00\C*"
_END, _PIXELS = 0xFFD9, 0xFFDA  # JPEG markers that end the search
_STANDALONE = 0xFF01, *range(0xFFD0, 0xFFD9)  # markers without a length
_ORIENTATION, _SHORT = 0x0112, 3  # the tag, and the type code of its value
_LITTLE_ENDIAN = int.from_bytes(b"II")
_UNKNOWN = -1
_MIRRORED = (3, 4, 7, 8), (2, 3, 6, 7)  # orientations with mirrored rows, with mirrored columns

Size = tuple[Any, Any]  # height, width
Box = tuple[Any, Any, Any, Any]  # top, left, height, width


def is_png(encoded: Any) -> Any:
    """Return True (bool) if a scalar string starts like a PNG."""
    return tf.equal(tf.strings.substr(encoded, 0, len(_PNG)), _PNG)


def kind(encoded: Any) -> Any:
    """Name the kind of a file that is no JPEG or PNG, for a message: a scalar string."""
    longest = 16
    head = tf.strings.substr(encoded, 0, longest) + b"\0" * longest  # substr fails past the end
    found = tf.constant(UNKNOWN_KIND)
    for name, (start, magic) in _OTHERS.items():
        fits = tf.equal(tf.strings.substr(head, start, len(magic)), magic)
        found = tf.where(fits, f"a {name}", found)
    return tf.where(tf.equal(tf.strings.length(encoded), 0), "empty", found)


def jpeg_size(encoded: Any) -> tuple[Any, Any]:
    """Return the stored (height, width) of a JPEG: int32."""
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
    return height, width


def png_size(encoded: Any) -> tuple[Any, Any]:
    """Return the (height, width) in a PNG's header: int32, negative above 2**31."""
    width, height = _window(encoded, 16, tf.int32, 2)
    return height, width


def orientation(encoded: Any) -> Any:
    """Return the Exif orientation (JEITA CP-3451, tag 0x0112) of a JPEG or PNG: int32, 1...8.

    It is 1 (upright) without Exif data, with damaged data, for a PNG with Exif data after the
    pixels, and for other kinds of files.
    """

    def jpeg() -> Any:
        may_have = tf.strings.regex_full_match(encoded, _MAY_HAVE_EXIF)
        return tf.cond(may_have, lambda: _of_tiff(encoded, _in_jpeg(encoded)), lambda: 1)

    def other() -> Any:
        return tf.cond(is_png(encoded), lambda: _of_tiff(encoded, _in_png(encoded)), lambda: 1)

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, other)


def upright(image: Any, turned: Any) -> Any:
    """Turn an image (height, width, channels) of orientation `turned` upright."""

    def turn() -> Any:
        pixels = tf.cond(turned >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        for axis, mirrored in enumerate(_MIRRORED):
            pixels = _reversed(pixels, axis, _is_one_of(turned, mirrored))
        return pixels

    return tf.cond(turned > 1, turn, lambda: image)


def upright_size(size: Size, turned: Any) -> Size:
    """Return the (height, width) of an image of stored `size` after it is turned upright."""
    height, width = size
    return tf.where(turned >= 5, width, height), tf.where(turned >= 5, height, width)


def stored_box(box: Box, size: Size, turned: Any) -> Box:
    """Return the place in the stored image (of stored `size`) of a `box` of the upright image."""

    def turn() -> Box:
        high, wide = upright_size(size, turned)
        top, left, height, width = box
        top = tf.where(_is_one_of(turned, _MIRRORED[0]), high - top - height, top)
        left = tf.where(_is_one_of(turned, _MIRRORED[1]), wide - left - width, left)
        found = tf.stack([top, left, height, width])
        return tuple(tf.unstack(tf.where(turned >= 5, tf.gather(found, [1, 0, 3, 2]), found)))

    return tf.cond(turned > 1, turn, lambda: box)


def _is_one_of(turned: Any, some: tuple[int, ...]) -> Any:
    return tf.reduce_any(tf.equal(turned, some))


def _reversed(image: Any, axis: int, wanted: Any) -> Any:
    return tf.cond(wanted, lambda: tf.reverse(image, [axis]), lambda: image)


def _window(encoded: Any, start: Any, dtype: tf.DType, count: int) -> list[Any]:
    """Return `count` big-endian numbers at `start` as int32; zeros past the end.

    A file is read through such windows, because converting all its bytes to numbers takes longer
    than decoding a small photograph.
    """
    size = count * dtype.size
    start = tf.minimum(start, tf.strings.length(encoded))
    window = tf.strings.substr(encoded, start, size)
    numbers = tf.io.decode_raw(window, dtype, little_endian=False, fixed_length=size)
    return tf.unstack(tf.cast(numbers, tf.int32))


def _number(head: Any, start: Any, size: int, little: Any = False) -> Any:
    """Return the numbers of `size` bytes at `start` (any shape); zeros outside of `head`."""
    places = tf.expand_dims(tf.convert_to_tensor(start), -1) + tf.range(size)
    inside = (places >= 0) & (places < tf.size(head))
    values = tf.where(inside, tf.gather(head, tf.where(inside, places, 0)), 0)
    values = tf.where(little, tf.reverse(values, [-1]), values)
    return tf.reduce_sum(tf.bitwise.left_shift(values, 8 * tf.range(size - 1, -1, -1)), -1)


def _in_jpeg(encoded: Any) -> Any:
    """Return the start of the TIFF structure in the first Exif segment; 0 if there is none."""

    def look(at: Any, found: Any) -> tuple[Any, Any]:
        marker, length, *name = _window(encoded, at, tf.uint16, 5)
        is_exif = tf.equal(marker, _EXIF_SEGMENT) & tf.reduce_all(tf.equal(name, _EXIF_NAME))
        # 0xFF may be repeated before a marker. Other bytes are skipped, as in libjpeg.
        is_marker = (marker > 0xFF00) & (marker < 0xFFFF)
        bare = tf.reduce_any(tf.equal(marker, _STANDALONE))
        step = tf.where(is_marker, tf.where(bare, 2, 2 + tf.maximum(length, 2)), 1)
        is_last = tf.equal(marker, _PIXELS) | tf.equal(marker, _END)
        return at + step, tf.where(is_exif, at + 10, tf.where(is_last, 0, found))

    return _search(encoded, 2, look)


def _in_png(encoded: Any) -> Any:
    """Return the start of the TIFF structure in the eXIf chunk; 0 if there is none."""

    def look(at: Any, found: Any) -> tuple[Any, Any]:
        length, chunk = _window(encoded, at, tf.int32, 2)
        is_exif, is_last = tf.equal(chunk, _EXIF_CHUNK), tf.equal(chunk, _PIXEL_CHUNK)
        step = 12 + tf.where(length < 0, 0, length)
        return at + step, tf.where(is_exif, at + 8, tf.where(is_last, 0, found))

    return _search(encoded, 8, look)


def _search(encoded: Any, start: int, look: Callable[[Any, Any], tuple[Any, Any]]) -> Any:
    """Return what `look(at, _UNKNOWN)` → (next, found) finds from `start` on; 0 for nothing."""
    length = tf.strings.length(encoded)
    _, found = tf.while_loop(
        lambda at, found: tf.equal(found, _UNKNOWN) & (at >= 0) & (at < length),
        look,
        (tf.constant(start), tf.constant(_UNKNOWN)),
        maximum_iterations=_STEPS,
    )
    return tf.maximum(found, 0)


def _of_tiff(encoded: Any, start: Any) -> Any:
    """Return the orientation in the TIFF structure at `start`; 1 if `start` is 0."""
    return tf.cond(start > 0, lambda: _in_directory(encoded, start), lambda: 1)


def _in_directory(encoded: Any, start: Any) -> Any:
    """Return the orientation in the first directory of the TIFF structure at `start`."""
    tiff = tf.io.decode_raw(tf.strings.substr(encoded, start, _SEGMENT), tf.uint8)
    head = tf.pad(tf.cast(tiff, tf.int32), [[0, 1]])
    little = tf.equal(_number(head, 0, 2), _LITTLE_ENDIAN)
    directory = _number(head, 4, 4, little)
    count = tf.minimum(_number(head, directory, 2, little), 1000)
    entries = directory + 2 + 12 * tf.range(count)
    is_it = tf.equal(_number(head, entries, 2, little), _ORIENTATION)
    is_it &= tf.equal(_number(head, entries + 2, 2, little), _SHORT)
    values = _number(head, entries + 8, 2, little)
    found = tf.boolean_mask(values, is_it & (values >= 1) & (values <= 8))
    return tf.concat([found, [1]], 0)[0]

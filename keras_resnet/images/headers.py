"""What the first bytes of an image file say, read in a graph: kind, size, how the camera was held.

In TensorFlow's operations, so that a SavedModel does on a server what Python does here.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# An Exif segment is of 64 KiB at most and the first, or behind a small one.
_BYTES = 2**17
_SEGMENTS = 64  # are looked at, so that a made-up file does not keep a server busy
_PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = {
    "GIF": (0, b"GIF8"),
    "BMP": (0, b"BM"),
    "WebP": (8, b"WEBP"),
    "TIFF": (0, b"II*\x00"),
    "TIFF of a big-endian machine": (0, b"MM\x00*"),
    "HEIC or AVIF": (4, b"ftyp"),
}
_EXIF_SEGMENT, _EXIF_NAME = 0xFFE1, int.from_bytes(b"Exif")
_EXIF_CHUNK, _PIXEL_CHUNK = int.from_bytes(b"eXIf"), int.from_bytes(b"IDAT")
_ORIENTATION, _SHORT = 0x0112, 3  # the tag, and the type of its value
_LITTLE_ENDIAN = int.from_bytes(b"II")


def is_png(encoded: Any) -> Any:
    """Whether a scalar string starts as a PNG does: bool."""
    return tf.equal(tf.strings.substr(encoded, 0, len(_PNG)), _PNG)


def kind(encoded: Any) -> Any:
    """What else than a JPEG or PNG it is, in words, for a message: a scalar string."""
    longest = 16
    head = tf.strings.substr(encoded, 0, longest) + b"\0" * longest  # substr refuses to go beyond
    found = tf.constant("no image that is known here")
    for name, (start, magic) in _OTHERS.items():
        fits = tf.equal(tf.strings.substr(head, start, len(magic)), magic)
        found = tf.where(fits, f"a {name}", found)
    return tf.where(tf.equal(tf.strings.length(encoded), 0), "empty", found)


def png_size(encoded: Any) -> tuple[Any, Any]:
    """(height, width) as a PNG's header has them: int32, negative above 2**31."""
    head = _header(encoded)
    return _number(head, 20, 4), _number(head, 16, 4)


def orientation(encoded: Any) -> Any:
    """The Exif orientation (JEITA CP-3451, tag 0x0112) of a JPEG or PNG: int32, 1...8.

    1, upright, where there is none or it is damaged, and where a PNG has it behind the pixels.
    """
    head = _header(encoded)
    start = tf.cond(is_png(encoded), lambda: _in_png(head), lambda: _in_jpeg(head))
    return tf.cond(start > 0, lambda: _of_tiff(head, start), lambda: 1)


def upright(image: Any, turned: Any) -> Any:
    """Turn an image (height, width, channels) of orientation `turned` upright."""
    image = tf.cond(turned >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    for axis, mirrored in (1, (2, 3, 6, 7)), (0, (3, 4, 7, 8)):
        image = _reversed(image, axis, tf.reduce_any(tf.equal(turned, mirrored)))
    return image


def _reversed(image: Any, axis: int, wanted: Any) -> Any:
    return tf.cond(wanted, lambda: tf.reverse(image, [axis]), lambda: image)


def _header(encoded: Any) -> Any:
    """The first bytes as int32, and a zero."""
    head = tf.io.decode_raw(tf.strings.substr(encoded, 0, _BYTES), tf.uint8)
    return tf.pad(tf.cast(head, tf.int32), [[0, 1]])


def _number(head: Any, start: Any, size: int, little: Any = False) -> Any:
    """The numbers of `size` bytes at `start` (any shape); what lies outside of `head` is zeros."""
    places = tf.expand_dims(tf.convert_to_tensor(start), -1) + tf.range(size)
    inside = (places >= 0) & (places < tf.size(head))
    values = tf.where(inside, tf.gather(head, tf.where(inside, places, 0)), 0)
    values = tf.where(little, tf.reverse(values, [-1]), values)
    return tf.reduce_sum(tf.bitwise.left_shift(values, 8 * tf.range(size - 1, -1, -1)), -1)


def _in_jpeg(head: Any) -> Any:
    """Where the TIFF structure of the Exif segment starts; 0 for none."""

    def is_exif(at: Any) -> Any:
        segment = tf.equal(_number(head, at, 2), _EXIF_SEGMENT)
        name = tf.equal(_number(head, at + 4, 4), _EXIF_NAME)
        return segment & name & tf.equal(_number(head, at + 8, 2), 0)

    def goes_on(at: Any) -> Any:
        marker = _number(head, at, 2)  # 0xFFE0...0xFFEF, tables, a comment; pixels end the search
        segment = (marker >= 0xFFC0) & (marker < 0xFFFF) & tf.not_equal(marker, 0xFFDA)
        return segment & ~is_exif(at)

    (at,) = tf.while_loop(
        goes_on,
        lambda at: (at + 2 + tf.maximum(_number(head, at + 2, 2), 2),),
        (tf.constant(2),),
        maximum_iterations=_SEGMENTS,
    )
    return tf.where(is_exif(at), at + 10, 0)


def _in_png(head: Any) -> Any:
    """Where the TIFF structure of the eXIf chunk starts; 0 for none."""

    def goes_on(at: Any) -> Any:
        chunk = _number(head, at + 4, 4)
        return tf.reduce_all(tf.not_equal(chunk, (_EXIF_CHUNK, _PIXEL_CHUNK, 0)))

    (at,) = tf.while_loop(
        goes_on,
        lambda at: (at + 12 + tf.clip_by_value(_number(head, at, 4), 0, _BYTES),),
        (tf.constant(8),),
        maximum_iterations=_SEGMENTS,
    )
    return tf.where(tf.equal(_number(head, at + 4, 4), _EXIF_CHUNK), at + 8, 0)


def _of_tiff(head: Any, start: Any) -> Any:
    """The orientation in the first directory of the TIFF structure at `start`."""
    little = tf.equal(_number(head, start, 2), _LITTLE_ENDIAN)
    directory = start + _number(head, start + 4, 4, little)
    count = tf.minimum(_number(head, directory, 2, little), 1000)
    entries = directory + 2 + 12 * tf.range(count)
    is_it = tf.equal(_number(head, entries, 2, little), _ORIENTATION)
    is_it &= tf.equal(_number(head, entries + 2, 2, little), _SHORT)
    values = _number(head, entries + 8, 2, little)
    found = tf.boolean_mask(values, is_it & (values >= 1) & (values <= 8))
    return tf.concat([found, [1]], 0)[0]

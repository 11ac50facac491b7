"""Random augmentation of whole batches; every operation is a pure function of a stateless seed.

A batch is a function of (seed, step), so a resumed run sees exactly the images of an uninterrupted
run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.recipes.configs.schema import AugmentConfig
from keras_resnet.recipes.data.mixing import mix, targets
from keras_resnet.recipes.data.randaugment import randaugment

Crop = Callable[[Any, Any, AugmentConfig], Any]  # images, stateless seed → images

FLIPS = ("none", "random", "alternating")
_NARROWEST, _WIDEST = 3 / 4, 4 / 3  # width / height of a random box (arXiv:1409.4842, section 6)


def _pad_and_crop(images: Any, seed: Any, *, mode: str, pad: int) -> Any:
    """Pad each image and crop it at a random offset."""
    batch, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    seeds = tf.random.split(seed, 2)
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]], mode=mode)

    def offsets(key: Any, length: int) -> Any:
        first = tf.random.stateless_uniform([batch, 1], key, 0, 2 * pad + 1, dtype=tf.int32)
        return first + tf.range(length)

    cropped = tf.gather(padded, offsets(seeds[0], height), axis=1, batch_dims=1)
    cropped = tf.gather(cropped, offsets(seeds[1], width), axis=2, batch_dims=1)
    return tf.ensure_shape(cropped, images.shape)


def pad_crop(images: Any, seed: Any, config: AugmentConfig) -> Any:
    """Pad 4 zeros and crop randomly (He 2015, section 4.2). uint8 in, uint8 out."""
    return _pad_and_crop(images, seed, mode="CONSTANT", pad=4)


def reflect_crop(images: Any, seed: Any, config: AugmentConfig) -> Any:
    """Pad 4 mirrored pixels and crop randomly."""
    return _pad_and_crop(images, seed, mode="REFLECT", pad=4)


def shift(images: Any, seed: Any, config: AugmentConfig) -> Any:
    """Shift by up to an eighth of the width, with mirrored edges; for digits and letters."""
    return _pad_and_crop(images, seed, mode="SYMMETRIC", pad=images.shape[2] // 8)


def resized_crop(images: Any, seed: Any, config: AugmentConfig) -> Any:
    """Crop `random_box` from each image and resize it to the image's size."""
    batch, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    numbers = tf.random.stateless_uniform([batch, 4], seed)
    place = random_box(height, width, numbers, config.min_area)
    top, left, rows, columns = (tf.cast(part, tf.float32) for part in place)
    last = tf.stack([top + rows - 1, left + columns - 1], axis=-1)
    boxes = tf.concat([tf.stack([top, left], axis=-1), last], axis=-1)
    boxes /= tf.constant([height - 1, width - 1, height - 1, width - 1], tf.float32)
    cut = tf.image.crop_and_resize(images, boxes, tf.range(batch), [height, width])
    return tf.ensure_shape(to_uint8(cut), images.shape)


def none(images: Any, seed: Any, config: AugmentConfig) -> Any:
    """Return the images unchanged."""
    return images


CROPS: dict[str, Crop] = {
    "pad": pad_crop,
    "reflect": reflect_crop,
    "shift": shift,
    "resized": resized_crop,
    "none": none,
}


def random_box(height: Any, width: Any, numbers: Any, min_area: float) -> tuple[Any, Any, Any, Any]:
    """Return the random box that the crop "resized" uses (arXiv:1409.4842, section 6).

    Its share of the area is uniform from `min_area` to 1, and its width / height is log-uniform
    from 3/4 to 4/3. Other code draws again if such a box does not fit. Here the ratio is drawn
    from those that fit; the area shrinks only if no ratio fits.

    Args:
        height: height of the image in pixels, a number or a tensor.
        width: width of the image in pixels, a number or a tensor.
        numbers: four random numbers in 0...1 for each box, float32 (..., 4).
        min_area: the least share of the area.

    Returns:
        top, left, height, width in pixels, int32 (...).
    """
    area, ratio, down, across = tf.unstack(numbers, axis=-1)
    rows, columns = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    largest = _WIDEST * tf.square(tf.minimum(rows, columns))
    pixels = tf.minimum(rows * columns * (min_area + area * (1.0 - min_area)), largest)
    pixels = tf.maximum(pixels, 1.0)
    low = tf.math.log(tf.maximum(_NARROWEST, pixels / tf.square(rows)))
    high = tf.math.log(tf.minimum(_WIDEST, tf.square(columns) / pixels))
    ratio = tf.exp(low + ratio * (high - low))

    def whole(length: Any, limit: Any) -> Any:
        return tf.clip_by_value(tf.cast(tf.round(length), tf.int32), 1, tf.cast(limit, tf.int32))

    box_height, box_width = (
        whole(tf.sqrt(pixels / ratio), rows),
        whole(tf.sqrt(pixels * ratio), columns),
    )

    def offset(number: Any, room: Any) -> Any:
        return tf.minimum(tf.cast(number * tf.cast(room + 1, tf.float32), tf.int32), room)

    top = offset(down, tf.cast(rows, tf.int32) - box_height)
    return top, offset(across, tf.cast(columns, tf.int32) - box_width), box_height, box_width


def to_uint8(pixels: Any) -> Any:
    """Round float pixels of 0...255 (tf.round would take as long as a third of the decoding)."""
    return tf.cast(pixels + 0.5, tf.uint8)


def resized(images: Any, side: Any, antialias: bool = True) -> Any:
    """Resize one uint8 image or a batch to side × side; enlarging needs no `antialias`."""
    return to_uint8(tf.image.resize(images, [side, side], antialias=antialias))


def fitted(image: Any, shape: Any, side: int) -> Any:
    """Resize a whole uint8 image so that its shorter side is `side`.

    `shape` is its original (height, width), before it was decoded at a smaller scale.
    """
    shape = tf.cast(shape, tf.int64)
    shorter = tf.reduce_min(shape)
    target = tf.cast((shape * side + shorter // 2) // shorter, tf.int32)
    return to_uint8(tf.image.resize(image, target, antialias=True))


def flip(images: Any, mirrored: Any) -> Any:
    """Mirror the images for which `mirrored` (batch,) is true."""
    # A slice with a negative step would take several times as long.
    return tf.where(mirrored[:, None, None, None], tf.reverse(images, [2]), images)


def mirrored(kind: str, coins: Any, epoch: Any, key: Any) -> Any:
    """Choose the images to mirror: bool (batch,).

    "random" tosses a coin for each image. "alternating" tosses one coin per image at the start and
    turns it over in every epoch. So two epochs show each image in both ways (arXiv:2404.00498,
    section 3.6).

    Args:
        kind: one of FLIPS.
        coins: the initial coins of these images, bool (batch,).
        epoch: the pass over the split, int64.
        key: stateless seed of the batch.
    """
    if kind == "none":
        return tf.zeros_like(coins)
    if kind == "random":
        return tf.random.stateless_uniform(tf.shape(coins), key) < 0.5
    return coins ^ (epoch % 2 == 1)


def side_at(step: Any, sizes: Sequence[tuple[int, int]]) -> Any:
    """Return the image side at `step`; `sizes` are (first step, side in pixels) in order."""
    starts = tf.constant([start for start, _ in sizes], tf.int64)
    index = tf.reduce_sum(tf.cast(starts <= step, tf.int32)) - 1
    return tf.constant([side for _, side in sizes])[index]


def resize_at(step: Any, images: Any, sizes: Sequence[tuple[int, int]]) -> Any:
    """Resize a batch to the side for `step`, if there are `sizes` (see `side_at`)."""
    if not sizes:
        return images
    side = side_at(step, sizes)
    return tf.cond(
        tf.reduce_all(tf.equal(tf.shape(images)[1:3], side)),
        lambda: images,
        lambda: resized(images, side),
    )


def erase(images: Any, seed: Any, part: float) -> Any:
    """Fill a random rectangle with noise in about `part` of the images (arXiv:1708.04896).

    The rectangle's share of the area is uniform from 0.02 to 0.4. Its height / width is log-uniform
    from 0.3 to 1 / 0.3, among the ratios that fit. uint8 in, uint8 out.
    """
    seeds = tf.random.split(seed, 2)
    shape = tf.shape(images)
    chosen, area, ratio, down, across = tf.unstack(
        tf.random.stateless_uniform([5, shape[0]], seeds[0])
    )
    area = 0.02 + area * (0.4 - 0.02)
    low, high = tf.maximum(math.log(0.3), tf.math.log(area)), -math.log(0.3)
    high = tf.minimum(high, -tf.math.log(area))
    ratio = tf.exp(low + ratio * (high - low))
    rows = _inside(down, tf.sqrt(area * ratio), shape[1])
    columns = _inside(across, tf.sqrt(area / ratio), shape[2])
    erased = rows[:, :, None] & columns[:, None, :] & (chosen < part)[:, None, None]
    # The batch shares one noise image, because the rectangles are in different places. Drawing
    # noise for every image would take longer than the rest of the augmentation.
    noise = tf.random.stateless_uniform(shape[1:], seeds[1], 0, 256, dtype=tf.int32)
    return tf.where(erased[..., None], tf.cast(noise, images.dtype), images)


def _inside(offset: Any, part: Any, length: Any) -> Any:
    """Mark the pixels inside a span that covers `part` of `length`: bool (batch, length)."""
    span = tf.round(part * tf.cast(length, tf.float32))
    first = tf.floor(offset * (tf.cast(length, tf.float32) - span + 1.0))
    pixel = tf.range(tf.cast(length, tf.float32))
    return (pixel >= first[:, None]) & (pixel < (first + span)[:, None])


def vary(images: Any, labels: Any, seed: Any, config: AugmentConfig, classes: int) -> Any:
    """Apply the operations after crop and flip: RandAugment, erasing, mixup or CutMix.

    Args:
        images: uint8 (batch, height, width, channels).
        labels: int32 (batch,), or with several labels uint8 (batch, classes).
        seed: stateless seed of the batch.
        config: the operations and their strengths.
        classes: the number of classes.

    Returns:
        Images uint8, and the labels; with mixup or CutMix, targets float32 (batch, classes).
    """
    seeds = tf.random.split(seed, 3)
    if config.randaugment:
        images = randaugment(images, seeds[0], config.randaugment, config.magnitude)
    if config.erasing:
        images = erase(images, seeds[1], config.erasing)
    if config.mixup or config.cutmix:
        return mix(images, targets(labels, classes), seeds[2], config.mixup, config.cutmix)
    return images, labels


def check(config: AugmentConfig, batch_size: int) -> None:
    """Check the augmentation settings.

    Raises:
        UserError: an unknown crop or flip, or repeats that do not divide the batch size.
    """
    for key, value, known in (("crop", config.crop, CROPS), ("flip", config.flip, FLIPS)):
        if value not in known:
            raise UnknownNameError(f"augment.{key}", value, known, "")
    if batch_size % config.repeats:
        raise UserError(
            f"train.batch_size must be a multiple of augment.repeats = {config.repeats}; received "
            f"{batch_size}. Try --set train.batch_size="
            f"{max(1, batch_size // config.repeats) * config.repeats}"
        )

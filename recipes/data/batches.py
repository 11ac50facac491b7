"""Make `tf.data` batches: repeatable ones for training, padded and weighted for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.recipes.configs.schema import AugmentConfig
from keras_resnet.recipes.data.augment import mirrored, vary
from keras_resnet.recipes.data.datasets import AnySplit
from keras_resnet.recipes.data.decoded import Draw, options, plain


def training_batches(
    split: AnySplit,
    batch_size: int,
    seed: int,
    augment: AugmentConfig,
    start_step: int = 0,
    sizes: Sequence[tuple[int, int]] = (),
    classes: int = 0,
    balanced: bool = False,
) -> tf.data.Dataset:
    """Return endless (images, labels) batches from `start_step` on.

    Batch t is a function of (seed, t). Every epoch is a new permutation of the split; images that
    do not fill a batch are left out of that epoch. With `augment.repeats`, an epoch uses
    1 / repeats of the images. Images stay uint8: the model normalises them on its device.

    Args:
        split: the training split.
        batch_size: a multiple of `augment.repeats`.
        seed: seed of the image order and the augmentation.
        augment: see AugmentConfig.
        start_step: the first batch's t.
        sizes: (first step, side in pixels) for progressive resizing.
        classes: the number of classes. mixup and CutMix need it; their labels are float32
            (batch, classes). Otherwise labels are int32 (batch,).
        balanced: every class is shown equally often. An epoch has as many steps as otherwise; it
            repeats the images of small classes and leaves out some of large ones.
    """
    labels = split.labels if balanced else None
    draws = _draws(len(split), batch_size, seed, augment, start_step, labels)
    batches = split.cropped(draws, augment, sizes).map(
        plain(lambda images, labels, key: vary(images, labels, key, augment, classes)),
        num_parallel_calls=2,
        deterministic=True,
    )
    return batches.prefetch(4).with_options(options())


def _draws(
    count: int,
    batch_size: int,
    seed: int,
    augment: AugmentConfig,
    start_step: int,
    labels: np.ndarray | None,
) -> tf.data.Dataset:
    """Return the Draw of each batch from `start_step` on; with `labels` balanced by them."""
    steps_per_epoch, distinct = count // batch_size, batch_size // augment.repeats
    coins = tf.constant(np.random.default_rng(seed).random(count) < 0.5)

    def epoch_of_indices(epoch: Any) -> tf.data.Dataset:
        key = tf.stack([tf.cast(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=key)
        order = order if labels is None else _balanced(order, labels, key)
        order = tf.reshape(order[: steps_per_epoch * distinct], [steps_per_epoch, distinct])
        steps = epoch * steps_per_epoch + tf.range(steps_per_epoch, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((order, steps))

    def draw(index: Any, step: Any) -> Draw:
        index = tf.tile(index, [augment.repeats])
        # The shuffle uses (seed, epoch); another first word keeps the two streams apart.
        key = tf.stack([tf.cast(seed, tf.int64) + 2**32, step])
        crop_key, flip_key = tf.unstack(tf.random.split(key, 2))
        epoch = step // steps_per_epoch
        mirror = mirrored(augment.flip, tf.gather(coins, index), epoch, flip_key)
        return Draw(index, step, mirror, crop_key, tf.random.fold_in(key, 1))

    first_epoch, skipped = divmod(start_step, steps_per_epoch)
    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    return epochs.flat_map(plain(epoch_of_indices)).skip(skipped).map(plain(draw))


def _balanced(order: Any, labels: np.ndarray, key: Any) -> Any:
    """Return as many indices as `order` has, with equally many of each class, in random order.

    The k-th draw of a class is its image number k in `order`, counted around.
    """
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    groups = tf.gather(order, tf.argsort(tf.gather(classes, order), stable=True))
    starts = np.cumsum(sizes) - sizes
    slots = tf.random.experimental.stateless_shuffle(
        tf.range(len(labels)), seed=tf.random.fold_in(key, 1)
    )
    label, turn = slots % len(sizes), slots // len(sizes)
    within = tf.cast(turn, tf.int64) % tf.gather(sizes, label)
    return tf.gather(groups, tf.gather(starts, label) + within)


def evaluation_batches(split: AnySplit, batch_size: int) -> tf.data.Dataset:
    """Return every image once as (images, labels, weights); padding has weight 0."""
    count = len(split)
    filled = -(-count // batch_size) * batch_size
    weights = (np.arange(filled) < count).astype("float32")
    images = split.batches(np.arange(filled) % count, batch_size)
    weights = tf.data.Dataset.from_tensor_slices(weights).batch(batch_size)
    batches = tf.data.Dataset.zip(images, weights).map(
        plain(lambda pair, weights: (*pair, weights))
    )
    return batches.prefetch(2).with_options(options())

"""Images by name: scikit-learn's digits or a dataset of tensorflow-datasets, held in memory.

`tfds` finds prepared data under `TFDS_DATA_DIR` (default `~/tensorflow_datasets`) and downloads
what is missing where there is a network.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.recipes.augment import CROPS, flip, mirrored, resize_at
from keras_resnet.recipes.config import AugmentConfig

_IN_MEMORY_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Split:
    """Images uint8 (n, height, width, channels) in RGB 0...255 and labels int32 (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def sample(self, count: int) -> Split:
        """Return `count` images at fixed, evenly spaced indices (all, if there are fewer)."""
        index = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """A labelled dataset; `validation` was cut from the original training split."""

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images that are evaluated."""
        shape: tuple[int, int, int] = self.train.images.shape[1:]
        return shape

    def split(self, name: str) -> Split:
        """Return "train", "validation" or "test".

        Raises:
            UserError: no such split, or it is empty.
        """
        if name not in ("train", "validation", "test"):
            raise UnknownNameError("split", name, ("train", "validation", "test"), "")
        split: Split = getattr(self, name)
        if len(split) == 0:
            raise UserError(f"The {name} split of '{self.name}' is empty (data.validation = 0).")
        return split


def load_dataset(name: str, validation: int = 0, split_seed: int = 0) -> Dataset:
    """Load a dataset and hold `validation` images out of its training split.

    Raises:
        UserError: unknown name, data that is not there and cannot be downloaded, no labels,
            images of varying size, or a validation split larger than the training split.
    """
    loader = _load_digits if name == "digits" else _load_tfds
    train, test, class_names = loader(name)
    if validation >= len(train):
        raise UserError(
            f"data.validation = {validation} leaves nothing to train on: '{name}' has "
            f"{len(train)} training images."
        )
    order = np.random.default_rng(split_seed).permutation(len(train))
    held_out, kept = np.sort(order[:validation]), np.sort(order[validation:])
    return Dataset(
        name=name,
        train=Split(train.images[kept], train.labels[kept]),
        validation=Split(train.images[held_out], train.labels[held_out]),
        test=test,
        class_names=class_names,
    )


def _load_digits(name: str) -> tuple[Split, Split, tuple[str, ...]]:
    """UCI handwritten digits as 32×32 RGB; a fixed fifth, drawn at random, is the test split."""
    raw = require("sklearn.datasets", "recipes").load_digits()
    image_module = require("PIL.Image", "recipes")
    grey = (raw.images * (255 / 16)).round().astype("uint8")
    enlarged = [
        np.asarray(image_module.fromarray(digit).resize((32, 32), image_module.Resampling.BILINEAR))
        for digit in grey
    ]
    images = np.repeat(np.stack(enlarged)[..., None], 3, axis=-1)
    labels = raw.target.astype("int32")
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[360:], order[:360]
    names = tuple(str(digit) for digit in raw.target_names)
    return Split(images[train], labels[train]), Split(images[test], labels[test]), names


def _load_tfds(name: str) -> tuple[Split, Split, tuple[str, ...]]:
    tfds = require("tensorflow_datasets", "recipes")
    builder = _tfds_builder(tfds, name)
    features = builder.info.features  # known before anything is downloaded
    if "image" not in features or "label" not in features:
        raise UserError(f"'{name}' has no 'image' and 'label': its features are {list(features)}.")
    if None in features["image"].shape:
        raise UserError(f"The images of '{name}' vary in size; this recipe wants one size.")
    _prepare(builder, name)
    splits = builder.info.splits
    missing = {"train", "test"} - set(splits)
    if missing:
        raise UserError(f"'{name}' has no split {sorted(missing)}; it has {sorted(splits)}.")
    count = splits["train"].num_examples + splits["test"].num_examples
    size = count * int(np.prod(features["image"].shape))
    if size > _IN_MEMORY_BYTES:
        raise UserError(f"'{name}' takes {size / 2**30:.0f} GiB decoded; this recipe holds 4 GiB.")
    train, test = (
        Split(part["image"], part["label"].astype("int32"))
        for part in (
            tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, shuffle_files=False))
            for split in ("train", "test")
        )
    )
    return train, test, tuple(features["label"].names)


def _tfds_builder(tfds: Any, name: str) -> Any:
    try:
        return tfds.builder(name)
    except Exception as error:  # by the kind of typing mistake, tfds raises any of five types
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        if name in known:  # the name is right, what lies in the folder is not
            raise UserError(f"tensorflow-datasets cannot open '{name}': {error}") from error
        see = "See https://www.tensorflow.org/datasets/catalog."
        raise UnknownNameError("dataset", name, known, see) from error


def _prepare(builder: Any, name: str) -> None:
    """Download the dataset and write it in tfds' format, unless that was done before."""
    try:
        if not builder.is_prepared():
            _require_network()
            with contextlib.redirect_stdout(sys.stderr):  # tfds prints; stdout is for results
                builder.download_and_prepare()
    except Exception as error:  # tfds raises a dozen unrelated types from here
        folder = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"The dataset '{name}' is not under {folder} and cannot be downloaded ({first_line}). "
            f"Without a network: prepare it elsewhere with tfds.load('{name}'), copy the folder, "
            "and set TFDS_DATA_DIR to the one that holds it."
        ) from error


def _require_network() -> None:
    """Fail at once where there is no network; tfds would retry for minutes."""
    if not urllib.request.getproxies():
        socket.getaddrinfo("storage.googleapis.com", 443)


def training_batches(
    split: Split,
    batch_size: int,
    seed: int,
    augment: AugmentConfig,
    start_step: int = 0,
    sizes: Sequence[tuple[int, int]] = (),
) -> tf.data.Dataset:
    """Endless (images, labels) batches from `start_step` on; batch t is a function of (seed, t).

    Every epoch is a new permutation of the split; what does not fill a batch is left out of that
    epoch. Images stay uint8: the model normalises them on its device. `sizes` are (first step,
    pixels a side) of progressive resizing.
    """
    count = len(split)
    steps_per_epoch = count // batch_size
    images, labels = tf.constant(split.images), tf.constant(split.labels)
    coins = tf.constant(np.random.default_rng(seed).random(count) < 0.5)

    def epoch_of_indices(epoch: Any) -> tf.data.Dataset:
        key = tf.stack([tf.cast(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=key)
        order = tf.reshape(order[: steps_per_epoch * batch_size], [steps_per_epoch, batch_size])
        steps = epoch * steps_per_epoch + tf.range(steps_per_epoch, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((order, steps))

    def batch(index: Any, step: Any) -> tuple[Any, Any]:
        # The shuffle uses (seed, epoch); another first word keeps the two streams apart.
        key = tf.stack([tf.cast(seed, tf.int64) + 2**32, step])
        crop_key, flip_key = tf.unstack(tf.random.split(key, 2))
        cropped = CROPS[augment.crop](tf.gather(images, index), crop_key)
        mirror = mirrored(augment.flip, tf.gather(coins, index), step // steps_per_epoch, flip_key)
        images_of_step = resize_at(step, flip(cropped, mirror), sizes)
        return images_of_step, tf.gather(labels, index)

    first_epoch, skipped = divmod(start_step, steps_per_epoch)
    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    batches = epochs.flat_map(epoch_of_indices).skip(skipped)
    batches = batches.map(batch, num_parallel_calls=2, deterministic=True).prefetch(4)
    return batches.with_options(_options())


def evaluation_batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """Every image once: (images, labels, weights), the last batch filled up with weight 0."""
    count = len(split)
    filled = -(-count // batch_size) * batch_size
    index = np.arange(filled) % count
    weights = (np.arange(filled) < count).astype("float32")
    images, labels = tf.constant(split.images), tf.constant(split.labels)
    batches = tf.data.Dataset.from_tensor_slices((index, weights)).batch(batch_size, True)
    batches = batches.map(lambda i, w: (tf.gather(images, i), tf.gather(labels, i), w))
    return batches.prefetch(2).with_options(_options())


def _options() -> tf.data.Options:
    options = tf.data.Options()
    # With autotuning some runs stood still for seconds at the end of an epoch.
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options

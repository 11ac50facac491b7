"""Images decoded in memory, and the interface that all kinds of splits share.

`Split` (here) and `EncodedSplit` (encoded.py) have the same interface: `len`, `labels`,
`image_shape`, `sized`, `left_out`, `read_by_pillow`, `identities`, `place_identities`,
`by_content`, `places`, `subset`, `at`, `sample`, and four methods that yield images:

    cropped(draws, augment, sizes)    (images, labels, key) of training batches
    batches(index, batch_size)        (images, labels) of the images at `index`, for evaluation
    whole(sides)                      (one image at several sizes, label), for evaluation
    shown(view)                       (view of one unchanged image, label), for evaluation
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from keras_resnet.images.listing import spaced
from keras_resnet.recipes.configs.schema import AugmentConfig
from keras_resnet.recipes.data import identity
from keras_resnet.recipes.data.augment import CROPS, fitted, flip, resize_at, resized
from keras_resnet.recipes.data.shown import pixels, strip
from keras_resnet.text import for_html

# Images decoded in parallel. An affinity mask (a Slurm job, taskset) may allow only some CPUs.
PARALLEL = max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


class Draw(NamedTuple):
    """The random choices of a training batch; a pure function of (seed, step)."""

    index: Any  # indices of the images, int (batch,)
    step: Any  # int64
    mirrored: Any  # True for images to mirror, bool (batch,)
    crop_key: Any  # stateless seed of the crops
    key: Any  # stateless seed of the later operations


@dataclass(frozen=True)
class Split:
    """Labelled images decoded in memory.

    Attributes:
        images: uint8 (n, height, width, channels), RGB 0...255.
        labels: the labels of every image; see labels.py.
        identities: the identity of each image, uint64 (n,), see identity.py; None if unknown.
        sized: True, because the images have one size.
        left_out: always empty, because unreadable images were left out before.
        read_by_pillow: always empty, for the same reason.
    """

    images: np.ndarray
    labels: np.ndarray
    identities: np.ndarray | None = None
    sized: ClassVar[bool] = True
    left_out: ClassVar[tuple[str, ...]] = ()
    read_by_pillow: ClassVar[tuple[str, ...]] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def places(self) -> int:
        """The number of indices that `subset` accepts."""
        return len(self)

    def __repr__(self) -> str:
        """Return a summary in one line."""
        return f"{type(self).__name__}: {self.places:,} images, {pixels(self)}"

    def _repr_html_(self) -> str:
        return f"<p>{for_html(self)}</p>{strip(self)}"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        shape: tuple[int, int, int] = self.images.shape[1:]
        return shape

    def shorter_side(self) -> int:
        """Return the images' shorter side in pixels."""
        return min(self.image_shape[:2])

    def subset(self, index: np.ndarray) -> Split:
        """Return the images at `index`."""
        known = self.identities
        return Split(
            self.images[index], self.labels[index], None if known is None else known[index]
        )

    def by_content(self) -> tuple[Split, np.ndarray]:
        """Return the same images with identities from their content, and the labels."""
        contents = (np.ascontiguousarray(image).data for image in self.images)
        return replace(self, identities=identity.of_contents(contents, len(self))), self.labels

    @property
    def place_identities(self) -> np.ndarray:
        """The identity of every place, uint64 (n,)."""
        known = self if self.identities is not None else self.by_content()[0]
        return np.asarray(known.identities)

    def sample(self, count: int) -> Split:
        """Return `count` images at fixed, evenly spaced indices (all, if there are fewer)."""
        return self.subset(spaced(len(self), count))

    def at(self, size: int, crop_fraction: float) -> Split:
        """Return the same images, resized to `size` × `size` pixels without cropping."""
        if self.image_shape[:2] == (size, size):
            return self
        parts = [
            resized(tf.constant(self.images[start : start + 256]), size).numpy()
            for start in range(0, len(self), 256)
        ]
        empty = np.zeros((0, size, size, self.image_shape[2]), "uint8")
        return Split(np.concatenate([empty, *parts]), self.labels, self.identities)

    def cropped(
        self, draws: tf.data.Dataset, augment: AugmentConfig, sizes: Sequence[tuple[int, int]]
    ) -> tf.data.Dataset:
        """Return (images, labels, key) for each Draw: cropped, mirrored, in its step's size."""
        images, labels = tf.constant(self.images), tf.constant(self.labels)

        def crop(draw: Draw) -> tuple[Any, Any, Any]:
            cropped = CROPS[augment.crop](tf.gather(images, draw.index), draw.crop_key, augment)
            batch = resize_at(draw.step, flip(cropped, draw.mirrored), sizes)
            return batch, tf.gather(labels, draw.index), draw.key

        return draws.map(plain(crop), num_parallel_calls=2, deterministic=True)

    def batches(self, index: np.ndarray, batch_size: int) -> tf.data.Dataset:
        """Return batches of (images, labels) for the images at `index`, in this order."""
        images, labels = tf.constant(self.images), tf.constant(self.labels)
        places = tf.data.Dataset.from_tensor_slices(index).batch(batch_size)
        return places.map(plain(lambda i: (tf.gather(images, i), tf.gather(labels, i))))

    def whole(self, sides: Sequence[int]) -> tf.data.Dataset:
        """Return (images, label) for every image in order: one copy for each shorter side."""
        images, labels = tf.constant(self.images), tf.constant(self.labels)

        def scale(place: Any) -> tuple[tuple[Any, ...], Any]:
            shape = self.image_shape[:2]
            return tuple(fitted(images[place], shape, side) for side in sides), labels[place]

        return in_order(len(self), scale)

    def shown(self, view: Callable[[Any], Any]) -> tf.data.Dataset:
        """Return (`view` of the image, label) for every image in order."""
        images, labels = tf.constant(self.images), tf.constant(self.labels)
        return in_order(len(self), lambda place: (view(images[place]), labels[place]))


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Exclude a function for `map` or `flat_map` from AutoGraph, which would take seconds."""
    converted: Callable[..., Any] = tf.autograph.experimental.do_not_convert(function)
    return converted


def in_order(count: int, element: Callable[[Any], Any]) -> tf.data.Dataset:
    """Return a dataset with `element(place)` for every place below `count`."""
    elements = tf.data.Dataset.range(count).map(
        plain(element), num_parallel_calls=PARALLEL, deterministic=True
    )
    return elements.prefetch(PARALLEL).with_options(options())


def options() -> tf.data.Options:
    """Return the options of every pipeline."""
    options = tf.data.Options()
    # With autotuning, some runs stalled for seconds at the end of an epoch.
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options

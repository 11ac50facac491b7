"""Images that stay encoded until a batch needs them, in files or in TFDS records.

Of a JPEG only the part that is used is decoded, at a half, a quarter or an eighth of its size where
that is still enough, so a photograph of 12 megapixels costs little more than a small one. What
leaves is uint8. All else is as `images/read.py` has it: which files are read, and how they are
turned.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_resnet.display.notebook import escape
from keras_resnet.errors import UserError, require
from keras_resnet.images import headers, read
from keras_resnet.images.crop import decode as decode_sound
from keras_resnet.images.listing import spaced, warn_of_left_out
from keras_resnet.recipes.configs.schema import AugmentConfig
from keras_resnet.recipes.data.augment import CROPS, fitted, random_box, resize_at, resized, side_at
from keras_resnet.recipes.data.decoded import (
    PARALLEL,
    Draw,
    Split,
    in_order,
    options,
    plain,
)
from keras_resnet.recipes.data.shown import pixels, strip

IN_MEMORY_BYTES = 4 * 2**30
_SAMPLE = 200  # images that are looked at for their size

Box = Callable[[Any, Any], tuple[Any, Any, Any, Any]]  # (height, width) → top, left, height, width


class Tried(NamedTuple):
    """Which images of a source can be decoded, and how."""

    sound: Source  # those that can
    labels: np.ndarray  # theirs, int32 (n,)
    turned: np.ndarray  # how they are held, int32 (n,): see headers.upright
    others: np.ndarray  # whether only Pillow reads them, bool (n,)
    left_out: tuple[str, ...]  # the names of the rest

    def encoded(self, place: Any) -> Encoded:
        """An image of `sound`; in a graph."""
        content, label = self.sound.read(place)
        # A graph without Pillow runs in another process too.
        decode = read.png_or_other if self.others.any() else read.png
        return Encoded(content, label, tf.gather(self.turned, place), decode)


class Encoded(NamedTuple):
    """The bytes of an image in a graph."""

    content: Any  # a scalar string
    label: Any  # int32
    turned: Any  # int32: see headers.upright
    decode: Callable[[Any], Any]  # of what is no JPEG: the whole image as it is stored


class Source:
    """Encoded images at places 0...n-1; folders.py and tfrecords.py say where."""

    def __len__(self) -> int:
        """The number of places, also of images that cannot be read."""
        raise NotImplementedError

    def read(self, place: Any) -> tuple[Any, Any]:
        """(encoded bytes, label int32) of a place; in a graph."""
        raise NotImplementedError

    def where(self, place: int) -> str:
        """What to call an image in a message."""
        raise NotImplementedError

    def subset(self, places: np.ndarray) -> Source:
        """The images at `places`."""
        raise NotImplementedError

    @property
    def identities(self) -> np.ndarray:
        """What each image is known by, uint64 (n,); see identity.py."""
        raise NotImplementedError

    def by_content(self) -> tuple[Source, np.ndarray]:
        """The same images, known by their content; and their labels, int32 (n,)."""
        raise NotImplementedError

    @cached_property
    def tried(self) -> Tried:
        """What is left when every image has been decoded once, at an eighth of its size.

        This is done when a split is first used and costs about half an epoch of decoding. In return
        every count, split and batch is what it says: were bad images found on the way, either a
        batch would hang on the history of the run, or how many are left out would be known at the
        end only.

        Raises:
            UserError: none can be decoded.
        """
        require("PIL.Image", "recipes")  # or all that it reads would be left out
        if len(self) > 20_000:
            print(f"looking through {len(self):,} images once", file=sys.stderr)
        probed = tf.data.Dataset.range(len(self)).map(
            plain(self._probe), num_parallel_calls=PARALLEL, deterministic=True
        )
        batches = probed.ignore_errors().batch(4096).with_options(options())
        found = [tuple(part.numpy() for part in batch) for batch in batches]
        if len(self) and not found:
            raise UserError(f"None of {len(self):,} images can be decoded; {self._why(0)}")
        none = tuple(np.zeros(0, kind) for kind in ("int64", "int32", "int32", "bool"))
        places, labels, turned, others = map(np.concatenate, zip(none, *found, strict=True))
        bad = np.setdiff1d(np.arange(len(self)), places)
        names = tuple(self.where(int(place)) for place in bad)
        warn_of_left_out(names, len(self))
        return Tried(self.subset(places), labels, turned, others, names)

    def _why(self, place: int) -> str:
        """What happens where an image is decoded."""
        try:
            self._probe(tf.constant(place))
        except (tf.errors.OpError, ValueError) as error:
            return f"{self.where(place)}: {str(error).splitlines()[0][:300]}"
        return self.where(place)

    def _probe(self, place: Any) -> tuple[Any, Any, Any, Any]:
        encoded, label = self.read(place)
        return place, tf.identity(label), *read.tried(encoded)


@dataclass(frozen=True)
class EncodedSplit:
    """Images of any size that are decoded when a batch needs them.

    Attributes:
        source: where they are.
        size: pixels a side they are given out at; 0: not chosen yet.
        crop_fraction: the central part of the shorter side that is kept in evaluation.
    """

    source: Source
    size: int = 0
    crop_fraction: float = 0.875

    def __len__(self) -> int:
        """The number of images that can be decoded; the first time every one is tried."""
        return len(self.labels)

    @property
    def labels(self) -> np.ndarray:
        """int32 (n,)."""
        return self.source.tried.labels

    @property
    def left_out(self) -> tuple[str, ...]:
        """The images that cannot be decoded."""
        return self.source.tried.left_out

    @property
    def read_by_pillow(self) -> tuple[str, ...]:
        """The images that are neither JPEG nor PNG."""
        tried = self.source.tried
        return tuple(tried.sound.where(int(place)) for place in np.flatnonzero(tried.others))

    @property
    def places(self) -> int:
        """How many indices `subset` knows: also those of images that cannot be decoded."""
        return len(self.source)

    @property
    def identities(self) -> np.ndarray:
        """What the images that can be decoded are known by, uint64 (n,)."""
        return self.source.tried.sound.identities

    def by_content(self) -> tuple[EncodedSplit, np.ndarray]:
        """The same images, known by their content; and the labels of all places, int32."""
        source, labels = self.source.by_content()
        return replace(self, source=source), labels

    @property
    def place_identities(self) -> np.ndarray:
        """What every place is known by, uint64 (places,)."""
        return self.source.identities

    @property
    def sized(self) -> bool:
        """Whether the size was chosen."""
        return self.size > 0

    def __repr__(self) -> str:
        """One line."""
        return f"{type(self).__name__}: {self.places:,} images, {pixels(self)}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self)}</p>{strip(self)}"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels).

        Raises:
            UserError: the size was not chosen.
        """
        if not self.size:
            raise UserError(
                "These images vary in size; give the pixels a side that the network takes, e.g. "
                "--set data.image_size=224."
            )
        return self.size, self.size, 3

    def shorter_side(self) -> int:
        """Return the median of the images' shorter sides in pixels, of some hundred of them.

        Raises:
            UserError: none of them can be read.
        """
        image_module = require("PIL.Image", "recipes")
        sides = []
        for place in spaced(self.places, _SAMPLE):
            content = self.source.read(tf.constant(place))[0].numpy()
            with contextlib.suppress(OSError, SyntaxError, ValueError):
                sides.append(min(image_module.open(io.BytesIO(content)).size))
        if not sides:
            where = self.source.where(0)
            raise UserError(f"None of {self.places:,} images can be read, e.g. {where}.")
        return int(np.median(sides))

    def subset(self, index: np.ndarray) -> EncodedSplit:
        """The images at `index` of the source; those that cannot be decoded count too."""
        return replace(self, source=self.source.subset(index))

    def at(self, size: int, crop_fraction: float) -> EncodedSplit:
        """The same images, given out at `size` pixels a side."""
        return replace(self, size=size, crop_fraction=crop_fraction)

    def sample(self, count: int) -> Split:
        """Decode `count` images at fixed, evenly spaced indices (all, if there are fewer).

        Raises:
            UserError: they take more memory than 4 GiB.
        """
        index = spaced(len(self), count)
        most = IN_MEMORY_BYTES // int(np.prod(self.image_shape))
        if len(index) > most:
            raise UserError(
                f"{len(index):,} images of {self.size}×{self.size} do not fit in "
                f"{IN_MEMORY_BYTES >> 30} GiB; take {most:,} at most (export: --check-images)."
            )
        parts = [images.numpy() for images, _ in self.batches(index, 64)]
        empty = np.zeros((0, *self.image_shape), "uint8")
        images = np.concatenate([empty, *parts])
        return Split(images, self.labels[index], self.identities[index])

    def cropped(
        self, draws: tf.data.Dataset, augment: AugmentConfig, sizes: Sequence[tuple[int, int]]
    ) -> tf.data.Dataset:
        """(images, labels, key) of each Draw: cropped, mirrored, at the size of its step.

        "resized" and "none" decode to that size at once; the other crops start from what
        evaluation sees.
        """
        at_once = augment.crop in ("resized", "none")
        size, batch_size = self.image_shape[0], draws.element_spec.index.shape[0]
        cut_to = sizes if at_once and sizes else ((0, size),)
        side = size if cut_to != sizes else None  # where it is the same for all batches

        def finish(pixels: tuple[Any, Any], draw: Draw) -> tuple[Any, Any, Any]:
            images = tf.ensure_shape(pixels[0], [batch_size, side, side, 3])
            if not at_once:
                varied = CROPS[augment.crop](images, draw.crop_key, augment)
                images = resize_at(draw.step, varied, sizes)
            return images, pixels[1], draw.key

        pixels = draws.flat_map(plain(partial(_one_by_one, sizes=cut_to))).map(
            plain(partial(self._vary_one, augment)), num_parallel_calls=PARALLEL, deterministic=True
        )
        pairs = tf.data.Dataset.zip(pixels.batch(batch_size, drop_remainder=True), draws)
        return pairs.map(plain(finish))

    def _vary_one(
        self, augment: AugmentConfig, index: Any, mirrored: Any, numbers: Any, side: Any
    ) -> tuple[Any, Any]:
        """One image of a training batch; `numbers` (4,) in 0...1 decide its crop."""
        box: Box = self._central
        if augment.crop == "resized":
            box = partial(random_box, numbers=numbers, min_area=augment.min_area)
        image, label = self._cut(index, side, box)
        return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image), label

    def batches(self, index: np.ndarray, batch_size: int) -> tf.data.Dataset:
        """(images, labels) of the images at `index`, in this order: their central square."""
        size = self.image_shape[0]

        def cut_one(index: Any) -> tuple[Any, Any]:
            image, label = self._cut(index, tf.constant(size), self._central)
            return tf.ensure_shape(image, [size, size, 3]), label

        places = tf.data.Dataset.from_tensor_slices(index)
        cut = places.map(plain(cut_one), num_parallel_calls=PARALLEL, deterministic=True)
        return cut.batch(batch_size).with_options(options())

    def whole(self, sides: Sequence[int]) -> tf.data.Dataset:
        """(images, label) of every image in order, its shorter side resized to each of `sides`."""
        tried = self.source.tried

        def scale(place: Any) -> tuple[tuple[Any, ...], Any]:
            encoded = tried.encoded(place)
            pixels, shape = decode_whole(encoded, max(sides))
            return tuple(fitted(pixels, shape, side) for side in sides), encoded.label

        return in_order(len(self), scale)

    def shown(self, view: Callable[[Any], Any]) -> tf.data.Dataset:
        """(`view` of the image, decoded in full, label) of every image in order."""
        tried = self.source.tried

        def show(place: Any) -> tuple[Any, Any]:
            encoded = tried.encoded(place)
            content = encoded.content
            pixels = tf.cond(
                tf.io.is_jpeg(content),
                lambda: decode_sound(content),
                lambda: encoded.decode(content),
            )
            return view(headers.upright(pixels, encoded.turned)), encoded.label

        return in_order(len(self), show)

    def _central(self, height: Any, width: Any) -> tuple[Any, Any, Any, Any]:
        return central_box(height, width, self.crop_fraction)

    def _cut(self, index: Any, side: Any, box: Box) -> tuple[Any, Any]:
        encoded = self.source.tried.encoded(index)
        return cut(encoded, side, box), encoded.label


def _one_by_one(draw: Draw, sizes: Sequence[tuple[int, int]]) -> tf.data.Dataset:
    """The images of a Draw: index, mirrored, the numbers of the crop, pixels a side."""
    count = draw.index.shape[0]
    numbers = tf.random.stateless_uniform([count, 4], draw.crop_key)
    sides = tf.fill([count], side_at(draw.step, sizes))
    return tf.data.Dataset.from_tensor_slices((draw.index, draw.mirrored, numbers, sides))


def central_box(height: Any, width: Any, fraction: float) -> tuple[Any, Any, Any, Any]:
    """The central square of `fraction` of the shorter side.

    As resizing the shorter side to size / fraction and cutting out size × size.
    """
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(tf.cast(tf.round(shorter * fraction), tf.int32), 1)
    return (height - side) // 2, (width - side) // 2, side, side


def cut(encoded: Encoded, side: Any, box: Box) -> Any:
    """Decode the box that `box(height, width)` names and resize it: uint8 (side, side, 3), RGB.

    Height, width and box are those of the upright image.
    """
    turned = encoded.turned

    def turn() -> Any:
        def stored(height: Any, width: Any) -> headers.Box:
            size = height, width
            return headers.stored_box(box(*headers.upright_size(size, turned)), size, turned)

        return headers.upright(_cut_stored(encoded, side, stored), turned)

    # Of most images nothing is turned, and each operation costs.
    return tf.cond(turned > 1, turn, lambda: _cut_stored(encoded, side, box))


def _cut_stored(encoded: Encoded, side: Any, box: Box) -> Any:
    return tf.cond(
        tf.io.is_jpeg(encoded.content),
        lambda: _cut_jpeg(encoded.content, side, box),
        lambda: _cut_other(encoded, side, box),
    )


def _cut_jpeg(encoded: Any, side: Any, box: Box) -> Any:
    top, left, height, width = box(*headers.jpeg_size(encoded))
    corners = tf.stack([top, left, top + height, left + width])

    def decode(ratio: int) -> Callable[[], Any]:
        first, last = tf.split((corners + ratio // 2) // ratio, 2)
        return lambda: tf.raw_ops.DecodeAndCropJpeg(  # tf.image's has no `ratio` for the crop
            contents=encoded,
            crop_window=tf.concat([first, tf.maximum(last - first, 1)], axis=0),
            channels=3,
            ratio=ratio,
            dct_method="INTEGER_FAST",
        )

    # What is left is less than halving (below an eighth: any factor), for which bilinear
    # interpolation needs no other filter.
    pixels = _scaled_down(tf.minimum(height, width), side, decode)
    return resized(pixels, side, antialias=False)


def _scaled_down(shorter: Any, side: Any, decode: Callable[[int], Callable[[], Any]]) -> Any:
    """`decode` a JPEG at the least of its size that leaves `side`: libjpeg scales as it decodes."""
    surplus = shorter // side
    halvings = sum(tf.cast(surplus >= ratio, tf.int32) for ratio in (2, 4, 8))
    return tf.switch_case(halvings, [decode(ratio) for ratio in (1, 2, 4, 8)])


def _cut_other(encoded: Encoded, side: Any, box: Box) -> Any:
    pixels = encoded.decode(encoded.content)
    shape = tf.shape(pixels)
    top, left, height, width = box(shape[0], shape[1])
    return resized(pixels[top : top + height, left : left + width], side)


def decode_whole(encoded: Encoded, side: int) -> tuple[Any, Any]:
    """Decode all of an image: uint8 (height, width, 3), RGB, upright; and its own (height, width).

    A JPEG is decoded at a half, a quarter or an eighth where that leaves its shorter side `side`.
    """

    def jpeg() -> tuple[Any, Any]:
        size = tf.stack(headers.jpeg_size(encoded.content))

        def decode(ratio: int) -> Callable[[], Any]:
            return lambda: tf.io.decode_jpeg(
                encoded.content, channels=3, ratio=ratio, dct_method="INTEGER_FAST"
            )

        return _scaled_down(tf.reduce_min(size), side, decode), size

    def other() -> tuple[Any, Any]:
        pixels = encoded.decode(encoded.content)
        return pixels, tf.shape(pixels)[:2]

    pixels, size = tf.cond(tf.io.is_jpeg(encoded.content), jpeg, other)
    size = tf.stack(headers.upright_size((size[0], size[1]), encoded.turned))
    return headers.upright(pixels, encoded.turned), size

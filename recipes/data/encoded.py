"""Images that stay encoded until a batch needs them, in files or in TFDS records.

Only the needed part of a JPEG is decoded, at a half, a quarter or an eighth of its size if that is
large enough. So a photograph of 12 megapixels costs little more than a small one. The results are
uint8. `images/read.py` defines the readable kinds of files and their rotation.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_resnet.errors import UserError
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
from keras_resnet.text import for_html

IN_MEMORY_BYTES = 4 * 2**30
_SAMPLE = 200  # images that are looked at for their size

Box = Callable[[Any, Any], tuple[Any, Any, Any, Any]]  # (height, width) → top, left, height, width


class Tried(NamedTuple):
    """The images of a source that can be decoded, with the facts for decoding them."""

    sound: Source  # the images that can be decoded
    labels: np.ndarray  # their labels, see labels.py
    turned: np.ndarray  # their orientation, int32 (n,): see headers.upright
    others: np.ndarray  # True if only Pillow reads the image, bool (n,)
    left_out: tuple[str, ...]  # the names of the other images

    def encoded(self, place: Any) -> Encoded:
        """Return an image of `sound`, inside a graph."""
        content, label = self.sound.read(place)
        # A graph without Pillow can also run in another process.
        decode = read.png_or_other if self.others.any() else read.png
        return Encoded(content, label, tf.gather(self.turned, place), decode)


class Encoded(NamedTuple):
    """The encoded bytes of an image, inside a graph."""

    content: Any  # a scalar string
    label: Any  # a class number int32, or uint8 (classes,)
    turned: Any  # int32: see headers.upright
    decode: Callable[[Any], Any]  # decodes other formats than JPEG: the whole image as stored


class Source:
    """Encoded images at places 0...n-1; folders.py and tfrecords.py have the two kinds."""

    def __len__(self) -> int:
        """Return the number of places, including images that cannot be read."""
        raise NotImplementedError

    def read(self, place: Any) -> tuple[Any, Any]:
        """Return (encoded bytes, label) of a place, inside a graph."""
        raise NotImplementedError

    def where(self, place: int) -> str:
        """Return the name of an image for messages."""
        raise NotImplementedError

    def subset(self, places: np.ndarray) -> Source:
        """Return the images at `places`."""
        raise NotImplementedError

    @property
    def identities(self) -> np.ndarray:
        """The identity of each image, uint64 (n,); see identity.py."""
        raise NotImplementedError

    def by_content(self) -> tuple[Source, np.ndarray]:
        """Return the same images with identities from their content, and their labels."""
        raise NotImplementedError

    @cached_property
    def tried(self) -> Tried:
        """The images that can be decoded, found by decoding every image once at 1/8 of its size.

        This happens on the first use of a split and costs about half an epoch of decoding. In
        return, every count, split and batch is exact from the start. If bad images were found
        during training, a batch would depend on the history of the run, or the number of left-out
        images would be known only at the end.

        Raises:
            UserError: no image can be decoded.
        """
        if len(self) > 20_000:
            print(f"checking {len(self):,} images once", file=sys.stderr)
        probed = tf.data.Dataset.range(len(self)).map(
            plain(self._probe), num_parallel_calls=PARALLEL, deterministic=True
        )
        batches = probed.ignore_errors().batch(4096).with_options(options())
        found = [tuple(part.numpy() for part in batch) for batch in batches]
        if len(self) and not found:
            raise UserError(
                f"None of {len(self):,} images can be decoded. The first one: {self._why(0)}"
            )
        none = tuple(
            np.zeros((0, *spec.shape), spec.dtype.as_numpy_dtype) for spec in probed.element_spec
        )
        places, labels, turned, others = map(np.concatenate, zip(none, *found, strict=True))
        bad = np.setdiff1d(np.arange(len(self)), places)
        names = tuple(self.where(int(place)) for place in bad)
        warn_of_left_out(names, len(self))
        return Tried(self.subset(places), labels, turned, others, names)

    def _why(self, place: int) -> str:
        """Return the name of an image and the error from decoding it."""
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
        source: the source of the encoded images.
        size: side of the decoded images in pixels; 0: not chosen yet.
        crop_fraction: the central part of the shorter side that is used for evaluation.
    """

    source: Source
    size: int = 0
    crop_fraction: float = 0.875

    def __len__(self) -> int:
        """Return the number of images that can be decoded; the first call decodes every image."""
        return len(self.labels)

    @property
    def labels(self) -> np.ndarray:
        """The labels; see labels.py."""
        return self.source.tried.labels

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names of images that cannot be decoded."""
        return self.source.tried.left_out

    @property
    def read_by_pillow(self) -> tuple[str, ...]:
        """The names of images that are neither JPEG nor PNG."""
        tried = self.source.tried
        return tuple(tried.sound.where(int(place)) for place in np.flatnonzero(tried.others))

    @property
    def places(self) -> int:
        """The number of indices that `subset` accepts, including images that cannot be decoded."""
        return len(self.source)

    @property
    def identities(self) -> np.ndarray:
        """The identities of the images that can be decoded, uint64 (n,)."""
        return self.source.tried.sound.identities

    def by_content(self) -> tuple[EncodedSplit, np.ndarray]:
        """Return the same images with identities from their content, and all places' labels."""
        source, labels = self.source.by_content()
        return replace(self, source=source), labels

    @property
    def place_identities(self) -> np.ndarray:
        """The identity of every place, uint64 (places,)."""
        return self.source.identities

    @property
    def sized(self) -> bool:
        """True if a size is chosen."""
        return self.size > 0

    def __repr__(self) -> str:
        """Return a summary in one line."""
        return f"{type(self).__name__}: {self.places:,} images, {pixels(self)}"

    def _repr_html_(self) -> str:
        return f"<p>{for_html(self)}</p>{strip(self)}"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The (height, width, channels) of the decoded images.

        Raises:
            UserError: no size is chosen.
        """
        if not self.size:
            raise UserError(
                "These images have different sizes, so the network needs an image size. Give one, "
                "e.g. --set data.image_size=224."
            )
        return self.size, self.size, 3

    def shorter_side(self) -> int:
        """Return the median of the images' shorter sides in pixels, of some hundred of them.

        Raises:
            UserError: none of them can be read.
        """
        unreadable = (
            *(OSError, SyntaxError, ValueError, tf.errors.OpError),
            Image.DecompressionBombError,
        )
        sides = []
        for place in spaced(self.places, _SAMPLE):
            with contextlib.suppress(*unreadable):
                content = self.source.read(tf.constant(place))[0].numpy()
                sides.append(min(read.open_by_pillow(content).size))
        if not sides:
            where = self.source.where(0)
            raise UserError(f"None of {self.places:,} images can be read, e.g. {where}.")
        return int(np.median(sides))

    def subset(self, index: np.ndarray) -> EncodedSplit:
        """Return the images at `index` of the source, including images that cannot be decoded."""
        return replace(self, source=self.source.subset(index))

    def at(self, size: int, crop_fraction: float) -> EncodedSplit:
        """Return the same images, decoded to `size` × `size` pixels."""
        return replace(self, size=size, crop_fraction=crop_fraction)

    def sample(self, count: int) -> Split:
        """Decode `count` images at fixed, evenly spaced indices (all, if there are fewer).

        Raises:
            UserError: the images need more than 4 GiB of memory.
        """
        index = spaced(len(self), count)
        most = IN_MEMORY_BYTES // int(np.prod(self.image_shape))
        if len(index) > most:
            raise UserError(
                f"{len(index):,} images of {self.size}×{self.size} do not fit in "
                f"{IN_MEMORY_BYTES >> 30} GiB. Take at most {most:,} "
                f"(export: --check-images {most})."
            )
        parts = [images.numpy() for images, _ in self.batches(index, 64)]
        empty = np.zeros((0, *self.image_shape), "uint8")
        images = np.concatenate([empty, *parts])
        return Split(images, self.labels[index], self.identities[index])

    def cropped(
        self, draws: tf.data.Dataset, augment: AugmentConfig, sizes: Sequence[tuple[int, int]]
    ) -> tf.data.Dataset:
        """Return (images, labels, key) for each Draw: cropped, mirrored, in its step's size.

        "resized" and "none" decode directly to that size. The other crops start from the central
        square that evaluation uses.
        """
        at_once = augment.crop in ("resized", "none")
        size, batch_size = self.image_shape[0], draws.element_spec.index.shape[0]
        cut_to = sizes if at_once and sizes else ((0, size),)
        side = size if cut_to != sizes else None  # None if batches have different sizes

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
        """Return one image of a training batch; `numbers` (4,) in 0...1 choose its crop."""
        box: Box = self._central
        if augment.crop == "resized":
            box = partial(random_box, numbers=numbers, min_area=augment.min_area)
        image, label = self._cut(index, side, box)
        return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image), label

    def batches(self, index: np.ndarray, batch_size: int) -> tf.data.Dataset:
        """Return batches of (central squares, labels) for the images at `index`, in this order."""
        size = self.image_shape[0]

        def cut_one(index: Any) -> tuple[Any, Any]:
            image, label = self._cut(index, tf.constant(size), self._central)
            return tf.ensure_shape(image, [size, size, 3]), label

        places = tf.data.Dataset.from_tensor_slices(index)
        cut = places.map(plain(cut_one), num_parallel_calls=PARALLEL, deterministic=True)
        return cut.batch(batch_size).with_options(options())

    def whole(self, sides: Sequence[int]) -> tf.data.Dataset:
        """Return (images, label) for every image in order: one copy for each shorter side."""
        tried = self.source.tried

        def scale(place: Any) -> tuple[tuple[Any, ...], Any]:
            encoded = tried.encoded(place)
            pixels, shape = decode_whole(encoded, max(sides))
            return tuple(fitted(pixels, shape, side) for side in sides), encoded.label

        return in_order(len(self), scale)

    def shown(self, view: Callable[[Any], Any]) -> tf.data.Dataset:
        """Return (`view` of the fully decoded image, label) for every image in order."""
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
    """Return a dataset of a Draw's images: index, mirrored, numbers for the crop, side."""
    count = draw.index.shape[0]
    numbers = tf.random.stateless_uniform([count, 4], draw.crop_key)
    sides = tf.fill([count], side_at(draw.step, sizes))
    return tf.data.Dataset.from_tensor_slices((draw.index, draw.mirrored, numbers, sides))


def central_box(height: Any, width: Any, fraction: float) -> tuple[Any, Any, Any, Any]:
    """Return the central square whose side is `fraction` of the shorter side.

    This equals resizing the shorter side to size / fraction and cropping size × size.
    """
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(tf.cast(tf.round(shorter * fraction), tf.int32), 1)
    return (height - side) // 2, (width - side) // 2, side, side


def cut(encoded: Encoded, side: Any, box: Box) -> Any:
    """Decode the region `box(height, width)` and resize it: uint8 (side, side, 3), RGB.

    Height, width and box refer to the upright image.
    """
    turned = encoded.turned

    def turn() -> Any:
        def stored(height: Any, width: Any) -> headers.Box:
            size = height, width
            return headers.stored_box(box(*headers.upright_size(size, turned)), size, turned)

        return headers.upright(_cut_stored(encoded, side, stored), turned)

    # Most images need no rotation, and each operation takes time.
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
        return lambda: tf.raw_ops.DecodeAndCropJpeg(  # tf.image's function has no `ratio`
            contents=encoded,
            crop_window=tf.concat([first, tf.maximum(last - first, 1)], axis=0),
            channels=3,
            ratio=ratio,
            dct_method="INTEGER_FAST",
        )

    # The rest is a reduction by less than a half (below an eighth: by any factor). Bilinear
    # interpolation needs no other filter for that.
    pixels = _scaled_down(tf.minimum(height, width), side, decode)
    return resized(pixels, side, antialias=False)


def _scaled_down(shorter: Any, side: Any, decode: Callable[[int], Callable[[], Any]]) -> Any:
    """Decode a JPEG at the smallest scale that keeps `side`; libjpeg scales while decoding."""
    surplus = shorter // side
    halvings = sum(tf.cast(surplus >= ratio, tf.int32) for ratio in (2, 4, 8))
    return tf.switch_case(halvings, [decode(ratio) for ratio in (1, 2, 4, 8)])


def _cut_other(encoded: Encoded, side: Any, box: Box) -> Any:
    pixels = encoded.decode(encoded.content)
    shape = tf.shape(pixels)
    top, left, height, width = box(shape[0], shape[1])
    return resized(pixels[top : top + height, left : left + width], side)


def decode_whole(encoded: Encoded, side: int) -> tuple[Any, Any]:
    """Decode a whole image upright, uint8 (height, width, 3), RGB; return its original size too.

    A JPEG is decoded at a half, a quarter or an eighth if its shorter side stays at least `side`.
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

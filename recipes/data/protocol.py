"""Evaluation protocols: one crop, ten crops, or the whole image at several sizes.

Single crop    the central square, as in AlexNet and later papers; cropped fast (encoded.py), or
               with PIL by the protocol of published weights (images/crop.py)
Flip           the single crop and its mirror image; probabilities are averaged
10-crop        the four corners, the centre, and their mirror images; probabilities are averaged
               (AlexNet, NIPS 2012, section 4.1; He 2015, arXiv:1512.03385, section 3.4)
Multi-scale    the network runs fully convolutionally on the whole image, with the shorter side at
               each of several sizes; probabilities are averaged (He 2015, section 3.4 and Table 4)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.base import Runtime
from keras_resnet.images.crop import SingleCrop
from keras_resnet.recipes.data.batches import evaluation_batches
from keras_resnet.recipes.data.datasets import AnySplit
from keras_resnet.recipes.data.encoded import EncodedSplit

_BATCH = 64  # views per batch
_PIXELS = _BATCH * 224**2  # pixels per batch of whole images, which may be large

_Run = Callable[[np.ndarray], np.ndarray]  # images to probabilities
Predictions = Iterator[tuple[np.ndarray, np.ndarray]]  # probabilities (n, classes), labels (n,)


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol.

    Attributes:
        crops: 1 or 10.
        scales: sizes of the shorter side in pixels, for whole images; () uses crops.
        single: the single crop; None for the split's central square.
        flip: average over the single crop and its mirror image.
    """

    crops: int = 1
    scales: tuple[int, ...] = ()
    single: SingleCrop | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: another number of crops, an invalid scale, or two protocols at once.
        """
        if self.crops not in (1, 10):
            raise UserError(f"crops must be 1 or 10; received {self.crops}.")
        if any(scale < 1 for scale in self.scales) or len(set(self.scales)) < len(self.scales):
            raise UserError(
                "scales must be different sizes of the shorter side in pixels, 1 or more; received "
                f"{self.scales}. Example: --scales 224,256,384"
            )
        if self.scales and self.crops != 1:
            raise UserError(
                "Multi-scale evaluation uses whole images, not crops. Give --crops or --scales, "
                "not both."
            )
        if self.flip and (self.scales or self.crops != 1):
            raise UserError(
                "--flip adds the mirror image of the one central crop. Leave out --crops (10 crops "
                "have their mirror images) and --scales."
            )
        if self.single and (self.scales or self.crops != 1):
            raise UserError(
                "--resize is for a single central crop. Give only one of --resize, --crops 10 and "
                "--scales."
            )

    @property
    def whole(self) -> bool:
        """True if the protocol needs whole images, not the split's central squares."""
        return self.crops != 1 or bool(self.scales) or self.single is not None

    def record(self, runtime: Runtime, split: AnySplit) -> dict[str, Any]:
        """Return the protocol's entry in an evaluation result.

        {"crops", "size": side of the crops in pixels, "resize": shorter side before cropping,
        "scales", "interpolation"}. None means unchanged images, or that the protocol does not use
        the field. With an interpolation, PIL crops; without one, encoded.py crops.
        """
        size, resize, interpolation = None, None, None
        if self.crops == 10:
            size = crop_size(runtime, split)
            resize = resize_for(size)
        elif single := single_crop(self.single, runtime, split):
            size, resize, interpolation = single.size, single.resize, single.interpolation
        elif not self.scales:
            size = split.image_shape[0]
            if isinstance(split, EncodedSplit):
                resize = round(size / split.crop_fraction)
        scales = list(self.scales) or None
        return {
            "crops": self.crops,
            "size": size,
            "resize": resize,
            "scales": scales,
            "interpolation": interpolation,
            **({"flip": True} if self.flip else {}),
        }


SINGLE_CROP = Protocol()


def describe(record: dict[str, Any]) -> str:
    """Describe a `Protocol.record` in words."""
    if record["scales"]:
        return f"whole images, shorter side {', '.join(map(str, record['scales']))}"
    if record["resize"] is None:
        return "images as they are" + ", and their mirror images" * bool(record.get("flip"))
    crops = "central crop" if record["crops"] == 1 else f"{record['crops']} crops"
    filtered = f", {record['interpolation']}" if record.get("interpolation") else ""
    filtered += ", and its mirror image" if record.get("flip") else ""
    return f"{crops} of {record['size']}, shorter side {record['resize']}{filtered}"


def predictions(runtime: Runtime, split: AnySplit, protocol: Protocol) -> Predictions:
    """Yield the probabilities of every image of `split`, in order, one batch at a time.

    Raises:
        UserError: the images do not fit the model, or `protocol` needs a model of free size.
    """
    if protocol.scales:
        return _multi_scale(runtime.any_size(), split, protocol.scales)
    if protocol.crops == 10:
        return _ten_crop(runtime, split)
    run = partial(_with_mirrored, runtime) if protocol.flip else runtime.probabilities
    if single := single_crop(protocol.single, runtime, split):
        return _recorded_crop(run, split, single)
    return _single_crop(run, split)


def _with_mirrored(runtime: Runtime, images: np.ndarray) -> np.ndarray:
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    return (runtime.probabilities(images) + runtime.probabilities(mirrored)) / 2


def _single_crop(run: _Run, split: AnySplit) -> Predictions:
    batches = evaluation_batches(split, min(_BATCH, len(split)))
    for images, labels, weights in batches.as_numpy_iterator():
        real = weights > 0
        yield run(images[real]), labels[real]


def _recorded_crop(run: _Run, split: AnySplit, single: SingleCrop) -> Predictions:
    batches = split.shown(single.cut).batch(_BATCH).prefetch(1)
    for images, labels in batches.as_numpy_iterator():
        yield run(images), labels


def _ten_crop(runtime: Runtime, split: AnySplit) -> Predictions:
    size = crop_size(runtime, split)
    resize = resize_for(size)
    if not isinstance(split, EncodedSplit) and min(split.image_shape[:2]) < resize:
        height, width, _ = split.image_shape
        print(
            f"warning: 10 crops of {size} need larger images, so images of {height}×{width} are "
            f"enlarged to a shorter side of {resize}. The papers use small images as they are (He "
            "2015, section 4.2): --crops 1.",
            file=sys.stderr,
        )
    elements = split.whole((resize,)).as_numpy_iterator()
    return _averaged(runtime, (([ten_crops(x, size)], label) for (x,), label in elements))


def _multi_scale(runtime: Runtime, split: AnySplit, scales: tuple[int, ...]) -> Predictions:
    """Evaluate whole images fully convolutionally, at each scale.

    He 2015 turns the classifier into a convolution and averages its scores over all positions.
    Behind global average pooling, the classifier is linear in the position. So running the network
    on the whole image gives that average. (A sliding 7×7 pooling window would give the border less
    weight; the paper does not say.) Simonyan & Zisserman (arXiv:1409.1556, section 3.2) also
    average mirror images. He does not mention them, so they are not used here.
    """
    elements = split.whole(scales).as_numpy_iterator()
    return _averaged(runtime, (([x[None] for x in images], label) for images, label in elements))


_Views = tuple[list[np.ndarray], Any]  # arrays uint8 (views, height, width, channels), the label


def _averaged(runtime: Runtime, images: Iterator[_Views]) -> Predictions:
    """Yield the mean probabilities over all views of each image.

    The average is taken after the softmax, as in AlexNet (section 4.1). He 2015 says "scores". The
    page of the released models (github.com/KaimingHe/deep-residual-networks) says softmax scores
    for the ten crops; the scales are treated in the same way here.
    """
    for group in _alike(images):
        total, count = np.zeros((len(group), runtime.classes), "float32"), 0
        for views in zip(*(views for views, _ in group), strict=True):
            scores = _probabilities(runtime, np.concatenate(views))
            scores = scores.reshape(len(group), -1, scores.shape[-1])
            total, count = total + scores.sum(1), count + scores.shape[1]
        yield total / count, np.array([label for _, label in group])


def _alike(images: Iterator[_Views]) -> Iterator[list[_Views]]:
    """Group consecutive images whose views have the same shapes, up to one batch."""
    group: list[_Views] = []
    for views, label in images:
        shapes = [view.shape for view in views]
        most = max(1, min(_BATCH, _PIXELS // max(int(np.prod(shape[:3])) for shape in shapes)))
        if group and (len(group) >= most or shapes != [view.shape for view in group[0][0]]):
            yield group
            group = []
        group.append((views, label))
    if group:
        yield group


def _probabilities(runtime: Runtime, views: np.ndarray) -> np.ndarray:
    try:
        return runtime.probabilities(views)
    except UserError as error:
        if not isinstance(error.__cause__, ValueError | tf.errors.InvalidArgumentError):
            raise  # otherwise Keras or TensorFlow could not run it
        height, width = views.shape[1:3]
        raise UserError(
            f"The network cannot run on images of {height}×{width} pixels; they are probably too "
            f"small for its layers. Leave out the scale {min(height, width)}."
        ) from error


def crop_size(runtime: Runtime, split: AnySplit) -> int:
    """Return the side of the crops in pixels: the model's size, or the split's, or 224."""
    if runtime.input_shape[0]:
        return runtime.input_shape[0]
    return min(split.image_shape[:2]) if split.sized else 224


def single_crop(single: SingleCrop | None, runtime: Runtime, split: AnySplit) -> SingleCrop | None:
    """Return `single` with its size; the default size is `crop_size`.

    Returns None if all images of the split already have the crop's size and are not resized.

    Raises:
        UserError: the model takes images of another size, or the crop is larger than the image.
    """
    if single is None:
        return None
    height, width = runtime.input_shape[:2]
    size = single.size or crop_size(runtime, split)
    if height not in (None, size) or width not in (None, size):
        raise UserError(
            f"The protocol uses crops of {size}×{size}, but the model takes {height}×{width}. "
            f"Build the model with input_shape=({size}, {size}, 3), or choose another protocol, "
            f"e.g. --resize {resize_for(height or size)}."
        )
    in_memory = not isinstance(split, EncodedSplit)
    if in_memory and (size, size) == split.image_shape[:2] == (single.resize, single.resize):
        return None
    return replace(single, size=size)


def resize_for(size: int) -> int:
    """Return the shorter side for crops of `size`: 256 for 224, in that ratio for others."""
    return round(size * 256 / 224)


def ten_crops(image: np.ndarray, size: int) -> np.ndarray:
    """Return crops of the four corners and the centre, then their mirror images in that order.

    The corners are those of the whole image, as in He's released evaluation, fb.resnet.torch and
    torchvision's TenCrop. AlexNet first cropped the image to its central square.

    Args:
        image: (height, width, channels), with at least `size` pixels on each side.
        size: side of the crops in pixels.

    Returns:
        (10, size, size, channels).
    """
    bottom, right = image.shape[0] - size, image.shape[1] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    five = np.stack([image[top : top + size, left : left + size] for top, left in corners])
    return np.concatenate([five, five[:, :, ::-1]])

"""What of an image a network is shown in evaluation: one crop, ten crops, or all at several sizes.

Single crop    the central square (AlexNet's and every later paper's plain figure), cut the fast way
               (encoded.py) or by the protocol of published weights as PIL does (images/crop.py)
Flip           the single crop and its mirror image; probabilities averaged
10-crop        the four corners and the centre, and their mirror images; probabilities averaged
               (AlexNet, NIPS 2012, section 4.1; He 2015, arXiv:1512.03385, section 3.4)
Multi-scale    the network run fully convolutionally on the whole image, its shorter side at each of
               several sizes; probabilities averaged (He 2015, section 3.4 and Table 4)
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

_BATCH = 64  # views at once
_PIXELS = _BATCH * 224**2  # of whole images at once, which may be large

_Run = Callable[[np.ndarray], np.ndarray]  # images to probabilities
Predictions = Iterator[tuple[np.ndarray, np.ndarray]]  # probabilities (n, classes), labels (n,)


@dataclass(frozen=True)
class Protocol:
    """How a split is evaluated.

    Attributes:
        crops: 1 or 10.
        scales: pixels of the shorter side; whole images are shown at each of them. (): crops are.
        single: how the one crop is cut; None: the central square that the split gives out.
        flip: average over the one crop and its mirror image.
    """

    crops: int = 1
    scales: tuple[int, ...] = ()
    single: SingleCrop | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: another number of crops, an impossible scale, or two protocols at once.
        """
        if self.crops not in (1, 10):
            raise UserError(f"There is evaluation with 1 or 10 crops; received {self.crops}.")
        if any(scale < 1 for scale in self.scales) or len(set(self.scales)) < len(self.scales):
            raise UserError(
                f"Scales are different sizes of the shorter side in pixels; received {self.scales}."
            )
        if self.scales and self.crops != 1:
            raise UserError(
                "Multi-scale evaluation shows whole images, no crops: give --crops or --scales."
            )
        if self.flip and (self.scales or self.crops != 1):
            raise UserError(
                "--flip adds the mirror image of the one central crop. Leave out --crops (10 crops "
                "have their mirror images) and --scales."
            )
        if self.single and (self.scales or self.crops != 1):
            raise UserError(
                "A resized image is shown by its one central crop: give --resize, or --crops 10, "
                "or --scales."
            )

    @property
    def whole(self) -> bool:
        """Whether it starts from whole images, not from the squares a split gives out."""
        return self.crops != 1 or bool(self.scales) or self.single is not None

    def record(self, runtime: Runtime, split: AnySplit) -> dict[str, Any]:
        """What a result says of how it was measured.

        {"crops", "size": pixels a side of the crops, "resize": of the shorter side before they are
        cut, "scales", "interpolation"}; None: images as they are, or not of this protocol. With an
        interpolation the crop is what PIL cuts; without, it is cut the fast way of images.py.
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
    """`Protocol.record` in words."""
    if record["scales"]:
        return f"whole images, shorter side {', '.join(map(str, record['scales']))}"
    if record["resize"] is None:
        return "images as they are" + ", and their mirror images" * bool(record.get("flip"))
    crops = "central crop" if record["crops"] == 1 else f"{record['crops']} crops"
    filtered = f", {record['interpolation']}" if record.get("interpolation") else ""
    filtered += ", and its mirror image" if record.get("flip") else ""
    return f"{crops} of {record['size']}, shorter side {record['resize']}{filtered}"


def predictions(runtime: Runtime, split: AnySplit, protocol: Protocol) -> Predictions:
    """The probabilities of every image of `split`, in order, a batch at a time.

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
            f"warning: images of {height}×{width} are enlarged to a shorter side of {resize}, so "
            f"that crops of {size} differ. The papers show small images as they are (He 2015, "
            "section 4.2): --crops 1.",
            file=sys.stderr,
        )
    elements = split.whole((resize,)).as_numpy_iterator()
    return _averaged(runtime, (([ten_crops(x, size)], label) for (x,), label in elements))


def _multi_scale(runtime: Runtime, split: AnySplit, scales: tuple[int, ...]) -> Predictions:
    """The fully convolutional form.

    He 2015 turns the classifier into a convolution and averages its scores over all positions.
    Behind global average pooling the classifier is linear in the position, so the network itself,
    run on the whole image, gives that average. (Kept as a sliding 7×7 window, the pooling would
    give the border less weight; the paper does not say.) Mirror images, which Simonyan & Zisserman
    (arXiv:1409.1556, section 3.2) average as well, He does not mention and we leave out.
    """
    elements = split.whole(scales).as_numpy_iterator()
    return _averaged(runtime, (([x[None] for x in images], label) for images, label in elements))


_Views = tuple[list[np.ndarray], Any]  # uint8 (views, height, width, channels) each, and the label


def _averaged(runtime: Runtime, images: Iterator[_Views]) -> Predictions:
    """The mean of the probabilities of all views of an image.

    After the softmax, as AlexNet says (section 4.1). He 2015 says "scores"; the page of the
    released models (github.com/KaimingHe/deep-residual-networks) says softmax scores of the ten
    crops, and we take the same for the scales.
    """
    for group in _alike(images):
        total, count = np.zeros((len(group), runtime.classes), "float32"), 0
        for views in zip(*(views for views, _ in group), strict=True):
            scores = _probabilities(runtime, np.concatenate(views))
            scores = scores.reshape(len(group), -1, scores.shape[-1])
            total, count = total + scores.sum(1), count + scores.shape[1]
        yield total / count, np.array([label for _, label in group])


def _alike(images: Iterator[_Views]) -> Iterator[list[_Views]]:
    """Neighbours whose views have the same shapes, as many as are run at once."""
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
    except UserError:
        raise
    except (ValueError, tf.errors.InvalidArgumentError) as error:  # Keras' and TensorFlow's word
        height, width = views.shape[1:3]
        raise UserError(
            f"The network does not run on images of {height}×{width} pixels, probably too few for "
            f"its layers: leave out the scale {min(height, width)}."
        ) from error


def crop_size(runtime: Runtime, split: AnySplit) -> int:
    """Pixels a side of crops: what the model takes, or the split gives out, or 224."""
    if runtime.input_shape[0]:
        return runtime.input_shape[0]
    return min(split.image_shape[:2]) if split.sized else 224


def single_crop(single: SingleCrop | None, runtime: Runtime, split: AnySplit) -> SingleCrop | None:
    """`single` with its size, which is `crop_size` unless it has one.

    None where the split gives its images out as they are, all of the crop's size.

    Raises:
        UserError: the model takes images of another size, or the crop is larger than the image.
    """
    if single is None:
        return None
    height, width = runtime.input_shape[:2]
    size = single.size or crop_size(runtime, split)
    if height not in (None, size) or width not in (None, size):
        raise UserError(
            f"The protocol shows crops of {size}×{size}, but the model takes {height}×{width}: "
            f"build it with input_shape=({size}, {size}, 3), or give a protocol of your own, e.g. "
            f"--resize {resize_for(height or size)}."
        )
    in_memory = not isinstance(split, EncodedSplit)
    if in_memory and (size, size) == split.image_shape[:2] == (single.resize, single.resize):
        return None
    return replace(single, size=size)


def resize_for(size: int) -> int:
    """The shorter side that crops of `size` are cut from: 256 for 224, and in that ratio."""
    return round(size * 256 / 224)


def ten_crops(image: np.ndarray, size: int) -> np.ndarray:
    """Four corners and the centre, then their mirror images, in the same order.

    The corners are those of the whole image, as He's released evaluation, fb.resnet.torch and
    torchvision's TenCrop have them; AlexNet first cut the image to its central square.

    Args:
        image: (height, width, channels), at least `size` each way.
        size: pixels a side of the crops.

    Returns:
        (10, size, size, channels).
    """
    bottom, right = image.shape[0] - size, image.shape[1] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    five = np.stack([image[top : top + size, left : left + size] for top, left in corners])
    return np.concatenate([five, five[:, :, ::-1]])

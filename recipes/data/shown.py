"""The notebook view of a split: the size of its images, and some images with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_resnet.display.notebook import thumbnails
from keras_resnet.errors import UserError
from keras_resnet.images.listing import spaced
from keras_resnet.recipes.data.labels import described
from keras_resnet.text import for_html

if TYPE_CHECKING:
    from keras_resnet.recipes.data.datasets import AnySplit

_SHOWN = 10


def pixels(split: Any) -> str:
    """Return the size of a split's images: "32×32×3"."""
    return "×".join(map(str, split.image_shape)) if split.sized else "sizes vary"


def strip(split: AnySplit, names: Sequence[str] = ()) -> str:
    """Return HTML with some evenly spaced images of a split and their labels.

    Only these images are decoded.

    Args:
        split: a decoded or an encoded split.
        names: the class names, by class number; without names, the labels are numbers.
    """
    few = split.subset(spaced(split.places, _SHOWN))
    if not few.sized:
        few = few.at(96, 1.0)
    try:
        images = few.sample(_SHOWN).images
    except UserError as error:  # no image can be decoded; notebooks show exceptions at length
        return f"<p>{for_html(error)}</p>"
    labels = [described(label, names) for label in few.labels]
    return thumbnails(list(zip(labels, images, strict=True)))

"""List the image files in a folder: those that can be read, and those of other kinds."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.read import image_or_error

# The name only suggests that a file is an image. Its bytes tell the kind (read.py).
READ = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    ".avif",  # if Pillow supports it
)
_OTHERS = (".heic", ".heif", ".jxl", ".jp2", ".svg", ".dng", ".cr2", ".nef", ".arw")
_NOT_LOOKED_AT = (".", "__MACOSX")  # prefixes of hidden files and of macOS' additions to archives


class Listing(NamedTuple):
    """Paths of images in a folder and in the folders below it, sorted."""

    images: list[str]
    others: list[str]  # images of kinds that cannot be read


def list_images(folder: str | Path) -> Listing:
    """List the images in `folder` and below it, without hidden files."""
    found = sorted(_files_in(Path(folder), frozenset()))
    return Listing(
        [path for path in found if path.lower().endswith(READ)],
        [path for path in found if path.lower().endswith(_OTHERS)],
    )


def _files_in(folder: Path, above: frozenset[str]) -> list[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder above it
        return []
    found = []
    for entry in os.scandir(folder):
        if entry.name.startswith(_NOT_LOOKED_AT):
            continue
        if os.path.isdir(entry):  # False for a link that leads to itself; entry.is_dir() raises
            found += _files_in(Path(entry.path), above | {real})
        elif os.path.isfile(entry) or not os.path.exists(entry):  # a broken link is named later
            found.append(entry.path)  # but a pipe or a device could be read forever
    return found


def folders_in(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted, without hidden ones."""
    found = (Path(entry.path) for entry in os.scandir(folder) if os.path.isdir(entry))
    return sorted(path for path in found if not path.name.startswith(_NOT_LOOKED_AT))


def spaced(length: int, count: int) -> np.ndarray:
    """Return `count` evenly spaced indices below `length`; all if there are fewer."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(int)


def some_images(folder: Path, count: int | None = None) -> Listing:
    """List up to `count` images in a folder and below it (None: all), evenly spaced by name.

    Raises:
        UserError: there are no images.
    """
    images, others = list_images(folder)
    if not images:
        raise UserError(f"No images ({', '.join(READ)}) in {folder}.")
    places = spaced(len(images), len(images) if count is None else count)
    return Listing([images[place] for place in places], others)


def warn_of_left_out(names: Sequence[str], total: int) -> None:
    """Name on stderr the images, of `total`, that cannot be read."""
    if names:
        more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
        print(
            f"warning: {len(names):,} of {total:,} images cannot be decoded and are left out: "
            f"{', '.join(names[:5])}{more}",
            file=sys.stderr,
        )


def warn_of_others(folder: Path, others: Sequence[str]) -> None:
    """Name on stderr the number of images of kinds that cannot be read, and an example."""
    if others:
        print(
            f"warning: {folder}: {len(others):,} images are of kinds that are not read (e.g. "
            f"{others[0]}) and are left out; convert them to JPEG or PNG",
            file=sys.stderr,
        )


def read_images(
    folder: Path,
    size: tuple[int, int],
    channels: int = 3,
    crop: SingleCrop | None = None,
    count: int | None = None,
) -> np.ndarray:
    """Read up to `count` images in a folder and below it, evenly spaced by name.

    Images that cannot be read are named on stderr and skipped, as in training.

    Args:
        folder: the folder.
        size: height and width, see `read.read_image`.
        channels: 3, or 1 for grey.
        crop: the crop, see `read.read_image`.
        count: maximum number of images; None reads all.

    Returns:
        uint8 (n, height, width, channels).

    Raises:
        UserError: no image can be read.
    """
    paths, others = some_images(folder, count)
    warn_of_others(folder, others)
    read = partial(image_or_error, size=size, channels=channels, crop=crop)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(read, paths))
    images = [image for image in found if not isinstance(image, UserError)]
    if not images:
        raise UserError(f"None of {len(paths):,} images in {folder} can be read. {found[0]}")
    bad = [path for path, image in zip(paths, found, strict=True) if isinstance(image, UserError)]
    warn_of_left_out(bad, len(paths))
    return np.stack(images)

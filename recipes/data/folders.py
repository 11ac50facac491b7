"""A folder of images: one folder per class, in splits or not.

FOLDER/train/CLASS/*.jpg  FOLDER/val/CLASS/*.jpg     (or validation, or test; .jpg .jpeg .png)
FOLDER/CLASS/*.jpg                                   a fixed fifth of each class is the test split
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.recipes.data.encoded import Source

_LAYOUT = (
    "The layout is FOLDER/train/CLASS/*.jpg and FOLDER/val/CLASS/*.jpg, or FOLDER/CLASS/*.jpg "
    "(.jpg, .jpeg or .png)."
)
_READ = (".jpg", ".jpeg", ".png")
_OTHER_IMAGES = (".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl")
_SPLITS = ("train", "test", "val", "validation")
_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".7z", ".rar")


class Files(Source):
    """Images in files of their own."""

    def __init__(self, paths: Sequence[str] | np.ndarray, labels: np.ndarray) -> None:
        """`labels` are int32 (n,)."""
        self.paths, self.labels = np.asarray(paths, dtype=object), labels

    def __len__(self) -> int:
        """See Source."""
        return len(self.paths)

    def read(self, place: Any) -> tuple[Any, Any]:
        """See Source."""
        paths, labels = self._tensors
        return tf.io.read_file(tf.gather(paths, place)), tf.gather(labels, place)

    def where(self, place: int) -> str:
        """The path."""
        return str(self.paths[place])

    def subset(self, places: np.ndarray) -> Files:
        """See Source."""
        return Files(self.paths[places], self.labels[places])

    @cached_property
    def _tensors(self) -> tuple[Any, Any]:
        with tf.init_scope():  # once, not in every graph that reads
            return tf.constant(self.paths.tolist(), tf.string), tf.constant(self.labels)


def refuse_archive(name: str) -> None:
    """Refuse a .tar or .zip.

    Raises:
        UserError: with what to do instead.
    """
    if name.lower().endswith(_ARCHIVES):
        unpack = f"unzip {name}" if name.lower().endswith(".zip") else f"tar -xf {name}"
        raise UserError(
            f"{name} is an archive, in which no image can be read at random. Unpack it ({unpack}) "
            f"and give the folder. {_LAYOUT}"
        )


def read_folder(folder: Path) -> tuple[Files, Files, tuple[str, ...]]:
    """List a folder: the training files, the test files, the class names (sorted).

    Raises:
        UserError: no images, no classes or fewer than two, an empty class, or splits of different
            classes.
    """
    inside = {path.name: path for path in _folders(folder) if path.name in _SPLITS}
    if not inside:
        return _cut_fifth(_list_classes(folder))
    if "train" not in inside:
        raise UserError(f"{folder} has a {' and a '.join(inside)}, but no train. {_LAYOUT}")
    held_back = [name for name in _SPLITS[1:] if name in inside]
    if not held_back:
        raise UserError(
            f"{folder} has a train, but no val, validation or test beside it. {_LAYOUT} Without a "
            f"split of your own, give {inside['train']}."
        )
    for name in held_back[1:]:
        print(
            f"warning: {inside[name]} is not used: {held_back[0]} is the test split, and "
            "data.validation images are held out of train",
            file=sys.stderr,
        )
    train, test = _list_classes(inside["train"]), _list_classes(inside[held_back[0]])
    if train.keys() != test.keys():
        only = sorted(train.keys() ^ test.keys())
        where = "train" if only[0] in train else held_back[0]
        raise UserError(
            f"The splits of {folder} have different classes: '{only[0]}' is in {where} only "
            f"({len(only)} such). Give every class a folder in both."
        )
    return _files(train), _files(test), tuple(train)


def _cut_fifth(classes: dict[str, list[str]]) -> tuple[Files, Files, tuple[str, ...]]:
    """A fifth of each class, drawn with a fixed seed from its files in order of name."""
    train, test = {}, {}
    for number, (name, paths) in enumerate(classes.items()):
        order = np.random.default_rng([0, number]).permutation(len(paths))
        fifth = round(len(paths) / 5)
        test[name] = [paths[index] for index in sorted(order[:fifth])]
        train[name] = [paths[index] for index in sorted(order[fifth:])]
    if not any(test.values()):
        raise UserError(
            "A fifth of each class is the test split, and no class has the 3 images that it takes."
        )
    return _files(train), _files(test), tuple(classes)


def _files(classes: dict[str, list[str]]) -> Files:
    lengths = [len(paths) for paths in classes.values()]
    labels = np.repeat(np.arange(len(lengths), dtype="int32"), lengths)
    return Files([path for paths in classes.values() for path in paths], labels)


def _list_classes(folder: Path) -> dict[str, list[str]]:
    """{class: its images' paths}, both sorted."""
    found, others = {}, 0
    for path in _folders(folder):
        names = sorted(entry.name for entry in os.scandir(path) if entry.is_file())
        others += sum(name.lower().endswith(_OTHER_IMAGES) for name in names)
        found[path.name] = [
            str(path / name)
            for name in names
            if name.lower().endswith(_READ) and not name.startswith(".")
        ]
    loose = sum(name.lower().endswith((*_READ, *_OTHER_IMAGES)) for name in os.listdir(folder))
    _check_classes(folder, found, loose)
    for count, what in (
        (loose, "images lie in no class folder"),
        (others, "images are neither JPEG nor PNG (convert them)"),
    ):
        if count:
            print(f"warning: {folder}: {count:,} {what} and are left out", file=sys.stderr)
    return found


def _check_classes(folder: Path, found: dict[str, list[str]], loose: int) -> None:
    if loose and not found:
        raise UserError(
            f"The {loose:,} images in {folder} have no labels: put each in a folder that is named "
            f"after its class. {_LAYOUT}"
        )
    if not any(found.values()):
        archives = sorted(n for n in os.listdir(folder) if n.lower().endswith(_ARCHIVES))
        hint = f" Unpack {archives[0]} first." if archives else ""
        raise UserError(f"No images in the class folders of {folder}.{hint} {_LAYOUT}")
    empty = [name for name, paths in found.items() if not paths]
    if empty:
        raise UserError(
            f"The class folder {folder / empty[0]} has no .jpg, .jpeg or .png ({len(empty)} such); "
            "fill it or take it away."
        )
    if len(found) < 2:
        raise UserError(
            f"{folder} has one class, '{next(iter(found))}'; a classifier needs two or more. "
            f"{_LAYOUT}"
        )


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, without hidden ones and what macOS puts into archives."""
    found = (Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    return sorted(path for path in found if not path.name.startswith((".", "__MACOSX")))

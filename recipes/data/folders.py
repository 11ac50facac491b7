"""Read a folder of images with one folder per class, with or without splits.

FOLDER/train/CLASS/*  FOLDER/val/CLASS/*  FOLDER/test/CLASS/*    val or test is enough
FOLDER/CLASS/*                                                   a fifth is drawn as the test split

`val`, `valid`, `validation`, `dev` and `eval` are names for the same split. It chooses the best
epoch. If there is no `test`, accuracy is reported on it. Images in folders below a class belong to
that class.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.images.labels import require_class_names
from keras_resnet.images.listing import READ, folders_in, list_images, warn_of_others
from keras_resnet.images.read import MAX_BYTES
from keras_resnet.recipes.data import identity
from keras_resnet.recipes.data.encoded import Source
from keras_resnet.recipes.data.labels import counts

_LAYOUT = (
    "The layout is FOLDER/train/CLASS/*.jpg and FOLDER/val/CLASS/*.jpg, or FOLDER/CLASS/*.jpg "
    "(or .png, .webp, .bmp, .gif, .tif, .avif)."
)
LAYOUTS = ("auto", "classes", "splits")
TRAIN, TEST = "train", "test"
VALIDATION = ("val", "valid", "validation", "dev", "eval")
_SPLITS = (TRAIN, TEST, *VALIDATION)
_TEST_SHARE = 0.2
_NAMED = 5  # names listed in a warning
_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".7z", ".rar")


class Files(Source):
    """Images in separate files."""

    def __init__(
        self,
        paths: Sequence[str] | np.ndarray,
        labels: np.ndarray,
        identities: np.ndarray | None = None,
    ) -> None:
        """Keep the paths, their labels (see labels.py), and `identities` uint64 (n,) if known."""
        self.paths, self.labels = np.asarray(paths, dtype=object), labels
        if identities is not None:
            self.identities = identities

    def __len__(self) -> int:
        """See Source."""
        return len(self.paths)

    def read(self, place: Any) -> tuple[Any, Any]:
        """See Source."""
        paths, labels = self._tensors
        return tf.io.read_file(tf.gather(paths, place)), tf.gather(labels, place)

    def where(self, place: int) -> str:
        """Return the path."""
        return str(self.paths[place])

    def subset(self, places: np.ndarray) -> Files:
        """See Source."""
        known = self.__dict__.get("identities")
        return Files(
            self.paths[places], self.labels[places], None if known is None else known[places]
        )

    @cached_property
    def identities(self) -> np.ndarray:
        """See Source."""
        return identity.of_files(self.paths.tolist())

    def by_content(self) -> tuple[Files, np.ndarray]:
        """See Source: the identities of files always come from their content."""
        return self, self.labels

    @cached_property
    def _tensors(self) -> tuple[Any, Any]:
        paths = [path if _can_be_image(path) else "" for path in self.paths]  # "" cannot be read
        with tf.init_scope():  # once, not in every graph that reads
            return tf.constant([*map(os.fsencode, paths)], tf.string), tf.constant(self.labels)


def _can_be_image(path: str) -> bool:
    """Return False for a file that is too large; a sparse file needs no disk but fills memory."""
    try:
        return os.path.getsize(path) <= MAX_BYTES
    except OSError:
        return False


def refuse_archive(name: str) -> None:
    """Refuse a .tar, .zip or other archive.

    Raises:
        UserError: the name ends like an archive; the message has the command to unpack it.
    """
    if name.lower().endswith(_ARCHIVES):
        unpack = f"unzip {name}" if name.lower().endswith(".zip") else f"tar -xf {name}"
        raise UserError(
            f"{name} is an archive, which cannot be read in random order. Unpack it ({unpack}) "
            f"and give the folder. {_LAYOUT}"
        )


class Folder(NamedTuple):
    """The files of each split, and the class names (sorted)."""

    train: Files
    validation: Files | None  # None: the folder has no validation split of its own
    test: Files
    class_names: tuple[str, ...]


def read_folder(folder: Path, layout: str = "auto") -> Folder:
    """List the images of a folder.

    Args:
        folder: see the top of this file.
        layout: "splits", "classes" (needed if a class is called train), or "auto": splits if there
            is a train folder and another split beside it.

    Raises:
        UserError: no images, fewer than two classes, an empty class, a class name that is not one
            visible line, splits with different classes, or a folder that can be read in two ways.
    """
    if layout not in LAYOUTS:
        raise UnknownNameError("data.layout", layout, LAYOUTS, "")
    inside = {path.name: path for path in folders_in(folder) if path.name in _SPLITS}
    if layout == "classes" or (layout == "auto" and not inside):
        classes = _list_classes(folder)
        if layout == "auto":
            _refuse_a_level_too_high(folder, classes)
        return drawn(_files(classes), tuple(classes))
    held_back = _held_back(folder, inside)
    _warn_of_other_folders(folder, inside)
    listed = {name: _list_classes(inside[name]) for name in (TRAIN, *held_back)}
    for name in held_back:
        _require_same_classes(folder, listed, name)
    files = {name: _files(classes) for name, classes in listed.items()}
    test = TEST if TEST in held_back else held_back[0]
    own = next((files[name] for name in held_back if name != test), None)
    return Folder(files[TRAIN], own, files[test], tuple(listed[TRAIN]))


def _held_back(folder: Path, inside: Mapping[str, Path]) -> list[str]:
    """Return the names of the one or two splits beside train."""
    names = [name for name in _SPLITS[1:] if name in inside]
    twice = [name for name in names if name in VALIDATION]
    classes = "If these are names of classes, use --layout classes (layout = 'classes')."
    if TRAIN not in inside:
        have = f"has a {' and a '.join(names)} folder, but" if names else "has"
        raise UserError(f"{folder} {have} no train folder. {_LAYOUT} {classes}")
    if not names:
        raise UserError(
            f"{folder} has a train folder, but no val or test folder. {_LAYOUT} To have a test "
            f"split drawn from the training images, give {inside[TRAIN]}. {classes}"
        )
    if len(twice) > 1:
        raise UserError(
            f"{folder} has the folders {' and '.join(twice)}, which are names of the same split. "
            f"Put their images into one of them. {classes}"
        )
    return names


def _warn_of_other_folders(folder: Path, inside: Mapping[str, Path]) -> None:
    others = [path.name for path in folders_in(folder) if path.name not in inside]
    if others:
        print(
            f"warning: {folder}: ignoring {some(others)}, because there are the splits "
            f"{', '.join(inside)} (if all are classes: --layout classes)",
            file=sys.stderr,
        )


def _require_same_classes(folder: Path, listed: Mapping[str, Mapping[str, Any]], name: str) -> None:
    train, other = listed[TRAIN], listed[name]
    if train.keys() == other.keys():
        return
    only = sorted(train.keys() ^ other.keys())
    where = TRAIN if only[0] in train else name
    raise UserError(
        f"The splits of {folder} must have the same classes; '{only[0]}' is only in {where} "
        f"({len(only)} such). Give every class a folder in both."
    )


def drawn(files: Files, class_names: tuple[str, ...]) -> Folder:
    """Draw a fifth of the images, by their content, as the test split; see `drawn_for_test`."""
    is_test = drawn_for_test(files.identities, files.labels, class_names)
    train, test = (files.subset(np.flatnonzero(chosen)) for chosen in (~is_test, is_test))
    return Folder(train, None, test, class_names)


def drawn_for_test(
    identities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
    """Draw about a fifth of the images as the test split: bool (n,).

    Each draw depends only on the image's identity, so adding or removing images moves no other
    image. A warning on stderr lists classes without images in a split.

    Args:
        identities: uint64 (n,).
        labels: the labels of every image; see labels.py.
        class_names: the class names, by label.

    Raises:
        UserError: no image is drawn for the test split, or none is left for training.
    """
    is_test = identity.draws(identities, "test") < _TEST_SHARE
    for chosen, split in (is_test, "test"), (~is_test, "training"):
        if not chosen.any():
            raise UserError(
                "Each image is drawn for the test split with a chance of one in five, by its "
                f"content. The {split} split got none of these {len(labels):,} images. Add images, "
                "or make your own splits: FOLDER/train/CLASS and FOLDER/test/CLASS (in a CSV file, "
                "a column 'split')."
            )
        count = counts(labels[chosen], len(class_names))
        without = [name for name, found in zip(class_names, count, strict=True) if not found]
        if without:
            print(
                f"warning: there is no {split} image of {some(without)}: the test split is one in "
                "five images, drawn by content. Add images of that class, or make your own splits "
                "(FOLDER/train and FOLDER/test; in a CSV file, a column 'split')",
                file=sys.stderr,
            )
    return is_test


def some(names: Sequence[str]) -> str:
    """Return the first of the names, and the number of the others."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _files(classes: dict[str, list[str]]) -> Files:
    lengths = [len(paths) for paths in classes.values()]
    labels = np.repeat(np.arange(len(lengths), dtype="int32"), lengths)
    return Files([path for paths in classes.values() for path in paths], labels)


def _list_classes(folder: Path) -> dict[str, list[str]]:
    """Return {class: paths of its images}, both sorted."""
    listings = {path.name: list_images(path) for path in folders_in(folder)}
    found = {name: listing.images for name, listing in listings.items()}
    loose = sum(name.lower().endswith(READ) for name in os.listdir(folder))
    _check_classes(folder, found, loose)
    require_class_names(found, str(folder))
    if loose:
        print(
            f"warning: {folder}: ignoring {loose:,} images outside the class folders",
            file=sys.stderr,
        )
    warn_of_others(folder, [path for listing in listings.values() for path in listing.others])
    _warn_of_subfolders(folder, found)
    return found


def _below(folder: Path, classes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return {class: the subfolder of each image}; "" for images directly in the class folder."""
    return {
        name: [
            inner if slash else ""
            for inner, slash, _ in (
                path.removeprefix(f"{folder / name}{os.sep}").partition(os.sep) for path in paths
            )
        ]
        for name, paths in classes.items()
    }


def _warn_of_subfolders(folder: Path, classes: Mapping[str, Sequence[str]]) -> None:
    """Report that images in folders below a class belong to that class."""
    deep = {name: list(filter(None, inner)) for name, inner in _below(folder, classes).items()}
    first = next((Path(name, inner[0]) for name, inner in deep.items() if inner), None)
    if first is not None:
        print(
            f"{folder}: {sum(map(len, deep.values())):,} images are in folders below a class (e.g. "
            f"{first}) and belong to that class",
            file=sys.stderr,
        )


def _refuse_a_level_too_high(folder: Path, classes: Mapping[str, Sequence[str]]) -> None:
    """Refuse folders without images that all contain the same two or more folders."""
    below = [frozenset(inner) for inner in _below(folder, classes).values()]
    if len(set(below)) == 1 and len(below[0]) > 1 and "" not in below[0]:
        names, inner = some(list(classes)), some(sorted(below[0]))
        raise UserError(
            f"The folders {names} in {folder} all contain the same folders ({inner}), which look "
            "like the classes. Give the folder that contains the classes, or name the splits "
            f"train and test. If {names} are the classes, use --layout classes "
            "(layout = 'classes')."
        )


def _check_classes(folder: Path, found: dict[str, list[str]], loose: int) -> None:
    if loose and not found:
        tables = sorted(name for name in os.listdir(folder) if name.lower().endswith(".csv"))
        hint = (
            f" If {tables[0]} has the labels, give it: --data {folder / tables[0]}"
            if tables
            else ""
        )
        raise UserError(
            f"The {loose:,} images in {folder} have no labels. Put each image in a folder named "
            f"after its class. {_LAYOUT}{hint}"
        )
    if not any(found.values()):
        archives = sorted(n for n in os.listdir(folder) if n.lower().endswith(_ARCHIVES))
        hint = f" Unpack {archives[0]} first." if archives else ""
        raise UserError(f"No images in the class folders of {folder}.{hint} {_LAYOUT}")
    empty = [name for name, paths in found.items() if not paths]
    if empty:
        raise UserError(
            f"The class folder {folder / empty[0]} has no readable image ({len(empty)} such "
            "folders). Add images to it or remove it."
        )
    if len(found) < 2:
        raise UserError(
            f"{folder} must have two or more classes; received one, '{next(iter(found))}'. "
            f"{_LAYOUT}"
        )

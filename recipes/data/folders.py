"""A folder of images: one folder per class, in splits or not.

FOLDER/train/CLASS/*  FOLDER/val/CLASS/*  FOLDER/test/CLASS/*    one of val and test will do
FOLDER/CLASS/*                                                   a fifth is drawn as the test split

`val`, `valid`, `validation`, `dev` and `eval` are names of one split. It chooses the best epoch; if
there is no `test`, accuracy is reported on it. Images in folders below a class belong to the class.
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
from keras_resnet.images.listing import READ, folders_in, list_images, warn_of_others
from keras_resnet.recipes.data import identity
from keras_resnet.recipes.data.encoded import Source

_LAYOUT = (
    "The layout is FOLDER/train/CLASS/*.jpg and FOLDER/val/CLASS/*.jpg, or FOLDER/CLASS/*.jpg "
    "(or .png, .webp, .bmp, .gif, .tif, .avif)."
)
LAYOUTS = ("auto", "classes", "splits")
_TRAIN, _TEST = "train", "test"
_VALIDATION = ("val", "valid", "validation", "dev", "eval")
_SPLITS = (_TRAIN, _TEST, *_VALIDATION)
_TEST_SHARE = 0.2
_NAMED = 5  # in a warning
_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".7z", ".rar")


class Files(Source):
    """Images in files of their own."""

    def __init__(
        self,
        paths: Sequence[str] | np.ndarray,
        labels: np.ndarray,
        identities: np.ndarray | None = None,
    ) -> None:
        """`labels` are int32 (n,); `identities` uint64 (n,), if they are known already."""
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
        """The path."""
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
        """See Source: files are known by nothing else."""
        return self, self.labels

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


class Folder(NamedTuple):
    """The files of each split, and the class names (sorted)."""

    train: Files
    validation: Files | None  # None: the folder has none of its own
    test: Files
    class_names: tuple[str, ...]


def read_folder(folder: Path, layout: str = "auto") -> Folder:
    """List a folder.

    Args:
        folder: see the top of this file.
        layout: "splits", "classes" (also where a class is called train), or "auto": splits if there
            is a train and a split beside it.

    Raises:
        UserError: no images, no classes or fewer than two, an empty class, splits of different
            classes, or a folder that can be read in two ways.
    """
    if layout not in LAYOUTS:
        raise UnknownNameError("data.layout", layout, LAYOUTS, "")
    inside = {path.name: path for path in folders_in(folder) if path.name in _SPLITS}
    if layout == "classes" or (layout == "auto" and not inside):
        classes = _list_classes(folder)
        if layout == "auto":
            _refuse_a_level_too_high(folder, classes)
        return _drawn(classes)
    held_back = _held_back(folder, inside)
    _warn_of_other_folders(folder, inside)
    listed = {name: _list_classes(inside[name]) for name in (_TRAIN, *held_back)}
    for name in held_back:
        _require_same_classes(folder, listed, name)
    files = {name: _files(classes) for name, classes in listed.items()}
    test = _TEST if _TEST in held_back else held_back[0]
    own = next((files[name] for name in held_back if name != test), None)
    return Folder(files[_TRAIN], own, files[test], tuple(listed[_TRAIN]))


def _held_back(folder: Path, inside: Mapping[str, Path]) -> list[str]:
    """The splits beside train: one or two names."""
    names = [name for name in _SPLITS[1:] if name in inside]
    twice = [name for name in names if name in _VALIDATION]
    classes = "If these are names of classes, say so: --layout classes (layout = 'classes')."
    if _TRAIN not in inside:
        have = f"has a {' and a '.join(names)}, but" if names else "has"
        raise UserError(f"{folder} {have} no train. {_LAYOUT} {classes}")
    if not names:
        raise UserError(
            f"{folder} has a train, but no val and no test beside it. {_LAYOUT} Without a split of "
            f"your own, give {inside[_TRAIN]}. {classes}"
        )
    if len(twice) > 1:
        raise UserError(
            f"{folder} has a {' and a '.join(twice)}, which are names of one split. Put their "
            f"images into one of them. {classes}"
        )
    return names


def _warn_of_other_folders(folder: Path, inside: Mapping[str, Path]) -> None:
    others = [path.name for path in folders_in(folder) if path.name not in inside]
    if others:
        print(
            f"warning: {folder}: {_some(others)} beside the splits {', '.join(inside)} is left out "
            "(if all are classes: --layout classes)",
            file=sys.stderr,
        )


def _require_same_classes(folder: Path, listed: Mapping[str, Mapping[str, Any]], name: str) -> None:
    train, other = listed[_TRAIN], listed[name]
    if train.keys() == other.keys():
        return
    only = sorted(train.keys() ^ other.keys())
    where = _TRAIN if only[0] in train else name
    raise UserError(
        f"The splits of {folder} have different classes: '{only[0]}' is in {where} only "
        f"({len(only)} such). Give every class a folder in both."
    )


def _drawn(classes: dict[str, list[str]]) -> Folder:
    """A fifth of the images, drawn by their content, is the test split."""
    files = _files(classes)
    is_test = drawn_for_test(files.identities, files.labels, tuple(classes))
    train, test = (files.subset(np.flatnonzero(chosen)) for chosen in (~is_test, is_test))
    return Folder(train, None, test, tuple(classes))


def drawn_for_test(
    identities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
    """Which images are in the test split, bool (n,): about a fifth, each by its identity alone.

    So images that are added or taken away move no other. What a class lacks is said on stderr.

    Args:
        identities: uint64 (n,).
        labels: int (n,).
        class_names: by label.

    Raises:
        UserError: none is drawn for the test, or none for the training.
    """
    is_test = identity.draws(identities, "test") < _TEST_SHARE
    for chosen, split in (is_test, "test"), (~is_test, "training"):
        if not chosen.any():
            raise UserError(
                "Each image is drawn for the test split with one chance in five, by its content; "
                f"of these {len(labels):,} images the {split} split got none. Add images, or make "
                "splits of your own: FOLDER/train/CLASS and FOLDER/test/CLASS."
            )
        count = np.bincount(labels[chosen], minlength=len(class_names))
        without = [name for name, found in zip(class_names, count, strict=True) if not found]
        if without:
            print(
                f"warning: there is no {split} image of {_some(without)}: the test split is drawn "
                "by what is in the files, one in five. Add images of it, or make splits of your "
                "own (FOLDER/train and FOLDER/test)",
                file=sys.stderr,
            )
    return is_test


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _files(classes: dict[str, list[str]]) -> Files:
    lengths = [len(paths) for paths in classes.values()]
    labels = np.repeat(np.arange(len(lengths), dtype="int32"), lengths)
    return Files([path for paths in classes.values() for path in paths], labels)


def _list_classes(folder: Path) -> dict[str, list[str]]:
    """{class: its images' paths}, both sorted."""
    listings = {path.name: list_images(path) for path in folders_in(folder)}
    found = {name: listing.images for name, listing in listings.items()}
    loose = sum(name.lower().endswith(READ) for name in os.listdir(folder))
    _check_classes(folder, found, loose)
    if loose:
        print(
            f"warning: {folder}: {loose:,} images lie in no class folder and are left out",
            file=sys.stderr,
        )
    warn_of_others(folder, [path for listing in listings.values() for path in listing.others])
    _warn_of_subfolders(folder, found)
    return found


def _below(folder: Path, classes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """For each class the folder below it that each image lies in; "" for the class' own."""
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
    """Say that images in folders below a class count as of that class."""
    deep = {name: list(filter(None, inner)) for name, inner in _below(folder, classes).items()}
    first = next((Path(name, inner[0]) for name, inner in deep.items() if inner), None)
    if first is not None:
        print(
            f"{folder}: {sum(map(len, deep.values())):,} images lie in folders below a class (e.g. "
            f"{first}) and count as images of the class",
            file=sys.stderr,
        )


def _refuse_a_level_too_high(folder: Path, classes: Mapping[str, Sequence[str]]) -> None:
    """Refuse folders that all have the same two or more folders in them, and no images."""
    below = [frozenset(inner) for inner in _below(folder, classes).values()]
    if len(set(below)) == 1 and len(below[0]) > 1 and "" not in below[0]:
        names, inner = _some(list(classes)), _some(sorted(below[0]))
        raise UserError(
            f"The folders {names} in {folder} all have the same folders in them ({inner}), which "
            "look like the classes. Give the folder that has the classes, or name the splits "
            f"train and test. If {names} are the classes, say so: --layout classes "
            "(layout = 'classes')."
        )


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
            f"The class folder {folder / empty[0]} has no image that is read ({len(empty)} such); "
            "fill it or take it away."
        )
    if len(found) < 2:
        raise UserError(
            f"{folder} has one class, '{next(iter(found))}'; a classifier needs two or more. "
            f"{_LAYOUT}"
        )

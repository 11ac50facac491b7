"""Read the labels of a folder of images from a CSV file in it.

file,labels           file,cat,dog               file,label
a.jpg,cat;dog         a.jpg,1,1                  a.jpg,cat
b.jpg,                b.jpg,0,0                  b.jpg,dog
several labels        several, a column each     one label

The first column has the files, from the folder of the CSV file on. `labels` may be called `tags`,
and its labels are separated by "|", ";", "," or spaces: the first of these that the column has. A
column `split` (train, val, test) or fast.ai's `is_valid` gives the splits. Without one, a fifth of
the images is drawn as the test split, as in a folder without splits.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.images.listing import READ
from keras_resnet.recipes.data.folders import (
    TEST,
    TRAIN,
    VALIDATION,
    Files,
    Folder,
    drawn,
    some,
)
from keras_resnet.recipes.data.labels import counts

TABLES = (".csv", ".tsv")
_DELIMITERS = ",;\t"
_SEPARATORS = "|;,"  # between the labels of an image; without any of them, spaces
_SPOKEN: dict[str | None, str] = {None: "spaces", **{mark: f"'{mark}'" for mark in _SEPARATORS}}
_SEVERAL, _ONE = ("labels", "tags"), "label"
_VALIDATION = VALIDATION[0]
_BITS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
_EXAMPLE = "The first line is, for example: file,labels"


class _Table(NamedTuple):
    """A CSV file: all cells are without spaces around them."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]  # the line of each row in the file

    def column(self, name: str) -> list[str]:
        """Return the cells of a column, by its name in lower case."""
        place = [title.lower() for title in self.header].index(name)
        return [row[place] for row in self.rows]

    def parsed(self, name: str, read: Callable[[str], Any]) -> list[Any]:
        """Return `read` of the cells of a column, in lower case; an error names the line."""
        found = []
        for place, cell in enumerate(self.column(name)):
            try:
                found.append(read(cell.lower()))
            except UserError as error:
                raise self.error(place, f"column '{name}': {error}") from error
        return found

    def error(self, place: int, message: str) -> UserError:
        """Return the error for the row at `place`."""
        return UserError(f"{self.path}, line {self.lines[place]}: {message}")


class _Labels(NamedTuple):
    labels: np.ndarray  # see labels.py
    names: tuple[str, ...]
    said: str  # how they were understood


def read_table(path: Path) -> Folder:
    """Read the files, splits and labels of a CSV file; see the top of this file.

    With several labels for each image, the `labels` of the `Files` are uint8 (n, classes). How the
    file was understood is printed on stderr.

    Raises:
        UserError: the file is no such CSV file, or names images that are missing, that are listed
            twice or that are outside its folder.
    """
    table = _read(path)
    _require_header(table)
    found = _labels(table)
    files = Files(_paths(table), found.labels)
    splits = _splits(table)
    print(f"{path}: {found.said}", file=sys.stderr)
    if splits is None:
        return drawn(files, found.names)
    parts = {name: files.subset(places) for name, places in splits.items()}
    _warn_of_untrained(path, parts[TRAIN], found.names)
    own, test = parts.get(_VALIDATION), parts.get(TEST)
    if test is None:  # `_splits` has found one of the two
        own, test = None, parts[_VALIDATION]
    return Folder(parts[TRAIN], own, test, found.names)


# The file -----------------------------------------------------------------------------------------


def _read(path: Path) -> _Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "")
            file.seek(0)
            delimiter = max(_DELIMITERS, key=first.count)
            reader = csv.reader(file, delimiter=delimiter)
            rows = [([cell.strip() for cell in row], reader.line_num) for row in reader]
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}). Save it as 'CSV UTF-8'."
        ) from error
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}. {_EXAMPLE}") from error
    rows = [(cells, line) for cells, line in rows if any(cells)]
    if len(rows) < 2:
        raise UserError(f"{path} names no images. {_EXAMPLE}")
    (header, _), *rows = rows
    while not header[-1]:  # spreadsheets add empty columns
        header.pop()
    table = _Table(path, header, [cells for cells, _ in rows], [line for _, line in rows])
    for place, cells in enumerate(table.rows):
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise table.error(
                place,
                f"{len(cells)} cells, but the header has {len(header)} ({', '.join(header[:5])}). "
                'Put quotes around a cell with commas: "cat,dog".',
            )
    return table


def _require_header(table: _Table) -> None:
    names = [name.lower() for name in table.header]
    if names[0].endswith(READ):
        raise UserError(
            f"{table.path} has no header: its first line names the image '{table.header[0]}'. Put "
            "a line with the names of the columns above it, e.g. file,labels"
        )
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice or not all(names):
        problem = f"two columns '{twice[0]}'" if twice else "a column without a name"
        raise UserError(f"{table.path} has {problem}. Rename or remove it.")


# Files --------------------------------------------------------------------------------------------


def _paths(table: _Table) -> list[str]:
    folder = os.path.abspath(table.path.parent)
    first: dict[str, int] = {}  # the place of each path
    missing = []
    for place, (name, *_) in enumerate(table.rows):
        path = os.path.normpath(os.path.join(folder, name))
        if not path.startswith(os.path.join(folder, "")):
            raise table.error(
                place,
                f"'{name}' is not inside {folder}. Put the images into the folder of the CSV file, "
                "and name them from there on.",
            )
        if path in first:
            raise table.error(
                place,
                f"'{name}' is also in line {table.lines[first[path]]}. Give every image one row, "
                "with all its labels.",
            )
        first[path] = place
        if not os.path.isfile(path):
            missing.append(place)
    if missing:
        raise table.error(
            missing[0],
            f"there is no file '{table.rows[missing[0]][0]}' in {folder} ({len(missing):,} such "
            "rows). The first column must name the images from this folder on.",
        )
    return list(first)


# Splits -------------------------------------------------------------------------------------------


def _splits(table: _Table) -> dict[str, np.ndarray] | None:
    """Return the places of each split; None without a column that says it."""
    names = [name.lower() for name in table.header]
    column = next((name for name in _SPLIT_COLUMNS if name in names), None)
    if column is None:
        return None
    given = np.array(table.parsed(column, _SPLIT_COLUMNS[column]))
    places = {name: np.flatnonzero(given == name) for name in (TRAIN, _VALIDATION, TEST)}
    places = {name: found for name, found in places.items() if len(found)}
    if TRAIN not in places or len(places) < 2:
        raise UserError(
            f"{table.path}: the column '{column}' must have training images and others, but all "
            f"images are in {' and '.join(places)}. Remove the column to have a test split drawn."
        )
    return places


def _split(cell: str) -> str:
    if cell in (TRAIN, TEST):
        return cell
    if cell not in VALIDATION:
        raise UnknownNameError("split", cell, (TRAIN, TEST, *VALIDATION), "")
    return _VALIDATION


def _is_valid(cell: str) -> str:
    return _VALIDATION if _bit(cell) else TRAIN


_SPLIT_COLUMNS: dict[str, Callable[[str], str]] = {"split": _split, "is_valid": _is_valid}


# Labels -------------------------------------------------------------------------------------------


def _labels(table: _Table) -> _Labels:
    names = [name.lower() for name in table.header]
    several = next((name for name in _SEVERAL if name in names), None)
    if several is not None:
        return _separated(table, several)
    if _ONE in names:
        return _single(table)
    return _columns(table)


def _separated(table: _Table, column: str) -> _Labels:
    """Read the labels in one column, with a separator between them."""
    cells = table.column(column)
    separator = next((mark for mark in _SEPARATORS if any(mark in cell for cell in cells)), None)
    given = [
        {" ".join(part.split()) for part in cell.split(separator) if part.strip()} for cell in cells
    ]
    names = _require_two(table, column, sorted(set(chain.from_iterable(given))))
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.zeros((len(cells), len(names)), "uint8")
    for row, found in zip(labels, given, strict=True):
        row[[numbers[name] for name in found]] = 1
    said = _described(labels, f"separated by {_SPOKEN[separator]}")
    return _Labels(labels, names, said + _ignored(table, column))


def _columns(table: _Table) -> _Labels:
    """Read a column of 0 and 1 for each label."""
    names = tuple(name for name in table.header[1:] if name.lower() not in _SPLIT_COLUMNS)
    if not names:
        raise UserError(
            f"{table.path} has no labels, only {', '.join(table.header)}. Add a column 'labels' "
            "(cat;dog), a column 'label' (one for each image), or a column of 0 and 1 for each."
        )
    try:
        labels = np.array([table.parsed(name.lower(), _bit) for name in names], "uint8").T
    except UserError as error:
        raise UserError(
            f"{error} Without a column 'labels' or 'label', every column but the first and 'split' "
            "is a label. Rename or remove the others."
        ) from error
    _require_two(table, ", ".join(names[:5]), np.array(names)[labels.any(0)].tolist())
    return _Labels(labels, names, _described(labels, "a column each"))


def _single(table: _Table) -> _Labels:
    """Read one label for each image."""
    cells = [" ".join(cell.split()) for cell in table.column(_ONE)]
    for place, cell in enumerate(cells):
        if not cell or any(mark in cell for mark in "|;"):
            problem = f"several labels, '{cell}'" if cell else "no label"
            raise table.error(
                place,
                f"{problem}. The column 'label' has one for each image. For any number of labels, "
                "call the column 'labels'.",
            )
    names, labels = np.unique(cells, return_inverse=True)
    said = (
        f"one of {len(names):,} labels for each of {len(cells):,} images (for any number of labels "
        f"an image, call the column 'labels'){_ignored(table, _ONE)}"
    )
    return _Labels(labels.astype("int32"), _require_two(table, _ONE, names.tolist()), said)


def _require_two(table: _Table, column: str, names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        raise UserError(f"{table.path}: no image has a label (column {column}). Fill them in.")
    if len(names) < 2:
        raise UserError(
            f"{table.path} must have two or more labels; received one, '{names[0]}'. For a yes or "
            f"no, name both in a column 'label': '{names[0]}' and 'not {names[0]}'."
        )
    return tuple(names)


def _ignored(table: _Table, column: str) -> str:
    used = (column, *_SPLIT_COLUMNS)
    others = [title for title in table.header[1:] if title.lower() not in used]
    return f". Ignoring the columns {some(others)}" if others else ""


def _described(labels: np.ndarray, how: str) -> str:
    each = labels.sum(1)
    parts = [
        f"{len(labels):,} images with any number of {labels.shape[1]:,} labels ({how})",
        f"{each.mean():.1f} an image",
    ]
    if bare := np.count_nonzero(each == 0):
        parts.append(f"{bare:,} without a label")
    if (each == 1).all():
        parts.append("one for every image: to choose one of them, call the column 'label'")
    return ", ".join(parts)


def _warn_of_untrained(path: Path, train: Files, names: Sequence[str]) -> None:
    found = counts(train.labels, len(names))
    if without := [name for name, count in zip(names, found, strict=True) if not count]:
        print(f"warning: {path}: no training image has the label {some(without)}", file=sys.stderr)


def _bit(cell: str) -> int:
    if cell not in _BITS:
        raise UserError(f"expected 0 or 1; received '{cell}'.")
    return _BITS[cell]

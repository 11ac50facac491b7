"""Which images a run was trained on, and how many of some others it has therefore seen.

`trained_on.npz` in the run's folder has what its training images are known by (data/identity.py),
those of the run that it started from among them. Images that are known by their content are told
from those that are known by their place in a data set: one kind says nothing of the other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.files import replacing
from keras_resnet.recipes.data import identity
from keras_resnet.recipes.data.datasets import AnySplit, Dataset
from keras_resnet.recipes.runs.folder import STARTED_FROM, Run

if TYPE_CHECKING:
    from keras_resnet.recipes.runs.sources import Source

FILE = "trained_on.npz"
_CONTENT = "content"
_SAID = "said"  # which images those are, in words: of a prepared data set the part of its split


def record(run: Run, dataset: Dataset) -> None:
    """Write down what `run` is going to be trained on, beside what was trained on before.

    Raises:
        UserError: the run began before there was this record, and its splits are others now.
    """
    if dataset.train.identities is None:
        return
    if dataset.by_content and run.checkpoints.is_dir() and not (run.path / FILE).is_file():
        raise UserError(
            f"{run.name} began with a version that split {dataset.name} by the names of the files. "
            "Images of its test split would be trained on now. Train a new run."
        )
    kind, identities = _kind(dataset), dataset.train.identities
    content: dict[str, np.ndarray] = {}
    start = run.about_start().get(STARTED_FROM)
    before = [_read(path) for path in (run.path, start and Path(start)) if path]
    for known in [*before, {kind: identities, _SAID: np.array([_sentence(dataset)])}]:
        for key, values in known.items():
            content[key] = np.union1d(content.get(key, values[:0]), values)
    _write(run.path, content)


def count(source: Source, dataset: Dataset, split: AnySplit) -> int | None:
    """How many images of `split`, which is of `dataset`, the model of `source` was trained on.

    None: it is not known, since the model is of no run, of one without such a record, or of one
    whose images are known by something else.
    """
    run = source.trained_in
    known = {} if run is None else _read(run.path)
    if run is not None and not known and dataset.by_content:
        print(
            f"warning: {run.path} has no {FILE}, so some of these images may have been trained on: "
            "earlier versions split folders by the names of the files",
            file=sys.stderr,
        )
    identities = known.get(_kind(dataset))
    if identities is None or split.identities is None:
        return None
    return int(np.isin(split.identities, identities).sum())


def count_files(source: Source, paths: Sequence[str]) -> int | None:
    """How many of these image files the model of `source` was trained on; None: as `count`."""
    run = source.trained_in
    known = None if run is None else _read(run.path).get(_CONTENT)
    return None if known is None else int(np.isin(identity.of_files(paths), known).sum())


def in_training(dataset: Dataset) -> int:
    """How many test images of `dataset` are, byte by byte, among its training images."""
    train, test = dataset.train.identities, dataset.test.identities
    return 0 if train is None or test is None else int(np.isin(test, train).sum())


def warn(found: int | None, total: int) -> None:
    """Say on stderr if some of the images that something is measured on were trained on."""
    if found:
        print(
            f"warning: {found:,} of these {total:,} images were trained on, so that an accuracy on "
            "them says less",
            file=sys.stderr,
        )


def _kind(dataset: Dataset) -> str:
    return _CONTENT if dataset.by_content else "place"


def _sentence(dataset: Dataset) -> str:
    held_out = f", less {len(dataset.validation):,} of validation" * bool(dataset.validation.places)
    return f"{len(dataset.train):,} images: {dataset.said}{held_out}"


def _read(folder: Path) -> dict[str, np.ndarray]:
    path = folder / FILE
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] if key == _SAID else arrays[key].cumsum() for key in arrays}


def _write(folder: Path, content: dict[str, Any]) -> None:
    """As differences, which are small where places follow each other."""
    steps = {
        key: values if key == _SAID else np.diff(values, prepend=values[:1] * 0)
        for key, values in content.items()
    }
    with replacing(folder / FILE) as partial:
        np.savez_compressed(partial, **steps)

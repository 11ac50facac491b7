"""Record the training images of a run, and count the training images among other images.

`trained_on.npz` in the run's folder has the identities of its training images (data/identity.py),
including those of the run that it started from. Identities from content and identities from the
place in a dataset are kept apart, because they cannot be compared.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.files import read_arrays, replacing
from keras_resnet.recipes.data import identity
from keras_resnet.recipes.data.datasets import AnySplit, Dataset
from keras_resnet.recipes.runs.folder import Run
from keras_resnet.recipes.runs.results import STARTED_FROM

if TYPE_CHECKING:
    from keras_resnet.recipes.runs.sources import Source

FILE = "trained_on.npz"
_CONTENT = "content"
_SAID = "said"  # a description of the images; for a prepared dataset, the part of its split


def record(run: Run, dataset: Dataset) -> None:
    """Record the images that `run` will be trained on, and those of the run it started from.

    Raises:
        UserError: the run began before this record existed, and its splits are different now.
    """
    if dataset.train.identities is None:
        return
    if dataset.by_content and run.checkpoints.is_dir() and not (run.path / FILE).is_file():
        raise UserError(
            f"{run.name} began with a version that split {dataset.name} by file names. Now it "
            "would train on images of its test split. Train a new run."
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
    """Count the images of `split` (of `dataset`) that the model of `source` was trained on.

    None means unknown: the model belongs to no run, the run has no such record, or its record has
    another kind of identities.
    """
    run = source.trained_in
    known = {} if run is None else _read(run.path)
    if run is not None and not known and dataset.by_content:
        print(
            f"warning: {run.path} has no {FILE}, so some of these images may be training images: "
            "earlier versions split folders by file names",
            file=sys.stderr,
        )
    identities = known.get(_kind(dataset))
    if identities is None or split.identities is None:
        return None
    return int(np.isin(split.identities, identities).sum())


def count_files(source: Source, paths: Sequence[str]) -> int | None:
    """Count the image files that the model of `source` was trained on; None means unknown."""
    run = source.trained_in
    known = None if run is None else _read(run.path).get(_CONTENT)
    return None if known is None else int(np.isin(identity.of_files(paths), known).sum())


def in_training(dataset: Dataset) -> int:
    """Count the test images of `dataset` that are also training images, byte by byte."""
    train, test = dataset.train.identities, dataset.test.identities
    return 0 if train is None or test is None else int(np.isin(test, train).sum())


def warn(found: int | None, total: int) -> None:
    """Warn on stderr if some of the measured images are training images."""
    if found:
        print(
            f"warning: the model was trained on {found:,} of these {total:,} images, so the "
            "accuracy on them is not reliable",
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
    arrays = read_arrays(path)
    for key, values in arrays.items():
        if values.ndim != 1 or values.dtype.kind not in ("U" if key == _SAID else "ui"):
            raise UserError(f"{path} is damaged: '{key}' is not a list of images.")
    return {key: x if key == _SAID else x.cumsum() for key, x in arrays.items()}


def _write(folder: Path, content: dict[str, Any]) -> None:
    """Write the identities as differences, which compress well for consecutive places."""
    steps = {
        key: values if key == _SAID else np.diff(values, prepend=values[:1] * 0)
        for key, values in content.items()
    }
    with replacing(folder / FILE) as partial:
        np.savez_compressed(partial, **steps)

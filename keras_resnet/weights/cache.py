"""The files of the catalog on this machine: download, check, find. Needs no TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.weights import catalog, download
from keras_resnet.weights.catalog import Entry


def fetch(entry: Entry) -> Path:
    """Return the file of these weights, after checking its hash.

    If it is not in our cache, the file that Keras or torch.hub has downloaded is used, and without
    one it is downloaded.

    Raises:
        UserError: see `download.fetch`.
    """
    if not entry.url:
        if problem := fault(entry):
            raise UserError(problem)
        return cached_path(entry)
    if not cached_path(entry).exists() and (theirs := elsewhere(entry)) is not None:
        return theirs
    return download.fetch(entry.url, cached_path(entry), entry.hash, entry.megabytes * 2**20 / 1e6)


def fault(entry: Entry) -> str | None:
    """Return the problem with the file of these weights and what to do; None if it is right."""
    path = cached_path(entry)
    # An installer may link the package's own files.
    problem = download.fault(path if entry.url else path.resolve(), entry.hash)
    if problem is None:
        return None
    if not entry.url:
        return f"{problem}. It is part of the package keras-resnet-zoo: reinstall the package."
    return f"{problem}. Run: keras-resnet weights fetch {entry.model} --weights {entry.tag}"


def cached_path(entry: Entry) -> Path:
    """Return the path of the file of these weights, which need not exist yet."""
    if not entry.url:
        return catalog.TRAINED / entry.file
    return download.cache_home() / "weights" / entry.file


def elsewhere(entry: Entry) -> Path | None:
    """Return the file of these weights in the caches of Keras and torch.hub; None without it."""
    files = (folder / entry.file for folder in _other_caches())
    return next((file for file in files if download.fault(file, entry.hash) is None), None)


def _other_caches() -> Iterator[Path]:
    """Yield the folders where `keras.applications` and `torch.hub` keep weights."""
    given, home = os.environ.get, os.path.expanduser("~")
    yield Path(given("KERAS_HOME") or f"{home}/.keras", "models")
    cache = given("XDG_CACHE_HOME") or f"{home}/.cache"
    yield Path(given("TORCH_HOME") or f"{cache}/torch", "hub", "checkpoints")

"""The files of the catalog on this machine: fetched, checked, found. Needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.weights import catalog, download
from keras_resnet.weights.catalog import Entry


def fetch(entry: Entry) -> Path:
    """Return the file of these weights, downloaded if it is not in the cache, its hash checked.

    Raises:
        UserError: see `download.fetch`.
    """
    if not entry.url:
        if problem := fault(entry):
            raise UserError(problem)
        return cached_path(entry)
    return download.fetch(entry.url, cached_path(entry), entry.hash, entry.megabytes * 2**20 / 1e6)


def fault(entry: Entry) -> str | None:
    """What is wrong with the file of these weights, and what to do; None if its hash is right."""
    problem = download.fault(cached_path(entry), entry.hash)
    if problem is None:
        return None
    if not entry.url:
        return f"{problem}. It belongs to the package keras-resnet-zoo: install that anew."
    return f"{problem}. Get it: keras-resnet weights fetch {entry.model} --weights {entry.tag}"


def cached_path(entry: Entry) -> Path:
    """Where the file of these weights is, or will be."""
    if not entry.url:
        return catalog.TRAINED / entry.file
    return download.cache_home() / "weights" / entry.file

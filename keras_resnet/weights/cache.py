"""The files of the catalog on this machine: download, check, find. Needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.weights import catalog, download
from keras_resnet.weights.catalog import Entry


def fetch(entry: Entry) -> Path:
    """Return the file of these weights. Download it if it is not in the cache, and check its hash.

    Raises:
        UserError: see `download.fetch`.
    """
    if not entry.url:
        if problem := fault(entry):
            raise UserError(problem)
        return cached_path(entry)
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

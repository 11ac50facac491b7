"""The identity of an image in 64 bits: from its content, or its place in a prepared dataset.

The choice of test images must not depend on other files. Otherwise, adding a photograph later would
move images that a network was trained on into its test split. So the choice depends only on the
file's own bytes. All of its bytes are hashed. Hashing only a part (the size, the head and the tail)
would read as many disk sectors of small files. It would also confuse uncompressed images of one
size that differ only in the middle. BLAKE2b takes a tenth of the time of decoding all images once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from hashlib import blake2b, file_digest

import numpy as np

from keras_resnet.display.bars import progress

_BITS = 64
_AT_ONCE = 64  # files per task of a thread
_hash = partial(blake2b, digest_size=_BITS // 8)


def of_bytes(content: bytes | memoryview) -> int:
    """Return the identity of an image from its stored bytes."""
    return int.from_bytes(_hash(content).digest())


def of_files(paths: Sequence[str]) -> np.ndarray:
    """Return the identities of files from their content: uint64 (n,)."""
    parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
    # Reading and hashing release Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool, _progress(len(paths)) as advance:
        found = []
        for part in pool.map(lambda part: [_of_file(path) for path in part], parts):
            found += part
            advance(len(part))
    return np.array(found, "uint64")


def of_contents(contents: Iterable[bytes | memoryview], count: int) -> np.ndarray:
    """Return the identities of `count` images from their content: uint64 (n,)."""
    found = np.zeros(count, "uint64")
    with _progress(count) as advance:
        for place, content in enumerate(contents):
            found[place] = of_bytes(content)
            advance(1)
    return found


def of_places(name: str, count: int) -> np.ndarray:
    """Return the identities of `count` images of a dataset that never changes: uint64 (n,).

    `name` is the dataset's name with its version and split.
    """
    return np.uint64(of_bytes(name.encode())) + np.arange(count, dtype="uint64")


def draws(identities: np.ndarray, purpose: str) -> np.ndarray:
    """Return a number in 0...1 for each image, float64 (n,), from its identity and `purpose`.

    Args:
        identities: uint64 (n,).
        purpose: the name of the draw, with its seed; different purposes give independent numbers.
    """
    # The finalizer of SplitMix64 (Steele 2014, doi:10.1145/2660193.2660195): every bit of the sum
    # changes half of the bits of the result, even for consecutive identities.
    x = identities + np.uint64(of_bytes(purpose.encode()))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) / 2.0**_BITS


def _of_file(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return int.from_bytes(file_digest(file, _hash).digest())
    except OSError:  # the file is reported and left out later, when all images are decoded once
        return of_bytes(b"")


def _progress(count: int) -> AbstractContextManager[Callable[[int], None]]:
    return progress("hashing images", count)

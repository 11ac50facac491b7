"""Classify image files with any model, a batch at a time.

Images are read by threads while the model runs. At most three batches are in memory, so a folder of
any size can be classified.
"""

from __future__ import annotations

import csv
import glob
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.files import expanded, replacing
from keras_resnet.images.listing import some_images, warn_of_others
from keras_resnet.images.read import image_or_error
from keras_resnet.recipes.runs.sources import Source

_BATCH = 32
_AHEAD = 2  # batches that are read while one is classified
WRITERS = (".csv", ".jsonl")


def find_images(references: Sequence[str]) -> list[str]:
    """Return the image files that files, folders and patterns name, in this order.

    Args:
        references: a file is taken as it is, a folder stands for all images in it and below it, and
            a pattern ("photos/*.jpg", "photos/**/*.png") for the files that match.

    Raises:
        UserError: a folder without images, a pattern that matches nothing, or no file that exists.
    """
    found = [path for reference in references for path in _files(reference)]
    if not any(os.path.exists(path) for path in found):
        raise UserError(f"No such image: {', '.join(references)}")
    return found


def _files(reference: str) -> list[str]:
    path = expanded(reference)
    if path.is_dir():
        images, others = some_images(path)
        warn_of_others(path, others)
        return images
    if path.exists() or not glob.has_magic(reference):
        return [reference]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise UserError(f"No file matches '{reference}'.")
    return [match for match in matches if os.path.isfile(match)]


class Classifier:
    """An opened model that names the classes of image files.

    Attributes:
        names: the names of its classes.
        several: True if an image can have several classes, or none: the model ends in sigmoids.
    """

    def __init__(self, source: Source) -> None:
        """Open the model of `source`.

        Raises:
            UserError: the model cannot be opened, or its class names do not fit.
        """
        self._runtime, self._crop = source.runtime(), source.crop
        self.names = source.names(self._runtime.outputs)
        self.several = self._runtime.answers().independent

    def classify(self, images: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
        """Yield {"image", "top": [{"label", "probability"}, …]} for each file, as it is done.

        With several classes, "top" has those above 1/2, and "probabilities" the probability of
        each class. A file that cannot be read gives {"image", "error"}.

        Args:
            images: paths of image files.
            top: how many classes to name, the most probable first; not with several classes.
        """
        height, width, channels = self._runtime.input_shape
        size = (height or 224, width or 224)
        read = partial(image_or_error, size=size, channels=channels or 3, crop=self._crop)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for paths, pixels in _batches(pool, read, images):
                good = [image for image in pixels if not isinstance(image, UserError)]
                scores = iter(self._runtime.probabilities(np.stack(good)) if good else ())
                for path, image in zip(paths, pixels, strict=True):
                    if isinstance(image, UserError):
                        yield {"image": path, "error": str(image)}
                    else:
                        yield {"image": path, **self._answer(next(scores), top)}

    def _answer(self, scores: np.ndarray, top: int) -> dict[str, Any]:
        if not self.several:
            return {"top": _best(scores, self.names, top)}
        probabilities = dict(zip(self.names, scores.tolist(), strict=True))
        above = int(np.count_nonzero(scores > 0.5))
        return {"top": _best(scores, self.names, above), "probabilities": probabilities}


def _batches(
    pool: ThreadPoolExecutor, read: Callable[[str], Any], images: Sequence[str]
) -> Iterator[tuple[Sequence[str], list[Any]]]:
    """Yield paths and their pixels, while the next batches are read."""
    waiting: deque[tuple[Sequence[str], list[Future[Any]]]] = deque()
    for start in itertools.chain(range(0, len(images), _BATCH), itertools.repeat(len(images))):
        paths = images[start : start + _BATCH]
        if paths:
            waiting.append((paths, [pool.submit(read, path) for path in paths]))
        if not waiting:
            return
        if len(waiting) > _AHEAD or not paths:
            done, futures = waiting.popleft()
            yield done, [future.result() for future in futures]


def _best(scores: np.ndarray, names: Sequence[str], top: int) -> list[dict[str, Any]]:
    order = scores.argsort()[::-1][:top]
    return [{"label": names[index], "probability": float(scores[index])} for index in order]


def require_writer(path: Path) -> None:
    """Refuse a file of another kind than `writer` writes.

    Raises:
        UserError: `path` ends in neither .csv nor .jsonl.
    """
    if path.suffix not in WRITERS:
        raise UserError(f"--out must end in {' or '.join(WRITERS)}; received '{path}'.")


@contextmanager
def writer(
    path: Path, classifier: Classifier, top: int
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that writes one result; the file appears under its name when it is whole.

    A `.jsonl` file has the result as JSON in each line. A `.csv` file has the columns image, label
    1, probability 1, label 2, …, error. With several classes they are image, labels (with "|"
    between them), the probability of each class under its name, error.

    Args:
        path: the file; see `require_writer`.
        classifier: the model of the results.
        top: how many classes a result names at most.
    """
    # A file's name may have bytes that are no UTF-8.
    how: Any = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with replacing(path) as unfinished, open(unfinished, "w", **how) as file:
        if path.suffix == ".jsonl":
            yield _lines(file)
        else:
            yield _tagged(file, classifier.names) if classifier.several else _rows(file, top)


def _lines(file: TextIO) -> Callable[[dict[str, Any]], None]:
    return lambda result: print(json.dumps(result), file=file)


def _rows(file: TextIO, top: int) -> Callable[[dict[str, Any]], None]:
    rows = csv.writer(file)
    columns = (f"{what} {place + 1}" for place in range(top) for what in ("label", "probability"))
    rows.writerow(["image", *columns, "error"])

    def write(result: dict[str, Any]) -> None:
        cells = [part for entry in result.get("top", ()) for part in _cells(entry)]
        filled: Iterable[Any] = itertools.chain(cells, itertools.repeat("", 2 * top - len(cells)))
        rows.writerow([result["image"], *filled, result.get("error", "")])

    return write


def _tagged(file: TextIO, names: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    rows = csv.writer(file)
    rows.writerow(["image", "labels", *names, "error"])

    def write(result: dict[str, Any]) -> None:
        found = result.get("probabilities", {})
        labels = "|".join(entry["label"] for entry in result.get("top", ()))
        cells = (f"{found[name]:.6f}" if found else "" for name in names)
        rows.writerow([result["image"], labels, *cells, result.get("error", "")])

    return write


def _cells(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["label"], f"{entry['probability']:.6f}"

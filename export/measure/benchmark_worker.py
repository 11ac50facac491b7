"""A process that opens one file and times it whenever it is its turn; `benchmark.py` starts it.

It imports what runs the file and nothing else, so that the memory it reports is what a program
takes that has only this file to run: TensorFlow comes in for Keras files and SavedModels alone.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError, require
from keras_resnet.export.runtimes.base import ENGINES
from keras_resnet.export.runtimes.locate import located
from keras_resnet.export.runtimes.open import open_file

_FREE_SIZE = 224  # pixels a side, of a file that takes any size
_SECONDS = 2.0  # of single images in a turn, and again of a batch; slow files do fewer
_PAUSE = 0.05  # seconds: threads of whoever ran before spin on for a while


def main() -> None:
    """Answer one line after opening the file, then one for every turn asked for on stdin."""
    options = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print

    def tell(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=answers, flush=True)

    try:
        timed = _Timed(options)
    except UserError as error:
        return tell({"error": str(error)})
    tell(timed.facts)
    for line in sys.stdin:
        tell(timed.turn(json.loads(line)["steps"]))
    os._exit(0)  # past the libraries' own clearing up


class _Timed:
    """An opened file with its images, and what opening it took."""

    def __init__(self, options: dict[str, Any]) -> None:
        path, threads = Path(options["path"]), options["threads"]
        _import_library(path, threads)
        before = _peak_memory_mib()
        began = time.perf_counter()
        self._runtime = open_file(path, threads)
        shape = options["shape"] or self._runtime.input_shape
        shape = [size or (_FREE_SIZE if axis < 2 else 3) for axis, size in enumerate(shape)]
        pixels = np.random.default_rng(0).integers(0, 256, (options["batch"], *shape))
        self._images = pixels.astype("uint8")
        self._runtime.run_one(self._images[:1])
        load_ms = 1e3 * (time.perf_counter() - began)
        seconds = self._one() / 1e3
        self._batch = self._images[: max(1, min(len(pixels), int(_SECONDS / seconds)))]
        self._runtime.predict(self._batch)  # TensorFlow and OpenVINO prepare for its size
        self.facts = {
            "load_ms": round(load_ms, 1),
            "memory_before_mib": before,
            "batch": len(self._batch),
            "image": shape,
        }

    def turn(self, runs: int) -> dict[str, Any]:
        """Time up to `runs` single images and one batch; the first image does not count."""
        time.sleep(_PAUSE)
        self._one()
        ms: list[float] = []
        began = time.perf_counter()
        while len(ms) < runs and (len(ms) < 3 or time.perf_counter() - began < _SECONDS):
            ms.append(self._one())
        began = time.perf_counter()
        self._runtime.predict(self._batch)
        return {
            "ms": ms,
            "median_ms": statistics.median(ms),
            "images_per_second": len(self._batch) / (time.perf_counter() - began),
            "peak_memory_mib": _peak_memory_mib(),
        }

    def _one(self) -> float:
        """Milliseconds of one image."""
        began = time.perf_counter()
        self._runtime.run_one(self._images[:1])
        return 1e3 * (time.perf_counter() - began)


def _import_library(path: Path, threads: int) -> None:
    """Import what will run the file, so that its import is no part of the loading."""
    kind, _ = located(path)
    if kind in ENGINES:
        require(*ENGINES[kind])
        return
    import tensorflow as tf

    if kind == ".keras":
        import keras  # noqa: F401
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _peak_memory_mib() -> int | None:
    """The most memory this process has held, on Linux; `ru_maxrss` would count who started it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) / 2**10)


if __name__ == "__main__":
    main()

"""A process that opens one file and times it when its turn comes; `benchmark.py` starts it.

It imports only the engine of the file. The memory it reports is therefore the memory of a program
that only runs this file. TensorFlow is imported only for Keras files and SavedModels.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError, require
from keras_resnet.export.runtimes.base import ENGINES, fails_as
from keras_resnet.export.runtimes.locate import located
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.export.runtimes.trust import trusting

_FREE_SIZE = 224  # side of the image in pixels, for a file that takes any size
_MOST_BYTES = 2**28  # of all images together
_SECONDS = 2.0  # limit for the single images of a turn, and again for the batch
_PAUSE = 0.05  # seconds; threads of the process that ran before keep spinning for a while


def main() -> None:
    """Print one line after opening the file, then one line for every turn requested on stdin."""
    options = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # send everything that libraries print to stderr

    def tell(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=answers, flush=True)

    try:
        timed = _Timed(options)
    except UserError as error:
        return tell({"error": str(error)})
    tell(timed.facts)
    for line in sys.stdin:
        tell(timed.turn(json.loads(line)["steps"]))
    os._exit(0)  # skip the libraries' own cleanup


class _Timed:
    """An opened file with its images, and the time and memory that opening it took."""

    def __init__(self, options: dict[str, Any]) -> None:
        path, threads = Path(options["path"]), options["threads"]
        _import_library(path, threads)
        before = _peak_memory_mib()
        began = time.perf_counter()
        with trusting(options.get("trust", False)):
            self._runtime = open_file(path, threads)
        shape = options["shape"] or self._runtime.input_shape
        shape = [size or (_FREE_SIZE if axis < 2 else 3) for axis, size in enumerate(shape)]
        count = max(1, min(options["batch"], _MOST_BYTES // math.prod(shape)))
        pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), "uint8")
        self._images = pixels
        with fails_as(f"{path} cannot be run"):
            self._runtime.run_one(self._images[:1])
        load_ms = 1e3 * (time.perf_counter() - began)
        seconds = self._one() / 1e3
        self._batch = self._images[: max(1, min(len(pixels), int(_SECONDS / seconds)))]
        self._runtime.predict(self._batch)  # TensorFlow and OpenVINO prepare for the batch size
        self.facts = {
            "load_ms": round(load_ms, 1),
            "memory_before_mib": before,
            "batch": len(self._batch),
            "image": shape,
        }

    def turn(self, runs: int) -> dict[str, Any]:
        """Time up to `runs` single images and one batch; the first image is not timed."""
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
        """Return the milliseconds for one image."""
        began = time.perf_counter()
        self._runtime.run_one(self._images[:1])
        return 1e3 * (time.perf_counter() - began)


def _import_library(path: Path, threads: int) -> None:
    """Import the file's engine first, so that loading does not include the import."""
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
    """Return the peak memory of this process, on Linux; `ru_maxrss` would include its parent."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = status.read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) / 2**10)


if __name__ == "__main__":
    main()

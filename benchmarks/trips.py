"""Count the source files that a user's call passes through, and the returns to earlier files.

    python benchmarks/trips.py [build] [train] [export] [--files] [--json FILE]

A trip is a call that users make: building a network with its trained weights, a training run of two
steps, or an export of a tiny network to two formats. Every function of this package counts once, in
the order of the first calls, and stands for its file. Functions that run during an import are left
out. A return is a step, in this sequence of files, into a file that was left before. A reader who
follows the trip opens this number of files, and turns back this number of times.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import CodeType, FrameType
from typing import Any


def build(scratch: Path) -> Callable[[], Any]:
    import keras_resnet

    return lambda: keras_resnet.ResNet20(weights="cifar10")


def train(scratch: Path) -> Callable[[], Any]:
    from keras_resnet.recipes import load_config, train

    short = {"model": "test_resnet", "train.steps": 2}
    return lambda: train.run(load_config("debug/tiny", short), scratch / "run")


def export(scratch: Path) -> Callable[[], Any]:
    import numpy as np

    import keras_resnet
    from keras_resnet.export import export

    model = keras_resnet.create_model("test_resnet", include_preprocessing=True)
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype("uint8")
    formats, out = ["savedmodel", "tflite-int8"], scratch / "exports"
    return lambda: export(model, formats, out=out, calibration=images, verbose=False)


TRIPS = {"build": build, "train": train, "export": export}


@contextmanager
def first_calls(ours: tuple[str, ...]) -> Iterator[dict[CodeType, None]]:
    """Yield a dictionary that collects the functions in `ours`, in the order of first calls."""
    found: dict[CodeType, None] = {}
    importing = 0

    def look(frame: FrameType, event: str, _: Any) -> None:
        nonlocal importing
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(ours):
            return
        if code.co_name == "<module>":
            importing += 1 if event == "call" else -1
        elif event == "call" and not importing:
            found.setdefault(code)

    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(None)


def measure(name: str) -> dict[str, Any]:
    """Make a trip in this process; return the number of functions, files, returns, and the path."""
    with tempfile.TemporaryDirectory(prefix="keras-resnet-trip-") as scratch:
        trip, roots = TRIPS[name](Path(scratch)), _roots()
        with first_calls(tuple(roots)) as calls:
            trip()
    shown = [_shown(code.co_filename, roots) for code in calls]
    path = [file for file, _ in groupby(shown)]
    files = len(set(path))
    return {"functions": len(shown), "files": files, "returns": len(path) - files, "path": path}


def _roots() -> list[str]:
    """Return the folders of the package's code; possible subfolders of the last one come first."""
    import keras_resnet
    import keras_resnet.export
    import keras_resnet.recipes

    modules = (keras_resnet.export, keras_resnet.recipes, keras_resnet)
    return [os.path.dirname(str(module.__file__)) + os.sep for module in modules]


def _shown(file: str, roots: list[str]) -> str:
    root = next(root for root in roots if file.startswith(root))
    return f"{Path(root).name}/{Path(file).relative_to(root).as_posix()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "trips", nargs="*", metavar="TRIP", help=f"trips to make: {', '.join(TRIPS)} (default: all)"
    )
    parser.add_argument("--files", action="store_true", help="print each trip's files in order")
    parser.add_argument("--json", metavar="FILE", help="also write the record to this file")
    options = parser.parse_args()
    names = options.trips or list(TRIPS)
    if unknown := set(names) - set(TRIPS):
        parser.error(f"no such trip: {', '.join(unknown)}; there are {', '.join(TRIPS)}")
    # A process for each, in which nothing was called before.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        rows = dict(zip(names, pool.map(measure, names), strict=True))
    print(f"{'trip':<8} {'functions':>9} {'files':>6} {'returns':>8}")
    for name, row in rows.items():
        print(f"{name:<8} {row['functions']:>9} {row['files']:>6} {row['returns']:>8}")
        if options.files:
            print("  " + "\n  ".join(row["path"]))
    if options.json:
        from keras_resnet.export import manifest

        record = {"created": manifest.now(), **manifest.environment(), "trips": rows}
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

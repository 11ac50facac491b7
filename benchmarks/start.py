"""Measure how long a user waits at the start: for an import, a command, the first training step.

    python benchmarks/start.py [--rounds 5] [--json FILE]

Each start has a process of its own, and the kinds of starts take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from keras_resnet.export import manifest
from keras_resnet.export.measure.turns import spread

COMMAND = [sys.executable, "-m", "keras_resnet"]
BEYOND = """
import time, keras
began = time.perf_counter()
import keras_resnet
print(time.perf_counter() - began)
"""


def _command(*arguments: str, returns: int = 0) -> float:
    """Return the seconds of a whole command."""
    began = time.perf_counter()
    done = subprocess.run([*COMMAND, *arguments], capture_output=True)
    assert done.returncode == returns, done.stderr
    return time.perf_counter() - began


def _import_beyond_keras() -> float:
    done = subprocess.run([sys.executable, "-c", BEYOND], check=True, capture_output=True)
    return float(done.stdout)


def _first_step() -> float:
    """Return the seconds from the start of the command to the end of the first update."""
    began = time.perf_counter()
    callback = 'train.callbacks=["first_step.FirstStep"]'
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*COMMAND, "train", "digits/resnet8", "--out", f"{folder}/run", "--set", callback],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent / "peers")},
            capture_output=True,
            text=True,
        )
    if "first step at " not in done.stdout:
        raise SystemExit(done.stderr)
    return float(done.stdout.split("first step at ")[1].split()[0]) - began


STARTS: dict[str, Callable[[], float]] = {
    "import keras_resnet, beyond import keras": _import_beyond_keras,
    "keras-resnet --help": partial(_command, "--help"),
    "keras-resnet list": partial(_command, "list"),
    "a mistyped key": partial(
        _command, "train", "digits/resnet8", "--set", "train.epoch=1", returns=2
    ),
    "first step of train digits/resnet8": _first_step,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default 5)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(options.rounds):
        for name, start in STARTS.items():
            seconds[name].append(start())
    record = {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "n": options.rounds,
        "created": manifest.now(),
        **manifest.environment(),
    }
    for name, found in record["seconds"].items():
        print(f"{name:<42} {found['median']:.3f} s ({found['least']:.3f} to {found['most']:.3f})")
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""One process that exports fifty times or trains for fifty epochs: its memory must not grow."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from campaign import invariant, material
from keras_resnet.recipes.runs.folder import Run

NAME = "many times"
TRIALS, SHARE, SECONDS = 2, 0, 1200.0

_TIMES, _WARM = 50, 10
_MOST_ADDED = 2.0  # MB for each export or epoch after the first ten
_FORMATS = ("tflite-float32", "tflite-int8", "tflite-dynamic")


def trial(seed: int, folder: Path) -> str | None:
    """Do the same many times; return how much the memory grew."""
    kind = (_exports, _epochs)[seed % 2]
    return kind(random.Random(seed), folder)


def _exports(chance: random.Random, folder: Path) -> str | None:
    """Export a model fifty times, with its check, in this process."""
    model = material.keras_file(folder)
    images = material.class_folders(folder / "images")
    command = ["export", str(model), "--formats", chance.choice(_FORMATS), "--overwrite"]
    command += ["--calibration", str(images), "--out", str(folder / "out")]
    used = []
    for _ in range(_TIMES):
        if problem := invariant.call(command, cwd=folder):
            return problem
        used.append(invariant.resident("self"))
    return _grown(used, command[3])


def _epochs(chance: random.Random, folder: Path) -> str | None:
    """Train for fifty epochs in a process."""
    epochs = str(_TIMES)
    command = ["train", "debug/tiny", "--epochs", epochs, "--seed", str(chance.randrange(100))]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "keras_resnet", *command, "--out", "run"],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
        used: list[float] = []
        while process.poll() is None:
            done = len(Run(folder / "run").rows()) if (folder / "run" / "log.csv").is_file() else 0
            if done > len(used):
                used += [invariant.resident(process.pid)] * (done - len(used))
            time.sleep(0.05)
    if process.returncode:
        return f"exit {process.returncode}: {(folder / 'log').read_text()[-300:]}"
    return _grown(used, "training")


def _grown(used: list[float], what: str) -> str | None:
    """Compare the memory at the end with that after the first times, which load libraries."""
    times = len(used) - _WARM
    if times < _WARM:
        return f"{what}: the memory was read only {len(used)} times"
    added = (used[-1] - used[_WARM - 1]) / times
    if added > _MOST_ADDED:
        return f"{what}: {added:.1f} MB more each time, from {used[_WARM - 1]:.0f} MB"
    return None

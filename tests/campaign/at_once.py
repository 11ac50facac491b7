"""Several processes at once: eight predictions with one export, two trainings in one folder."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import keras

from campaign import invariant, material
from keras_resnet.recipes.runs.folder import Run

NAME = "at once"
TRIALS, SHARE, SECONDS = 8, 0, 900.0  # up to eight processes each, which all import TensorFlow

_PREDICTIONS, _EPOCHS = 8, 2
_LATEST = 8.0  # seconds by which the second training starts after the first
_EXPORTED = ("test_resnet-float32.tflite", "test_resnet-int8.tflite", "saved_model")
_PREDICTED = ("model.keras", *(f"exports/{x}" for x in _EXPORTED))


def trial(seed: int, folder: Path) -> str | None:
    """Start processes; return which of them did not end as it should."""
    kind = (_predictions, _trainings)[seed % 2]
    return kind(random.Random(seed), folder)


def _predictions(chance: random.Random, folder: Path) -> str | None:
    """Predict one image with one model in eight processes: all must answer the same."""
    run = material.run_folder(folder)
    image = material.picture(folder / "image.png", chance.randrange(1000))
    model = run / chance.choice(_PREDICTED)
    command = ["predict", str(model), str(image), "--json"]
    ended = _all([command] * _PREDICTIONS, folder)
    for one in ended:
        if problem := one.problem or (one.code and f"exit {one.code}: {one.stderr[-300:]}"):
            return f"{model.name}: {problem}"
    answers = {one.stdout for one in ended}
    return f"{model.name}: {len(answers)} answers" if len(answers) != 1 else None


def _trainings(chance: random.Random, folder: Path) -> str | None:
    """Train in one folder in two processes: one trains, the other is refused."""
    command = ["train", "debug/tiny", "--epochs", str(_EPOCHS), "--out", "run"]
    ended = _all([command] * 2, folder, chance.random() * _LATEST)
    codes = sorted(one.code for one in ended)
    if problem := next((one.problem for one in ended if one.problem), None):
        return problem
    if codes != [0, 2]:
        return f"exit codes {codes}: {' | '.join(one.stderr[-200:] for one in ended)}"
    run = Run(folder / "run")
    epochs = [int(row["epoch"]) for row in run.rows()]
    if epochs != [*range(1, _EPOCHS + 1)]:
        return f"the log has the epochs {epochs}"
    keras.models.load_model(run.model, compile=False)
    return None


@dataclass(frozen=True)
class _Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def problem(self) -> str | None:
        return invariant.judge(self.code, self.stdout, self.stderr)


def _all(commands: Sequence[Sequence[str]], cwd: Path, delay: float = 0.0) -> list[_Ended]:
    """Run commands at once, each started `delay` seconds after the one before."""
    with contextlib.ExitStack() as files:
        started = []
        for command in commands:
            out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            arguments = [sys.executable, "-m", "keras_resnet", *command]
            given = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err}
            started.append((subprocess.Popen(arguments, cwd=cwd, **given), out, err))
            time.sleep(delay)
        return [_Ended(process.wait(), _text(out), _text(err)) for process, out, err in started]


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "backslashreplace")

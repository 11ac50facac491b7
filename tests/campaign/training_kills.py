"""Trainings of every verb that are killed (kill -9) at any time, and then resumed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from keras_resnet.recipes.runs.folder import Run, _in_use, is_run

NAME = "killed trainings"
TRIALS, SHARE, SECONDS = 10, 0, 3600.0  # three trainings each, in processes of their own

# A checkpoint at every step; few steps, because most of the time is the start of TensorFlow.
_SETTINGS = {
    "data.name": "digits",
    "data.validation": "180",
    "data.validation_share": "0",
    "train.batch_size": "256",
    "train.checkpoint_minutes": "0",
    "augment.crop": "none",
    "augment.flip": "none",
}
_START = ["train", "debug/tiny", "--epochs", "1", "--out", "start"]
_SET = [part for pair in _SETTINGS.items() for part in ("--set", "=".join(pair))]
_VERBS = {
    "finetune": [
        "finetune",
        "start",
        "--data",
        "digits",
        *_SET,
        "--set",
        "train.least_steps=0",
        "--epochs",
        "2",
    ],
    "qat": ["qat", "start", *_SET, "--epochs", "2"],
    "prune": ["prune", "start", *_SET, "--epochs", "2"],
    "cluster": ["cluster", "start", *_SET, "--epochs", "2"],
    "distill": ["distill", "debug/tiny", "--teacher", "start", *_SET, "--epochs", "2"],
}
_LOGGED = ("loss", "accuracy", "val_loss", "val_accuracy", "step")
_LONGEST = 900.0  # seconds until the moment of the kill, and until a process that saves has ended


def trial(seed: int, folder: Path) -> str | None:
    """Kill one training; resume it, and compare it with one that was not interrupted."""
    chance = random.Random(seed)
    verb = [*_VERBS][seed % len(_VERBS)]
    step = chance.choice([0, *range(1, 10), 10, 10])  # of 10, counted by checkpoints
    alone = chance.random() < 0.5  # the process that the user started, or with all it started
    whole = _uninterrupted(verb)
    run = Run(folder / "run")
    told = f"{verb} killed after step {step}{' alone' if alone else ''}"
    log = _kill(_VERBS[verb], run, step, chance.random() * 0.5, alone)
    if log is not None:
        return f"{told}: it ended before: {log}"
    if run.model.is_file():
        return _difference(whole, run, told)
    if not is_run(run.path):
        return None  # killed before there was a run; the folder has nothing to resume
    code, said = _command(["train", "--resume", str(run.path)])
    if code != 0:
        return f"{told}: resume ended with {code}: {said[-300:]!r}"
    return _difference(whole, run, told)


def _kill(command: list[str], run: Run, step: int, delay: float, alone: bool) -> str | None:
    """Start a training; kill it some time after a step. Return its output if it ended before."""
    with tempfile.TemporaryFile() as log:
        arguments = [*_program(), *command, "--out", str(run.path)]
        process = subprocess.Popen(
            arguments, stdout=log, stderr=log, cwd=_start(), start_new_session=True
        )
        end = time.monotonic() + _LONGEST
        while not _reached(run, step) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(delay)
        children = [] if alone else _children(process.pid)
        for pid in (process.pid, *children):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        process.wait()
        log.seek(0)
        said = log.read()[-300:].decode("utf-8", "replace")
    while _in_use(run) and time.monotonic() < end:  # one that trains apart saves and stops
        time.sleep(0.05)
    if _in_use(run):
        return f"its other process went on: {said}"
    if process.returncode in (0, -signal.SIGKILL):
        return None
    return said


def _reached(run: Run, step: int) -> bool:
    steps = [int(path.stem.partition("-")[2]) for path in run.checkpoints.glob("ckpt-*.index")]
    return max(steps, default=-1) >= step


def _children(pid: int) -> list[int]:
    """Return the processes that a process started (on Linux)."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in file.read_text().split()] if file.is_file() else []


def _difference(whole: Run, run: Run, told: str) -> str | None:
    """Return the first difference of two finished runs, which must be equal bit for bit."""
    rows = [[{key: row.get(key) for key in _LOGGED} for row in r.rows()] for r in (whole, run)]
    if rows[0] != rows[1]:
        return f"{told}: the log is {rows[1]}, of the uninterrupted run {rows[0]}"
    models = [keras.models.load_model(r.model, compile=False) for r in (whole, run)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        if not np.array_equal(a, b):
            return f"{told}: weights differ by {np.abs(a - b).max():g} from the uninterrupted run"
    return None


@functools.cache
def _start() -> Path:
    """Train the network that the verbs start from; return the folder of its run."""
    folder = Path(tempfile.mkdtemp(prefix="campaign-trainings-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _require(_START, folder)
    return folder


@functools.cache
def _uninterrupted(verb: str) -> Run:
    run = Run(_start() / verb)
    _require([*_VERBS[verb], "--out", verb], _start())
    return run


def _require(arguments: list[str], folder: Path) -> None:
    code, said = _command(arguments, folder)
    if code:
        raise AssertionError(f"{arguments[0]} ended with {code}: {said[-1000:]}")


def _command(arguments: list[str], folder: Path | None = None) -> tuple[int, str]:
    ended = subprocess.run(
        [*_program(), *arguments], capture_output=True, text=True, cwd=folder, timeout=_LONGEST
    )
    return ended.returncode, ended.stderr


def _program() -> list[str]:
    return [sys.executable, "-m", "keras_resnet"]

"""Terminals and environments of other kinds; each trial is a process."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from campaign import invariant, material

NAME = "terminals"
TRIALS, SHARE, SECONDS = 80, 1, 400.0

# They need no TensorFlow, so that a trial takes a second; the last one in four is another.
_LIGHT = (
    ("weights", "list"),
    ("weights", "list", "resnet20", "--json"),
    ("weights", "info", "resnet20"),
    ("train", "--list"),
    ("--help",),
    ("train", "--help"),
    ("explain", "--help"),
    ("tran",),
    ("weights", "fetch", "caf\udce9"),
)
_HEAVY = (
    ("predict", "run", "caf\udce9.png"),
    ("predict", "run", "caf\udce9.png", "--json"),
    ("evaluate", "run", "--data", "photos"),
    ("train", "debug/tiny", "--data", "photos", "--dry-run"),
    ("show", "resnet20"),
)

_UNHEARD = ("full stderr", "closed (2,)", "closed (1, 2)", "closed (0, 1, 2)")


def trial(seed: int, folder: Path) -> str | None:
    """Run one command in an odd environment."""
    random = Random(seed)
    line: tuple[str, ...] = random.choice(_LIGHT)
    if seed % 4 == 3:
        line = random.choice(_HEAVY)
        material.run_folder(folder)
        material.class_folders(folder / "photos", ("chat", "h\u00e9ron"), images=10)
        material.picture(folder / "caf\udce9.png", format="PNG")
    odd, how = _odd(random, folder)
    problem = invariant.run(
        [os.fsencode(word) for word in line], seconds=300, **{"cwd": folder, **how}
    )
    if problem == "exit 2 without a word on stderr" and odd in _UNHEARD:
        return None
    return problem and f"{problem} [{odd}: {' '.join(map(repr, line))}]"


def _odd(random: Random, folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of an environment, and what starts a process in it."""
    no_utf8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environments: dict[str, dict[str, str | None]] = {
        **{code: {"PYTHONIOENCODING": code} for code in ("latin-1", "ascii", "cp1252")},
        "C locale": no_utf8,
        "C locale and latin-1": {**no_utf8, "PYTHONIOENCODING": "latin-1"},
        "20 columns": {"COLUMNS": "20", "LINES": "5"},
        "1 column": {"COLUMNS": "1"},
        "no column": {"COLUMNS": "0"},
        "columns are words": {"COLUMNS": "wide", "LINES": "-3"},
        "no HOME": {"HOME": None, "XDG_CACHE_HOME": None},
        "HOME is nowhere": {"HOME": "/nowhere", "XDG_CACHE_HOME": None},
        "no TERM": {"TERM": None},
        "TERM is dumb": {"TERM": "dumb", "FORCE_COLOR": "1"},
        "no PATH": {"PATH": ""},
    }
    choice = random.random()
    if choice < 0.6:
        name = random.choice(list(environments))
        return name, {"env": environments[name]}
    closed = random.choice(((0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)))
    kinds: dict[str, dict[str, Any]] = {
        f"closed {closed}": {
            "preexec_fn": lambda: [os.close(descriptor) for descriptor in closed],
            "stdin": None,
        },
        "full stdout": {"stdout": open("/dev/full", "wb")},  # noqa: SIM115 (till the trial's end)
        "full stderr": {"stderr": open("/dev/full", "wb")},  # noqa: SIM115
        "no reader": {"stdout": _pipe_without_reader()},
        "another user": {"user": 65534, "group": 65534},
        "read-only folder": {"cwd": Path("/proc")},
        "stdin is a pipe": {"stdin": subprocess.PIPE},
    }
    if not _another_user_can():
        kinds.pop("another user")
    name = random.choice(list(kinds))
    return name, kinds[name]


@functools.cache
def _another_user_can() -> bool:
    """Return True if another user can start the program; a folder like /root keeps others out."""
    command = [sys.executable, "-c", "import keras_resnet"]
    try:
        done = subprocess.run(command, user=65534, group=65534, capture_output=True, check=False)
    except PermissionError:
        return False
    return done.returncode == 0


def _pipe_without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer

"""Exports that are killed (kill -9) at any call of the file system, and the next export."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import signal
import sys
import warnings
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.export import folders, manifest

NAME = "killed exports"
TRIALS, SHARE, SECONDS = 600, 3, 120.0

CALLS = ("os.", "shutil.", "open", "tempfile.", "ctypes.", "fcntl.")  # audit events: a call begins
_MOST_CALLS = 40  # of one export with _write, about
_FILES = (manifest.MANIFEST, "a-int8.tflite", "savedmodel/saved_model.pb", "savedmodel/variables/0")


def trial(seed: int, folder: Path) -> str | None:
    """Kill up to three exports to one folder; then export, and look at what there is."""
    chance = random.Random(seed)
    out = folder / "model"
    versions = itertools.count()
    exchanges, whole = chance.random() < 0.5, None
    if chance.random() < 0.8:
        whole = next(versions)
        _write(out, whole, overwrite=False)
    for _ in range(chance.randrange(1, 4)):
        new, at = next(versions), chance.randrange(_MOST_CALLS)
        problem = killed(out, whole, new, at, exchanges)
        if problem:
            return f"killed at call {at}, {exchanges=}: {problem}"
        whole = _version(out if out.exists() else _aside(out))
    return _ends_well(out, whole, next(versions), overwrite=chance.random() < 0.7)


def killed(out: Path, old: int | None, new: int, at: int, exchanges: bool = True) -> str | None:
    """Kill an export of version `new` over `old` at call `at`; return the problem with `out`."""
    code = kill_at(at, out, new, exchanges)
    if code not in (0, -signal.SIGKILL):
        return f"the export ended with {code}"
    there = _version(out)
    if there == new or (there == old and code):
        return None
    if not exchanges and not out.exists() and _version(_aside(out)) == old:
        return None  # the next export puts it back
    return f"version {there} is there, {new} was written over {old}"


def _aside(out: Path) -> Path:
    """Return where the old version lies between two renames; the next export puts it back."""
    return out.with_name(f".{out.name}-replaced")


def kill_at(at: int, out: Path, version: int, exchanges: bool = True) -> int:
    """Export in a process that ends at its call number `at`; return its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads; the child needs none
        pid = os.fork()
    if pid == 0:
        os._exit(_child(at, out, version, exchanges))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _child(at: int, out: Path, version: int, exchanges: bool) -> int:
    """Export and return 0. Nothing of the parent's clean-up may run, whatever happens."""
    try:
        signal.alarm(60)
        if not exchanges:  # as on a file system that cannot
            folders.exchange = lambda one, other: False
        calls = itertools.count()

        def audit(event: str, arguments: tuple[object, ...]) -> None:
            if event.startswith(CALLS) and next(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        _write(out, version, overwrite=True)
        return 0
    except BaseException:
        return 1


def _ends_well(out: Path, whole: int | None, new: int, overwrite: bool) -> str | None:
    """Export as after the kills; return the problem with the result."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            _write(out, new, overwrite)
    except UserError as error:
        if overwrite or not out.exists() or _version(out) != whole:
            return f"the next export was refused: {error}"
        with contextlib.redirect_stderr(io.StringIO()):
            _write(out, new, overwrite=True)
    if _version(out) != new:
        return f"version {_version(out)} is there after the next export, not {new}"
    left = sorted(set(os.listdir(out.parent)) - {out.name})
    return f"left: {', '.join(left)}" if left else None


def _write(out: Path, version: int, overwrite: bool) -> None:
    with folders.replacing(out, overwrite) as folder:
        for name in _FILES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(str(version))


def _version(folder: Path) -> int | None:
    """Return the version that all files have; None if one is missing or has another."""
    files = [folder / name for name in _FILES]
    texts = {file.read_text() for file in files if file.is_file()}
    return int(texts.pop()) if len(texts) == 1 and all(map(Path.is_file, files)) else None

"""Run the training of a compression in a separate process.

tensorflow-model-optimization only works with tf_keras and sets TF_USE_LEGACY_KERAS for its process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from keras_resnet.errors import UserError, missing
from keras_resnet.recipes.compression.compressed import TFMOT
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.recipes.runs.folder import Run, find_run

PYTHON = "KERAS_RESNET_COMPRESS_PYTHON"  # names the Python of another environment
_PACKAGES = ("tf_keras", TFMOT, "keras_resnet")
_FIND = """
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])
"""
_DONE, _FAULT, _STOPPED = 0, 2, 130  # exit codes, the same as the command line's
_PROCESS = """
import sys
from keras_resnet.display.console import own_streams, own_terminal
own_streams()
own_terminal()
from keras_resnet.recipes.compression import process
sys.exit(process.work(sys.argv[1]))
"""


def require_packages() -> None:
    """Refuse a Python without the packages of the extra `compress`.

    It is this Python, or that of the environment variable KERAS_RESNET_COMPRESS_PYTHON. So this
    environment can have versions that tensorflow-model-optimization does not work with.

    Raises:
        MissingExtraError: this Python lacks one.
        UserError: the other Python lacks one, or cannot be started.
    """
    python = os.environ.get(PYTHON)
    if not python:
        absent = [error for name in _PACKAGES if (error := missing(name, "compress"))]
        if absent:
            raise absent[0]
        return
    command = [python, "-c", _FIND, *_PACKAGES]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(f"Cannot start {PYTHON}={python}: {error}.") from error
    if found.returncode or found.stdout.strip():
        lacks = ", ".join(found.stdout.split()) or "working Python"
        raise UserError(
            f"{PYTHON}={python} has no {lacks}. Run: {python} -m pip install "
            '"keras-resnet-zoo[recipes,compress]"'
        )


def trains_apart(config: Config) -> bool:
    """Return True if a run of `config` needs a separate process, as every technique does."""
    return bool(config.compress.technique)


def train_apart(made: Run) -> None:
    """Train in a separate process until the run is finished; resume from its last checkpoint.

    Its progress is shown here. If this process is interrupted or dies, the other one saves and
    stops.

    Raises:
        UserError: the process failed; the message is its error.
        KeyboardInterrupt: the training was interrupted; the message is the run's folder.
    """
    require_packages()
    command = [os.environ.get(PYTHON) or sys.executable, "-c", _PROCESS, str(made.path)]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    with (
        _shown() as stderr,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches it only through its standard input
        ) as process,
    ):
        try:
            said = process.stdout.read() if process.stdout else ""
        except KeyboardInterrupt:
            if process.stdin:
                process.stdin.close()
            process.wait()
            raise KeyboardInterrupt(str(made.name)) from None
    if process.returncode == _STOPPED:
        raise KeyboardInterrupt(str(made.name))
    if process.returncode != _DONE:
        how = f"Resume with: keras-resnet train --resume {made.name}"
        if not made.checkpoints.is_dir():
            how = "It had not saved a checkpoint yet. Its output above has the reason."
        raise UserError(
            said.strip()
            or f"The process that trains {made.name} ended with code {process.returncode}. {how}"
        )


@contextmanager
def _shown() -> Iterator[Any]:
    """Yield a file for the process' progress: this process' stderr, also in a notebook."""
    try:
        yield sys.stderr.fileno()
        return
    except (OSError, AttributeError, ValueError):
        pass
    reader, writer = os.pipe()

    def relay() -> None:
        with open(reader, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                print(line, end="", file=sys.stderr)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        os.close(writer)
        thread.join()


def work(path: str) -> int:
    """Train the run at `path`, inside the separate process; return its exit code."""
    from keras_resnet.recipes import train

    # A shell's background jobs ignore interrupts and pass that on; this process must accept them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        train.go_on(find_run(path))
    except UserError as error:
        print(error)
        return _FAULT
    except KeyboardInterrupt:
        return _STOPPED
    return _DONE


def _stop_with_parent() -> None:
    """Interrupt the training when standard input ends: the parent was interrupted or died."""
    import _thread

    with suppress(OSError, ValueError):
        sys.stdin.read()
    _thread.interrupt_main()

"""The process of its own in which a compression trains.

tensorflow-model-optimization works on tf_keras only and sets TF_USE_LEGACY_KERAS for its process.
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

from keras_resnet.errors import UserError
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.recipes.runs.folder import Run, find_run

_DONE, _FAULT, _STOPPED = 0, 2, 130  # exit codes of the process, as the command's
_PROCESS = """
import sys
from keras_resnet.display.console import own_terminal
own_terminal()
from keras_resnet.recipes.compression import process
sys.exit(process.work(sys.argv[1]))
"""


def trains_apart(config: Config) -> bool:
    """Tell whether a run of `config` needs a process of its own, as every technique does."""
    return bool(config.compress.technique)


def train_apart(made: Run) -> None:
    """Train in a process of its own until the run is finished; go on where it stopped.

    Its progress is shown here. When this process is interrupted, or dies, that one saves and stops.

    Raises:
        UserError: what the process said.
        KeyboardInterrupt: it was interrupted; the message is the run's folder.
    """
    command = [sys.executable, "-c", _PROCESS, str(made.path)]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    with (
        _shown() as stderr,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,  # Ctrl-C reaches it through its standard input only
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
        how = f"Go on with: keras-resnet train --resume {made.name}"
        if not made.checkpoints.is_dir():
            how = "It had saved nothing yet; what went wrong is said above."
        raise UserError(
            said.strip()
            or f"The process that trains {made.name} ended with code {process.returncode}. {how}"
        )


@contextmanager
def _shown() -> Iterator[Any]:
    """Where the process writes its progress: this one's stderr, also where that is a notebook's."""
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
    """Be the process: train the run at `path`; return its exit code."""
    from keras_resnet.recipes import train

    # A shell's background job ignores interrupts, and hands that on; this one has its own to take.
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
    """Interrupt the training when standard input ends: the parent was interrupted, or is gone."""
    import _thread

    with suppress(OSError, ValueError):
        sys.stdin.read()
    _thread.interrupt_main()

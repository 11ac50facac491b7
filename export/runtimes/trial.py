"""Run files in a process of its own first, because a damaged file can crash or hang its engine.

LiteRT, ONNX Runtime and OpenVINO check much of a file, but not all: about one of 400 damaged int8
`.tflite` files makes LiteRT crash or run forever. Python cannot catch that. So another process runs
each file on one black image before this process opens it. `python -m` of this module is that
process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.base import ENGINES, Runtime
from keras_resnet.export.runtimes.locate import located
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.files import expanded

_SECONDS = 120  # for a file; the slowest network here takes 3 for an image
_PASSED: set[tuple[str, int, int]] = set()  # path, time and size of files that this process tried


def require_survived(paths: Sequence[Path]) -> None:
    """Refuse a file that crashes or hangs its engine. Files of other kinds are not run.

    An error that Python can catch is not reported here, but when the file is opened.

    Raises:
        UserError: the message names the file.
    """
    there = [path for path in paths if path.exists() and located(path)[0] in ENGINES]
    waiting = [path for path in there if _key(path) not in _PASSED]
    if not waiting:
        return
    command = [sys.executable, "-m", __name__, *map(str, waiting)]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            command, capture_output=True, timeout=_SECONDS * len(waiting), check=False
        )
        if done.returncode == 0:
            _PASSED.update(map(_key, waiting))
            return
        begun = done.stdout.count(b"\n")
        raise UserError(_crashed(waiting[min(max(begun, 1), len(waiting)) - 1], done.returncode))
    raise UserError(
        f"{waiting[-1]} does not finish within {_SECONDS} seconds. It is damaged. Export again."
    )


def open_given(path: str | Path) -> Runtime:
    """Open a file that may come from somebody else: `require_survived`, then `open_file`.

    Raises:
        UserError: as for both.
    """
    require_survived([expanded(path)])
    return open_file(path)


def _crashed(path: Path, code: int) -> str:
    how = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
    return f"{path} crashes its engine ({how}). The file is damaged. Export again."


def _key(path: Path) -> tuple[str, int, int]:
    found = located(path)[1].stat()
    return str(path.resolve()), found.st_mtime_ns, found.st_size


def main(paths: Sequence[str]) -> None:
    """Run each file on one black image. A line on stdout says that a file begins."""
    for path in paths:
        print(flush=True)
        with contextlib.suppress(Exception):  # found again when the file is opened
            runtime = open_file(path)
            height, width, channels = runtime.input_shape
            runtime.answers()
            runtime.predict(np.zeros((1, height or 224, width or 224, channels or 3), "uint8"))
    sys.stdout.flush()
    os._exit(0)  # skip the libraries' own cleanup


if __name__ == "__main__":
    main(sys.argv[1:])

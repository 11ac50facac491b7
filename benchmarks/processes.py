"""Run a whole command and measure it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_KIB_PER_MIB = 1024


class Used(NamedTuple):
    """The wall time of a command in seconds, and the peak memory of its largest process in MiB."""

    seconds: float
    peak_mib: float


def measured(command: Sequence[str], folder: Path | None = None) -> Used:
    """Run a command in `folder`; exit with its last output if it fails."""
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{log.read().decode()[-2000:]}")
    return Used(seconds, usage.ru_maxrss / _KIB_PER_MIB)

"""A worker's side of the benchmark: wait for a line, work, answer with a line.

While one worker works the others wait in `wait`, so that no two share the cores. Neither TensorFlow
nor PyTorch is imported here, since every peer uses this.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP = 2  # steps before the first turn: they trace, compile and allocate


class Turns:
    """The connection to the benchmark over stdin and stdout, one JSON object per line.

    Attributes:
        options: what this worker is to train: model, precision, batch_size, image_size, ...
    """

    def __init__(self) -> None:
        """Keep stdout for the answers; everything that frameworks print goes to stderr."""
        self.options: dict[str, Any] = json.loads(sys.argv[-1])
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._finished = time.process_time()

    def wait(self) -> int:
        """Block until it is this worker's turn; return its steps (an epoch has its own number)."""
        line = sys.stdin.readline()
        if not line:  # the benchmark is over
            os._exit(0)  # past the frameworks' own clearing up, which takes seconds
        self._idle_cpu = time.process_time() - self._finished
        return int(json.loads(line)["steps"])

    def answer(self, **facts: Any) -> None:
        """Send the result of a turn, or of the preparation."""
        print(json.dumps(facts), file=self._answers, flush=True)
        self._finished = time.process_time()

    def timed_steps(self, step: Callable[[], None]) -> None:
        """Do single steps on request until the benchmark is over; report their times."""
        while True:
            ms = []
            for _ in range(self.wait()):
                began = time.perf_counter()
                step()
                ms.append(1e3 * (time.perf_counter() - began))
            self.report(ms=ms)

    def report(self, **facts: Any) -> None:
        """Answer with this process' peak memory and the CPU time it used outside its turns."""
        self.answer(peak_memory_mib=peak_memory_mib(), idle_cpu_s=self._idle_cpu, **facts)


def peak_memory_mib() -> int:
    """Return this process' peak memory; `ru_maxrss` would include its parent (Linux)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) / 2**10)

"""Processes that take turns and are compared by rounds. One works while the others are idle.

A worker is a program that reads `{"steps": N}` lines and answers each with a JSON line. There are
`benchmark_worker.py` for files and `benchmarks/peers/turns.py` for the repository's comparisons.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from keras_resnet.errors import UserError

Answers = dict[str, list[dict[str, Any]]]  # {peer: one answer per round}


@dataclass(frozen=True)
class Peer:
    """A compared program: its command, and the options that become its last argument."""

    name: str
    command: tuple[str, ...]
    options: dict[str, Any]


class Worker:
    """A peer's process. Between turns it waits for a line on stdin."""

    def __init__(self, peer: Peer, log: IO[str]) -> None:
        """Start the process and wait until it is warm; `facts` is its first answer.

        Raises:
            UserError: the process died, or reported an error; the message has its last output.
        """
        self.peer, self._log = peer, log
        self.process = subprocess.Popen(
            [*peer.command, json.dumps(peer.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self.facts = self._answer()

    def turn(self, steps: int) -> dict[str, Any]:
        """Let the process do `steps` steps (of any number: one epoch); return its measurements."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the process died; `_answer` reports it
            print(json.dumps({"steps": steps}), file=self.process.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["nothing"])[-1]
            raise UserError(
                f"The process of '{self.peer.name}' died. Its last output: {last}"[:500]
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"])
        return answer


@contextmanager
def workers(peers: Sequence[Peer]) -> Iterator[list[Worker]]:
    """Start the workers one after another; stop them all at the end."""
    with ExitStack() as stack:
        started = []
        for peer in peers:
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            started.append(Worker(peer, log))
            stack.callback(started[-1].stop)
            print(f"  {peer.name}: ready", file=sys.stderr)
        yield started


def take_turns(started: Sequence[Worker], rounds: int, steps: int) -> Answers:
    """Return every worker's answers. Each round begins with a different worker."""
    answers: Answers = {worker.peer.name: [] for worker in started}
    for number in range(rounds):
        first = number % len(started)
        for worker in [*started[first:], *started[:first]]:
            answers[worker.peer.name].append(worker.turn(steps))
        print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    return answers


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the least and the largest of `values`."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Return the spread of theirs / ours, round by round; above 1 means that ours is faster."""
    return spread([a / b for a, b in zip(theirs, ours, strict=True)])

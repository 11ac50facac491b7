"""Peers that take turns: a process each, idle while another one works, and ratios by rounds.

A worker is a program that reads `{"steps": N}` lines and answers with a JSON line each: of files
`benchmark_worker.py`, of the repository's comparisons `benchmarks/peers/turns.py`.
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

Answers = dict[str, list[dict[str, Any]]]  # by peer, one a round


@dataclass(frozen=True)
class Peer:
    """One who is compared: the command that starts it and what it is told, its last argument."""

    name: str
    command: tuple[str, ...]
    options: dict[str, Any]


class Worker:
    """A peer's process; between turns it waits for a line."""

    def __init__(self, peer: Peer, log: IO[str]) -> None:
        """Start it and wait until it is warm; `facts` is what it says of itself then.

        Raises:
            UserError: it died, with its last words, or says itself what is wrong.
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
        """Let it do `steps` updates (any number: one epoch) and return what it measured."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died, which `_answer` says
            print(json.dumps({"steps": steps}), file=self.process.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise UserError(f"The worker of '{self.peer.name}' died:\n{self._log.read()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"])
        return answer


@contextmanager
def workers(peers: Sequence[Peer]) -> Iterator[list[Worker]]:
    """Start one worker after the other; stop them all at the end."""
    with ExitStack() as stack:
        started = []
        for peer in peers:
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            started.append(Worker(peer, log))
            stack.callback(started[-1].stop)
            print(f"  {peer.name}: warm", file=sys.stderr)
        yield started


def take_turns(started: Sequence[Worker], rounds: int, steps: int) -> Answers:
    """Return every worker's answers; who begins changes from round to round."""
    answers: Answers = {worker.peer.name: [] for worker in started}
    for number in range(rounds):
        first = number % len(started)
        for worker in [*started[first:], *started[:first]]:
            answers[worker.peer.name].append(worker.turn(steps))
        print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    return answers


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median and the range over the rounds."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """One time over the other of the same round: of theirs over ours, above 1 ours is faster."""
    return spread([a / b for a, b in zip(theirs, ours, strict=True)])

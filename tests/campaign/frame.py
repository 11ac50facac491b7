"""Run the campaign on two processes, print its table and write its record.

    python tests/campaign/frame.py                       # all classes, 28 minutes at most
    python tests/campaign/frame.py --only api --seed 7   # one class, another seed
    python tests/campaign/frame.py --only api --first 1000017 --trials 1   # one trial again

The record goes to --out as JSON, and `python benchmarks/tables.py` makes the table of
docs/reliability.md from benchmarks/results/reliability.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

TESTS = Path(__file__).parents[1]
MINUTES = 28.0
PROCESSES = 2
APART = 1_000_000  # the trials of campaign seed 3 have the seeds 3,000,000, 3,000,001, …
_TRIALS, _SHARE, _SECONDS = 500, 5, 300.0


def classes() -> dict[str, ModuleType]:
    """Return the classes by name: the modules of this package that have NAME and trial."""
    found = {}
    for entry in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if entry.name.startswith("test_") or entry.name == "frame":
            continue
        module = importlib.import_module(f"campaign.{entry.name}")
        if hasattr(module, "NAME") and hasattr(module, "trial"):
            found[module.NAME] = module
    return found


def share(module: ModuleType) -> int:
    """Return how many trials of a class run with the ordinary tests."""
    return getattr(module, "SHARE", _SHARE)


def one(module: ModuleType, seed: int) -> str | None:
    """Do one trial in a new folder. An exception that it did not expect is a bad one."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as folder:
        try:
            problem: str | None = module.trial(seed, Path(folder))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            told = " ".join(str(error).split())[:300]
            problem = f"{type(error).__name__} ({Path(where.filename).name}:{where.lineno}): {told}"
        finally:
            os.chdir(here)
    return problem


@dataclass
class Tally:
    """The trials of one class."""

    name: str
    aim: int
    first: int  # the seed of its first trial
    seconds: float  # after which a trial is killed
    begun: int = 0
    tried: int = 0
    bad: list[dict[str, Any]] = field(default_factory=list)

    @property
    def row(self) -> tuple[str, int, int, int]:
        """Return class, tried, good and bad."""
        return self.name, self.tried, self.tried - len(self.bad), len(self.bad)


class Campaign:
    """The tallies of all classes, and whose turn it is."""

    def __init__(self, seed: int, minutes: float, tallies: list[Tally]) -> None:
        """Begin now."""
        self.seed, self.tallies = seed, tallies
        self.began = time.monotonic()
        self._end = self.began + 60 * minutes
        self._lock = threading.Lock()

    def next(self) -> tuple[Tally, int] | None:
        """Return the class that is furthest behind its aim, and a seed; None at the end."""
        with self._lock:
            waiting = [tally for tally in self.tallies if tally.begun < tally.aim]
            if not waiting or time.monotonic() > self._end:
                return None
            tally = min(waiting, key=lambda tally: tally.begun / tally.aim)
            tally.begun += 1
            return tally, tally.first + tally.begun - 1

    def add(self, tally: Tally, seed: int, problem: str | None) -> None:
        """Count a trial."""
        with self._lock:
            tally.tried += 1
            if problem is not None:
                tally.bad.append({"seed": seed, "problem": problem})
                print(f"bad: {tally.name} {seed}: {problem}", file=sys.stderr, flush=True)

    def record(self) -> dict[str, Any]:
        """Return the record of the campaign."""
        return {
            "seed": self.seed,
            "date": date.today().isoformat(),
            "machine": machine(),
            "minutes": round((time.monotonic() - self.began) / 60, 1),
            "classes": [
                {"class": name, "tried": tried, "good": good, "bad": bad, "problems": tally.bad}
                for tally in self.tallies
                for name, tried, good, bad in [tally.row]
            ],
        }


def machine() -> str:
    """Return the processor, the number of its cores, and the system."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(": ")[2] for line in lines if "model name" in line), name)
    return (
        f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )


class Worker:
    """A process that does trials, one after another; it is started again after a crash."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._process: subprocess.Popen[str] | None = None

    def do(self, tally: Tally, seed: int) -> str | None:
        """Do one trial; return its problem."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "campaign.frame", "--worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=tempfile.gettempdir(),
                env={**os.environ, "PYTHONPATH": str(TESTS), "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        late = threading.Timer(tally.seconds, process.kill)
        late.start()
        try:
            process.stdin.write(f"{tally.name}\t{seed}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timely = late.is_alive()
            late.cancel()
        if answer:
            problem: str | None = json.loads(answer)
            return problem
        self.end()
        how = f"ended with {process.returncode}" if timely else f"took over {tally.seconds:g} s"
        return f"the process of the trial {how}"

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def work() -> None:
    """Do the trials that stdin names, a line each; the answers are JSON lines on stdout."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what else is printed is no answer
    known = classes()
    for line in sys.stdin:
        name, seed = line.split("\t")
        print(json.dumps(one(known[name], int(seed))), file=answers, flush=True)


def run(campaign: Campaign) -> None:
    """Do all trials of a campaign."""

    def serve() -> None:
        worker = Worker()
        while job := campaign.next():
            tally, seed = job
            campaign.add(tally, seed, worker.do(tally, seed))
        worker.end()

    threads = [threading.Thread(target=serve) for _ in range(PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def planned(
    seed: int,
    minutes: float = MINUTES,
    only: list[str] | None = None,
    first: int | None = None,
    trials: int | None = None,
) -> Campaign:
    """Return a campaign; `only` names its classes, `first` and `trials` replace their own."""
    known = classes()
    if unknown := set(only or ()) - set(known):
        raise SystemExit(f"no such class: {', '.join(unknown)}; known: {', '.join(known)}")
    start = seed * APART if first is None else first
    tallies = [
        Tally(
            name,
            getattr(module, "TRIALS", _TRIALS) if trials is None else trials,
            start,
            getattr(module, "SECONDS", _SECONDS),
        )
        for name, module in known.items()
        if only is None or name in only
    ]
    return Campaign(seed, minutes, tallies)


def table(record: dict[str, Any]) -> str:
    """Return the table of a record as text, with the problems below."""
    rows = [(row["class"], row["tried"], row["good"], row["bad"]) for row in record["classes"]]
    rows.append(("all", *(sum(row[column] for row in rows) for column in (1, 2, 3))))
    lines = [f"{'class':<16}{'tried':>8}{'good':>8}{'bad':>6}"]
    lines += [f"{name:<16}{tried:>8,}{good:>8,}{bad:>6,}" for name, tried, good, bad in rows]
    lines.append(f"seed {record['seed']}, {record['minutes']} minutes, {record['machine']}")
    for row in record["classes"]:
        lines += [f"{row['class']} {one['seed']}: {one['problem']}" for one in row["problems"]]
    return "\n".join(lines)


def main() -> int:
    """Run a campaign as the command line says; return 1 if a trial was bad."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="when no more trials begin")
    parser.add_argument("--only", action="append", metavar="CLASS", help="can be repeated")
    parser.add_argument("--first", type=int, metavar="SEED", help="seed of the first trial")
    parser.add_argument("--trials", type=int, metavar="N", help="trials of each class")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the record to write")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work()
        return 0
    campaign = planned(options.seed, options.minutes, options.only, options.first, options.trials)
    run(campaign)
    record = campaign.record()
    if options.out:
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(table(record))
    return int(any(tally.bad for tally in campaign.tallies))


if __name__ == "__main__":
    if str(TESTS) not in sys.path:  # Python puts this file's folder there
        sys.path[0] = str(TESTS)
    sys.exit(main())

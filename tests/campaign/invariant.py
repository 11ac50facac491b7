"""The one promise that every trial of the campaign checks.

Whatever the input, a verb ends with exit 0, 1, 2, 130 or 141, with at most three lines on stderr
besides progress, without a traceback, and in bounded time and memory. 70 is a bug.

`run` starts the command as a process. `call` calls it in this process, which is much cheaper
because TensorFlow is imported only once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_resnet.cli.main import guarded
from keras_resnet.display import console
from keras_resnet.text import Terminal

EXIT_CODES = (0, 1, 2, 130, 141)
MOST_LINES = 3
SECONDS = 120.0  # of a process; it imports TensorFlow, which takes 5 to 20 s on two busy cores
CALL_SECONDS = 60.0  # of a call, counted on the processors, so that a busy machine is no failure
_WAITING = 5.0  # how many times that a call may take by the clock
MEGABYTES = 3000.0  # of a process, at its largest; TensorFlow alone has 600
CALL_MEGABYTES = 1500.0  # that a call adds to this process

# Lines on stderr that tell how far the work is.
PROGRESS = re.compile(
    r"epoch +\d|[\w-]+: written in |\S+: \w+ on |  .*: (ready|warm)$|  round \d+ of \d+$"
    r"|checking [\d,]+ images once|serving batches at |\w[\w ]*: [\d,.]+ of [\d,.]+|"
    r".*: the weights are |  trains |waiting for "
)
# What an exit with 70, or a crash in C++, leaves behind.
_CRASH = re.compile(r"^(Traceback \(most recent call last\)|Fatal Python error)", re.MULTILINE)
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def judge(code: int, stdout: str, stderr: str) -> str | None:
    """Return one line that says how a command broke the promise; None if it kept it."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else ""
    if crash := _CRASH.search(stderr):
        told = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)]
        return f"exit {code}, {crash[0]}: {(told or [last])[-1][:300]}"
    if code not in EXIT_CODES:
        return f"exit {code}: {last}"
    said = [line for line in lines if not PROGRESS.match(line)]
    if len(said) > MOST_LINES:
        return f"exit {code}, {len(said)} lines on stderr: {' | '.join(said)[:300]}"
    if code == 2 and not said:
        return "exit 2 without a word on stderr"
    if found := _OBEYED.search(stdout + stderr):
        return f"exit {code}, prints the control character {found[0]!r}"
    return None


def run(
    arguments: Sequence[str | bytes | Path],
    *,
    seconds: float = SECONDS,
    megabytes: float = MEGABYTES,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    **process: Any,
) -> str | None:
    """Run `keras-resnet` in a process; return one line that says what is wrong, or None.

    Args:
        arguments: the command line after `keras-resnet`.
        seconds: it is killed after this time.
        megabytes: it is killed when it has more resident memory (on Linux).
        cwd: its folder.
        env: changes to the environment; None removes a variable.
        process: more arguments of `subprocess.Popen`, e.g. stdout. Their output is not judged.
    """
    changed = {**os.environ, **(env or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **process}
        command = [sys.executable, "-m", "keras_resnet", *arguments]
        environment = {key: value for key, value in changed.items() if value is not None}
        with subprocess.Popen(command, cwd=cwd, env=environment, **given) as started:
            ended = _watch(started, seconds, megabytes)
        out.seek(0), err.seek(0)
        texts = [file.read().decode("utf-8", "backslashreplace") for file in (out, err)]
    return ended or judge(started.returncode, *texts)


def _watch(process: subprocess.Popen[bytes], seconds: float, megabytes: float) -> str | None:
    """Wait for a process. Kill it if it takes too long or too much; return which."""
    end = time.monotonic() + seconds
    while True:
        try:
            process.wait(0.1)
            return None
        except subprocess.TimeoutExpired:
            pass
        if time.monotonic() > end:
            process.kill()
            return f"still running after {seconds:g} s"
        if (used := resident(process.pid)) > megabytes:
            process.kill()
            return f"took {used:,.0f} MB of memory, more than {megabytes:,.0f}"


def resident(pid: int | str, row: str = "VmRSS") -> float:
    """Return the resident memory of a process in MB; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        if found := re.search(rf"{row}:\s+(\d+) kB", text):
            return int(found[1]) / 1024
    return 0.0


class _TooLongError(BaseException):
    """No `Exception`, so that the command does not take it for a bug of ours."""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLongError

    timers = (
        (signal.SIGPROF, signal.ITIMER_PROF, seconds),
        (signal.SIGALRM, signal.ITIMER_REAL, _WAITING * seconds),
    )
    before = [signal.signal(kind, stop) for kind, _, _ in timers]
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (kind, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(kind, handler)


def bounded(
    work: Callable[[], object],
    seconds: float = CALL_SECONDS,
    megabytes: float = CALL_MEGABYTES,
) -> str | None:
    """Call a function in this process; return one line if it takes too long or too much memory.

    Exceptions of the function are the caller's to judge. Only for the main thread.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    before = resident("self")
    try:
        with _limited(seconds):
            work()
    except _TooLongError:
        return f"still running after {seconds:g} s"
    if (added := resident("self", "VmHWM") - before) > megabytes:
        return f"took {added:,.0f} MB of memory, more than {megabytes:,.0f}"
    return None


def call(
    arguments: Sequence[str],
    *,
    seconds: float = CALL_SECONDS,
    megabytes: float = CALL_MEGABYTES,
    cwd: Path | None = None,
) -> str | None:
    """Call `keras-resnet` in this process; return one line that says what is wrong, or None.

    It has the streams and the warnings that it has as a process, and as there the libraries log
    nothing. Its memory is what it adds to this process.

    Args:
        arguments: the command line after `keras-resnet`.
        seconds: the longest time.
        megabytes: the most memory that it may add.
        cwd: its folder.
    """
    code, streams = 0, (_stream(), _stream())

    def work() -> None:
        nonlocal code
        try:
            code = guarded(list(arguments))
        except SystemExit as ended:  # argparse's own, after --help
            code = ended.code if isinstance(ended.code, int) else 1

    with (
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        warnings.showwarning = console.print_warning
        logging.disable(logging.ERROR)
        try:
            wrong = bounded(work, seconds, megabytes)
        finally:
            logging.disable(logging.NOTSET)
    return wrong or judge(code, *map(_text, streams))


def _stream() -> Terminal:
    return Terminal(io.BytesIO(), "utf-8")


def _text(stream: Terminal) -> str:
    stream.flush()
    content: bytes = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return content.decode("utf-8")

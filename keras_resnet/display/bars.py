"""Progress bars on a terminal and in a notebook; in a log file, a line a minute."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from keras_resnet.text import drawable, for_html

_LINE_SECONDS = 60.0  # between progress lines if there is no bar
_REDRAW_SECONDS = 0.5  # in a notebook


class NotebookBar:
    """A progress bar in the output of a notebook's cell; it is empty at the end."""

    def __init__(self) -> None:
        """Draw nothing yet."""
        self._output: Any = None
        self._shown = 0.0

    def show(
        self,
        description: str,
        done: float,
        total: float | None,
        seconds_left: float | None,
        measured: str = "",
    ) -> None:
        """Draw the bar, at most twice a second.

        Args:
            description: the words before the bar.
            done: the position.
            total: the end; None if it is not known.
            seconds_left: an estimate; None if there is none yet.
            measured: a line under the bar.
        """
        now = time.monotonic()
        if now - self._shown < _REDRAW_SECONDS:
            return
        self._shown = now
        most = "" if total is None else f' value="{done}" max="{total}"'
        count = f"{done:,.0f}" + ("" if total is None else f" of {total:,.0f}")
        left = "" if seconds_left is None else f", {timedelta(seconds=round(seconds_left))} left"
        text = f"{for_html(description)} <progress{most}></progress> {count}{left}"
        self._draw(f"<div>{text}<br>{for_html(measured)}</div>")

    def clear(self) -> None:
        """Empty the output."""
        if self._output is not None:
            self._draw("")

    def _draw(self, text: str) -> None:
        show = importlib.import_module("IPython.display")
        if self._output is None:
            self._output = show.display(show.HTML(text), display_id=True)
        else:
            self._output.update(show.HTML(text))


class Bar(Progress):
    """A bar on stderr with the time left; `measured` is a line under it.

    A terminal and a notebook show it. A log file has no bar.

    Args:
        columns: of rich; they stand between the bar and the time left.
        transient: take the bar away at the end.
    """

    measured = ""

    def __init__(self, *columns: ProgressColumn, transient: bool = False) -> None:
        """Lay out the bar; see the class."""
        console = Console(file=drawable(sys.stderr))
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            *columns,
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=transient,
            disable=not console.is_terminal,
        )
        # Rich draws in a notebook only with ipywidgets, whose output a saved notebook loses.
        self._cell = NotebookBar() if console.is_jupyter else None

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bar and the line under it."""
        yield from super().get_renderables()
        yield Text(self.measured, no_wrap=True, overflow="ellipsis")

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Move the bar."""
        super().advance(task_id, advance)
        if self._cell is not None:
            task = self.tasks[task_id]
            self._cell.show(
                task.description, task.completed, task.total, task.time_remaining, self.measured
            )

    def stop(self) -> None:
        """Stop drawing."""
        super().stop()
        if self._cell is not None:
            self._cell.clear()


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with the time left on stderr. Yield a function that advances it.

    If stderr is no terminal (a log file), print one line per minute.
    """
    columns = [MofNCompleteColumn()]
    with _progress(what, total, 0, columns, lambda done, rate: f"{done:,} of {total:,}") as advance:
        yield advance


@contextmanager
def transfer(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show the progress of a download; `done` bytes are there already, `total` may be unknown."""

    def line(done: int, rate: float) -> str:
        whole = "" if total is None else f" of {total / 1e6:.1f}"
        return f"{done / 1e6:.1f}{whole} MB, {rate / 1e6:.2f} MB/s"

    with _progress(what, total, done, [DownloadColumn(), TransferSpeedColumn()], line) as advance:
        yield advance


@contextmanager
def _progress(
    what: str,
    total: int | None,
    done: int,
    columns: Sequence[ProgressColumn],
    line: Callable[[int, float], str],
) -> Iterator[Callable[[int], None]]:
    """Show `columns` on a terminal. Otherwise `line` makes a text from the amount and the rate."""
    bar = Bar(*columns, transient=True)
    task = bar.add_task(what, total=total, completed=done)
    began = said = time.monotonic()
    start = done

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        bar.advance(task, count)
        now = time.monotonic()
        if bar.disable and done != total and now - said >= _LINE_SECONDS:
            said, rate = now, (done - start) / max(now - began, 1e-9)
            left = "" if total is None else f", {(total - done) / rate / 60:.1f} min left"
            print(f"{what}: {line(done, rate)}{left}", file=sys.stderr)

    with bar:
        yield advance

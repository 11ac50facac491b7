"""What the terminal shows."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_LINE_SECONDS = 60.0  # between lines where no bar can be shown


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep what C++ libraries write to stderr from the terminal.

    TensorFlow, its converter and LiteRT log there past every Python switch. Their errors arrive as
    exceptions all the same.
    """
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print to stdout; the first column is text, the others are numbers."""
    console = Console(highlight=False)
    # A narrow terminal wraps a long line; rich would cut figures to its width.
    console.width = max(console.width, 120)
    console.print(_table(title, header, rows, 1))


def table_text(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1
) -> str:
    """The same table as plain text, as wide as it needs; the first `text_columns` are text."""
    file = io.StringIO()
    table = _table(title, header, rows, text_columns)
    Console(file=file, highlight=False, width=1000, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int
) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(header):
        justify: Literal["left", "right"] = "left" if index < text_columns else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with the time left on stderr; call what is given with how many more are done.

    Where stderr is no terminal (a log file) it is a line a minute.
    """
    console = Console(file=sys.stderr)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task(what, total=total)
    began = said = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        bar.advance(task, count)
        now = time.monotonic()
        if bar.disable and done < total and now - said >= _LINE_SECONDS:
            said, minutes = now, (now - began) / done * (total - done) / 60
            print(f"{what}: {done:,} of {total:,}, {minutes:.1f} min left", file=sys.stderr)

    with bar:
        yield advance

"""Output on the terminal."""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.table import Table

from keras_resnet.errors import ZooWarning
from keras_resnet.lazy import LOG_LEVEL
from keras_resnet.text import Terminal, for_terminal, json_for

_SILENT = "3"  # fatal errors only


def own_streams() -> None:
    """Make stdout and stderr of this process take any text; see `text.Terminal`.

    A stream that is closed goes nowhere: otherwise the next file that is opened would get its
    descriptor, and the output of libraries. `sys.stdout` and `sys.stderr` keep their encodings.
    """
    for descriptor in 0, 1, 2:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free one, which is this
    sys.stdout, sys.stderr = _terminal(1, sys.stdout), _terminal(2, sys.stderr)


def _terminal(descriptor: int, stream: TextIO | None) -> Terminal:
    encoding = "utf-8" if stream is None else stream.encoding
    raw = open(descriptor, "wb", closefd=False)  # noqa: SIM115 (open to the end)
    return Terminal(raw, encoding, line_buffering=stream is sys.stderr or raw.isatty())


def own_terminal() -> None:
    """Keep the output of libraries off the terminal for the rest of this process.

    Call it before TensorFlow is imported. C and C++ libraries (TensorFlow, oneDNN, CUDA, libjpeg)
    write to file descriptor 2 at any time. This function redirects it to nowhere and gives
    `sys.stderr` its own descriptor. Errors of the libraries still arrive as exceptions. Python's
    loggers and warnings are silent, too; our warnings become "warning: TEXT".

    `TF_CPP_MIN_LOG_LEVEL=0` (or 1) shows everything: then this function does nothing.
    """
    if os.environ.get(LOG_LEVEL) in ("0", "1"):
        return
    os.environ[LOG_LEVEL] = _SILENT
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    sys.stderr.flush()
    sys.stderr = _terminal(terminal, sys.stderr)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    faulthandler.enable(sys.stderr)  # shows where C++ crashed
    logging.disable(logging.ERROR)
    if not sys.warnoptions:
        warnings.showwarning = print_warning


def print_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Print a warning of ours in one line: the command's `warnings.showwarning`."""
    if issubclass(category, ZooWarning):
        print(f"warning: {message}", file=sys.stderr)


def print_json(content: dict[str, Any], passed: bool = True) -> int:
    """Print one object to stdout; return the exit code: 0, or 1 if something did not pass."""
    text = json_for(content, sys.stdout.encoding or "utf-8")
    print(text, flush=True)  # a service may continue
    return 0 if passed else 1


def print_lines(lines: Iterable[str]) -> int:
    """Print to stdout; return the exit code 0."""
    for line in lines:
        print(line)
    return 0


def number(value: float | None, form: str) -> str:
    """Return a number as a table cell, or a dash for None."""
    return "–" if value is None else f"{value:{form}}"


def verdict(item: Mapping[str, Any]) -> str:
    """Return the table cell with the result of a file's check, or a dash without a check.

    `item` may have "passed" and "notes", the points that the check leaves open.
    """
    passed = item.get("passed")
    if passed:
        return ", ".join(("passed", *item.get("notes", ())))
    return "–" if passed is None else "FAILED"


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1
) -> None:
    """Print `table_text` to stdout. A narrow terminal wraps it, where rich would cut numbers."""
    print(table_text(title, header, rows, text_columns))


def print_checks(
    files: Sequence[dict[str, Any]], title: str, model: dict[str, Any] | None = None
) -> None:
    """Print a row for the Keras model and for each file, and then the problems of the files."""
    table = [check_cells(item) for item in ([model] if model else []) + list(files)]
    print_table(title, CHECK_HEADER, table)
    for item in files:
        for problem in item["problems"]:
            print(f"{item['file']}: {problem}")


CHECK_HEADER = ("file", "bytes", "gzipped", "accuracy", "agreement", "max error", "ms", "check")


def check_cells(item: Mapping[str, Any]) -> list[str]:
    """Return the cells under `CHECK_HEADER` of one file, as the manifest describes it."""
    return [
        item["file"],
        number(item["bytes"], ","),
        number(item["bytes_gzipped"], ","),
        number(item["accuracy"], ".2%"),
        number(item.get("agreement"), ".2%"),
        number(item.get("largest_error"), ".1e"),
        number(item["latency_ms"], ".3f"),
        verdict(item),
    ]


def print_left_out(files: Sequence[dict[str, str]]) -> None:
    """Print a line to stderr for each {"file", "reason"}."""
    for item in files:
        print(f"warning: {item['file']} is left out. {item['reason']}", file=sys.stderr)


def table_text(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1
) -> str:
    """Return a table as plain text, as wide as necessary. The first `text_columns` are text."""
    file = io.StringIO()
    table = _table(title, header, rows, text_columns)
    # A name may contain brackets or colons, which rich must not read as markup.
    plain: Any = {"highlight": False, "markup": False, "emoji": False, "color_system": None}
    Console(file=file, width=1000, **plain).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int
) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(header):
        justify: Literal["left", "right"] = "left" if index < text_columns else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*map(for_terminal, row))
    return table

"""The verbs about runs: runs, report, compare."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from keras_resnet.cli.options import Parser, Verb
from keras_resnet.display.console import number, print_json, print_lines, print_table, verdict
from keras_resnet.errors import UserError
from keras_resnet.files import without_common_folder


def _runs(options: argparse.Namespace) -> int:
    """List the runs in a folder."""
    from keras_resnet.recipes.runs.folder import list_runs

    found = list_runs(options.folder)
    if options.json:
        return print_json({"runs": found})
    if not found:
        raise UserError(f"No runs in {options.folder}. Start one: keras-resnet train --list")
    folder, short = without_common_folder([row["run"] for row in found])
    header = ("run", "model", "data", "done", "valid.", "test", "minutes", "state")
    rows = [[name, *cells[1:]] for name, cells in zip(short, found.cells(), strict=True)]
    print_table(f"Runs in {folder or options.folder}", header, rows, text_columns=3)
    for row in found:
        if row["problem"]:
            print(f"warning: {row['run']}: {row['problem']}", file=sys.stderr)
    return 0


def _report(options: argparse.Namespace) -> int:
    """Write the report of a run."""
    from keras_resnet.recipes.runs import report
    from keras_resnet.recipes.runs.folder import find_run

    path = report.write(find_run(options.run), options.out)
    return print_json({"report": str(path)}) if options.json else print_lines([str(path)])


def _compare(options: argparse.Namespace) -> int:
    """Print the recorded results of several models."""
    from keras_resnet.display import figures
    from keras_resnet.recipes.runs import compare as comparing

    if options.picture:
        figures.require_writable(Path(options.picture))
    rows = comparing.rows(options.models)
    for warning in comparing.warnings(rows):
        print(f"warning: {warning}", file=sys.stderr)
    if options.picture:
        comparing.draw(rows, Path(options.picture))
    if options.json:
        return print_json({"models": comparing.as_dicts(rows)})
    folder, short = without_common_folder([row.name for row in rows])
    header = ("file", "accuracy", "agreement", "check")
    costs = ("parameters", "multiply-adds", "bytes", "gzipped", "ms")
    table = [
        [
            name,
            number(row.accuracy, ".2%"),
            number(row.agreement, ".2%"),
            verdict(asdict(row)),
            number(row.parameters, ","),
            number(row.multiply_adds, ","),
            f"{row.bytes:,}",
            f"{row.bytes_gzipped:,}",
            number(row.latency_ms, ".3f"),
        ]
        for name, row in zip(short, rows, strict=True)
    ]
    where = f"Files in {folder}. " if folder else ""
    times = "ms: one image, on one thread (TensorFlow: all threads)"
    print_table(f"{where}Recorded at training or export; {times}", header + costs, table)
    return 0


# Options ------------------------------------------------------------------------------------------


def _runs_options(sub: Parser) -> None:
    sub.add_argument(
        "folder", nargs="?", default="runs", help="folder that holds the runs (default ./runs)"
    )


def _report_options(sub: Parser) -> None:
    sub.add_argument("run", help="the folder of a finished run")
    sub.add_argument("--out", metavar="FILE.html", help="file to write (default RUN/report.html)")


def _compare_options(sub: Parser) -> None:
    sub.add_argument("models", nargs="+", help="run folders, export folders and exported files")
    drawn = "plot accuracy against file size and latency: .svg, .png or .pdf"
    sub.add_argument("--picture", metavar="FILE", help=drawn)


VERBS = {
    "runs": Verb(
        "list training runs: progress and accuracy",
        "runs",
        _runs_options,
        _runs,
    ),
    "report": Verb(
        "write an HTML report about a finished run",
        "report RUN",
        _report_options,
        _report,
    ),
    "compare": Verb(
        "accuracy, size and speed of runs and exports, side by side",
        "compare RUN1 RUN2 --picture frontier.svg",
        _compare_options,
        _compare,
    ),
}

"""Compare the records of runs, exports and exported files: accuracy, check, size, cost, speed.

keras-resnet compare RUN1 RUN2/exports FILE [--picture frontier.svg]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_resnet.arguments import checked
from keras_resnet.display import figures
from keras_resnet.display.console import number, verdict
from keras_resnet.display.notebook import Rows
from keras_resnet.errors import UserError
from keras_resnet.export import manifest
from keras_resnet.export.runtimes.keras import load_keras
from keras_resnet.files import expanded, short_names
from keras_resnet.recipes.configs.schema import shown_name
from keras_resnet.recipes.runs.folder import Run, find_run, is_run

_COSTS = {"bytes": "bytes", "latency_ms": "ms, one image"}  # {field: label}, one panel each


@dataclass(frozen=True)
class Row:
    """One model file; None means unknown.

    Attributes:
        name: the path as given, and the file.
        accuracy: the accuracy on the images `measured_on`.
        measured_on: a description of those images.
        parameters: parameters of the network.
        multiply_adds: multiply-adds for one image.
        bytes: size of the file.
        bytes_gzipped: size of the compressed file.
        latency_ms: median for one image, measured during the export of the file or the run.
        machine: the machine of that measurement.
        agreement: for an exported file, share of images with the same class as the Keras model.
        passed: True if the file passed its check; None for a run, whose model is the reference.
        problems: the problems found by the check.
        notes: points that the check did not cover.
    """

    name: str
    accuracy: float | None
    measured_on: str | None
    parameters: int | None
    multiply_adds: int | None
    bytes: int
    bytes_gzipped: int
    latency_ms: float | None = None
    machine: str | None = None
    agreement: float | None = None
    passed: bool | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return a summary in one line."""
        accuracy, latency = number(self.accuracy, ".2%"), number(self.latency_ms, ".3f")
        check = "" if self.passed is None else f", check {verdict(asdict(self))}"
        return f"{self.name}: accuracy {accuracy}, {self.bytes:,} bytes, {latency} ms{check}"


class Compared(Rows):
    """The compared files; a notebook shows them as a table."""

    noun = "file"
    header = ("file", "check", "accuracy", "agreement", "multiply-adds", "bytes", "ms")
    text_columns = 2

    def cells(self) -> list[Sequence[str]]:
        """Return the cells of each file."""
        return [
            (
                name,
                verdict(asdict(row)),
                number(row.accuracy, ".2%"),
                number(row.agreement, ".2%"),
                number(row.multiply_adds, ","),
                f"{row.bytes:,}",
                number(row.latency_ms, ".3f"),
            )
            for name, row in zip(short_names([row.name for row in self]), self, strict=True)
        ]


@checked
def rows(references: Iterable[str | Path]) -> Compared:
    """Collect the records of each reference.

    Args:
        references: finished runs (their `model.keras`), export folders (all their files), and files
            in export folders.

    Returns:
        A `Row` for each file, in the order of the references and of the manifests.

    Raises:
        UserError: a reference is none of these.
    """
    return Compared(row for given in references for row in _rows_of(expanded(given)))


def _rows_of(path: Path) -> list[Row]:
    if is_run(path):
        return [_of_run(find_run(path))]
    if (path / manifest.MANIFEST).is_file():
        return _of_export(path, None)
    if path.exists() and (path.parent / manifest.MANIFEST).is_file():
        return _of_export(path.parent, path.name)
    raise UserError(
        f"{path} is not a run folder, an export folder or a file in one, so it has no records. "
        "Make an export: keras-resnet export MODEL"
    )


def _of_run(run: Run) -> Row:
    run.require_finished()
    summary = run.summary()
    cost = manifest.cost(load_keras(run.model))
    count = f"{summary['test']['n']:,}"  # exports write "n of the n test images"
    test = f"{count} of the {count} test images of {shown_name(summary['data'])}"
    name = f"{run.name}/{run.model.name}"
    known: dict[str, Any] = {**cost, **manifest.sizes(run.model), **_timed(run)}
    return Row(name=name, accuracy=summary["test"]["accuracy"], measured_on=test, **known)


def _timed(run: Run) -> dict[str, Any]:
    """Return the latency of the run's model, measured by its export; {} without an export."""
    folder = run.path / "exports"
    if not (folder / manifest.MANIFEST).is_file():
        return {}
    content = manifest.read(folder)
    return {"latency_ms": content["check"]["keras_latency_ms"], "machine": content["machine"]}


def _of_export(folder: Path, only: str | None) -> list[Row]:
    content = manifest.read(folder)
    check = content["check"]
    found = [
        Row(
            name=f"{folder}/{item['file']}",
            accuracy=item["accuracy"],
            measured_on=f"{check['n']:,} {check['images']}",
            parameters=content["parameters"],
            multiply_adds=content["multiply_adds"],
            bytes=item["bytes"],
            bytes_gzipped=item["bytes_gzipped"],
            latency_ms=item["latency_ms"],
            machine=content["machine"],
            agreement=item["agreement"],
            passed=item["passed"],
            problems=tuple(item["problems"]),
            notes=tuple(item.get("notes", ())),
        )
        for item in content["files"]
        if only in (None, item["file"])
    ]
    if not found:
        files = ", ".join(item["file"] for item in content["files"])
        raise UserError(
            f"{folder / manifest.MANIFEST} does not list '{only}'. Name one of its files: {files}"
        )
    return found


def warnings(compared: Sequence[Row]) -> list[str]:
    """Return warnings about failed checks and about figures that should not be compared."""
    found = [
        f"{row.name} FAILED its check: {'; '.join(row.problems)}"
        for row in compared
        if row.passed is False
    ]
    if len({row.measured_on for row in compared if row.accuracy is not None}) > 1:
        found.append("the accuracies were measured on different images")
    if len({row.machine for row in compared if row.machine}) > 1:
        found.append("the times were measured on different machines")
    return found


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, accuracy) points that no other point beats in both, by growing cost."""
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best


@figures.style()
def draw(compared: Sequence[Row], out: Path) -> None:
    """Draw accuracy against bytes, and against milliseconds if known, each with its frontier.

    Points are numbered, with a legend below. A file that failed its check is drawn as a cross,
    marked in the legend, and left out of the frontier. Files without a time are listed on stderr.

    Raises:
        UserError: no row has an accuracy, or see `figures.require_writable`.
        MissingExtraError: matplotlib is not installed.
    """
    known = [row for row in compared if row.accuracy is not None]
    if not known:
        raise UserError(
            "None of these files has an accuracy to draw. Export with labelled data: "
            "keras-resnet export MODEL --data NAME"
        )
    labels = dict(zip(known, short_names([row.name for row in known]), strict=True))
    _name_untimed(labels)
    costs = [key for key in _COSTS if any(getattr(row, key) for row in known)]
    figure = figures.new(5 * len(costs), 3.2 + 0.2 * len(labels))
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for panel, key in zip(panels, costs, strict=True):
        _draw_panel(panel, labels, key)
    panels[0].set(ylabel="accuracy (%)", ylim=_limits([100 * (x.accuracy or 0) for x in known]))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left")
    figures.save(figure, out)


def _name_untimed(labels: Mapping[Row, str]) -> None:
    if names := [text for row, text in labels.items() if not row.latency_ms]:
        print(
            f"The picture has no time for {', '.join(names)}. To measure it: keras-resnet export",
            file=sys.stderr,
        )


def _draw_panel(panel: Any, labels: Mapping[Row, str], key: str) -> None:
    points = {
        row: (float(getattr(row, key)), 100 * (row.accuracy or 0.0))
        for row in labels
        if getattr(row, key)
    }
    # Draw steps, because there is no model between two points.
    if sound := _sound_frontier(points):
        panel.step(*zip(*sound, strict=True), where="post", color=figures.GREY, lw=1, zorder=1)
    for place, (row, text) in enumerate(labels.items(), 1):
        if row not in points:
            continue
        failed = row.passed is False
        label = f"{place}  {figures.literal(text)}{', FAILED its check' * failed}"
        style: dict[str, Any] = {"color": f"C{place - 1}", "zorder": 2, "clip_on": False}
        panel.plot(*points[row], "x" if failed else "o", label=label, **style)
        panel.annotate(str(place), points[row], xytext=(4, 4), textcoords="offset points")
    panel.set(xlabel=_COSTS[key], xscale="log")
    panel.margins(x=0.1)


def _sound_frontier(points: Mapping[Row, tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the frontier without the files that failed their check."""
    return frontier([point for row, point in points.items() if row.passed is not False])


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return limits a little wider than these percentages, by at least half a point."""
    space = max(0.15 * (max(values) - min(values)), 0.5)
    return max(min(values) - space, 0), min(max(values) + space, 100)


def as_dicts(compared: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain values, for `--json`."""
    return [asdict(row) for row in compared]


if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["compare", *sys.argv[1:]]))

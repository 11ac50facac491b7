"""Runs, exports and exported files side by side: accuracy, size, cost and speed, as recorded.

keras-resnet compare RUN1 RUN2/exports FILE [--picture frontier.svg]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_resnet.errors import UserError, require
from keras_resnet.export import manifest
from keras_resnet.export.runtimes.keras import load_keras
from keras_resnet.files import replacing, require_file_target, short_names
from keras_resnet.recipes.configs.schema import shown_name
from keras_resnet.recipes.runs.folder import Run, find_run, is_run

_COSTS = {"bytes": "bytes", "latency_ms": "ms, one image"}  # a panel each, and its label


@dataclass(frozen=True)
class Row:
    """One model file; None is not known.

    Attributes:
        name: the path as it was given, and the file.
        accuracy: of the images `measured_on`.
        measured_on: which images.
        parameters: of the network.
        multiply_adds: for one image.
        bytes: of the file.
        bytes_gzipped: of the file, compressed.
        latency_ms: median for one image, when it, or the run's model, was exported.
        machine: where that was.
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


def rows(references: Iterable[str | Path]) -> list[Row]:
    """Collect what was recorded of each reference.

    Args:
        references: finished runs (their `model.keras`), export folders (all their files), and files
            in export folders.

    Returns:
        A `Row` for each file, in the order of the references and of the manifests.

    Raises:
        UserError: something else.
    """
    return [row for reference in references for row in _rows_of(Path(reference))]


def _rows_of(path: Path) -> list[Row]:
    if is_run(path):
        return [_of_run(find_run(path))]
    if (path / manifest.MANIFEST).is_file():
        return _of_export(path, None)
    if path.exists() and (path.parent / manifest.MANIFEST).is_file():
        return _of_export(path.parent, path.name)
    raise UserError(
        f"{path} is neither a run folder, an export folder nor a file in one: nothing is recorded "
        "of it. Make an export: keras-resnet export MODEL"
    )


def _of_run(run: Run) -> Row:
    run.require_finished()
    summary = run.summary()
    cost = manifest.cost(load_keras(run.model))
    count = f"{summary['test']['n']:,}"  # an export says how many of how many it took
    test = f"{count} of the {count} test images of {shown_name(summary['data'])}"
    name = f"{run.name}/{run.model.name}"
    known: dict[str, Any] = {**cost, **manifest.sizes(run.model), **_timed(run)}
    return Row(name=name, accuracy=summary["test"]["accuracy"], measured_on=test, **known)


def _timed(run: Run) -> dict[str, Any]:
    """The time of the run's model, which its export measured; nothing if there is none."""
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
        )
        for item in content["files"]
        if only in (None, item["file"])
    ]
    if not found:
        raise UserError(f"{folder / manifest.MANIFEST} does not list '{only}'.")
    return found


def warnings(compared: Sequence[Row]) -> list[str]:
    """Why figures of these rows should not be compared."""
    found = []
    if len({row.measured_on for row in compared if row.accuracy is not None}) > 1:
        found.append("the accuracies were measured on different images")
    if len({row.machine for row in compared if row.machine}) > 1:
        found.append("the times were measured on different machines")
    return found


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, accuracy) the points that no other beats in both, by growing cost."""
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best


def require_drawable(out: Path) -> None:
    """Refuse what `draw` cannot write; to be asked before the models are loaded.

    Raises:
        UserError: an ending that matplotlib does not write, or see `require_file_target`.
        MissingExtraError: matplotlib is not installed.
    """
    canvas = require("matplotlib.backend_bases", "report").FigureCanvasBase
    if out.suffix.lstrip(".") not in canvas.get_supported_filetypes():
        raise UserError(f"A picture is written as .svg, .png or .pdf; received '{out.suffix}'.")
    require_file_target(out, "--picture")


def draw(compared: Sequence[Row], out: Path) -> None:
    """Draw accuracy against bytes and, where any is known, milliseconds; the frontier of each.

    Points are numbered, with a legend below. What has no time is named on stderr.

    Raises:
        UserError: no row has an accuracy, or see `require_drawable`.
        MissingExtraError: matplotlib is not installed.
    """
    require_drawable(out)
    matplotlib: Any = require("matplotlib", "report")
    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.hashsalt": "keras_resnet", "svg.fonttype": "none"}
    pyplot = require("matplotlib.pyplot", "report")
    known = [row for row in compared if row.accuracy is not None]
    if not known:
        raise UserError("None of these has an accuracy to draw.")
    labels = dict(zip(known, short_names([row.name for row in known]), strict=True))
    _name_untimed(labels)
    costs = [key for key in _COSTS if any(getattr(row, key) for row in known)]
    size = (6 * len(costs), 4 + 0.2 * len(labels))
    shared: Any = {"sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = pyplot.subplots(1, len(costs), figsize=size, **shared)
    for panel, key in zip(axes[0], costs, strict=True):
        _draw_panel(panel, labels, key)
    axes[0, 0].set(ylabel="accuracy (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left", fontsize=8)
    with replacing(out) as partial:
        figure.savefig(partial, format=out.suffix.lstrip("."))
    pyplot.close(figure)


def _name_untimed(labels: Mapping[Row, str]) -> None:
    if names := [text for row, text in labels.items() if not row.latency_ms]:
        print(
            f"The picture has no time of {', '.join(names)}: keras-resnet export measures it.",
            file=sys.stderr,
        )


def _draw_panel(panel: Any, labels: Mapping[Row, str], key: str) -> None:
    points = {
        f"{number}  {text}": (float(getattr(row, key)), 100 * (row.accuracy or 0.0))
        for number, (row, text) in enumerate(labels.items(), 1)
        if getattr(row, key)
    }
    # In steps: between two of them there is no model.
    steps = list(zip(*frontier(list(points.values())), strict=True))
    panel.step(*steps, where="post", color="0.6", lw=1, zorder=1)
    for text, point in points.items():
        number = text.partition(" ")[0]
        panel.plot(*point, "o", color=f"C{int(number) - 1}", label=text, zorder=2)
        panel.annotate(number, point, xytext=(4, 4), textcoords="offset points", fontsize=8)
    panel.set(xlabel=_COSTS[key], xscale="log")
    panel.tick_params(axis="x", which="both", labelsize=8)
    panel.grid(alpha=0.3)
    panel.margins(x=0.1, y=0.15)


def as_dicts(compared: Sequence[Row]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [asdict(row) for row in compared]


if __name__ == "__main__":
    from keras_resnet.cli.main import main

    sys.exit(main(["compare", *sys.argv[1:]]))

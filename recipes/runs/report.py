"""One page about a finished run: report.html, which needs nothing beside it.

keras-resnet report RUN [--out FILE.html]
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import string
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.analysis.explain import explain
from keras_resnet.analysis.profile import profile
from keras_resnet.display import figures, sheets
from keras_resnet.display.console import number, verdict
from keras_resnet.errors import UserError, require
from keras_resnet.export import manifest
from keras_resnet.export.runtimes.keras import KerasRuntime, load_keras
from keras_resnet.files import expanded, replacing, require_file_target
from keras_resnet.recipes.configs.schema import shown_name
from keras_resnet.recipes.data.datasets import AnySplit, configured_dataset
from keras_resnet.recipes.runs import outcomes, report_figures, seen, sources
from keras_resnet.recipes.runs.folder import Run

_MISTAKES = 12
_TEMPLATE = Path(__file__).with_suffix(".html")


def write(run: Run, out: str | Path | None = None) -> Path:
    """Write the report of a finished run: curves, confusions, calibration, mistakes, files, cost.

    The test split is read once more, for what the model takes for what. Where tf-keras-vis is
    installed, a heat map (Grad-CAM) stands beside each mistake.

    Args:
        run: a run with a model.
        out: the page; default `report.html` in the run's folder.

    Returns:
        The page's path.

    Raises:
        UserError: the run is not finished, its data is not there, or `out` cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "report")
    run.require_finished()
    run.summary()  # without one it ends here, not after the work
    path = expanded(out or run.path / "report.html")
    require_file_target(path)
    dataset = configured_dataset(run.config.data)
    model = load_keras(run.model)
    answers = outcomes.collect(KerasRuntime(model), dataset.test)
    trained_on = seen.count(sources.find(str(run.path)), dataset, dataset.test)
    seen.warn(trained_on, len(dataset.test))
    parts = {
        "title": _escape(f"{run.config.model} on {shown_name(run.config.data.name)}"),
        "facts": _facts(run, answers, trained_on),
        "curves": _curves(run),
        **_confusions(answers, dataset.class_names),
        **_calibration(answers),
        **_mistakes(model, dataset.test, answers, dataset.class_names),
        "exports": _exports(run),
        "profile": _profile(model),
        "details": _details(run),
        "created": manifest.now(),
    }
    page = string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(parts)
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _escape(text: object) -> str:
    return html.escape(str(text))


def _curves(run: Run) -> str:
    rows = _numbers(run.rows())
    return report_figures.curves(rows) if rows else "<p>log.csv is gone, or has no epoch.</p>"


def _numbers(rows: Iterable[dict[str, Any]]) -> list[dict[str, float]]:
    """The log's rows as numbers; NaN where a column has none."""

    def parse(text: Any) -> float:
        try:
            return float(text)
        except (TypeError, ValueError):
            return float("nan")

    return [{key: parse(value) for key, value in row.items()} for row in rows]


def _facts(run: Run, answers: outcomes.Outcomes, trained_on: int | None) -> str:
    summary = run.summary()
    validation = summary["validation"]
    facts = {
        **_test_accuracy(answers, summary["test"]),
        "of these were trained on": number(trained_on, ","),
        "validation accuracy": number(validation and validation["accuracy"], ".2%"),
        "parameters": f"{summary['parameters']:,}",
        "steps": f"{summary['steps']:,}",
        "training": f"{summary['training_seconds'] / 60:.1f} min",
        "precision": summary["precision"],
    }
    return "".join(
        f"<div><b>{_escape(value)}</b><span>{_escape(name)}</span></div>"
        for name, value in facts.items()
    )


def _test_accuracy(answers: outcomes.Outcomes, trained: dict[str, Any]) -> dict[str, str]:
    """What the page measured, and what the summary says if that is something else."""
    now = {f"test accuracy, {len(answers.labels):,} images": f"{answers.accuracy:.2%}"}
    name, value = f"test accuracy, {trained['n']:,} images", f"{trained['accuracy']:.2%}"
    if now == {name: value}:
        return now
    print(
        f"warning: the summary's test accuracy is {value} on {trained['n']:,} images: the data, or "
        "the machine, is another than the run's",
        file=sys.stderr,
    )
    return {**now, f"{name}, when it was trained": value}


def _confusions(answers: outcomes.Outcomes, names: Sequence[str]) -> dict[str, str]:
    rows = [(names[is_], names[taken], f"{count:,}") for is_, taken, count in answers.confused(12)]
    matrix = report_figures.confusion(answers.confusion(), names)
    note = (
        '<p class="note">Diagonal: percent right of the class. Elsewhere: number of images.</p>'
        if matrix
        else f'<p class="note">{len(names)} classes are too many for a matrix.</p>'
    )
    table = _table(("is", "taken for", "images"), rows) if rows else "<p>No mistake.</p>"
    return {"confusion": (matrix or "") + note, "confused": table}


def _calibration(answers: outcomes.Outcomes) -> dict[str, str]:
    measured = answers.reliability()
    return {
        "reliability": report_figures.reliability(measured),
        "calibration": (
            f"Expected calibration error {measured.error:.2%} ({outcomes.BINS} bins, "
            "arXiv:1706.04599): by how much the confidence differs from the accuracy. Its mean "
            f"confidence is {answers.confidences.mean():.2%}, its accuracy {answers.accuracy:.2%}."
        ),
    }


# The surest mistakes -----------------------------------------------------------------------------


def _mistakes(
    model: keras.Model, split: AnySplit, answers: outcomes.Outcomes, names: Sequence[str]
) -> dict[str, str]:
    places = answers.worst(_MISTAKES)
    if not len(places):
        return {"mistakes": "<p>There are none.</p>", "mistakes_note": ""}
    images = np.concatenate(
        [split.subset(places[i : i + 1]).sample(1).images for i in range(len(places))]
    )
    guesses = answers.guesses[places]
    maps, note = _heat_maps(model, images, guesses)
    figures = []
    for i, place in enumerate(places):
        pictures = [images[i], *([maps[i]] if maps is not None else [])]
        shown = "".join(f'<img alt="" src="{_data_uri(picture)}">' for picture in pictures)
        caption = (
            f"{_escape(names[answers.labels[place]])}, taken for "
            f"<b>{_escape(names[guesses[i]])}</b> ({answers.confidences[place]:.0%})"
        )
        figures.append(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>")
    return {"mistakes": "".join(figures), "mistakes_note": _escape(note)}


def _heat_maps(
    model: keras.Model, images: np.ndarray, classes: np.ndarray
) -> tuple[list[np.ndarray] | None, str]:
    """An overlay for each image, or None where they cannot be drawn; and what the page says."""
    try:
        maps = explain(model, images, ("gradcam",), classes=classes.tolist())
    except UserError as error:  # not installed, or a network that is no chain of feature maps
        note = f"No heat maps: {error}"
        print(note, file=sys.stderr)
        return None, note
    overlays = [sheets.overlay(i, m) for i, m in zip(images, maps["gradcam"], strict=True)]
    return (
        overlays,
        "Beside each image what spoke for the wrong class (Grad-CAM, arXiv:1610.02391).",
    )


def _data_uri(picture: np.ndarray) -> str:
    images = require("PIL.Image", "report")
    file = io.BytesIO()
    array = picture[..., 0] if picture.shape[-1] == 1 else picture
    images.fromarray(array.astype("uint8")).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


# The rest ----------------------------------------------------------------------------------------


def _exports(run: Run) -> str:
    folder = run.path / "exports"
    if not (folder / manifest.MANIFEST).is_file():
        name = shown_name(str(run.name))
        return f"<p>None yet: <code>keras-resnet export {_escape(name)}</code></p>"
    content = manifest.read(folder)
    rows = [
        (
            item["file"],
            f"{item['bytes']:,}",
            f"{item['bytes_gzipped']:,}",
            number(item["accuracy"], ".2%"),
            number(item["agreement"], ".2%"),
            number(item["latency_ms"], ".3f"),
            verdict(item),
        )
        for item in content["files"]
    ]
    header = ("file", "bytes", "gzipped", "accuracy", "agreement", "ms", "check")
    check = content["check"]
    note = (
        f"On {check['n']:,} {check['images']}; ms for one image, on one thread (TensorFlow: on "
        f"all), on {content['machine']}."
    )
    notes = [note, *manifest.failures(content)]
    return _table(header, rows) + "".join(f'<p class="note">{_escape(x)}</p>' for x in notes)


def _profile(model: keras.Model) -> str:
    try:
        return figures.svg(profile(model).figure())
    except UserError as error:  # a network trained quantized has operations without a rule
        return f"<p>{_escape(error)}</p>"


def _details(run: Run) -> str:
    """What is written down of the run; of paths the last part, as others may read the page."""
    parts = {
        "The config": _without_places((run.path / "config.toml").read_text(encoding="utf-8")),
        "The summary": _without_places(json.dumps(run.summary(), indent=2, ensure_ascii=False)),
        "The machine that wrote this page, after the training": json.dumps(
            manifest.environment(), indent=2
        ),
    }
    return "".join(
        f"<details><summary>{_escape(name)}</summary><pre>{_escape(text)}</pre></details>"
        for name, text in parts.items()
    )


def _without_places(text: str) -> str:
    """JSON or TOML with the last part of each string that is an absolute path."""
    return re.sub(r'(?<=")/[^"\n]+(?=")', lambda match: shown_name(match[0]), text)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{_escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["report", *sys.argv[1:]]))

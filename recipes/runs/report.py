"""The report of a finished run: one page, report.html, without any other files.

keras-resnet report RUN [--out FILE.html]
"""

from __future__ import annotations

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
from keras_resnet.arguments import checked
from keras_resnet.display import figures, sheets
from keras_resnet.display.console import CHECK_HEADER, check_cells, number
from keras_resnet.display.notebook import data_uri, html_table
from keras_resnet.errors import UserError, require
from keras_resnet.export import manifest
from keras_resnet.export.runtimes.keras import KerasRuntime, load_keras
from keras_resnet.files import expanded, replacing, require_file_target
from keras_resnet.recipes.configs.schema import shown_name
from keras_resnet.recipes.data.datasets import AnySplit, configured_dataset
from keras_resnet.recipes.runs import outcomes, report_figures, seen, sources
from keras_resnet.recipes.runs.folder import Run
from keras_resnet.recipes.runs.scores import ACCURACY, deciding, spoken
from keras_resnet.text import for_html

_MISTAKES = 12
_EXAMPLES = 6  # example images of each class
_MOST_STRIPS = 20  # classes with example images
_TEMPLATE = Path(__file__).with_suffix(".html")


@checked
def write(run: Run, out: str | Path | None = None) -> Path:
    """Write the report of a finished run.

    It has the training curves, the confusion matrix, the scores and some images of each class, the
    calibration, the mistakes, the exported files and the cost of each layer. The test split is
    evaluated once more. With tf-keras-vis installed, each mistake has a heat map (Grad-CAM).

    Args:
        run: a finished run with its model.
        out: the page; default `report.html` in the run's folder.

    Returns:
        The page's path.

    Raises:
        UserError: the run is not finished, its data is missing, or `out` cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "report")
    run.require_finished()
    run.summary()  # raises an error now, not after the work
    path = expanded(out or run.path / "report.html")
    require_file_target(path)
    dataset = configured_dataset(run.config.data)
    model = load_keras(run.model)
    answers = outcomes.collect(KerasRuntime(model), dataset.test)
    trained_on = seen.count(sources.find(str(run.path)), dataset, dataset.test)
    seen.warn(trained_on, len(dataset.test))
    parts = {
        "title": for_html(f"{run.config.model} on {shown_name(run.config.data.name)}"),
        "facts": _facts(run, answers, trained_on),
        "curves": _curves(run),
        **_confusions(answers, dataset.class_names),
        **_classes(dataset.test, answers, dataset.class_names),
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


def _curves(run: Run) -> str:
    rows = _numbers(run.rows())
    return report_figures.curves(rows) if rows else "<p>log.csv is missing or has no epoch.</p>"


def _numbers(rows: Iterable[dict[str, Any]]) -> list[dict[str, float]]:
    """Return the columns to draw as numbers; a missing value is NaN."""
    return [{key: float(row.get(key, "nan")) for key in report_figures.COLUMNS} for row in rows]


def _facts(run: Run, answers: outcomes.Outcomes, trained_on: int | None) -> str:
    summary = run.summary()
    validation = summary["validation"]
    key = deciding(summary["test"])
    facts = {
        **({} if key == ACCURACY else {f"test {spoken(key)}": f"{summary['test'][key]:.2%}"}),
        **_test_accuracy(answers, summary["test"]),
        "of them in the training data": number(trained_on, ","),
        f"validation {spoken(key)}": number(validation and validation[key], ".2%"),
        "parameters": f"{summary['parameters']:,}",
        "steps": f"{summary['steps']:,}",
        "training": f"{summary['training_seconds'] / 60:.1f} min",
        "precision": summary["precision"],
    }
    return "".join(
        f"<div><b>{for_html(value)}</b><span>{for_html(name)}</span></div>"
        for name, value in facts.items()
    )


def _test_accuracy(answers: outcomes.Outcomes, trained: dict[str, Any]) -> dict[str, str]:
    """Return the accuracy measured now, and the summary's accuracy if it differs."""
    now = {f"test accuracy, {len(answers.labels):,} images": f"{answers.accuracy:.2%}"}
    name, value = f"test accuracy, {trained['n']:,} images", f"{trained['accuracy']:.2%}"
    if now == {name: value}:
        return now
    print(
        f"warning: the summary's test accuracy is {value} on {trained['n']:,} images. This "
        "measurement differs: the data or the machine has changed since the training",
        file=sys.stderr,
    )
    return {**now, f"{name}, at the time of training": value}


def _confusions(answers: outcomes.Outcomes, names: Sequence[str]) -> dict[str, str]:
    if answers.multi_label:
        note = "An image can have several labels, so no label is taken for another one."
        return {"confusion": "", "confusion_note": note, "confused": ""}
    rows = [(names[is_], names[taken], f"{count:,}") for is_, taken, count in answers.confused(12)]
    matrix = report_figures.confusion(answers.confusion(), names)
    note = (
        "Rows: true class. Columns: predicted class. The diagonal shows the percentage of each "
        "class that is right; other cells show the number of images."
        if matrix
        else f"{len(names):,} classes are too many for a matrix."
    )
    header = ("true", "predicted", "images")
    table = html_table(header, rows, text_columns=2) if rows else "<p>No mistake.</p>"
    return {"confusion": matrix or "", "confusion_note": note, "confused": table}


def _classes(split: AnySplit, answers: outcomes.Outcomes, names: Sequence[str]) -> dict[str, str]:
    scores = answers.per_class()
    shares = (scores.precision, scores.recall, scores.f1)
    rows = [
        (name, *(f"{100 * values[i]:.1f}" for values in shares), f"{scores.n[i]:,}")
        for i, name in enumerate(names)
    ]
    means = (f"{100 * values.mean():.1f}" for values in shares)
    rows.append(("mean of the classes", *means, f"{scores.n.sum():,}"))
    header = ("class", "precision %", "recall %", "F1 %", "n")
    return {"scores": html_table(header, rows), "examples": _examples(split, answers, names)}


def _examples(split: AnySplit, answers: outcomes.Outcomes, names: Sequence[str]) -> str:
    """Return a row of test images for each of the first 20 classes."""
    rows = []
    for label, name in list(enumerate(names))[:_MOST_STRIPS]:
        images = _images(split, answers.examples(label, _EXAMPLES))
        shown = "".join(f'<img alt="" src="{data_uri(image)}">' for image in images)
        rows.append(f"<tr><th>{for_html(name)}</th><td>{shown}</td></tr>")
    more = len(names) - len(rows)
    note = f'<p class="note">and {more:,} more classes</p>' if more else ""
    return f'<table class="examples">{"".join(rows)}</table>{note}'


def _images(split: AnySplit, places: np.ndarray) -> list[np.ndarray]:
    """Return the images at `places`, which count only images that can be decoded."""
    return [image for images, _ in split.batches(places, 64) for image in images.numpy()]


def _calibration(answers: outcomes.Outcomes) -> dict[str, str]:
    measured = answers.reliability()
    return {
        "reliability": report_figures.reliability(measured),
        "calibration": (
            f"Expected calibration error {measured.error:.2%} ({outcomes.BINS} bins, "
            "arXiv:1706.04599): the mean difference between confidence and accuracy. The mean "
            f"confidence is {answers.confidences.mean():.2%}, the accuracy {answers.accuracy:.2%}."
        ),
    }


# The mistakes with the highest confidence --------------------------------------------------------


def _mistakes(
    model: keras.Model, split: AnySplit, answers: outcomes.Outcomes, names: Sequence[str]
) -> dict[str, str]:
    wrong = answers.worst(_MISTAKES)
    if not len(wrong):
        return {"mistakes": "<p>No mistakes.</p>", "mistakes_note": ""}
    several = answers.multi_label
    places, classes = (
        np.divmod(wrong, answers.classes) if several else (wrong, answers.guesses[wrong])
    )
    images = np.stack(_images(split, places))
    maps, note = _heat_maps(model, images, classes)
    figures = []
    for i, (place, label) in enumerate(zip(places, classes, strict=True)):
        pictures = [images[i], *([maps[i]] if maps is not None else [])]
        shown = "".join(f'<img alt="" src="{data_uri(picture)}">' for picture in pictures)
        caption = _caption(answers, place, label, names)
        figures.append(f"<figure>{shown}<figcaption>{for_html(caption)}</figcaption></figure>")
    return {"mistakes": "".join(figures), "mistakes_note": for_html(note)}


def _caption(answers: outcomes.Outcomes, place: int, label: int, names: Sequence[str]) -> str:
    """Return what is wrong about the class `label` in an answer."""
    if not answers.multi_label:
        true = names[answers.labels[place]]
        return sheets.title(names[label], answers.confidences[place], true)
    confidence = answers.confidences[place, label]
    if answers.guesses[place, label]:
        return f"{sheets.title(names[label], confidence)}, which is no label of it"
    return f"{names[label]} (true) → {sheets.title('no', confidence)}"


def _heat_maps(
    model: keras.Model, images: np.ndarray, classes: np.ndarray
) -> tuple[list[np.ndarray] | None, str]:
    """Return an overlay for each image, or None if they cannot be drawn, and a note."""
    try:
        maps = explain(model, images, ("gradcam",), classes=classes.tolist())
    except UserError as error:  # tf-keras-vis is missing, or the network has no feature maps
        note = f"No heat maps: {error}"
        print(note, file=sys.stderr)
        return None, note
    overlays = [sheets.overlay(i, m) for i, m in zip(images, maps["gradcam"], strict=True)]
    return (
        overlays,
        "The heat map beside each image shows the evidence for the predicted class (Grad-CAM, "
        "arXiv:1610.02391).",
    )


# The rest ----------------------------------------------------------------------------------------


def _exports(run: Run) -> str:
    folder = run.path / "exports"
    if not (folder / manifest.MANIFEST).is_file():
        name = shown_name(str(run.name))
        return f"<p>Not exported yet: <code>keras-resnet export {for_html(name)}</code></p>"
    content = manifest.read(folder)
    rows = [check_cells(item) for item in content["files"]]
    check = content["check"]
    note = (
        f"Measured on {check['n']:,} images ({check['images']}). ms: for one image, on one thread "
        f"(TensorFlow: on all), on {content['machine']}."
    )
    notes = [note, *manifest.failures(content)]
    said = "".join(f'<p class="note">{for_html(text)}</p>' for text in notes)
    return f'<div class="stack">{html_table(CHECK_HEADER, rows)}</div>{said}'


def _profile(model: keras.Model) -> str:
    try:
        found = profile(model)
        picture = f'<div class="wide">{figures.svg(found.figure())}</div>'
        return f"{found.stage_html()}{picture}"
    except UserError as error:  # quantization-aware networks have operations that are not counted
        return f"<p>{for_html(error)}</p>"


def _details(run: Run) -> str:
    """Return the run's records as HTML, with shortened paths, because others may read the page."""
    parts = {
        "The config": _without_places((run.path / "config.toml").read_text(encoding="utf-8")),
        "The summary": _without_places(json.dumps(run.summary(), indent=2, ensure_ascii=False)),
        "The machine that wrote this page, after the training": json.dumps(
            manifest.environment(), indent=2
        ),
    }
    return "".join(
        f"<details><summary>{for_html(name)}</summary><pre>{for_html(text)}</pre></details>"
        for name, text in parts.items()
    )


def _without_places(text: str) -> str:
    """Return JSON or TOML text in which every absolute path is cut to its last part."""
    return re.sub(r'(?<=")/[^"\n]+(?=")', lambda match: shown_name(match[0]), text)


if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["report", *sys.argv[1:]]))

"""Choose the options of an int8 file within a budget of accuracy: `export(max_drop=...)`.

The options are tried in a fixed order, and the first that holds is taken: the calibration methods,
then float32 for the layers that add the largest errors (as few as possible), then 16-bit
activations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.display.console import table_text
from keras_resnet.errors import UserError
from keras_resnet.export.check import FileCheck
from keras_resnet.export.formats.table import Source
from keras_resnet.export.formats.tflite.keep_float import INT8_FORMATS
from keras_resnet.export.formats.tflite.options import Quantization
from keras_resnet.export.measure import layer_errors
from keras_resnet.export.reference import Reference
from keras_resnet.export.runtimes.litert import TFLiteRuntime

FLOAT32, INT8, INT16X8 = "tflite-float32", "tflite-int8", "tflite-int16x8"
_METHODS = ("min-max", "percentile", "moving-average")
_LAYERS = (1, 2, 4, 8)  # numbers of layers that are tried in float32
_IMAGES = 32  # images on which the layers' errors are measured
_HEADER = ("options", "drop (points)", "bytes")


@dataclass(frozen=True)
class Trial:
    """One file that was tried.

    Attributes:
        options: the options in words.
        method: the calibration method.
        keep_float: the layers in float32.
        format: "tflite-int8" or "tflite-int16x8".
        drop: loss of accuracy on the check images, in points; without labels, the share of images
            with another answer than the Keras model's, in percent.
        bytes: size of the file.
    """

    options: str
    method: str
    keep_float: tuple[str, ...]
    format: str
    drop: float
    bytes: int


def search(source: Source, reference: Reference, max_drop: float) -> list[Trial]:
    """Try options until one keeps the drop within `max_drop` points; the last trial may hold.

    Args:
        source: the source of the files, with its calibration images.
        reference: the check images, with the Keras model's answers.
        max_drop: largest loss of accuracy, in points; see `Trial.drop`.

    Returns:
        The trials in order. Only the last one can be within the budget.
    """
    trials: list[Trial] = []
    for options, quantization, kind in _options(source, trials):
        path = _write(source, kind, quantization)
        drop = _measured(TFLiteRuntime(path).predict(reference.images), reference)
        size, kept = path.stat().st_size, tuple(quantization.keep_float)
        trials.append(Trial(options, quantization.method, kept, kind, drop, size))
        print(f"{options}: {drop:.2f} points, {size:,} bytes", file=sys.stderr)
        if drop <= max_drop:
            break
    return trials


def best(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the smallest drop; among equals the first."""
    return min(trials, key=lambda trial: trial.drop)


def table(trials: Sequence[dict[str, Any]], max_drop: float) -> str:
    """Return the trials of a manifest as a text table."""
    rows = [[t["options"], f"{t['drop']:.2f}", f"{t['bytes']:,}"] for t in trials]
    return table_text(f"Tried: at most {max_drop:g} points", _HEADER, rows)


def for_manifest(trials: Sequence[Trial], max_drop: float) -> dict[str, Any]:
    """Return the manifest's entry on the search."""
    tried = [{**asdict(trial), "keep_float": list(trial.keep_float)} for trial in trials]
    return {"max_drop": max_drop, "tried": tried}


def judged(checks: Sequence[FileCheck], reference: Reference, max_drop: float) -> list[FileCheck]:
    """Return the checks; integer files that lose more than `max_drop` points get a problem."""
    return [_judged(item, reference, max_drop) for item in checks]


def _judged(item: FileCheck, reference: Reference, max_drop: float) -> FileCheck:
    measured = item.n and item.format in (*INT8_FORMATS, INT16X8)
    if not measured or item.agreement is None:
        return item
    drop = _drop(item.accuracy, item.agreement, reference)
    if drop <= max_drop:
        return item
    problem = (
        f"it loses {drop:.2f} points on the check images, more than the {max_drop:g} allowed "
        "(max_drop, --max-drop)"
    )
    return replace(item, problems=(*item.problems, problem))


def require(max_drop: float | None, formats: Sequence[str], has_ranges: bool) -> None:
    """Check the budget and that it can be used.

    Raises:
        UserError: a budget below 0, no int8 file among the formats, or a quantization-aware model.
    """
    if max_drop is None:
        return
    if not 0 <= max_drop <= 100:
        raise UserError(f"max_drop must be from 0 to 100 points; received {max_drop}.")
    if INT8 not in formats:
        raise UserError(
            f"max_drop chooses the options of {INT8}; received the formats {', '.join(formats)}. "
            f"Add {INT8}, or drop max_drop."
        )
    if has_ranges:
        raise UserError(
            "max_drop does not apply to a quantization-aware model, whose ranges were trained. "
            "Drop it; the check shows the accuracy."
        )


def _options(source: Source, trials: list[Trial]) -> Iterator[tuple[str, Quantization, str]]:
    """Yield (options in words, quantization, format) in the order of the search."""
    start = source.quantization
    for method in _METHODS:
        yield method, replace(start, method=method), INT8
    method = best(trials).method
    chosen = replace(start, method=method)
    worst = _worst_layers(source, chosen)
    for count in (count for count in _LAYERS if count <= len(worst)):
        kept = tuple(dict.fromkeys([*start.keep_float, *worst[:count]]))
        words = f"{method}, float32: {', '.join(kept)}"
        yield words, replace(chosen, keep_float=kept), INT8
    yield "16-bit activations", start, INT16X8


def _write(source: Source, kind: str, quantization: Quantization) -> Path:
    """Write a file to the scratch folder; `source` keeps it for the format that is written last."""
    source.quantization = quantization
    path = source.scratch / f"trial-{kind}.tflite"
    path.write_bytes(source.converted(source.for_tflite, kind.removeprefix("tflite-")))
    return path


def _worst_layers(source: Source, quantization: Quantization) -> list[str]:
    """Return the layers in the order of the errors that they add to the int8 file."""
    exact, quantized = (_write(source, kind, quantization) for kind in (FLOAT32, INT8))
    images = np.asarray(source.calibration)[:_IMAGES]
    found = layer_errors.measure(exact, quantized, images)
    layers = [row.layer for row in found.worst() if row.operation != "INPUT"]
    return list(dict.fromkeys(layers))


def _measured(outputs: np.ndarray, reference: Reference) -> float:
    answers, labels = reference.answers, reference.labels
    accuracy = None if labels is None else answers.accuracy(outputs, labels)
    same = answers.same(outputs, reference.outputs, one=reference.one_class)
    return _drop(accuracy, float(same.mean()), reference)


def _drop(accuracy: float | None, agreement: float, reference: Reference) -> float:
    """Return the drop of a file; see `Trial.drop`."""
    if accuracy is None or reference.accuracy is None:
        return 100 * (1 - agreement)
    return 100 * (reference.accuracy - accuracy)

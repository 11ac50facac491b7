"""Read summary.json and start.json of a run, which may come from somebody else.

Only the fields that this package reads are described here. All of them are optional in start.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_resnet.files import read_json, require_fit
from keras_resnet.recipes.runs.scores import ACCURACY, AVERAGE_PRECISION

STARTED_FROM = "started_from"  # key in start.json: the run folder of the start model
_TEXT = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
_SHARE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_SIDE = {"type": ["integer", "null"], "minimum": 0, "maximum": 2**16}
_FIELDS = {
    "technique": _TEXT,
    "teacher": _TEXT,
    STARTED_FROM: _TEXT,
    "kernels": {"type": "object", "properties": {"zeros": _SHARE}},
    "pruned_filters": {
        "type": "object",
        "properties": {
            "multiply_adds": {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2}
        },
        "required": ["multiply_adds"],
    },
}
_RATIO = {"type": "number", "minimum": 0, "maximum": 1}
_MEASURED = {ACCURACY: _RATIO, AVERAGE_PRECISION: _RATIO, "n": _COUNT}
# With several labels for each image, the score is the mean average precision.
_SCORED = {
    "required": ["n"],
    "anyOf": [{"required": [ACCURACY]}, {"required": [AVERAGE_PRECISION]}],
}
_PROTOCOL = {"type": ["object", "null"], "properties": {"resize": _SIDE, "size": _SIDE}}
_SUMMARY = {
    "type": "object",
    "properties": {
        **_FIELDS,
        "data": {"type": "string"},
        "parameters": _COUNT,
        "steps": _COUNT,
        "best_epoch": {"type": ["integer", "null"]},
        "seconds": {"type": "number", "minimum": 0},
        "training_seconds": {"type": "number", "minimum": 0},
        "precision": {"type": "string"},
        "validation": {
            "type": ["object", "null"],
            "properties": _MEASURED,
            **_SCORED,
        },
        "test": {
            "type": "object",
            "properties": {**_MEASURED, "protocol": _PROTOCOL},
            **_SCORED,
        },
    },
    "required": ["data", "parameters", "steps", "best_epoch", "precision", "validation", "test"],
    "anyOf": [{"required": ["training_seconds"]}, {"required": ["seconds"]}],
}


def summary(path: Path) -> dict[str, Any]:
    """Return the content of a summary.json.

    Raises:
        UserError: it is damaged, or a field has another type.
    """
    return _fitting(path, _SUMMARY)


def about_start(path: Path) -> dict[str, Any]:
    """Return the content of a start.json.

    Raises:
        UserError: it is damaged, or a field has another type.
    """
    return _fitting(path, {"type": "object", "properties": _FIELDS})


def _fitting(path: Path, schema: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path)
    require_fit(path, content, schema)
    return content

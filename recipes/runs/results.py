"""Read summary.json and start.json of a run, which may come from somebody else.

Only the fields that this package reads are described here. All of them are optional in start.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_resnet.files import read_json, require_fit

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
_MEASURED = {"accuracy": {"type": "number", "minimum": 0, "maximum": 1}, "n": _COUNT}
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
            "required": [*_MEASURED],
        },
        "test": {
            "type": "object",
            "properties": {**_MEASURED, "protocol": _PROTOCOL},
            "required": [*_MEASURED],
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

"""Read runs of earlier versions, which counted epochs from 0.

Their log.csv has a column `seconds`: the training time of an epoch without its validation, or the
rest of it after an interruption. Their summary.json has the total as `seconds`. Today's runs have
the total so far as `training_seconds` in both files, and count epochs from 1. So the name tells the
versions apart.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_resnet.files import replacing


def rows(log: list[dict[str, str]]) -> list[dict[str, str]]:
    """Convert a log's rows to today's form; `training_seconds` then lacks the validation time."""
    if not any("seconds" in row for row in log):
        return log
    totals = accumulate(float(row.get("seconds", 0)) for row in log)
    return [
        {key: value for key, value in row.items() if key != "seconds"}
        | {"epoch": str(int(row["epoch"]) + 1), "training_seconds": f"{total:.1f}"}
        for row, total in zip(log, totals, strict=True)
    ]


def summary(content: dict[str, Any]) -> dict[str, Any]:
    """Convert a summary to today's form: the best epoch from 1, or None without validation."""
    if "seconds" not in content:
        return content
    content = {"training_seconds" if k == "seconds" else k: v for k, v in content.items()}
    return content | {"best_epoch": content["best_epoch"] + 1 or None}


def renumber_events(folder: Path) -> None:
    """Renumber the epochs in TensorBoard's files from 1 if they count from 0.

    Then a resumed run has continuous curves.
    """
    files = {path: _events(path) for path in folder.glob("*/events.out.tfevents.*")}
    if not any(_is_of_an_epoch(x) and x.step == 0 for events in files.values() for x in events):
        return
    for path, events in files.items():
        with replacing(path) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
            for event in events:
                event.step += _is_of_an_epoch(event)  # other events count steps
                writer.write(event.SerializeToString())


def _events(path: Path) -> list[Any]:
    found = []
    with suppress(tf.errors.DataLossError):  # the process was killed while writing the last event
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            found.append(tf.compat.v1.Event.FromString(record))
    return found


def _is_of_an_epoch(event: Any) -> bool:
    return any(value.tag.startswith("epoch_") for value in event.summary.value)

"""log.csv of a run: a row per finished epoch, counted from 1."""

from __future__ import annotations

import csv
from pathlib import Path

from keras_resnet.files import replacing
from keras_resnet.recipes.runs import earlier

# Keras' logger, which earlier runs used as it is, writes "NA" where there is no validation split; a
# row that was added to such a log since then is shorter.
_UNKNOWN = (None, "", "NA")


def read(path: Path) -> list[dict[str, str]]:
    """The rows, each without what it has not measured; none where there is no log."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row.get("epoch") or "").isdigit()]
    return earlier.rows(
        [{key: value for key, value in row.items() if value not in _UNKNOWN} for row in rows]
    )


def keep(path: Path, epochs: int) -> None:
    """Leave the rows of the first `epochs`; a resumed run does the others again.

    The log is then one of this version, with the columns that Keras' logger goes on with.
    """
    rows = [row for row in read(path) if int(row["epoch"]) <= epochs]
    if not rows:  # the next row brings a header
        path.unlink(missing_ok=True)
        return
    columns = {key for row in rows for key in row} - {"epoch"}
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *sorted(columns)])
        writer.writeheader()
        writer.writerows(rows)

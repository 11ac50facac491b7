"""Read and cut log.csv of a run: a row per finished epoch, counted from 1."""

from __future__ import annotations

import csv
from pathlib import Path

from keras_resnet.files import replacing
from keras_resnet.recipes.runs import earlier

# Keras' own logger, which earlier runs used, writes "NA" without a validation split. Rows that were
# added to such a log later are shorter.
_UNKNOWN = (None, "", "NA")


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows without missing values; an empty list without a log."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row.get("epoch") or "").isdigit()]
    return earlier.rows(
        [{key: value for key, value in row.items() if value not in _UNKNOWN} for row in rows]
    )


def keep(path: Path, epochs: int) -> None:
    """Keep only the rows of the first `epochs`; a resumed run repeats the others.

    The log then has this version's form, with the columns that Keras' logger continues.
    """
    rows = [row for row in read(path) if int(row["epoch"]) <= epochs]
    if not rows:  # the next row will write a header
        path.unlink(missing_ok=True)
        return
    columns = {key for row in rows for key in row} - {"epoch"}
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *sorted(columns)])
        writer.writeheader()
        writer.writerows(rows)

"""Read and cut log.csv of a run: a row per finished epoch, counted from 1."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.files import replacing
from keras_resnet.recipes.runs import earlier

# Keras' own logger, which earlier runs used, writes "NA" without a validation split. Rows that were
# added to such a log later are shorter.
_UNKNOWN = (None, "", "NA")


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows without missing values; an empty list without a log.

    Raises:
        UserError: the log is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if (row.get("epoch") or "").isdecimal()]
    except (csv.Error, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    rows = [{key: row[key] for key in row if key and row[key] not in _UNKNOWN} for row in rows]
    if rows and _odd(rows[-1]):
        del rows[-1]  # the process was killed while it wrote
    for row in rows:
        if odd := _odd(row):
            raise _damaged(path, f"'{odd}' of epoch {row['epoch'][:9]} is not a number")
    return earlier.rows(rows)


def _odd(row: dict[str, str]) -> str | None:
    """Return the first column whose value is not a finite number."""
    for key, value in row.items():
        try:
            if math.isfinite(float(value)):
                continue
        except ValueError:
            pass
        return key
    return None


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged: {reason}. Restore it, or delete it and lose its epochs.")


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

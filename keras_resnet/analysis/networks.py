"""The table of all networks: their sizes, and the accuracy of their best weights. Builds nothing.

`networks.json` has the counts; `python tests/golden/complexity.py` writes it, and tests compare it
with the networks. The accuracies are those of the weights' catalog. No import here loads Keras.
"""

from __future__ import annotations

import csv
import fnmatch
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from keras_resnet import registry
from keras_resnet.arguments import checked
from keras_resnet.display import figures
from keras_resnet.display.console import number, table_text
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.files import replacing
from keras_resnet.weights import catalog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FILE = Path(__file__).with_name("networks.json")
_HEADER = ("network", "parameters", "multiply-adds (M)", "pixels", "top-1 %", "weights")
_INT8_HEADER = ("int8 bytes", "int8 ms")
_LABEL_HEIGHT = 0.03  # of a name in the picture, as a share of the height
NOTES = (
    "top-1: accuracy of the best weights in percent, one crop; imagenet: as published, not "
    "measured by us; cifar10: measured by us on the 10,000 test images."
)


@dataclass(frozen=True)
class Row:
    """One network of the table.

    Attributes:
        name: registry name.
        family: the kind of network, such as "resnet" or "densenet".
        summary: short description.
        source: arXiv id, and section or table.
        function: the builder's name in `keras_resnet`; None if only `create_model` builds it.
        input_size: image side in pixels of the counts.
        classes: number of classes of the counts.
        parameters: parameters, with BN's moving statistics.
        trainable: parameters without BN's moving statistics.
        multiply_adds: multiply-adds of convolutions and dense layers, for one image.
        top1: accuracy of the best weights, percent; None without weights.
        weights: their tag, such as "imagenet/torchvision_v2".
        int8_bytes: size of the int8 `.tflite` file; None if we recorded none.
        int8_ms: time of that file for one image, one thread, milliseconds.
        machine: the machine of `int8_ms`.
    """

    name: str
    family: str
    summary: str
    source: str
    function: str | None
    input_size: int
    classes: int
    parameters: int
    trainable: int
    multiply_adds: int
    top1: float | None = None
    weights: str | None = None
    int8_bytes: int | None = None
    int8_ms: float | None = None
    machine: str | None = None


# The order of each `--sort`: small networks first, accurate networks first.
SORTS: dict[str, Callable[[Row], float]] = {
    "parameters": lambda row: row.trainable,
    "multiply-adds": lambda row: row.multiply_adds,
    "top1": lambda row: -_top1(row),
    "int8-bytes": lambda row: row.int8_bytes or float("inf"),
    "int8-ms": lambda row: row.int8_ms or float("inf"),
}


class NetworkTable(list[Row]):
    """Rows of the table, in order. `str()` returns the table as text; notebooks show it."""

    def __str__(self) -> str:
        """Return the table as text."""
        header, rows = self._cells()
        return table_text("", header, rows, text_columns=1).lstrip("\n")

    def _repr_html_(self) -> str:
        from keras_resnet.display.notebook import html_table

        return html_table(*self._cells(), caption=NOTES)

    def to_csv(self, path: str | Path) -> None:
        """Write every field of every row to a CSV file.

        Raises:
            OSError: the file cannot be written.
        """
        with (
            replacing(Path(path)) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in self)

    def figure(self) -> Figure:
        """Draw top-1 against multiply-adds, one panel for each data set of the weights.

        Raises:
            UserError: no network of the table has weights.
        """
        panels = sorted({_data(row) for row in self if row.weights}, reverse=True)
        if not panels:
            raise UserError(
                "No network of this table has weights, so there is no accuracy to plot. Try "
                "keras-resnet list --weights imagenet --picture FILE.svg"
            )
        with figures.style():
            figure = figures.new(5.2 * len(panels), 5.0)
            axes = figure.subplots(1, len(panels), squeeze=False)[0]
            for panel, data in zip(axes, panels, strict=True):
                _draw(panel, data, [row for row in self if row.weights and _data(row) == data])
        return figure

    def picture(self, path: str | Path) -> None:
        """Write `figure` to a .svg, .png or .pdf file.

        Raises:
            UserError: see `figure`, or another kind of file.
        """
        figures.save(self.figure(), Path(path))

    def _cells(self) -> tuple[tuple[str, ...], list[list[str]]]:
        measured = any(row.int8_bytes for row in self)
        rows = []
        for row in self:
            cells = [
                row.name,
                f"{row.trainable:,}",
                f"{row.multiply_adds / 1e6:,.1f}",
                str(row.input_size),
                number(row.top1, ".2f"),
                row.weights or "–",
            ]
            if measured:
                cells[5:5] = [number(row.int8_bytes, ","), number(row.int8_ms, ".3f")]
            rows.append(cells)
        return (*_HEADER[:5], *(_INT8_HEADER if measured else ()), *_HEADER[5:]), rows


def chosen(pattern: str = "*", pretrained: bool = False) -> NetworkTable:
    """Return the rows whose names match a shell pattern; upper and lower case are equal.

    Args:
        pattern: e.g. `"resnetv2_*"`.
        pretrained: True returns only networks that have weights in the catalog.
    """
    return NetworkTable(
        row
        for row in _rows()
        if fnmatch.fnmatchcase(row.name, pattern.lower()) and (row.weights or not pretrained)
    )


@overload
def list_models(
    pattern: str = "*", pretrained: bool = False, *, table: Literal[False] = False
) -> list[str]: ...
@overload
def list_models(
    pattern: str = "*", pretrained: bool = False, *, table: Literal[True]
) -> NetworkTable: ...
@checked
def list_models(
    pattern: str = "*", pretrained: bool = False, *, table: bool = False
) -> list[str] | NetworkTable:
    """Return the registry names that match a shell pattern.

    Args:
        pattern: e.g. `"resnetv2_*"`. Upper and lower case are equal.
        pretrained: True returns only networks that have weights in the catalog.
        table: True returns a table with sizes and accuracies instead: a list of rows with
            `to_csv(FILE)` and `picture(FILE)`. A notebook shows it.
    """
    return chosen(pattern, pretrained) if table else registry.list_models(pattern, pretrained)


def families() -> list[str]:
    """Return the names of the families, in the order of the table."""
    return list(dict.fromkeys(row.family for row in _rows()))


def require_known(name: str) -> None:
    """Refuse a misspelt network at once, before Keras is imported.

    Raises:
        UnknownNameError: there is no network of this name in any spelling; see `registry.find`.
    """
    known = [row.name for row in _rows()]
    spellings = set(map(registry.squeezed, known))
    if registry.squeezed(name) not in spellings and "." not in name:
        raise UnknownNameError("model", name, known, "Run 'keras-resnet list' to see all.")


@cache
def _rows() -> tuple[Row, ...]:
    content: dict[str, dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(_row(name, facts) for name, facts in content.items())


def _row(name: str, facts: dict[str, Any]) -> Row:
    known = {field.name for field in fields(Row)}
    published = [(entry.published, entry.tag) for entry in catalog.of_model(name)]
    top1, tag = max(((each.top1, tag) for each, tag in published if each), default=(None, None))
    kept = {key: value for key, value in facts.items() if key in known}
    return Row(name, top1=top1, weights=tag, **kept)


def _data(row: Row) -> str:
    return (row.weights or "").partition("/")[0]


def _draw(panel: Any, data: str, rows: list[Row]) -> None:
    """Draw one panel, with the names of the networks that no cheaper one equals."""
    rated = sorted((row for row in rows if row.top1), key=lambda row: row.multiply_adds)
    panel.set(xscale="log", xlabel="multiply-adds (millions)", ylabel="top-1 accuracy (%)")
    panel.set_title(f"{data}: {'measured' if data == 'cifar10' else 'published'}")
    for family in dict.fromkeys(row.family for row in rated):
        mine = [row for row in rated if row.family == family]
        costs, accuracies = [row.multiply_adds / 1e6 for row in mine], [row.top1 for row in mine]
        panel.plot(costs, accuracies, "o", markersize=4, label=family)
    for row in _named(rated):
        place = (row.multiply_adds / 1e6, row.top1)
        panel.annotate(row.name, place, (-4, 4), textcoords="offset points", ha="right", fontsize=7)
    low, high = (edge / 1e6 for edge in (rated[0].multiply_adds, rated[-1].multiply_adds))
    steps = [step * 10.0**power for power in range(7) for step in (1, 2, 5)]
    ticks = [step for step in steps if low / 2 <= step <= high * 2]
    panel.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlim(low / 2, high * 1.5)
    panel.legend(loc="lower right")


def _named(rated: list[Row]) -> list[Row]:
    """Return the rows to name: more accurate than all cheaper ones, without names that overlap.

    `rated` are rows with an accuracy, in the order of their multiply-adds.
    """
    front: list[Row] = []
    for row in rated:
        if not front or _top1(row) > _top1(front[-1]):
            front.append(row)
    gap = _LABEL_HEIGHT * (max(map(_top1, rated)) - min(map(_top1, rated)))
    named: list[Row] = []
    for row in reversed(front):  # of several close ones, the most accurate keeps its name
        if not named or _top1(named[-1]) - _top1(row) > gap:
            named.append(row)
    return named


def _top1(row: Row) -> float:
    return row.top1 or 0.0

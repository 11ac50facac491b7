"""Charts with matplotlib: the common style, the files, and bar charts.

matplotlib is imported only for drawing. Nothing here uses `pyplot`, so no figure is kept after it
is written, and the user's own settings do not change.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.errors import UserError, missing, require
from keras_resnet.files import replacing, require_file_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EXTRA = "report"
BLUE, ORANGE, GREEN, GREY, INK = "#3d6fb4", "#c9703b", "#4d9a6a", "#777777", "#222222"
_STRIPE = "#f1f1ee"
_CYCLE = (BLUE, ORANGE, GREEN, "#8467a8", "#b0464c", "#4b9fb0", "#a3873a", GREY)
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": f"cycler('color', {list(_CYCLE)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.bbox": "tight",  # the picture is as wide as its longest name needs
    "savefig.dpi": 192,
    "svg.fonttype": "none",  # text stays text: searchable, and in any script
    "svg.hashsalt": "keras_resnet",  # the same figure gives the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
# File suffixes, each with the metadata that would make two files of one figure differ.
_DATES: dict[str, dict[str, None]] = {
    ".svg": {"Date": None},
    ".png": {},
    ".pdf": {"CreationDate": None},
}
# Inches: the height of a row, the longest bar, the value after it, the gap to the next column.
_ROW, _BAR, _VALUE, _GAP = 0.1875, 2.2, 0.75, 0.25


@contextmanager
def style() -> Iterator[None]:
    """Draw and write in the common style, as `with style():` or as a decorator.

    The fonts are those of the user's matplotlib settings. Users can thus add a script that DejaVu
    Sans lacks. A character that no font has becomes a box.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    settings = require("matplotlib", _EXTRA).rcParams
    fonts = {key: settings[key] for key in ("font.family", "font.sans-serif")}
    looks: Any = ["default", {**_STYLE, **fonts}]
    with require("matplotlib.style", _EXTRA).context(looks), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def new(width: float, height: float, layout: str = "constrained") -> Figure:
    """Create a figure. Call it inside `style`.

    Args:
        width, height: size in inches. The written picture is larger if something sticks out.
        layout: matplotlib's layout engine.
    """
    figure: Figure = require("matplotlib.figure", _EXTRA).Figure((width, height), layout=layout)
    return figure


def literal(text: str) -> str:
    """Escape text that matplotlib would read as a formula between dollars.

    Bytes of a file name that are not UTF-8 become question marks.
    """
    return text.encode("utf-8", "replace").decode().replace("$", r"\$")


def require_writable(path: Path) -> None:
    """Refuse a path that `save` cannot write. Call it before a long measurement.

    Raises:
        UserError: the suffix is not `.svg`, `.png` or `.pdf`, or see `require_file_target`.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _DATES:
        raise UserError(
            "A picture must be written as .svg, .png or .pdf; received "
            f"'{path.suffix or path.name}'."
        )
    require_file_target(path, "--picture")
    if error := missing("matplotlib", _EXTRA):
        raise error


@style()
def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format of the suffix. The same figure gives the same bytes.

    Raises:
        UserError: see `require_writable`.
    """
    require_writable(path)
    ending = path.suffix.lower()
    with replacing(path) as partial:
        figure.savefig(partial, format=ending[1:], metadata=_DATES[ending])


@style()
def svg(figure: Figure) -> str:
    """Return the figure as an `<svg>` element for a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=_DATES[".svg"])
    return text.getvalue()[text.getvalue().index("<svg") :]


# Bars --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column of bars with a heading, one bar per row. `label` formats a value."""

    title: str
    values: Sequence[float]
    label: Callable[[Any], str]


@style()
def bars(title: str, names: Sequence[str], columns: Sequence[Column]) -> Figure:
    """Draw one row per name and one column of bars per quantity, side by side.

    All rows have the same height, so that texts never overlap. The bars of a column share a scale.
    """
    height = _ROW * len(names)
    figure = new((_BAR + _VALUE + _GAP) * len(columns), height, layout="none")
    edges: Any = {"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0}
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False, gridspec_kw=edges)[0]
    for index, (panel, column) in enumerate(zip(panels, columns, strict=True)):
        _draw_column(panel, column, f"C{index}")
    panels[0].set_yticks(range(len(names)), [literal(name) for name in names], va="center")
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.text(0, 1 + 0.35 / height, literal(title), weight="bold", size="large")
    return figure


def _draw_column(panel: Any, column: Column, colour: str) -> None:
    longest = max(column.values) or 1
    for row in range(0, len(column.values), 2):
        panel.axhspan(row - 0.5, row + 0.5, color=_STRIPE, linewidth=0)
    rows, outlines = range(len(column.values)), [0.5 * bool(value) for value in column.values]
    # The outline keeps the shortest bar visible. A zero has no outline.
    drawn = panel.barh(rows, column.values, 0.6, color=colour, edgecolor=colour, linewidth=outlines)
    labels = [literal(column.label(value)) if value else "" for value in column.values]
    panel.bar_label(drawn, labels, padding=3)
    panel.set_title(literal(column.title), loc="left", weight="bold")
    panel.set_xlim(0, longest * (_BAR + _VALUE + _GAP) / _BAR)
    panel.set_xticks([])
    panel.tick_params("y", length=0)
    panel.spines[:].set_visible(False)
    panel.grid(visible=False)


def decimal(value: int) -> str:
    """Format a number, e.g. 1,234,567 as "1.23 M"."""
    return _scaled(value, 1000, ("", "k", "M", "G", "T"))


def binary(value: int) -> str:
    """Format a number of bytes, e.g. 1536 as "1.5 KiB"."""
    return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def _scaled(value: int, base: int, units: Sequence[str]) -> str:
    scaled, index = float(value), 0
    while scaled >= base and index < len(units) - 1:
        scaled, index = scaled / base, index + 1
    digits = 0 if index == 0 else max(0, 3 - len(str(int(scaled))))
    return f"{scaled:.{digits}f} {units[index]}".rstrip()

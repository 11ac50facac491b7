"""Bar charts as `.svg`, which needs nothing, or `.png`, which needs Pillow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from keras_resnet.errors import UserError, missing, require
from keras_resnet.files import replacing, require_file_target

_ROW, _FONT, _MARGIN = 18, 12, 16  # pixels
_BAR, _VALUE, _GAP = 210, 70, 24  # widths: the longest bar, the figure after it, between columns
_GLYPH = 0.62  # of the font size: no letter of the sans-serif fonts is wider on average
_COLOURS = ("#3d6fb4", "#4d9a6a", "#c9703b")
_INK, _STRIPE = "#222222", "#f1f1ee"
_SHARPNESS = 2  # pixels of a .png per pixel of the drawing


@dataclass(frozen=True)
class Column:
    """One bar per row; `label` writes a value. The heading has the sum of them, if that is one."""

    title: str
    values: Sequence[float]
    label: Callable[[Any], str]
    summed: bool = True


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True)
class _Text:
    x: float
    y: float  # of the baseline
    text: str
    bold: bool = False


@dataclass(frozen=True)
class Drawing:
    """Boxes and texts, in pixels from the upper left corner."""

    width: int
    height: int
    boxes: list[_Box] = field(default_factory=list)
    texts: list[_Text] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the file that the ending asks for.

        Raises:
            UserError: see `require_writable`.
        """
        require_writable(path)
        write = self._save_png if path.suffix.lower() == ".png" else self._save_svg
        with replacing(path) as partial:
            write(partial)

    def _save_svg(self, path: Path) -> None:
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" font-family="Helvetica, Arial, sans-serif" '
            f'font-size="{_FONT}">',
            f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>',
        ]
        lines += [
            f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:.2f}" height="{box.height:g}" '
            f'fill="{box.colour}"/>'
            for box in self.boxes
        ]
        for text in self.texts:
            weight = ' font-weight="bold"' if text.bold else ""
            lines.append(
                f'<text x="{text.x:g}" y="{text.y:g}" fill="{_INK}"{weight}>'
                f"{escape(text.text)}</text>"
            )
        path.write_text("\n".join([*lines, "</svg>", ""]), encoding="utf-8")

    def _save_png(self, path: Path) -> None:
        image_module = require("PIL.Image", "export")
        draw_module = require("PIL.ImageDraw", "export")
        font = require("PIL.ImageFont", "export").load_default(_FONT * _SHARPNESS)
        k = _SHARPNESS
        image = image_module.new("RGB", (k * self.width, k * self.height), "#ffffff")
        draw = draw_module.Draw(image)
        for box in self.boxes:
            corner = k * (box.x + box.width) - 1, k * (box.y + box.height) - 1
            draw.rectangle((k * box.x, k * box.y, *corner), fill=box.colour)
        for text in self.texts:
            for shift in range(1 + text.bold):  # Pillow's own font has no bold face
                draw.text((k * text.x + shift, k * text.y), text.text, _INK, font, "ls")
        image.save(path)


def require_writable(path: Path) -> None:
    """Refuse what `Drawing.save` cannot write; to be asked before hours of measuring.

    Raises:
        UserError: neither `.svg` nor `.png`, or see `require_file_target`.
        MissingExtraError: a `.png` without Pillow.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise UserError(
            f"A picture is written as .svg or .png (which needs Pillow); received "
            f"'{path.suffix or path.name}'."
        )
    require_file_target(path, "--picture")
    if path.suffix.lower() == ".png" and (error := missing("PIL", "export")):
        raise error


def bars(title: str, names: Sequence[str], columns: Sequence[Column]) -> Drawing:
    """Draw a row per name and, beside each other, a column of bars per quantity.

    Rows have one height, whatever their number, so that no text meets another; the bars of a column
    share a scale, and its heading has their sum.
    """
    left = _MARGIN + round(max(len(name) for name in names) * _FONT * _GLYPH) + _GAP
    top = 3 * _ROW + _MARGIN
    step = _BAR + _VALUE + _GAP
    drawing = Drawing(left + step * len(columns), top + _ROW * len(names) + _MARGIN)
    drawing.texts.append(_Text(_MARGIN, _MARGIN + _FONT, title, bold=True))
    for row, name in enumerate(names):
        y = top + row * _ROW
        if row % 2 == 0:
            stripe = _Box(_MARGIN / 2, y, drawing.width - _MARGIN, _ROW, _STRIPE)
            drawing.boxes.append(stripe)
        drawing.texts.append(_Text(_MARGIN, y + _ROW - 5, name))
    for index, column in enumerate(columns):
        _add_column(drawing, column, left + index * step, top, _COLOURS[index % len(_COLOURS)])
    return drawing


def _add_column(drawing: Drawing, column: Column, x: float, top: float, colour: str) -> None:
    total = f"{column.label(sum(column.values))} " if column.summed else ""
    heading = total + column.title
    drawing.texts.append(_Text(x, top - 10, heading, bold=True))
    longest = max(*column.values, 1)
    for row, value in enumerate(column.values):
        y = top + row * _ROW
        width = _BAR * value / longest
        if value:
            drawing.boxes.append(_Box(x, y + 3, max(width, 1), _ROW - 6, colour))
            drawing.texts.append(_Text(x + width + 5, y + _ROW - 5, column.label(value)))


def decimal(value: int) -> str:
    """1,234,567 as "1.23 M"."""
    return _scaled(value, 1000, ("", "k", "M", "G", "T"))


def binary(value: int) -> str:
    """Bytes: 1536 as "1.5 KiB"."""
    return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def _scaled(value: int, base: int, units: Sequence[str]) -> str:
    scaled, index = float(value), 0
    while scaled >= base and index < len(units) - 1:
        scaled, index = scaled / base, index + 1
    digits = 0 if index == 0 else max(0, 3 - len(str(int(scaled))))
    return f"{scaled:.{digits}f} {units[index]}".rstrip()

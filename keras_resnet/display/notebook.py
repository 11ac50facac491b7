"""Display of objects in a notebook: small tables, small pictures, and a short text.

A notebook calls `_repr_html_` of the last value in a cell. Nothing here needs IPython.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from PIL import Image

from keras_resnet.display.console import table_text
from keras_resnet.text import for_html

_LINES = 3  # rows shown as text
_ROWS = 100  # rows shown as HTML
_SIDE = 96  # width of a small picture in pixels


def html_table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    caption: str = "",
    text_columns: int = 1,
) -> str:
    """Return a `<table>`. The first `text_columns` are text, the others are aligned as numbers.

    Args:
        header: the name of each column.
        rows: the cells, which are escaped.
        caption: a line above the table.
        text_columns: number of text columns.
    """

    def line(tag: str, cells: Sequence[object]) -> str:
        sides = ["left" if column < text_columns else "right" for column in range(len(cells))]
        return "".join(
            f'<{tag} style="text-align:{side}">{for_html(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )

    title = f'<caption style="text-align:left">{for_html(caption)}</caption>' if caption else ""
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table>{title}<tr>{line('th', header)}</tr>{body}</table>"


def data_uri(picture: np.ndarray) -> str:
    """Return a picture as a PNG in a `data:` address, in its own size.

    Args:
        picture: (height, width, 3 or 1), RGB 0...255.
    """
    file = io.BytesIO()
    array = picture[..., 0] if picture.shape[-1] == 1 else picture
    pixels = np.clip(np.rint(array), 0, 255).astype("uint8")
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def thumbnails(pictures: Sequence[tuple[str, np.ndarray]]) -> str:
    """Return small pictures side by side, each with its label below.

    Args:
        pictures: labels and RGB 0...255 (height, width, 3 or 1).
    """
    cell = "display:inline-block;margin:0 6px 6px 0;text-align:center;vertical-align:top"
    return "".join(
        f'<figure style="{cell};max-width:{_SIDE + 24}px"><img alt="" width="{_SIDE}" '
        f'src="{data_uri(_small(picture))}"><figcaption>{for_html(label)}</figcaption></figure>'
        for label, picture in pictures
    )


def _small(picture: np.ndarray) -> np.ndarray:
    """Return every n-th pixel of a large picture, to keep the notebook's file small."""
    step = max(1, min(picture.shape[:2]) // _SIDE)
    return picture[::step, ::step]


def brief(instance: Any) -> str:
    """Return the text of a dataclass, with arrays as their type and shape.

    For `__repr__`: Outcomes(labels=int64 (10000,), classes=10).
    """
    shown = (f"{field.name}={_value(getattr(instance, field.name))}" for field in fields(instance))
    return f"{type(instance).__name__}({', '.join(shown)})"


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return brief_mapping(value) if isinstance(value, Mapping) else repr(value)


def brief_mapping(values: Mapping[str, Any]) -> str:
    """Return the text of a dictionary, with arrays as their type and shape."""
    return "{" + ", ".join(f"{key!r}: {_value(item)}" for key, item in values.items()) + "}"


class Rows(list[Any]):
    """A list that shows itself as a table. A subclass defines the cells of a row."""

    noun = "row"  # singular
    header: tuple[str, ...] = ()
    text_columns = 1

    def cells(self) -> list[Sequence[str]]:
        """Return the cells of each row."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return the first rows as text."""
        if not self:
            return self._count()
        more = len(self) - _LINES
        text = table_text("", self.header, self.cells()[:_LINES], self.text_columns)
        return text + (f"\n… {more} more {self.noun}s" if more > 0 else "")

    def _repr_html_(self) -> str:
        more = len(self) - _ROWS
        note = f"<p>… {more} more {self.noun}s</p>" if more > 0 else ""
        cells = self.cells()[:_ROWS]
        return html_table(self.header, cells, self._count(), self.text_columns) + note

    def _count(self) -> str:
        return f"{len(self)} {self.noun}{'' if len(self) == 1 else 's'}"

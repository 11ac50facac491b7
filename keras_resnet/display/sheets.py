"""Heat maps over images, and the sheet that shows them beside the network's answers, by Pillow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError, require
from keras_resnet.files import replacing

# From cold to hot, evenly apart; of equal steps in lightness, as matplotlib's "inferno".
_COLOURS = np.array(
    [
        *((0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85)),
        *((227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)),
    ],
    dtype="float32",
)
_SIDE, _GAP, _MARGIN, _LINE, _TEXT = 192, 8, 16, 24, 264  # pixels; the last is the answers' width
_FONT, _INK, _FAINT, _BAR = 16, "#222222", "#777777", "#3d6fb4"
_SMALL = 64  # images below are enlarged with their pixels left visible


def colours(heatmap: np.ndarray) -> np.ndarray:
    """Give each value from 0 (black) over red to 1 (light yellow) its colour.

    Returns:
        uint8 RGB, a last axis more than `heatmap`.
    """
    place = np.clip(heatmap, 0, 1)[..., None] * (len(_COLOURS) - 1)
    low = np.minimum(place.astype(int), len(_COLOURS) - 2)
    part = place - low
    mixed = _COLOURS[low[..., 0]] * (1 - part) + _COLOURS[low[..., 0] + 1] * part
    return np.rint(mixed).astype("uint8")


def overlay(image: np.ndarray, heatmap: np.ndarray, strength: float = 0.75) -> np.ndarray:
    """Lay a heat map over an image in grey: the hotter, the less of the image is left.

    Args:
        image: (height, width, 3 or 1), RGB 0...255.
        heatmap: (height, width), 0...1, as `keras_resnet.explain` gives for one image.
        strength: how much of the colour there is where the map is 1.

    Returns:
        uint8 (height, width, 3).

    Raises:
        UserError: the sizes differ.
    """
    if image.ndim != 3 or image.shape[:2] != heatmap.shape:
        raise UserError(
            f"Expected an image (height, width, channels) and a map of its size, received "
            f"{image.shape} and {heatmap.shape}."
        )
    grey = image.astype("float32").mean(-1, keepdims=True)
    part = strength * np.clip(heatmap, 0, 1)[..., None]
    return np.rint(grey * (1 - part) + colours(heatmap) * part).astype("uint8")


def pixel_map(heatmap: np.ndarray) -> np.ndarray:
    """Colour a map of single pixels (saliency): a few that stick out would leave the rest black.

    Args:
        heatmap: (height, width), 0...1, as `explain` gives for `saliency` and `smoothgrad`.

    Returns:
        uint8 (height, width, 3); what is above 99 % of the values has the hottest colour.
    """
    top = np.percentile(heatmap, 99)
    return colours(heatmap / top if top else heatmap)


def stretched(picture: np.ndarray) -> np.ndarray:
    """Spread an image's values over 0...255; a hundredth at either end is cut off.

    Returns:
        uint8, of the same shape.
    """
    low, high = np.percentile(picture, (1, 99))
    spread = (picture.astype("float32") - low) * (255 / max(high - low, 1))
    return np.clip(np.rint(spread), 0, 255).astype("uint8")


@dataclass(frozen=True)
class Row:
    """One image of a sheet.

    Attributes:
        title: above the image.
        image: RGB 0...255 (height, width, 3 or 1).
        pictures: the title of each column and its picture, RGB 0...255 of any size.
        answers: labels and their probabilities, the highest first.
        explained: the label that the maps are of.
    """

    title: str
    image: np.ndarray
    pictures: Mapping[str, np.ndarray]
    answers: Sequence[tuple[str, float]] = field(default=())
    explained: str = ""


def contact_sheet(rows: Sequence[Row], heading: str = "") -> Any:
    """Draw a row (`keras_resnet.Row`) per image: it, its pictures, its answers; `heading` on top.

    Returns:
        A Pillow image; `save(sheet, path)` writes it.

    Raises:
        UserError: no rows.
        MissingExtraError: Pillow is not installed.
    """
    if not rows:
        raise UserError("A sheet has one row or more; received none.")
    images, draws = require("PIL.Image", "explain"), require("PIL.ImageDraw", "explain")
    columns = max(1 + len(row.pictures) for row in rows)
    top = _MARGIN + (_LINE if heading else 0)
    height = _SIDE + 2 * _LINE
    width = 2 * _MARGIN + columns * (_SIDE + _GAP) + _TEXT
    sheet = images.new("RGB", (width, top + height * len(rows) + _MARGIN), "#ffffff")
    draw = draws.Draw(sheet)
    write = _Writer(draw)
    write.line(_MARGIN, _MARGIN - 4, heading, width - 2 * _MARGIN)
    for index, row in enumerate(rows):
        y = top + index * height
        for column, (title, picture) in enumerate({row.title: row.image, **row.pictures}.items()):
            x = _MARGIN + column * (_SIDE + _GAP)
            write.line(x, y, title, _SIDE)
            sheet.paste(_fitted(picture), (x, y + _LINE))
        _draw_answers(write, row, _MARGIN + columns * (_SIDE + _GAP) + _GAP, y + _LINE)
    return sheet


def save(sheet: Any, path: str | Path) -> None:
    """Write a sheet as the file that the ending asks for: .png, .jpg, ..."""
    with replacing(Path(path)) as partial:
        sheet.save(partial)


class _Writer:
    """Text in one font, cut where there is no room."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.font = require("PIL.ImageFont", "explain").load_default(_FONT)

    def line(self, x: float, y: float, text: str, room: float, colour: str = _INK) -> None:
        """Write `text` below `y`; an ellipsis stands for what goes beyond `room` pixels."""
        shown = text
        while shown and self.font.getlength(shown) > room:
            text = text[:-1]
            shown = text + "…"
        self.draw.text((x, y + 2), shown, colour, self.font)


def _draw_answers(write: _Writer, row: Row, x: float, y: float) -> None:
    room = _TEXT - 2 * _GAP
    for index, (label, probability) in enumerate(row.answers):
        line = y + index * 1.6 * _LINE
        colour = _INK if label == row.explained or not row.explained else _FAINT
        write.line(x, line, f"{probability:7.2%}  {label}", room, colour)
        length = max(room * probability, 1)
        box = (x, line + _LINE, x + length, line + _LINE + 6)
        write.draw.rectangle(box, fill=_BAR if colour == _INK else "#b8c6dc")


def _fitted(picture: np.ndarray) -> Any:
    """A picture as large as its place; of another shape in the middle of it."""
    images, operations = require("PIL.Image", "explain"), require("PIL.ImageOps", "explain")
    array = np.repeat(picture, 3, -1) if picture.shape[-1] == 1 else picture
    small = max(array.shape[:2]) < _SMALL
    how = images.Resampling.NEAREST if small else images.Resampling.LANCZOS
    image = images.fromarray(np.clip(array, 0, 255).astype("uint8"))
    return operations.pad(image, (_SIDE, _SIDE), method=how, color="#ffffff")

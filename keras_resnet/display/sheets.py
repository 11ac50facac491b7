"""Heat maps over images, and the sheet that shows them with the network's predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_resnet.arguments import checked
from keras_resnet.display import figures, notebook
from keras_resnet.errors import UserError, require
from keras_resnet.files import expanded, replacing
from keras_resnet.text import for_html

# From cold to hot in equal steps of lightness, like matplotlib's "inferno".
_COLOURS = np.array(
    [
        *((0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85)),
        *((227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)),
    ],
    dtype="float32",
)
_SIDE, _GAP, _MARGIN, _LINE, _TEXT = 192, 8, 16, 24, 264  # pixels; _TEXT: width of the predictions
_DPI, _FONT = 96, 10.5  # the font size is in points
_PALE = "#b8c6dc"


def colours(heatmap: np.ndarray) -> np.ndarray:
    """Return a colour for each value of `heatmap`: 0 is black, then red, 1 is light yellow.

    Returns:
        uint8 RGB, with one more axis than `heatmap`.
    """
    place = np.clip(heatmap, 0, 1)[..., None] * (len(_COLOURS) - 1)
    low = np.minimum(place.astype(int), len(_COLOURS) - 2)
    part = place - low
    mixed = _COLOURS[low[..., 0]] * (1 - part) + _COLOURS[low[..., 0] + 1] * part
    return np.rint(mixed).astype("uint8")


@checked
def overlay(image: np.ndarray, heatmap: np.ndarray, strength: float = 0.75) -> np.ndarray:
    """Put a heat map over a grey image. The hotter a pixel, the less of the image is visible.

    Args:
        image: (height, width, 3 or 1), RGB 0...255.
        heatmap: (height, width), 0...1, as `keras_resnet.explain` returns for one image.
        strength: opacity of the colour where the map is 1.

    Returns:
        uint8 (height, width, 3).

    Raises:
        UserError: the sizes differ, or a value is not a finite number.
    """
    image, heatmap = _numbers(image, "image"), _numbers(heatmap, "heatmap")
    if image.ndim != 3 or image.shape[:2] != heatmap.shape:
        raise UserError(
            "The image must be (height, width, channels) and the map of the same size; received "
            f"{image.shape} and {heatmap.shape}."
        )
    grey = image.astype("float32").mean(-1, keepdims=True)
    part = strength * np.clip(heatmap, 0, 1)[..., None]
    return np.rint(grey * (1 - part) + colours(heatmap) * part).astype("uint8")


@checked
def pixel_map(heatmap: np.ndarray) -> np.ndarray:
    """Colour a map with one value per pixel (saliency).

    In such maps a few high values would make all others black. So the values above 99 % of all
    values get the hottest colour.

    Args:
        heatmap: (height, width), 0...1, as `explain` returns for `saliency` and `smoothgrad`.

    Returns:
        uint8 (height, width, 3).

    Raises:
        UserError: it is not (height, width) of finite numbers.
    """
    heatmap = _numbers(heatmap, "heatmap")
    if heatmap.ndim != 2 or not heatmap.size:
        raise UserError(f"heatmap must be (height, width); received {heatmap.shape}.")
    top = np.percentile(heatmap, 99)
    return colours(heatmap / top if top else heatmap)


def _numbers(given: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(given)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "buif" or not np.isfinite(array).all():
        raise UserError(f"{name} must be an array of finite numbers; received {array.dtype}.")
    return array


def stretched(picture: np.ndarray) -> np.ndarray:
    """Stretch the values of a `picture` to 0...255. The top and bottom 1 % are clipped.

    Returns:
        uint8, of the same shape.
    """
    low, high = np.percentile(picture, (1, 99))
    spread = (picture.astype("float32") - low) * (255 / max(high - low, 1))
    return np.clip(np.rint(spread), 0, 255).astype("uint8")


def title(predicted: str, probability: float, true: str | None = None) -> str:
    """Return the caption of an image: "tench (true) → church 71 %", or "church 71 %".

    Args:
        predicted: label of the model's prediction.
        probability: probability of that prediction, 0 to 1.
        true: label of the image, if known.
    """
    answer = f"{predicted} {probability:.0%}".replace("%", " %")
    return answer if true is None else f"{true} (true) → {answer}"


@dataclass(frozen=True)
class Row:
    """One image of a sheet.

    Attributes:
        title: text above the row, for example from `sheets.title`.
        image: RGB 0...255 (height, width, 3 or 1).
        pictures: title and picture of each column; pictures are RGB 0...255 of any size.
        answers: labels and their probabilities, the highest first.
        explained: label of the class that the maps explain.
    """

    title: str
    image: np.ndarray
    pictures: Mapping[str, np.ndarray]
    answers: Sequence[tuple[str, float]] = field(default=())
    explained: str = ""

    def __repr__(self) -> str:
        """Return the text, with arrays as their type and shape."""
        return notebook.brief(self)

    def _repr_html_(self) -> str:
        return notebook.thumbnails([(self.title, self.image), *self.pictures.items()])


@figures.style()
@checked
def contact_sheet(rows: Sequence[Row], heading: str = "") -> Any:
    """Draw one of `rows` (`keras_resnet.Row`) per image: the image, its pictures, its predictions.

    `heading` is the text at the top.

    Returns:
        A Pillow image; `save(sheet, path)` writes it.

    Raises:
        UserError: there are no rows.
        MissingExtraError: matplotlib is not installed.
    """
    if not rows:
        raise UserError("A sheet needs at least one row; received none.")
    answers = _MARGIN + max(1 + len(row.pictures) for row in rows) * (_SIDE + _GAP)
    top, height = _MARGIN + (_LINE if heading else 0), _SIDE + 3 * _LINE
    page = _page(answers + _MARGIN + _TEXT, top + height * len(rows) + _MARGIN)
    _write(page, _MARGIN, _MARGIN - 4, heading, answers)
    for index, row in enumerate(rows):
        y = top + index * height
        _write(page, _MARGIN, y, row.title, answers + _TEXT - _MARGIN)
        for column, (name, picture) in enumerate([("", row.image), *row.pictures.items()]):
            x = _MARGIN + column * (_SIDE + _GAP)
            _write(page, x, y + _LINE, name, _SIDE)
            _place(page, picture, x, y + 2 * _LINE)
        _draw_answers(page, row, answers + _GAP, y + 2 * _LINE)
    return _drawn(page)


class Maps(dict[str, np.ndarray]):
    """A dictionary from method to maps (n, height, width), 0 to 1 within each image.

    Attributes:
        images: the explained images (n, height, width, channels), as the model takes them.
        classes: the class that each map explains.
    """

    _SHOWN = 8  # number of images in a notebook

    def __init__(
        self, maps: Mapping[str, np.ndarray], images: np.ndarray, classes: Sequence[int]
    ) -> None:
        super().__init__(maps)
        self.images, self.classes = images, tuple(classes)

    def __repr__(self) -> str:
        """Return one line, with arrays as their type and shape."""
        return notebook.brief_mapping(self)

    def _repr_html_(self) -> str:
        """Return each image, followed by its maps."""
        rows = []
        for index, number in enumerate(self.classes[: self._SHOWN]):
            row = [(f"class {number}", stretched(self.images[index]))]
            row += [(method, pixel_map(maps[index])) for method, maps in self.items()]
            rows.append(f"<div>{notebook.thumbnails(row)}</div>")
        return f"<p>{for_html(self)}</p>{''.join(rows)}"


def save(sheet: Any, path: str | Path) -> None:
    """Write a sheet in the format of the suffix: .png, .jpg, ..."""
    with replacing(expanded(path)) as partial:
        sheet.save(partial)


def _page(width: int, height: int) -> Any:
    """Return axes that fill a picture of that size. Positions are in pixels from the top left."""
    figure = figures.new(width / _DPI, height / _DPI, layout="none")
    figure.set_dpi(_DPI)
    require("matplotlib.backends.backend_agg", "explain").FigureCanvasAgg(figure)
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    page.set_axis_off()
    return page


def _drawn(page: Any) -> Any:
    canvas = page.figure.canvas
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    return image.convert("RGB")


def _write(
    page: Any, x: float, y: float, text: str, room: float, colour: str = figures.INK
) -> None:
    """Write `text` below `y`. Cut it with an ellipsis at `room` pixels."""
    shown = page.text(x, y + 2, figures.literal(text), color=colour, size=_FONT, va="top")
    while text and shown.get_window_extent().width > room:
        text = text[:-1]
        shown.set_text(figures.literal(text) + "…")


def _place(page: Any, picture: np.ndarray, x: float, y: float) -> None:
    """Show a picture in the center of its square, as large as fits."""
    array = np.repeat(picture, 3, -1) if picture.shape[-1] == 1 else picture
    height, width = (_SIDE * side / max(array.shape[:2]) for side in array.shape[:2])
    left, top = x + (_SIDE - width) / 2, y + (_SIDE - height) / 2
    extent = (left, left + width, top + height, top)
    page.imshow(np.clip(array, 0, 255).astype("uint8"), extent=extent, aspect="auto")


def _draw_answers(page: Any, row: Row, x: float, y: float) -> None:
    room = _TEXT - 2 * _GAP
    for index, (label, probability) in enumerate(row.answers):
        line = y + index * 1.6 * _LINE
        dark = label == row.explained or not row.explained
        percent = f"{probability:.2%}".rjust(7, "\u2007")  # a space as wide as a digit
        ink = figures.INK if dark else figures.GREY
        _write(page, x, line, f"{percent}  {label}", room, ink)
        colour = figures.BLUE if dark else _PALE
        page.barh(line + _LINE + 3, max(room * probability, 1), 6, left=x, color=colour)

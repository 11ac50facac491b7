"""The figures of a run's report, as SVG to be put into a page; drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_resnet.errors import require
from keras_resnet.recipes.runs.outcomes import BINS, Reliability

_BLUE, _ORANGE, _GREY = "#3d6fb4", "#c9703b", "#777777"
_MOST_CELLS = 20  # classes whose matrix can be read


def _pyplot() -> Any:
    matplotlib: Any = require("matplotlib", "report")
    matplotlib.use("svg")
    matplotlib.rcParams |= {
        "svg.fonttype": "none",  # text stays text, which can be searched and scales
        "svg.hashsalt": "keras_resnet",  # the same figure for the same numbers
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    return require("matplotlib.pyplot", "report")


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    _pyplot().close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def curves(rows: Sequence[Mapping[str, float]]) -> str:
    """Loss with the learning rate, and error, by epoch, from the rows of `log.csv`: two figures."""
    loss_figure, loss = _pyplot().subplots(figsize=(4.6, 3))
    error_figure, error = _pyplot().subplots(figsize=(4.6, 3))
    epochs = [row["epoch"] + 1 for row in rows]
    for prefix, name, colour in (("", "training", _BLUE), ("val_", "validation", _ORANGE)):
        if f"{prefix}loss" not in rows[0]:
            continue
        loss.plot(epochs, [row[f"{prefix}loss"] for row in rows], color=colour, label=name)
        errors = [100 * (1 - row[f"{prefix}accuracy"]) for row in rows]
        error.plot(epochs, errors, color=colour, label=name)
    rate = loss.twinx()
    rate.plot(epochs, [row["learning_rate"] for row in rows], color=_GREY, lw=0.8, ls=":")
    rate.set(ylabel="learning rate (dotted)", ylim=(0, None))
    loss.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    error.set(xlabel="epoch", ylabel="error (%)", ylim=(0, None))
    error.legend(frameon=False)
    return _svg(loss_figure) + _svg(error_figure)


def confusion(counts: np.ndarray, names: Sequence[str]) -> str | None:
    """The matrix of (true, guessed) classes in percent of the true; None if there are too many."""
    if len(names) > _MOST_CELLS:
        return None
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2 + 0.38 * len(names)
    figure, axes = _pyplot().subplots(figsize=(side, side))
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # the root: mistakes are few
    for row, column in np.ndindex(*shares.shape):
        if counts[row, column]:
            colour = "white" if shares[row, column] > 0.3 else "black"
            text = f"{100 * shares[row, column]:.3g}" if row == column else str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="guessed", ylabel="is")
    axes.spines[:].set_visible(False)
    return _svg(figure)


def reliability(measured: Reliability) -> str:
    """Accuracy against confidence, and how many answers there are of each."""
    figure, (upper, lower) = _pyplot().subplots(
        2, 1, figsize=(4, 4.4), sharex=True, height_ratios=(3, 1)
    )
    centres = (np.arange(BINS) + 0.5) / BINS
    upper.bar(centres, np.nan_to_num(measured.accuracy), 0.9 / BINS, color=_BLUE, alpha=0.6)
    upper.plot((0, 1), (0, 1), color=_GREY, lw=0.8, ls="--", label="sure as often as right")
    upper.plot(measured.confidence, measured.accuracy, ".", color=_ORANGE, label="mean confidence")
    upper.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
    upper.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    lower.bar(centres, measured.counts, 0.9 / BINS, color=_GREY)
    lower.set(xlabel="confidence", ylabel="images", yscale="log")
    figure.tight_layout()
    return _svg(figure)

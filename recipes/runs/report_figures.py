"""The figures of a run's report, as SVG text for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from keras_resnet.display import figures
from keras_resnet.recipes.runs.outcomes import BINS, Reliability

COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
_MOST_CELLS = 20  # most classes in a readable matrix


@figures.style()
def curves(rows: Sequence[Mapping[str, float]]) -> str:
    """Draw two figures from log.csv: loss with the learning rate, and error, by epoch."""
    both = figures.new(4.6, 3), figures.new(4.6, 3)
    loss, error = (figure.subplots() for figure in both)
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) == 1 else ""  # a single point has no line
    for prefix, name in (("", "training"), ("val_", "validation")):
        if all(np.isnan(row.get(f"{prefix}loss", np.nan)) for row in rows):
            continue
        errors = [100 * (1 - row[f"{prefix}accuracy"]) for row in rows]
        loss.plot(epochs, [row[f"{prefix}loss"] for row in rows], marker=marker, label=name)
        error.plot(epochs, errors, marker=marker, label=name)
    rate = loss.twinx()
    rate.plot(epochs, [row["learning_rate"] for row in rows], color=figures.GREY, lw=0.8, ls=":")
    rate.set(ylabel="learning rate (dotted)", ylim=(0, None))
    rate.grid(visible=False)
    loss.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    error.set(xlabel="epoch", ylabel="error (%)", ylim=(0, None))
    for axes in (loss, error):
        axes.locator_params(axis="x", integer=True)  # epochs are whole numbers
    error.legend()
    return "".join(map(figures.svg, both))


@figures.style()
def confusion(counts: np.ndarray, names: Sequence[str]) -> str | None:
    """Draw the confusion matrix in percent of the true class; None for too many classes."""
    if len(names) > _MOST_CELLS:
        return None
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.36 * len(names)  # side of the matrix; the names make the picture larger
    figure = figures.new(side, side, layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # the root shows rare mistakes
    for row, column in np.ndindex(*shares.shape):
        if counts[row, column]:
            colour = "white" if shares[row, column] > 0.3 else "black"
            text = f"{100 * shares[row, column]:.3g}" if row == column else str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, size=7)
    shown = [figures.literal(name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), shown)
    axes.set(xlabel="predicted", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    return figures.svg(figure)


@figures.style()
def reliability(measured: Reliability) -> str:
    """Draw accuracy against confidence, and the number of images in each confidence bin."""
    figure = figures.new(4, 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = 100 / BINS
    centres, accuracy = (np.arange(BINS) + 0.5) * width, 100 * measured.accuracy
    upper.bar(centres, np.nan_to_num(accuracy), 0.9 * width, alpha=0.6)
    upper.plot((0, 100), (0, 100), color=figures.GREY, lw=0.8, ls="--", label="perfect calibration")
    upper.plot(
        100 * measured.confidence, accuracy, "C1.", label="mean confidence of a bin", clip_on=False
    )
    upper.set(ylabel="accuracy (%)", ylim=(0, 100), xlim=(0, 100), xticks=range(0, 101, 20))
    upper.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    lower.bar(centres, measured.counts, 0.9 * width, color=figures.GREY)
    lower.set(xlabel="confidence (%)", ylabel="images", yscale="log", ylim=(0.5, None))
    lower.yaxis.set_major_formatter("{x:,.0f}")
    lower.minorticks_off()
    return figures.svg(figure)

"""Draw the training error of runs and their final test error, like Figure 6 of He 2015.

python benchmarks/curves.py RUN [RUN ...] --out FILE.svg     (pip install ".[report]")

RUN is a folder with log.csv and summary.json, for example one in benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from keras_resnet.display import figures
from keras_resnet.recipes.runs.folder import Run


def _training_error(run: Path) -> list[float]:
    """Return the error per epoch in percent, on augmented images, with the changing weights."""
    return [100 * (1 - float(row["accuracy"])) for row in Run(run).rows()]


@figures.style()
def draw(runs: list[Path], out: Path, highest: float = 60) -> None:
    """Write the picture: plain nets are dashed; points are the test errors of the last weights."""
    figure = figures.new(7, 4.8)
    axes = figure.subplots()
    for index, run in enumerate(runs):
        summary = Run(run).summary()
        errors, test = _training_error(run), 100 * (1 - summary["test"]["accuracy"])
        line = "--" if summary["model"].startswith("plain") else "-"
        label = figures.literal(f"{summary['model']}: test error {test:.2f} %")
        axes.plot(range(1, len(errors) + 1), errors, line, color=f"C{index}", label=label)
        axes.plot(len(errors), test, "o", color=f"C{index}", clip_on=False)
    axes.set(xlabel="epoch", ylabel="error (%)", ylim=(0, highest), xlim=(0, None))
    title = "lines: training error · points: test error"
    figure.legend(title=title, ncols=2, loc="outside lower center")
    figures.save(figure, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    parser.add_argument("--highest", type=float, default=60, help="highest error in %% (60)")
    options = parser.parse_args()
    draw(options.runs, options.out, options.highest)


if __name__ == "__main__":
    main()

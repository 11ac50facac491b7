"""Repeat the papers' measurements of residual networks on CIFAR-10's test images, and draw them.

python benchmarks/insight.py --out FOLDER [RUN ...]     (pip install ".[report]"; CIFAR-10: README)

RUN is a finished run, for example from `keras-resnet train cifar10/plain56_fast`. Its network is
drawn beside the package's trained networks. The script writes responses.svg (He 2015, Fig. 7),
gradients.svg, deletion.svg (arXiv:1605.06431, Fig. 3), paths.svg (its Fig. 6), shortcuts.svg
(arXiv:1603.05027, eq. 5 to 8), and insight.json with every value.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_resnet
from keras_resnet.analysis import insight
from keras_resnet.display import figures
from keras_resnet.export import manifest
from keras_resnet.recipes import load_dataset

TRAINED = ("resnet20", "resnetv2_20")
# Pictures of fewer images than --count: of gradients and of paths, and of signals.
GRADIENT_IMAGES, SIGNAL_IMAGES = 128, 32
# Dropout on the shortcut is not among them: of a signal half is left by every unit in training, so
# 2⁻²⁷ of it by all, and all of it in inference.
SHORTCUTS = {
    "identity": "resnet56",
    "option B": "resnet56_b",
    "0.5 · x": "resnet56_constant_scaling",
    # Of initial bias -6; the shortcut of shortcut-only gating is the same one.
    "(1 - gate) · x": "resnet56_exclusive_gating",
    "1×1 convolution": "resnet56_conv_shortcut",
}


def trained(name: str) -> keras.Model:
    return keras_resnet.create_model(name, weights="cifar10", include_preprocessing=True)


def untrained(name: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras_resnet.create_model(name, include_preprocessing=True)


def measure(images: np.ndarray, labels: np.ndarray, runs: list[Path]) -> dict[str, Any]:
    """Measure every figure of every picture."""
    models = {name: trained(name) for name in TRAINED}
    for run in runs:
        model = keras.models.load_model(run / "model.keras")
        models[model.name] = model
    responses = {n: insight.response_deviations(m, images) for n, m in models.items()}
    models = {n: m for n, m in models.items() if not n.startswith("plain")}  # no unit to delete
    few, theirs = images[:GRADIENT_IMAGES], labels[:GRADIENT_IMAGES]
    signals = images[:SIGNAL_IMAGES]
    return {
        "images": {
            **dict.fromkeys(("responses", "deletion"), len(images)),
            **dict.fromkeys(("gradients", "paths"), len(few)),
            "shortcuts": len(signals),
        },
        "responses": responses,
        "gradients": {
            name: insight.gradient_norms(untrained(name), few, theirs)
            for name in ("plain20", "resnet20", "plain56", "resnet56", "resnetv2_56")
        },
        "deletion": {n: insight.deletion_accuracies(m, images, labels) for n, m in models.items()},
        "paths": {
            name: [vars(row) for row in insight.path_lengths(model, few, theirs, samples=16)]
            for name, model in models.items()
        },
        "shortcuts": {
            label: insight.shortcut_gains(untrained(name), signals)
            for label, name in SHORTCUTS.items()
        },
    }


# One picture each ---------------------------------------------------------------------------------


def line(name: str) -> dict[str, Any]:
    """Return a network's line style, equal in every picture; plain nets are dashed, no points."""
    colors = {"v2": "C1", "20": "C0", "56": "C2"}
    color = next((color for part, color in colors.items() if part in name), "C3")
    if name.startswith("plain"):
        return {"color": color, "linestyle": "--", "linewidth": 1.6}
    return {"color": color, "marker": "o", "ms": 3, "linewidth": 1.2}


def draw_responses(axes: Any, values: dict[str, dict[str, float]]) -> None:
    for name, deviations in values.items():
        place = np.linspace(0, 1, len(deviations))
        axis = axes[int("v2" in name)]
        axis.plot(place, list(deviations.values()), **line(name), label=name)
    for axis, title in zip(axes, ("BN's output", "convolution's output"), strict=True):
        axis.set(title=title, xlabel="from the image (0) to the last unit (1)", ylim=(0, 5.4))
        axis.legend(ncols=2, loc="upper right")
    axes[0].set_ylabel("standard deviation")


def draw_gradients(axes: Any, values: dict[str, dict[str, float]]) -> None:
    for name, norms in values.items():
        place = np.linspace(0, 1, len(norms))
        axes[0].plot(place, list(norms.values()), **line(name), label=name)
    axes[0].set(yscale="log", xlabel="from the image (0) to the classifier (1)")
    axes[0].set_ylabel("norm of the kernel's gradient")
    axes[0].legend()


def draw_deletion(axes: Any, values: dict[str, dict[str, float]]) -> None:
    for name, accuracies in values.items():
        units = [unit for unit in accuracies if unit]
        place = (np.arange(len(units)) + 0.5) / len(units)
        label = f"{name}, whole: {100 * accuracies['']:.1f} %"
        accuracy = [100 * accuracies[unit] for unit in units]
        axes[0].plot(place, accuracy, **line(name), label=label)
    axes[0].axhline(10, color=figures.GREY, linewidth=0.8, label="chance")
    for boundary in (1 / 3, 2 / 3):  # three stages of equally many units
        axes[0].axvline(boundary, color="0.7", linewidth=0.8)
    axes[0].set_xticks([1 / 6, 1 / 2, 5 / 6], ["stage 1", "stage 2", "stage 3"])
    axes[0].set(xlabel="unit without F", ylabel="test accuracy (%)", ylim=(0, 119), xlim=(0, 1))
    axes[0].legend(ncols=2, loc="upper center")


def draw_paths(axes: Any, values: dict[str, list[dict[str, float]]]) -> None:
    titles = {
        "share": "share of all paths",
        "gradient": "gradient along one path, / largest",
        "contribution": "share of all gradient",
    }
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for name, rows in values.items():
            lengths, figures = zip(*((row["length"], row[key]) for row in rows), strict=True)
            scaled = np.asarray(figures) / (max(figures) if key == "gradient" else 1)
            axis.plot(np.asarray(lengths) / max(lengths), scaled, **line(name), label=name)
        axis.set(title=title, xlabel="part of the units passed through F", ylim=(0, None))
    axes[1].legend()


def draw_shortcuts(axes: Any, values: dict[str, dict[str, tuple[float, float]]]) -> None:
    for label, gains in values.items():
        for axis, part in zip(axes, (0, 1), strict=True):
            axis.plot(
                range(1, len(gains) + 1), [pair[part] for pair in gains.values()], label=label
            )
    shape = {"xlabel": "unit of ResNet-56", "yscale": "log", "ylim": (1e-11, 100)}
    axes[0].set(title="signal, from the first unit", **shape)
    axes[1].set(title="gradient, from the last unit", **shape)
    axes[1].legend(loc="lower right")


PICTURES = {
    "responses": (draw_responses, 2),
    "gradients": (draw_gradients, 1),
    "deletion": (draw_deletion, 1),
    "paths": (draw_paths, 3),
    "shortcuts": (draw_shortcuts, 2),
}


@figures.style()
def draw(values: dict[str, Any], out: Path) -> None:
    """Write the pictures; equal figures give equal files."""
    for name, (function, columns) in PICTURES.items():
        size = (7, 3.6) if columns == 1 else (3.5 * columns, 3.2)
        figure = figures.new(*size)
        function(figure.subplots(1, columns, squeeze=False)[0], values[name])
        figures.save(figure, out / f"{name}.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="finished runs")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--count", type=int, default=1000, help="test images (default 1000)")
    parser.add_argument("--values", type=Path, help="draw the values of this insight.json again")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.values:
        values = json.loads(options.values.read_text())
    else:
        test = load_dataset("cifar10").test
        images, labels = test.images[: options.count], test.labels[: options.count]
        values = measure(images, labels, options.runs)
        about = {"created": manifest.now(), **manifest.environment()}
        text = json.dumps({**about, **values}, indent=1)
        (options.out / "insight.json").write_text(text + "\n")
    draw(values, options.out)


if __name__ == "__main__":
    main()

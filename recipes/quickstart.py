"""Quickstart on real images, in minutes: train ResNet-8, export it, check every file.

    keras-resnet quickstart [--out quickstart]

The images are the 1,797 handwritten digits (UCI) that scikit-learn ships.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PIL import Image

from keras_resnet.arguments import checked
from keras_resnet.errors import UserError, require
from keras_resnet.export import manifest
from keras_resnet.files import expanded
from keras_resnet.recipes import train
from keras_resnet.recipes.configs.schema import load_config
from keras_resnet.recipes.data.datasets import Dataset, configured_dataset
from keras_resnet.recipes.export import export_source
from keras_resnet.recipes.runs import sources
from keras_resnet.recipes.runs.folder import find_run, is_run

CONFIG = "digits/resnet8"
FORMATS = ("savedmodel", "tflite-float32", "tflite-int8")


@checked
def run(out: str | Path = "quickstart", overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train, export and check in the folder `out`. An interrupted quickstart continues there.

    Returns:
        "run", "exports", "images" (paths), "passed", "model" and "files". Each file is a row with
        file, bytes, accuracy on the test split, agreement, largest_error, latency_ms and passed.

    Raises:
        UserError: an extra is missing, or the folder cannot be written.
    """
    out = expanded(out)
    require("ai_edge_litert", "all")  # check it before the minutes of training
    folder = out / "run"
    if not is_run(folder):
        finished = train.run(load_config(CONFIG, overrides), folder)
    elif overrides:
        raise UserError(
            f"{out} already contains a run with other settings. Choose another folder: "
            "keras-resnet quickstart --out FOLDER"
        )
    elif find_run(folder).model.is_file():
        finished = find_run(folder)
        print(f"{folder} is already trained; exporting it again", file=sys.stderr)
    else:
        finished = train.resume(folder)
    config = finished.config
    dataset = configured_dataset(config.data)
    source = sources.find(str(folder))
    report = export_source(source, dataset, FORMATS, out / "exports", overwrite=True)
    keras_row = {
        "file": finished.model.name,
        **manifest.sizes(finished.model),
        "accuracy": report.keras_accuracy,
        "latency_ms": report.keras_latency_ms,
        "n": len(dataset.test),
    }
    files = [
        {**manifest.sizes(report.folder / item.file), **item.to_dict()} for item in report.checks
    ]
    return {
        "run": str(folder),
        "exports": str(out / "exports"),
        "images": [str(path) for path in _write_samples(dataset, out / "images")],
        "passed": report.passed,
        "model": keras_row,
        "files": files,
    }


def _write_samples(dataset: Dataset, folder: Path) -> list[Path]:
    """Write a test image of each class as PNG, for `keras-resnet predict`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in dataset.class_names]
    test = dataset.test.sample(len(dataset.test))
    for index, path in enumerate(paths):
        first = int((test.labels == index).argmax())
        Image.fromarray(test.images[first]).save(path)
    return paths


if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["quickstart", *sys.argv[1:]]))

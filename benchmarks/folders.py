"""Measure how fast the images of a folder are read: for evaluation and calibration.

    python benchmarks/folders.py [--count 512] [--size 128] [--rounds 5] [--json FILE]

The training input path is the peer: random crops of the same files. All read JPEG files of 500×375
pixels and give uint8 images of `--size`; no network runs. They take turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from input_pipeline import fill

from keras_resnet.export import manifest
from keras_resnet.export.measure.turns import ratio, spread
from keras_resnet.images.listing import read_images
from keras_resnet.recipes.configs.schema import AugmentConfig
from keras_resnet.recipes.data.batches import evaluation_batches, training_batches
from keras_resnet.recipes.data.decoded import options as threads
from keras_resnet.recipes.data.encoded import EncodedSplit
from keras_resnet.recipes.data.folders import Files

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=512, help="images, a multiple of 64")
    parser.add_argument("--size", type=int, default=128, help="image side in pixels (default 128)")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default 5)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        readers = _readers(Path(folder), options.count, options.size)
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        for number in range(-1, options.rounds):
            for name, read in readers.items():
                began = time.perf_counter()
                read()
                if number >= 0:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
    training = seconds["training"]
    record = {
        "images_per_second": {
            name: spread([options.count / value for value in values])
            for name, values in seconds.items()
        },
        "over_training": {name: ratio(training, values) for name, values in seconds.items()},
        "count": options.count,
        "size": options.size,
        "n": options.rounds,
        "created": manifest.now(),
        **manifest.environment(),
    }
    for name, pace in record["images_per_second"].items():
        over = record["over_training"][name]
        print(f"{name:<12} {pace['median']:7.0f} images/s, {over['median']:.2f} of training")
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def _readers(folder: Path, count: int, size: int) -> dict[str, Callable[[], object]]:
    paths = fill(folder / "images", count)
    split = EncodedSplit(Files(paths, np.zeros(count, "int32")), size)
    augment = AugmentConfig(crop="resized", min_area=0.35)
    training = training_batches(split, BATCH, 0, augment).take(count // BATCH)
    return {
        "training": lambda: _run_through(training.with_options(threads())),
        "evaluation": lambda: _run_through(evaluation_batches(split, BATCH)),
        "calibration": lambda: read_images(folder / "images", (size, size)),
    }


def _run_through(batches: tf.data.Dataset) -> None:
    for _ in batches:
        pass


if __name__ == "__main__":
    main()

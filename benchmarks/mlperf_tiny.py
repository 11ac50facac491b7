"""Compare our ResNet-8 with MLPerf Tiny's files: accuracy on CIFAR-10, bytes, latency.

    python benchmarks/mlperf_tiny.py FLOAT.tflite INT8.tflite [--images 10000] [--json FILE]

MLPerf Tiny's files are `pretrainedResnet.tflite` and `pretrainedResnet_quant.tflite` from
github.com/mlcommons/tiny. Our files are exported from the weights in the package and calibrated on
256 training images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from keras_resnet.export.measure import benchmark
from keras_resnet.export.measure.turns import ratio
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.recipes import load_dataset
from keras_resnet.recipes.export import export_source
from keras_resnet.recipes.runs import sources

FORMATS = ("tflite-float32", "tflite-int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "theirs",
        nargs=2,
        type=Path,
        metavar="FILE",
        help="MLPerf Tiny's float file, then the int8 file",
    )
    parser.add_argument(
        "--images", type=int, default=10_000, help="number of test images (default: all 10000)"
    )
    parser.add_argument("--rounds", type=int, default=20, help="rounds of timing (default 20)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the record to this file"
    )
    options = parser.parse_args()
    dataset = load_dataset("cifar10")
    with tempfile.TemporaryDirectory() as folder:
        source = sources.find("resnet8", "cifar10")
        report = export_source(
            source, dataset, FORMATS, Path(folder) / "ours", check_count=options.images
        )
        theirs = zip(("mlperf-float32", "mlperf-int8"), options.theirs, strict=True)
        files = [
            *benchmark.find([report.folder]),
            *(benchmark.File(name, path) for name, path in theirs),
        ]
        measured = benchmark.measure(files, (1,), rounds=options.rounds)
        accuracies = _accuracies(files, dataset, options.images)
    print(measured.table())
    for file, accuracy in accuracies.items():
        print(f"{file}: {accuracy:.2%} of {options.images} test images")
    record = {**measured.to_dict(), "accuracy": accuracies, "images": options.images}
    record["against_mlperf"] = _ratios(measured.rows)
    for kind, over in record["against_mlperf"].items():
        spread = f"{over['median']:.2f} ({over['least']:.2f} to {over['most']:.2f})"
        print(f"{kind}: our time over theirs {spread}")
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def _accuracies(files: list[benchmark.File], dataset: Any, count: int) -> dict[str, float]:
    test = dataset.test.sample(count)
    return {
        file.name: float(
            (open_file(file.path).predict(test.images).argmax(-1) == test.labels).mean()
        )
        for file in files
    }


def _ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the ratios of the pairs; ours and theirs have the same order: float, int8."""
    ours, theirs = rows[:2], rows[2:]
    return {
        kind: ratio(mine["rounds_ms"], other["rounds_ms"])
        for kind, mine, other in zip(FORMATS, ours, theirs, strict=True)
    }


if __name__ == "__main__":
    main()

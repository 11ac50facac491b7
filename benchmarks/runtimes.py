"""Compare our files with those of the stock converter, other engines and PyTorch.

    python benchmarks/runtimes.py [--network ResNet50 ResNet50V2] [--threads 1,2] [--json FILE]
    python benchmarks/runtimes.py --torch-python ~/torch/bin/python    # PyTorch's environment

benchmarks/README.md describes the comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_resnet
from keras_resnet.errors import MissingExtraError
from keras_resnet.export import export, manifest
from keras_resnet.export.formats import table
from keras_resnet.export.measure import benchmark
from keras_resnet.export.measure.turns import ratio
from keras_resnet.lazy import quiet_stderr
from keras_resnet.weights.foreign.keras_weights import from_keras_applications, takes_bgr

FORMATS = ("tflite-float32", "tflite-int8", "onnx", "onnx-int8", "openvino")
TORCH = Path(__file__).parent / "peers" / "torch_inference.py"
STOCK = {"tflite-float32": "stock-float32", "tflite-int8": "stock-int8"}


def main() -> None:
    options = _parse()
    record: dict[str, Any] = {"created": manifest.now(), **manifest.environment(), "networks": {}}
    for name in options.network:
        print(name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            record["networks"][name] = _compare(name, options, Path(folder))
        if options.json:  # also of the networks that are done when it is interrupted
            options.json.write_text(json.dumps(record, indent=1) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--network",
        nargs="+",
        default=["ResNet50", "ResNet50V2"],
        help="networks (default ResNet50 ResNet50V2)",
    )
    parser.add_argument("--size", type=int, default=224, help="image side in pixels (default 224)")
    parser.add_argument(
        "--classes", type=int, default=1000, help="number of classes (default 1000)"
    )
    parser.add_argument(
        "--calibration", type=int, default=100, help="calibration images (default 100)"
    )
    parser.add_argument("--rounds", type=int, default=10, help="rounds of timing (default 10)")
    parser.add_argument("--runs", type=int, default=20, help="images per round (default 20)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default 1,2)")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has PyTorch")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the record to this file"
    )
    options = parser.parse_args()
    options.threads = [int(count) for count in options.threads.split(",")]
    return options


def _compare(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare both networks in all their files."""
    theirs, ours = networks(name, options)
    images = images_of(options)
    # Keras Applications' first ResNets take BGR.
    flipped = images[..., ::-1].copy() if takes_bgr(theirs) else images
    _require_equal(theirs, ours, flipped[:4], images[:4])
    kinds, left_out = available(FORMATS)
    report = export_ours(ours, kinds, images, folder / "all")
    files = [*_stock_files(theirs, flipped, folder), *benchmark.find([report.folder])]
    torch_files, no_torch = _torch(name, options)
    measured = benchmark.measure(
        files + torch_files,
        options.threads,
        against=STOCK["tflite-float32"],
        rounds=options.rounds,
        runs=options.runs,
    )
    print(measured.table())
    against_stock = list(_against_stock(measured, report))
    for entry in against_stock:
        print(f"{name}, {entry['format']}, {entry['threads']} threads: {_text(entry['ratio'])}")
    for item in [item for item in report.checks if not item.passed]:
        print(f"{item.file} FAILED its check: {'; '.join(item.problems)}")
    checks = {item.format: item.to_dict() for item in report.checks}
    left_out += no_torch
    for reason in left_out:
        print(f"left out: {reason}")
    found = {"against_stock": against_stock, "checks": checks, "left_out": left_out}
    return {**measured.to_dict(), **found}


def networks(name: str, options: argparse.Namespace) -> tuple[keras.Model, keras.Model]:
    """Return Keras Applications' network and ours, with equal random weights, no normalisation."""
    keras.utils.set_random_seed(0)
    shape = {"input_shape": (options.size, options.size, 3), "classes": options.classes}
    theirs = getattr(keras.applications, name)(weights=None, **shape)
    rng = np.random.default_rng(0)
    for layer in theirs.layers:  # statistics as of training: initial ones fold into nothing
        if isinstance(layer, keras.layers.BatchNormalization):
            values = [rng.uniform(0.8, 1.2, w.shape) for w in layer.weights]
            layer.set_weights([values[0], values[1] - 1, values[2] - 1, values[3]])
    _make_decisive(theirs, images_of(options)[:4])
    ours = getattr(keras_resnet, name)(**shape)
    from_keras_applications(theirs, ours)
    return theirs, ours


def _make_decisive(model: keras.Model, images: np.ndarray) -> None:
    """Scale the logits to vary by 4 over the classes; int8 says little about equal logits."""
    spread = np.log(model.predict(images, verbose=0)).std(axis=-1).mean()
    head = model.layers[-1]
    head.set_weights([4 / spread * head.get_weights()[0], head.get_weights()[1]])


def images_of(options: argparse.Namespace) -> np.ndarray:
    """Return noise in [-1, 1], like normalised images; the times do not depend on the values."""
    shape = (options.calibration, options.size, options.size, 3)
    return np.random.default_rng(1).uniform(-1, 1, shape).astype("float32")


def _require_equal(
    theirs: keras.Model, ours: keras.Model, flipped: np.ndarray, images: np.ndarray
) -> None:
    """Exit unless both compute the same function, up to a thousandth of the largest output."""
    expected, outputs = theirs.predict(flipped, verbose=0), ours.predict(images, verbose=0)
    error = np.abs(outputs - expected).max() / np.abs(expected).max()
    if not error < 1e-3:
        sys.exit(f"The two networks differ, by {error:.2g} of the largest output.")


def export_ours(model: keras.Model, kinds: list[str], images: np.ndarray, out: Path) -> Any:
    with warnings.catch_warnings(action="ignore"):  # that the images are few, and normalised
        return export(model, kinds, out=out, calibration=images, verbose=False)


def convert_stock(model: keras.Model, images: np.ndarray | None, path: Path) -> None:
    """Convert as in TensorFlow's guide to quantization; without images, to float32."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if images is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    with quiet_stderr(), contextlib.redirect_stdout(io.StringIO()):  # it tells what it saves
        path.write_bytes(converter.convert())


def _stock_files(model: keras.Model, images: np.ndarray, folder: Path) -> Iterator[benchmark.File]:
    for kind, name in STOCK.items():
        path = folder / f"{name}.tflite"
        convert_stock(model, images if kind == "tflite-int8" else None, path)
        yield benchmark.File(name, path, kind)


def available(kinds: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the formats whose packages are installed, and the reasons against the others."""
    found, left_out = [], []
    for kind in kinds:
        try:
            found += table.known([kind])
        except MissingExtraError as error:
            left_out.append(f"{kind}: {error}")
    return found, left_out


def _torch(name: str, options: argparse.Namespace) -> tuple[list[benchmark.File], list[str]]:
    """Return PyTorch's workers, eager and compiled, or the reason why they are left out."""
    if name != "ResNet50":
        return [], [f"PyTorch: its network here is ResNet50, not {name}"]
    python = options.torch_python
    if subprocess.run([python, "-c", "import torch"], capture_output=True).returncode:
        return [], ["PyTorch: the interpreter cannot import torch; see --torch-python"]
    shape = (options.size, options.size, 3)
    return [
        benchmark.File(f"pytorch-{way}", TORCH, None, shape, (python, str(TORCH), way))
        for way in ("eager", "compiled")
    ], []


def _against_stock(measured: benchmark.Measurement, report: Any) -> Iterator[dict[str, Any]]:
    """Return the times of our TFLite files over the stock converter's of the same format."""
    rows = {(row["file"], row["threads"]): row["rounds_ms"] for row in measured.rows}
    for item in report.checks:
        for threads in sorted({threads for _, threads in rows}):
            if item.format in STOCK:
                stock = rows[STOCK[item.format], threads]
                over = ratio(rows[item.file, threads], stock)
                yield {"format": item.format, "threads": threads, "ratio": over}


def _text(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} ({found['least']:.2f} to {found['most']:.2f})"


if __name__ == "__main__":
    main()

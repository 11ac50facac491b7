"""Compare the ways to make an int8 file: our ranges, ai-edge-quantizer's, TensorFlow's converter.

    python benchmarks/quantizers.py [NAME ...] [--images 10000] [--json FILE]

All files come from one model and the same calibration images. "ours" is what `export` writes:
ranges measured by us, quantized by ai-edge-quantizer with the scale of each kernel set by its
largest weight. Two ways set the scales of the kernels otherwise (MSE, OCTAV). The last two are
ai-edge-quantizer and TensorFlow's converter, each used as its guide shows. The seconds of
TensorFlow's converter include what the others get: the conversion of the SavedModel to float32.

A network with weights for CIFAR-10 is measured on test images. The others have random weights that
keep their signal, and 32 enlarged test images (see quantized_imagenet.py): for them only the
signal-to-noise ratio says something.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_quantizer import quantizer as ai_edge_quantizer
from ai_edge_quantizer import recipe as recipes
from quantized_imagenet import settled, write_images

import keras_resnet
from keras_resnet.export import manifest
from keras_resnet.export.formats import saved_model
from keras_resnet.export.formats.tflite import convert, edits, quantizer, ranges
from keras_resnet.export.measure import benchmark
from keras_resnet.export.npu.report import npu_report
from keras_resnet.export.rewrites import batch_norms, fold_rescaling
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.lazy import quiet_stderr
from keras_resnet.recipes import load_dataset

TRAINED = ("resnet8", "resnet20", "resnet32", "resnetv2_20")
RANDOM = ("resnet50v1_5", "resnet50v2", "densenet121", "seresnet50")
CALIBRATION = 256
NPU = "ethos-u55-128"


@dataclass(frozen=True)
class Subject:
    """One network: its float32 file, its SavedModel, and the images."""

    float_file: bytes
    saved_model: Path
    calibration: np.ndarray
    images: np.ndarray
    labels: np.ndarray | None

    @property
    def samples(self) -> np.ndarray:
        """The calibration images as the file takes them."""
        return convert.pinned("int8", self.calibration)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks (default: eight)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default 10000)")
    parser.add_argument("--size", type=int, default=96, help="pixels of random networks' images")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the record here")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.names or (*TRAINED, *RANDOM):
        with tempfile.TemporaryDirectory() as scratch:
            subject = _subject(name, options, Path(scratch))
            rows += [{"network": name, **row} for row in _rows(subject, Path(scratch))]
        if options.json:
            setup = {"images": options.images, "size": options.size, "calibration": CALIBRATION}
            content = {**setup, "rows": rows, "created": manifest.now(), **manifest.environment()}
            options.json.write_text(json.dumps(content, indent=1) + "\n")


def _subject(name: str, options: argparse.Namespace, scratch: Path) -> Subject:
    cifar10 = load_dataset("cifar10")
    if name in TRAINED:
        model = keras_resnet.create_model(name, weights="cifar10", include_preprocessing=True)
        train, test = cifar10.train, cifar10.test.sample(options.images)
        labels: np.ndarray | None = test.labels
    else:
        images = load_dataset(str(write_images("cifar10", options.size, scratch / "images")))
        images = images.at(options.size)
        train, test, labels = images.train, images.test.sample(32), None
        model = settled(name, images.train, 10)
    folded, _ = batch_norms.to_depthwise(
        fold_rescaling.fold_rescaling(keras_resnet.to_stock(model))
    )
    saved_model.write(folded, scratch / "saved_model", batch=1)
    float_file = convert.float32(scratch / "saved_model")
    chosen = train.sample(CALIBRATION).images
    return Subject(float_file, scratch / "saved_model", chosen, test.images, labels)


def _rows(subject: Subject, scratch: Path) -> list[dict[str, Any]]:
    """Make and measure one file in every way; the timed runs of all files take turns."""
    rows, files = [], []
    reference = scratch / "float32.tflite"
    reference.write_bytes(subject.float_file)
    expected = open_file(reference).predict(subject.images)
    for way, make in WAYS.items():
        begin = time.perf_counter()
        with quiet_stderr(), contextlib.redirect_stdout(io.StringIO()):
            data = make(subject)
        seconds = time.perf_counter() - begin
        path = scratch / f"{way.replace(' ', '_')}.tflite"
        path.write_bytes(data)
        files.append(benchmark.File(way, path))
        found = _accuracy(path, subject, expected)
        rows.append({"way": way, "seconds": round(seconds, 2), **found})
    measured = benchmark.measure(files, (1,), against="TensorFlow")
    kept = ("latency_ms", "ratio")
    times = {row["file"]: {key: row[key] for key in kept} for row in measured.rows}
    for row in rows:
        row |= times.get(row["way"], {})
        print(row, flush=True)
    return rows


def _accuracy(path: Path, subject: Subject, expected: np.ndarray) -> dict[str, Any]:
    file = open_file(path)
    found = file.predict(subject.images)
    inner = [item for item in file.graph if item.kind not in tflite_graph.BORDERS]
    borders = len(file.graph) - len(inner) - 2  # without those from and to uint8
    noise, signal = np.square(found - expected).mean(), np.square(expected).mean()
    report = npu_report(path, NPU)
    return {
        "accuracy": None if subject.labels is None else _share(found, subject.labels),
        "agreement": _share(found, expected.argmax(-1)),
        "snr_db": round(float(10 * np.log10(signal / noise)), 1),
        "bytes": path.stat().st_size,
        "in_float": sum(item.in_float for item in inner),
        "changes_of_scale": borders,
        "left_by_the_npu": sum(item.count for item in report.on_cpu),
    }


def _share(scores: np.ndarray, answers: np.ndarray) -> float:
    return float((scores.argmax(-1) == answers).mean())


def _ours(subject: Subject) -> bytes:
    return convert.quantized(subject.float_file, "int8", subject.calibration)


def _by(algorithm: str) -> Callable[[Subject], bytes]:
    """Return our way with another choice of the kernels' scales."""

    def make(subject: Subject) -> bytes:
        steps = quantizer.int8()
        for kind in tflite_graph.WITH_KERNEL:  # it is for kernels alone
            changed = {"operation": kind, "algorithm_key": algorithm}
            steps += [step | changed for step in quantizer.int8()]
        measured = ranges.measure(subject.float_file, ranges.MIN_MAX, subject.samples)
        fitting = edits.with_room_for_biases(subject.float_file, measured)
        return _uint8(quantizer.quantize(fitting, steps, measured))

    return make


def _own_ranges(subject: Subject) -> bytes:
    """Calibrate and quantize by ai-edge-quantizer alone, as its guide does."""
    made = ai_edge_quantizer.Quantizer(bytearray(subject.float_file), recipes.static_wi8_ai8())
    images = [{"images": image[None]} for image in subject.samples]
    measured = made.calibrate({"serving_default": images})
    return _uint8(bytes(made.quantize(measured).quantized_model))


def _uint8(data: bytes) -> bytes:
    return edits.with_borders(data, "uint8", {})


def _tensorflow(subject: Subject) -> bytes:
    """Convert the SavedModel as TensorFlow's guide does."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(subject.saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ({"images": x[None]} for x in subject.samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    with warnings.catch_warnings(action="ignore"):
        data: bytes = converter.convert()
    return data


WAYS = {
    "ours": _ours,
    "kernels by MSE": _by("MSE"),
    "kernels by OCTAV": _by("OCTAV"),
    "its own ranges": _own_ranges,
    "TensorFlow": _tensorflow,
}

if __name__ == "__main__":
    main()

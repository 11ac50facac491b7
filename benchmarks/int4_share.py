"""Measure int4 files by the share of the weights that keep 8 bits.

    python benchmarks/int4_share.py [--network resnet8 resnet20] [--images 3000] [--json FILE]

The accuracy is on the last training images of CIFAR-10, so that the share is not chosen on test
images. `int4.eight_bit` says which kernels keep 8 bits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import keras_resnet
from keras_resnet.export import export, manifest
from keras_resnet.export.formats.tflite import convert, int4
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.recipes import load_dataset

SHARES = (0.0, 0.01, 0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=["resnet8", "resnet20"], help="networks")
    parser.add_argument("--images", type=int, default=3000, help="number of images (default 3000)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rows = [row for name in options.network for row in _rows(name, options.images)]
    if options.json:
        content = {"rows": rows, "n": options.images, "created": manifest.now()}
        options.json.write_text(json.dumps(content | manifest.environment(), indent=2) + "\n")


def _rows(name: str, count: int) -> list[dict[str, Any]]:
    model = keras_resnet.create_model(name, weights="cifar10", include_preprocessing=True)
    train = load_dataset("cifar10").train
    images, labels = train.images[-count:], train.labels[-count:]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        report = export(model, ["tflite-float32"], out=f"{folder}/export", verbose=False)
        (float_file,) = report.folder.glob("*.tflite")
        for share in SHARES:
            int4.EIGHT_BIT_SHARE = share
            path = Path(folder) / f"{share}.tflite"
            path.write_bytes(convert.quantized(float_file.read_bytes(), "int4"))
            answers = open_file(path).predict(images).argmax(-1)
            accuracy = float((answers == labels).mean())
            rows.append(
                {
                    "network": name,
                    "share": share,
                    "accuracy": accuracy,
                    "bytes": path.stat().st_size,
                }
            )
            print(f"{name:<10} {share:4.0%} {accuracy:.2%} {path.stat().st_size:,} bytes")
    return rows


if __name__ == "__main__":
    main()

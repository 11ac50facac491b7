"""Measure the README's quickstart figures: the whole command with several seeds.

    python benchmarks/quickstart.py [--seeds 5] [--json FILE]

The seed changes the initial weights, the order of the images and their shifts, but not the split.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keras_resnet.export import manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default 5)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rows = [_run(seed) for seed in range(options.seeds)]
    for seed, row in enumerate(rows):
        print(
            f"seed {seed}: int8 {row['tflite-int8']:.2%}, float32 {row['tflite-float32']:.2%}, "
            f"agreement {row['agreement']:.2%}, {row['seconds']:.0f} s"
        )
    accuracies = [row["tflite-int8"] for row in rows]
    print(
        f"int8 on {rows[0]['n']} test images: mean {statistics.mean(accuracies):.2%}, "
        f"least {min(accuracies):.2%}, n = {len(rows)} seeds; {manifest.environment()['machine']}"
    )
    if options.json:
        content = {"rows": rows, "created": manifest.now(), **manifest.environment()}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def _run(seed: int) -> dict[str, float]:
    command = [sys.executable, "-m", "keras_resnet", "quickstart", "--json", "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = subprocess.run(
            command, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - began
    report = json.loads(result.stdout)
    files = {entry["format"]: entry for entry in report["files"]}
    return {
        **{name: entry["accuracy"] for name, entry in files.items()},
        "agreement": files["tflite-int8"]["agreement"],
        "n": report["model"]["n"],
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()

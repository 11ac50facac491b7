"""Measure the time and the memory of an export of ResNet-50.

    python benchmarks/export_cost.py [--network ResNet50] [--rounds 3] [--json FILE]
    python benchmarks/export_cost.py --memory onnx      # only the memory, of some formats

The time is that of an int8 file with its check, against TensorFlow's bare converter with the same
100 calibration images; they take turns in one process. The memory is the growth of a process that
writes all formats of `FORMATS` below, over the bytes of a float32 file, four for each parameter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import runtimes

from keras_resnet import export
from keras_resnet.export import manifest
from keras_resnet.export.measure.turns import ratio, spread
from keras_resnet.weights.foreign.keras_weights import takes_bgr

# Not int16x8: the CPU has only slow kernels for it, so that its check takes minutes.
FORMATS = [kind for kind in export.FORMATS if kind != "tflite-int16x8"]
MEMORY = """
import json, sys
import numpy as np
import keras_resnet
from keras_resnet.export import export

def kib(what):
    return int(open("/proc/self/status").read().split(what)[1].split()[0])

model = keras_resnet.create_model(sys.argv[1].lower(), weights=None, include_preprocessing=True)
images = np.random.default_rng(0).integers(0, 256, (100, 224, 224, 3)).astype("uint8")
before = kib("VmRSS:")
export(model, sys.argv[3:], out=sys.argv[2], calibration=images, verbose=False)
print(json.dumps([1024 * (kib("VmHWM:") - before), 4 * model.count_params()]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="ResNet50", help="the network (default ResNet50)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default 3)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--memory", nargs="+", metavar="FORMAT", help="only the memory of these")
    options = parser.parse_args()
    if options.memory:
        found = _memory(options.network, options.memory)
        print(f"{', '.join(options.memory)}: {found['bytes'] / 2**20:,.0f} MiB")
        return
    seconds = _in_turns(options.network, options.rounds)
    kinds, left_out = runtimes.available(FORMATS)
    record = {
        "network": options.network,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "over_bare": ratio(seconds["ours"], seconds["bare converter"]),
        "memory": _memory(options.network, kinds),
        "formats": kinds,
        "left_out": left_out,
        "n": options.rounds,
        "created": manifest.now(),
        **manifest.environment(),
    }
    for name, found in record["seconds"].items():
        print(f"{name:<15} {found['median']:.1f} s")
    print(f"ours / bare converter {record['over_bare']['median']:.2f}")
    print(f"memory of {len(kinds)} formats: {record['memory']['over_file']:.1f} float32 files")
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def _in_turns(network: str, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round."""
    shape = argparse.Namespace(size=224, classes=1000, calibration=100)
    theirs, ours = runtimes.networks(network, shape)
    images = runtimes.images_of(shape)
    flipped = images[..., ::-1].copy() if takes_bgr(theirs) else images
    seconds: dict[str, list[float]] = {"ours": [], "bare converter": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            tasks = [
                (
                    "ours",
                    lambda f=folder: runtimes.export_ours(
                        ours, ["tflite-int8"], images, Path(f, "o")
                    ),
                ),
                (
                    "bare converter",
                    lambda f=folder: runtimes.convert_stock(theirs, flipped, Path(f, "s")),
                ),
            ]
            for name, task in tasks if number % 2 else reversed(tasks):
                began = time.perf_counter()
                task()
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _memory(network: str, kinds: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", MEMORY, network, f"{folder}/all", *kinds]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    growth, file = json.loads(done.stdout.splitlines()[-1])
    return {"bytes": growth, "float32_file": file, "over_file": growth / file}


if __name__ == "__main__":
    main()

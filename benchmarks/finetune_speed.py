"""Compare the speed of fine-tuning with the script of Keras' guide, on a folder of photographs.

    python benchmarks/finetune_speed.py FOLDER [--rounds 3] [--json FILE]

Ours is `keras-resnet finetune resnet20 --weights cifar10 --image-size 64 --freeze 0`, the peer is
peers/keras_finetune.py. The figure is the images per second while all layers are trained: of the
second epoch of ours, and of the last epoch of the peer. Ours takes a random crop of each
photograph and mirrors it; the peer mirrors it. They take turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_resnet import onednn
from keras_resnet.export import manifest
from keras_resnet.export.measure.turns import ratio, spread
from keras_resnet.recipes.runs.folder import Run

PEER = Path(__file__).parent / "peers" / "keras_finetune.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="images: FOLDER/{train,val}/CLASS/*.jpg")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default 3)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    onednn.turn_on(onednn.read_cpuinfo(), training=True)  # for the peer, too; it inherits this
    pace: dict[str, list[float]] = {"ours": [], "plain Keras": []}
    waits = []
    for number in range(options.rounds):
        last = _ours(options.folder)
        pace["ours"].append(float(last["images_per_second"]))
        waits.append(float(last["input_wait"]))
        pace["plain Keras"].append(_peer(options.folder))
        print(f"  round {number + 1} of {options.rounds}", file=sys.stderr)
    seconds = {name: [1 / value for value in values] for name, values in pace.items()}
    record = {
        "images_per_second": {name: spread(values) for name, values in pace.items()},
        "over_plain_keras": ratio(seconds["plain Keras"], seconds["ours"]),
        "input_wait": spread(waits),
        "folder": Path(options.folder).name,
        "n": options.rounds,
        "created": manifest.now(),
        **manifest.environment(),
    }
    for name, found in record["images_per_second"].items():
        print(f"{name:<12} {found['median']:6.0f} images/s")
    print(f"ours / plain Keras {record['over_plain_keras']['median']:.2f}")
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def _ours(folder: str) -> dict[str, str]:
    """Return the row of the second epoch in log.csv."""
    verb = "finetune resnet20 --weights cifar10 --image-size 64 --freeze 0 --epochs 2"
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "keras_resnet", *verb.split(), "--data", folder]
        command += ["--set", "train.least_steps=0", "--out", f"{out}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return Run(Path(out) / "run").rows()[1]


def _peer(folder: str) -> float:
    command = [sys.executable, str(PEER), folder, "--size", "64", "--epochs", "4"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["images_per_second"])


if __name__ == "__main__":
    main()

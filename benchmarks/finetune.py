"""Compare fine-tuning with training from scratch, on a folder of images, over several seeds.

    python benchmarks/finetune.py RUN FOLDER [--size 64] [--seeds 3] [--json FILE]

Both train the network of RUN on the same images with the config `finetune/default`; from scratch,
nothing is frozen. The accuracies are on the test split, evaluated once at the end of each run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_resnet.export import manifest
from keras_resnet.recipes.runs.folder import find_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="the finished run to start from")
    parser.add_argument("folder", help="images: FOLDER/{train,val}/CLASS/*.jpg")
    parser.add_argument("--size", type=int, default=64, help="image side in pixels (default 64)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    start = find_run(options.run)
    model = start.config.model
    verbs = {
        "finetuned": ["finetune", options.run],
        "scratch": ["train", "finetune/default", "--set", "finetune.frozen=0.0"],
    }
    verbs["scratch"] += ["--set", f"model={model}"]
    shared = ["--data", options.folder, "--set", f"data.image_size={options.size}"]
    shared += ["--epochs", "20", "--set", "data.validation=100"]  # as the record has them
    rows = {
        name: [_run(verb + shared, seed) for seed in range(options.seeds)]
        for name, verb in verbs.items()
    }
    for name, accuracies in rows.items():
        values = " ".join(f"{value:.2%}" for value in accuracies)
        print(f"{name:<10} mean {statistics.mean(accuracies):.2%}, n = {options.seeds}: {values}")
    if options.json:
        content = {
            "model": model,
            "start": start.summary(),
            "size": options.size,
            "test_accuracy": rows,
            "created": manifest.now(),
            **manifest.environment(),
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def _run(verb: list[str], seed: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "keras_resnet", *verb, "--seed", str(seed)]
        subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        return float(find_run(out).summary()["test"]["accuracy"])


if __name__ == "__main__":
    main()

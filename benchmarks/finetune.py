"""Compare three ways to train on a folder of images: whole, with a frozen body, from scratch.

    python benchmarks/finetune.py "resnet20 --weights cifar10" FOLDER --json FILE [--seeds 3]
    python benchmarks/finetune.py RUN FOLDER --json FILE

The first two are `keras-resnet finetune` with its defaults and with `--freeze 1`. From scratch, the
same network learns from the same images by the same config `finetune/default`, and nothing is
frozen. The accuracies are on the test split, evaluated once at the end of each run. Runs that FILE
already has are not run again, so the program can be stopped and started.
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
from keras_resnet.recipes.runs.folder import find_run, is_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("start", help='a finished run, or a NAME: "resnet20 --weights cifar10"')
    parser.add_argument("folder", type=Path, help="images: FOLDER/{train,val}/CLASS/*.jpg")
    parser.add_argument("--size", type=int, default=64, help="image side in pixels (default 64)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--json", type=Path, required=True, help="the record to write or continue")
    options = parser.parse_args()
    start = options.start.split()
    model = find_run(start[0]).config.model if is_run(Path(start[0])) else start[0]
    verbs = {
        "whole": ["finetune", *start],
        "frozen": ["finetune", *start, "--freeze", "1"],
        "from scratch": ["train", "finetune/default", "--set", "finetune.frozen=0.0"],
    }
    verbs["from scratch"] += ["--set", f"model={model}"]
    shared = ["--data", str(options.folder), "--set", f"data.image_size={options.size}"]
    rows = json.loads(options.json.read_text())["accuracy"] if options.json.is_file() else {}
    for seed in range(options.seeds):
        for name, verb in verbs.items():
            if len(rows.setdefault(name, [])) <= seed:
                rows[name].append(_run([*verb, *shared, "--seed", str(seed)]))
                content = {
                    "start": " ".join([Path(start[0]).name, *start[1:]]),
                    "folder": options.folder.name,
                    "size": options.size,
                    "accuracy": rows,
                    "created": manifest.now(),
                    **manifest.environment(),
                }
                options.json.write_text(json.dumps(content, indent=2) + "\n")
    for name, accuracies in rows.items():
        values = " ".join(f"{value:.2%}" for value in accuracies)
        print(f"{name:<13} mean {statistics.mean(accuracies):.2%}, n = {len(accuracies)}: {values}")


def _run(verb: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "keras_resnet", *verb, "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return float(find_run(out).summary()["test"]["accuracy"])


if __name__ == "__main__":
    main()

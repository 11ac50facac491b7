"""Measure the defaults of fine-tuning: change one setting at a time, on folders of several sizes.

    python benchmarks/subset.py IMAGENETTE SUBSETS/60 --per-class 60      (also 5, 20; --uneven)
    python benchmarks/finetune_defaults.py SUBSETS --json FILE [--only REGEX]

Every row is one `keras-resnet finetune resnet20 --weights cifar10 --data SUBSETS/NAME`, but for the
last, which is peers/keras_finetune.py. The accuracy is on SUBSETS/NAME/val, which `subset.py` takes
from the training images. Rows that FILE already has are not run again, so the program can be
stopped and started.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from keras_resnet.export import manifest

BASE = "--image-size 64"
CHANGES = {
    "as it is": "",
    "learning rate 0.005": "--lr 0.005",
    "learning rate 0.06": "--lr 0.06",
    "nothing frozen": "--freeze 0",
    "half of the run frozen": "--freeze 0.5",
    "BN never trained": "--set finetune.train_bn=false",
    "300 updates": "--set train.least_steps=300 --set train.epochs=1",
    "1200 updates": "--set train.least_steps=1200",
    "patience 5": "--patience 5",
    "32 pixels": "--image-size 32",
    "96 pixels": "--image-size 96",
    "128 pixels": "--image-size 128",
}
PEER = "plain Keras, as its guide does it"
UNEVEN = {"as it is": "", "class weights": "--class-weights", "balanced": "--balanced"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subsets", type=Path, help="the folder of the folders of subset.py")
    parser.add_argument("--json", type=Path, required=True, help="the record to write or continue")
    parser.add_argument("--only", default="", help="only rows 'SUBSET: CHANGE' that match this")
    options = parser.parse_args()
    rows = json.loads(options.json.read_text())["rows"] if options.json.is_file() else []
    known = {(row["subset"], row["change"]) for row in rows}
    for subset in sorted(path for path in options.subsets.iterdir() if path.is_dir()):
        for change, flags in _changes(subset).items():
            wanted = re.search(options.only, f"{subset.name}: {change}")
            if wanted and (subset.name, change) not in known:
                row = _peer(subset) if change == PEER else _row(subset, flags)
                rows.append({"subset": subset.name, "change": change, **row})
                print(rows[-1], flush=True)
                record = {"rows": rows, "created": manifest.now(), **manifest.environment()}
                options.json.write_text(json.dumps(record, indent=2) + "\n")


def _changes(subset: Path) -> dict[str, str]:
    return UNEVEN if "uneven" in subset.name else {**CHANGES, PEER: ""}


def _peer(subset: Path) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).parent / "peers" / "keras_finetune.py")]
    done = subprocess.run([*command, str(subset)], check=True, stdout=subprocess.PIPE, text=True)
    return {"flags": "", "macro_f1": None, **json.loads(done.stdout.splitlines()[-1])}


def _row(subset: Path, flags: str) -> dict[str, Any]:
    verb = f"finetune resnet20 --weights cifar10 {BASE} {flags} --seed 0 --json"
    with tempfile.TemporaryDirectory() as folder:
        paths = ["--data", str(subset), "--out", f"{folder}/run"]
        command = [sys.executable, "-m", "keras_resnet", *verb.split(), *paths]
        began = time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        summary = json.loads(done.stdout)
    return {
        "flags": flags,
        "accuracy": summary["test"]["accuracy"],
        "macro_f1": summary["test"].get("macro", {}).get("f1"),
        "best_epoch": summary.get("best_epoch"),
        "seconds": time.perf_counter() - began,
    }


if __name__ == "__main__":
    main()

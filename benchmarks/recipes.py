"""Measure wall time and peak memory of each recipe, as whole commands on the digits data.

    python benchmarks/recipes.py [--json FILE]

The memory is that of the largest process of a command. The commands run one after another, and the
later ones use the run of the first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from processes import measured

from keras_resnet.export import manifest

RECIPES = {
    "train": "train digits/resnet8 --out run",
    "evaluate": "evaluate run",
    "finetune": "finetune run --data digits --epochs 5 --out finetuned",
    "distill": "distill digits/resnet8 --teacher run --epochs 5 --out distilled",
    "qat": "qat run --epochs 2 --out quantized",
    "prune": "prune run --epochs 5 --out pruned",
    "cluster": "cluster run --epochs 2 --out clustered",
    "prune-filters": "prune-filters run --data digits --keep 0.5 --epochs 5 --out narrow",
    "export": "export run",
    "report": "report run",
    "quickstart": "quickstart --out quick",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: _measured(command, Path(folder)) for name, command in RECIPES.items()}
    for name, row in rows.items():
        print(f"{name:<14} {row['seconds']:6.1f} s {row['peak_mib']:7,.0f} MiB  {row['command']}")
    if options.json:
        content = {"rows": rows, "created": manifest.now(), **manifest.environment()}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def _measured(command: str, folder: Path) -> dict[str, Any]:
    """Run a command in `folder` and return its seconds and the peak of its resident memory."""
    print(f"keras-resnet {command}", file=sys.stderr)
    used = measured([sys.executable, "-m", "keras_resnet", *command.split()], folder)
    return {
        "command": f"keras-resnet {command}",
        "seconds": round(used.seconds, 1),
        "peak_mib": used.peak_mib,
    }


if __name__ == "__main__":
    main()

"""Measure TensorFlow's speed with and without oneDNN's kernels on this CPU, in turns.

    python benchmarks/onednn.py [--isa AVX2] [--rounds 5] [--json FILE]    # Linux

benchmarks/README.md describes the measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from keras_resnet.export.measure.turns import Peer, ratio, spread, take_turns, workers
from keras_resnet.onednn import VARIABLE

OURS = (sys.executable, str(Path(__file__).parent / "peers" / "ours.py"))
WORKER = (sys.executable, "-m", "keras_resnet.export.measure.benchmark_worker")
TRAINING = {
    "train resnet20, batch 128": ("resnet20", 128, 32, 10),
    "train resnet50, batch 16": ("resnet50", 16, 224, 1000),
}
INFERENCE = {
    "predict resnet8, batch 1": "resnet8",
    "predict resnet20, batch 1": "resnet20",
    "predict resnet50, batch 1": "resnet50",
}
STEPS = {"resnet8": 200, "resnet20": 200}  # predictions in a turn; all else does 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", nargs="+", choices=[*TRAINING, *INFERENCE], help="the work to time (default: all)"
    )
    parser.add_argument(
        "--isa", help="instruction set for both, e.g. AVX2 (oneDNN: ONEDNN_MAX_CPU_ISA)"
    )
    parser.add_argument("--threads", type=int, default=2, help="cores (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default 5)")
    parser.add_argument("--json", type=Path, help="also write the record to this file")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    load = round(os.getloadavg()[0], 2)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for work in options.work or [*TRAINING, *INFERENCE]:
            rows.append(measure(work, folder, options))
            print(line(rows[-1]))
    if options.json:
        settings = {"isa": options.isa, "threads": options.threads, "load_average": load}
        write(options.json, {**settings, "rows": rows})


def measure(work: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time `work` in turns without and with oneDNN; a round's time is the median of its steps."""
    command, told, steps = _work(work, folder, options.threads)
    limit = (f"ONEDNN_MAX_CPU_ISA={options.isa}",) if options.isa else ()
    peers = [
        Peer(name, ("env", f"{VARIABLE}={value}", *limit, *command), told)
        for name, value in (("off", 0), ("on", 1))
    ]
    with workers(peers) as started:
        answers = take_turns(started, options.rounds, steps)
    ms = {name: [statistics.median(turn["ms"]) for turn in answers[name]] for name in answers}
    fastest = {name: min(ms for turn in answers[name] for ms in turn["ms"]) for name in answers}
    return {
        "work": work,
        **{name: spread(values) for name, values in ms.items()},
        "ratio": ratio(ms["off"], ms["on"]),
        "fastest_step": {name: round(value, 3) for name, value in fastest.items()},
        "n": sum(len(turn["ms"]) for turn in answers["on"]),
        "rounds": options.rounds,
    }


def _work(work: str, folder: str, threads: int) -> tuple[tuple[str, ...], dict[str, Any], int]:
    """Return the command for the work, its options, and the steps of a turn."""
    if work in TRAINING:
        model, batch, size, classes = TRAINING[work]
        told = {"model": model, "batch_size": batch, "image_size": size, "classes": classes}
        return OURS, {**told, "precision": "float32", "data": None}, 20 if batch > 16 else 3
    path = Path(folder) / f"{INFERENCE[work]}.keras"
    _save(INFERENCE[work], path)
    told = {"path": str(path), "threads": threads, "shape": None, "batch": 1}
    return WORKER, told, STEPS.get(INFERENCE[work], 10)


def _save(name: str, path: Path) -> None:
    import keras_resnet

    keras_resnet.create_model(name).save(path)


def line(row: dict[str, Any]) -> str:
    """Return the printed line for a row."""
    off, on = (f"{row[name]['median']:.4g}" for name in ("off", "on"))
    gain = "{median:.2f} ({least:.2f} to {most:.2f})".format(**row["ratio"])
    fastest = "fastest {off:.4g} and {on:.4g}".format(**row["fastest_step"])
    return f"{row['work']}: {off} ms off, {on} ms on ({fastest}), off/on {gain}, n = {row['n']}"


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a record."""
    from keras_resnet.export import manifest

    told = {"created": manifest.now(), **manifest.environment(), **content}
    path.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()

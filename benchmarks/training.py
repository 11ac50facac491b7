"""Compare our training with stock Keras 3 and PyTorch: same networks, same cores (Linux).

    python benchmarks/training.py [--model resnet20] [--precision float32] [--json FILE]
    python benchmarks/training.py --epoch     # whole epochs of CIFAR-10 with augmentation
    python benchmarks/training.py --torch-python ~/torch/bin/python    # PyTorch's environment

benchmarks/README.md describes the comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from keras_resnet import onednn
from keras_resnet.export.measure.turns import Answers, Peer, ratio, spread, take_turns, workers

FOLDER = Path(__file__).parent / "peers"
RIVALS = ("ours-remat", "ours-fit", "keras-fit", "torch", "torch-compiled")
PRECISIONS = ("float32", "mixed_bfloat16")


@dataclass(frozen=True)
class Workload:
    """A network and what it is fed."""

    model: str
    batch_size: int
    image_size: int
    classes: int
    steps: int  # of a turn, unless the command line says otherwise


WORKLOADS = {
    "resnet20": Workload("resnet20", batch_size=128, image_size=32, classes=10, steps=20),
    "resnet18": Workload("resnet18", batch_size=64, image_size=128, classes=1000, steps=5),
    "resnet50": Workload("resnet50", batch_size=16, image_size=224, classes=1000, steps=3),
}


@dataclass
class Record:
    """The printed and written results: a row per peer, and the peers left out with the reason."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def main() -> None:
    options = _parse()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # this is about the CPU
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # As `keras-resnet train` does; stock Keras' worker inherits it, too.
    onednn.turn_on(onednn.read_cpuinfo(), training=True)
    # Every framework starts as many threads as it may use cores, and the workers inherit this.
    cores = sorted(os.sched_getaffinity(0))[: options.threads]
    os.sched_setaffinity(0, cores)
    settings: dict[str, Any] = {"threads": len(cores), "load_average": round(os.getloadavg()[0], 2)}
    if settings["load_average"] > 0.5:
        print(
            f"warning: other programs are running (load {os.getloadavg()[0]:.1f})", file=sys.stderr
        )
    record = Record()
    with tempfile.TemporaryDirectory() as folder:
        if options.epoch:
            settings["images"] = _write_images(folder, options.images)
        for model in options.model:
            for precision in options.precision:
                _measure(record, options, WORKLOADS[model], precision, folder)
    _print(record)
    if options.json:
        _write(record, settings, options.json)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", choices=WORKLOADS, help="networks (default: all)")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=PRECISIONS,
        help="precisions (default: all)",
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=RIVALS,
        default=RIVALS,
        help="others to compare (default: all)",
    )
    parser.add_argument("--rounds", type=int, help="number of rounds (default 5; 2 epochs)")
    parser.add_argument("--steps", type=int, help="steps per turn (default 20, 5 or 3)")
    parser.add_argument("--threads", type=int, default=2, help="number of cores (default 2)")
    parser.add_argument("--epoch", action="store_true", help="time whole epochs of resnet20")
    parser.add_argument(
        "--images", type=int, default=50_000, help="images per epoch (default 50000)"
    )
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has PyTorch")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if options.epoch and {"resnet18", "resnet50"}.intersection(options.model or ()):
        parser.error("--epoch is of resnet20: CIFAR-10 has no images for the other networks")
    options.model = options.model or (["resnet20"] if options.epoch else list(WORKLOADS))
    options.rounds = options.rounds or (2 if options.epoch else 5)
    return options


def _write_images(folder: str, count: int) -> str:
    """Write an epoch's images to `folder`; return their kind, "cifar10" or "noise"."""
    command = [sys.executable, str(FOLDER / "images.py"), folder, str(count)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _measure(
    record: Record, options: argparse.Namespace, work: Workload, precision: str, folder: str
) -> None:
    """Compare all peers on one network in one precision."""
    where = {"model": work.model, "precision": precision}
    print(f"{work.model}, {precision}", file=sys.stderr)
    if reason := _why_not(precision):
        record.left_out.append({**where, "reason": reason})
        return
    told = {**asdict(work), "precision": precision, "data": None}
    if options.epoch:
        told |= {"data": folder, "images": options.images}
    peers, left_out = _peers(options, told)
    record.left_out += [{**where, **entry} for entry in left_out]
    steps = options.steps or work.steps
    with workers(peers) as started:
        parameters = _same_parameters({w.peer.name: w.facts["parameters"] for w in started})
        for worker in started:
            record.versions |= worker.facts["versions"]
        answers = take_turns(started, options.rounds, steps)
    rows = epoch_rows(answers) if options.epoch else step_rows(answers)
    shared = {**where, "batch_size": work.batch_size, "image_size": work.image_size}
    record.rows += [{**shared, "parameters": parameters, **row} for row in rows]


# Who takes part ---------------------------------------------------------------------------------


def _peers(
    options: argparse.Namespace, told: dict[str, Any]
) -> tuple[list[Peer], list[dict[str, str]]]:
    """Return the peers, ours first, and the reasons for the peers left out."""
    own = (sys.executable, str(FOLDER / "ours.py"))
    peers = [Peer("ours", own, told)]
    if told["precision"] != "float32":  # what mixed precision gains
        peers.append(Peer("ours-float32", own, {**told, "precision": "float32"}))
    left_out = []
    for name in options.peers:
        if reason := _why_absent(name, options.torch_python):
            left_out.append({"peer": name, "reason": reason})
        elif name == "ours-remat":
            peers.append(Peer(name, own, {**told, "remat": True}))
        elif name.endswith("-fit"):
            keras_fit = {**told, "stock": name == "keras-fit"}
            peers.append(Peer(name, (sys.executable, str(FOLDER / "keras_fit.py")), keras_fit))
        else:
            compiled = {**told, "compiled": name == "torch-compiled"}
            command = (options.torch_python, str(FOLDER / "pytorch.py"))
            peers.append(Peer(name, command, compiled))
    return peers, left_out


def _why_absent(peer: str, torch_python: str) -> str | None:
    if not peer.startswith("torch"):
        return None
    if subprocess.run([torch_python, "-c", "import torch"], capture_output=True).returncode:
        return "the interpreter cannot import torch; name one that can with --torch-python"
    if peer == "torch-compiled" and shutil.which("c++") is None:
        return "there is no C++ compiler, which TorchInductor needs"
    return None


def _why_not(precision: str) -> str | None:
    """The reason why a precision is not measured on this machine, or None."""
    if precision == "float32":
        return None
    code = "from keras_resnet.recipes.training import devices; print(devices.precision('auto'))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return None if run.stdout.split()[-1] == precision else "this CPU has no bfloat16 arithmetic"


def _same_parameters(counts: dict[str, int]) -> int:
    """Return the number of trainable parameters; exit if the peers differ."""
    if len(set(counts.values())) != 1:
        sys.exit(f"The peers do not train the same network; parameters: {counts}")
    return next(iter(counts.values()))


# What the figures say ---------------------------------------------------------------------------


def step_rows(answers: Answers) -> list[dict[str, Any]]:
    """Return a row per peer: the milliseconds of a step; a round counts by its median."""
    ms = {peer: [statistics.median(t["ms"]) for t in turns] for peer, turns in answers.items()}
    return [
        {
            "peer": peer,
            "ms": spread(ms[peer]),
            "ratio": None if peer == "ours" else ratio(ms[peer], ms["ours"]),
            "n": sum(len(turn["ms"]) for turn in turns),
            **_process(turns),
            "rounds": [{"ms": [round(value, 2) for value in turn["ms"]]} for turn in turns],
        }
        for peer, turns in answers.items()
    ]


def epoch_rows(answers: Answers) -> list[dict[str, Any]]:
    """Return a row per peer: images per second over whole epochs.

    `input_wait` is the part of the epoch spent waiting for batches (null for `fit`, which does not
    measure it). `stall_s` is the time between the end of the last step and the end of the epoch.
    """
    pace = {peer: [t["seconds"] / t["images"] for t in turns] for peer, turns in answers.items()}
    keys = ("images", "seconds", "stall_s", "input_wait")
    rows = []
    for peer, turns in answers.items():
        waits = [turn["input_wait"] for turn in turns]
        row = {
            "peer": peer,
            "images_per_second": spread([1 / seconds for seconds in pace[peer]]),
            "ratio": None if peer == "ours" else ratio(pace[peer], pace["ours"]),
            "stall_s": spread([turn["stall_s"] for turn in turns]),
            "input_wait": None if None in waits else spread(waits),
            "n": len(turns),
        }
        rounds = [{key: turn[key] for key in keys} for turn in turns]
        rows.append({**row, **_process(turns), "rounds": rounds})
    return rows


def _process(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the peak memory, and the largest CPU time used during the others' turns."""
    return {
        "peak_memory_mib": max(turn["peak_memory_mib"] for turn in turns),
        "idle_cpu_s": round(max(turn["idle_cpu_s"] for turn in turns), 3),
    }


# What is printed of a row: its heading and how a number is written.
_COLUMNS = {
    "ms": ("ms a step", "{:.1f}"),
    "images_per_second": ("images/s", "{:.1f}"),
    "stall_s": ("stall s", "{:.2f}"),
    "input_wait": ("input wait", "{:.1%}"),
    "ratio": ("× ours", "{:.2f}"),
    "peak_memory_mib": ("peak MiB", "{}"),
}


def _print(record: Record) -> None:
    from keras_resnet.display.console import (
        print_table,  # with TensorFlow: not while workers are timed
    )

    for model, precision in dict.fromkeys((r["model"], r["precision"]) for r in record.rows):
        rows = [r for r in record.rows if (r["model"], r["precision"]) == (model, precision)]
        keys = [key for key in _COLUMNS if key in rows[0]]
        title = f"{model}, {precision}, batch {rows[0]['batch_size']}: median (range)"
        table = [
            [row["peer"], *(_cell(row[key], _COLUMNS[key][1]) for key in keys)] for row in rows
        ]
        print_table(title, ["peer", *(_COLUMNS[key][0] for key in keys)], table)
        print()
    for entry in record.left_out:
        name = ", ".join(entry[key] for key in ("model", "precision", "peer") if key in entry)
        print(f"left out: {name}: {entry['reason']}")


def _cell(value: Any, style: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return style.format(value)
    median, least, most = (style.format(value[key]) for key in ("median", "least", "most"))
    return f"{median} ({least} to {most})"


def _write(record: Record, settings: dict[str, Any], path: Path) -> None:
    from keras_resnet.export import manifest

    environment = manifest.environment()
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    content = {
        "rows": record.rows,
        "left_out": record.left_out,
        **settings,
        "created": manifest.now(),
        "versions": {**environment["versions"], **record.versions},
        "machine": environment["machine"],
        "cores": os.cpu_count(),
        "ram_gib": round(ram, 1),
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

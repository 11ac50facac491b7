"""Measure every performance bar of the project, and print them in one table.

    python benchmarks/all.py --quick     # few rounds
    python benchmarks/all.py --full      # about half an hour
    python benchmarks/all.py --full --only start folders      # some of the benchmarks

Each benchmark is a program of its own. With `--full` it writes its record to
results/performance/CPU/, where CPU names the kind of processor. Records that are there are not
measured again; `--again` does that.
docs/performance.md has the table of all kinds of processors (`python benchmarks/tables.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bars import BARS, CPUS, FOLDER, judged, text

from keras_resnet import onednn

# {program: (arguments of a quick run, arguments of a full one)}
PROGRAMS = {
    "start": ("--rounds 3", "--rounds 9"),
    "building": ("--rounds 3", "--rounds 9"),
    "quickstart": ("--seeds 1", "--seeds 3"),
    "folders": ("--rounds 3", "--rounds 9"),
    "export_cost": ("--rounds 1", "--rounds 3"),
    "training": ("--rounds 3", "--rounds 5"),
    "prediction": ("--count 2000 --rounds 1", "--count 10000 --rounds 3"),
    "two_workers": ("--rounds 1 --data cifar10[:10%]", "--rounds 3"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--quick", action="store_true", help="few rounds")
    length.add_argument("--full", action="store_true", help="all rounds")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--again", action="store_true", help="also measure what has a record")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has PyTorch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = FOLDER / cpu() if options.full else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        _measure(options, folder)
        print("\n".join(_lines(folder)))


def _measure(options: argparse.Namespace, folder: Path) -> None:
    for name in options.only:
        record = folder / f"{name}.json"
        if record.exists() and not options.again:
            print(f"{name}: {record} is there", file=sys.stderr)
            continue
        arguments = PROGRAMS[name][options.full].split()
        if name == "training":
            arguments += ["--torch-python", options.torch_python]
        program = Path(__file__).with_name(f"{name}.py")
        print(f"{name}: {' '.join(arguments)}", file=sys.stderr)
        command = [sys.executable, str(program), *arguments, "--json", str(record)]
        _wait_until_idle()
        if subprocess.run(command, env=_environment()).returncode:
            print(f"{name} failed; its output has the reason", file=sys.stderr)


def _wait_until_idle() -> None:
    """Wait until the load is low, for three minutes at most: the last program is still in it."""
    end = time.monotonic() + 180
    while os.getloadavg()[0] > 0.5 and time.monotonic() < end:
        time.sleep(5)


def cpu() -> str:
    """Return the kind of this processor: a key of CPUS."""
    found = set(onednn.instruction_sets(onednn.read_cpuinfo()))
    return next(kind for kind, (needed, _) in CPUS.items() if needed <= found)


def _environment() -> dict[str, str]:
    return {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}


def _lines(folder: Path) -> Iterator[str]:
    machine = ""
    for bar in BARS:
        path = folder / f"{bar.program}.json"
        record = json.loads(path.read_text()) if path.exists() else None
        machine = machine or (record or {}).get("machine", "")
        found = None if record is None else bar.measured(record)
        said = "not measured" if found is None else f"{text(found)}  {judged(bar, found)}"
        yield f"{bar.what:<66} {bar.asked:<9} {said}"
    yield f"machine: {machine}, {CPUS[cpu()][1]}"


if __name__ == "__main__":
    main()

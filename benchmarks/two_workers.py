"""Compare training by two processes over loopback with one process on the same two cores.

    python benchmarks/two_workers.py [--data cifar10[:20%]] [--rounds 3] [--json FILE]

All train ResNet-20 of CIFAR-10 with a global batch of 128. Each of the two workers
(MultiWorkerMirroredStrategy) has one core. The figure of a run is the images per second of its
second epoch, from log.csv. The runs take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from keras_resnet.export import manifest
from keras_resnet.export.measure.turns import ratio, spread
from keras_resnet.recipes.runs.folder import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10[:20%]", help="the images (cifar10[:20%%])")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default 3)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    pace: dict[str, list[float]] = {"one process": [], "two workers": []}
    first, second = sorted(os.sched_getaffinity(0))[:2]
    for number in range(options.rounds):
        pace["one process"].append(_train(options.data, [{first, second}]))
        pace["two workers"].append(_train(options.data, [{first}, {second}]))
        print(f"  round {number + 1} of {options.rounds}", file=sys.stderr)
    seconds = {name: [1 / value for value in values] for name, values in pace.items()}
    record = {
        "images_per_second": {name: spread(values) for name, values in pace.items()},
        "over_one": ratio(seconds["one process"], seconds["two workers"]),
        "data": options.data,
        "n": options.rounds,
        "created": manifest.now(),
        **manifest.environment(),
    }
    for name, found in record["images_per_second"].items():
        print(f"{name:<12} {found['median']:6.0f} images/s")
    print(f"two workers / one process {record['over_one']['median']:.2f}")
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def _train(data: str, cores: list[set[int]]) -> float:
    """Train with a process on each set of cores; return the images per second of epoch 2."""
    addresses = _free_addresses(len(cores))
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "keras_resnet", "train", "cifar10/resnet20", "--data", data),
            *("--epochs", "2", "--set", "data.validation=0", "--out", f"{folder}/run"),
        ]
        started = []
        for index, own in enumerate(cores):
            env = dict(os.environ)
            if len(cores) > 1:
                task = {"type": "worker", "index": index}
                env["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
            os.sched_setaffinity(0, own)  # the process inherits it
            started.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL))
        os.sched_setaffinity(0, set().union(*cores))
        if any(process.wait() for process in started):
            raise SystemExit("A training failed; its output has the reason.")
        return float(Run(Path(folder) / "run").rows()[1]["images_per_second"])


def _free_addresses(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


if __name__ == "__main__":
    main()

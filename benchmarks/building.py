"""Measure the time of building a network, against Keras Applications, and for the deepest ones.

    python benchmarks/building.py [--rounds 9] [--json FILE]

Both packages build `ResNet50()` in turns in one process, after one build each that is not counted.
The ratio is theirs over ours in the same round. Each of the deepest networks is built in a separate
process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAIRS = ("ResNet50", "ResNet152", "ResNet50V2")
DEEP = ("resnetv2_1001", "resnet1202")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds (default 9)")
    parser.add_argument("--json", metavar="FILE", help="also write the record to this file")
    parser.add_argument("--build", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        print(json.dumps(_build_alone(options.build)))
        return
    from keras_resnet.export import manifest

    record: dict[str, Any] = {
        "created": manifest.now(),
        **manifest.environment(),
        "n": options.rounds,
        "pairs": {name: _in_turns(name, options.rounds) for name in PAIRS},
        "alone": {name: _in_a_process(name) for name in DEEP},
    }
    for name, pair in record["pairs"].items():
        print(
            f"{name:<12} ours {pair['ours']['median']:.2f} s, Keras Applications "
            f"{pair['theirs']['median']:.2f} s, theirs/ours {pair['ratio']['median']:.2f} "
            f"({pair['ratio']['least']:.2f} to {pair['ratio']['most']:.2f}, n = {options.rounds})"
        )
    for name, alone in record["alone"].items():
        print(
            f"{name:<14} {alone['seconds']:.1f} s, {alone['layers']:,} layers, "
            f"{alone['parameters']:,} parameters, peak {alone['peak_mib']:,} MiB "
            f"({alone['import_mib']:,} MiB after the import)"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n")


def _in_turns(name: str, rounds: int) -> dict[str, Any]:
    import keras

    import keras_resnet
    from keras_resnet.export.measure.turns import ratio, spread

    builders: dict[str, Callable[[], Any]] = {
        "ours": getattr(keras_resnet, name),
        "theirs": lambda: getattr(keras.applications, name)(weights=None),
    }
    seconds: dict[str, list[float]] = {who: [] for who in builders}
    for number in range(-1, rounds):
        order = list(builders) if number % 2 else list(reversed(builders))
        for who in order:
            keras.backend.clear_session()
            began = time.perf_counter()
            builders[who]()
            if number >= 0:
                seconds[who].append(time.perf_counter() - began)
    return {
        **{who: spread(values) for who, values in seconds.items()},
        "ratio": ratio(seconds["theirs"], seconds["ours"]),
    }


def _in_a_process(name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--build", name]
    answer: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )
    return answer


def _build_alone(name: str) -> dict[str, Any]:
    import keras_resnet

    before = _peak_mib()
    began = time.perf_counter()
    model = keras_resnet.create_model(name)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "layers": len(model.layers),
        "parameters": model.count_params(),
        "peak_mib": _peak_mib(),
        "import_mib": before,
    }


def _peak_mib() -> int:
    """Return VmHWM in MiB; getrusage would include the peak of the parent process."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024)


if __name__ == "__main__":
    main()

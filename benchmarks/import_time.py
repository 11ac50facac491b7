"""Measure the time of `import keras_resnet` beyond `import keras`, and of the command's start.

    python benchmarks/import_time.py [--n 5]

Both kinds of processes take turns. The medians and their difference are printed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import keras": [sys.executable, "-c", "import keras"],
    "import keras, then keras_resnet": [sys.executable, "-c", "import keras, keras_resnet"],
    "keras-resnet --help": [sys.executable, "-m", "keras_resnet", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=5, help="number of rounds (default 5)")
    rounds = parser.parse_args().n
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    for name, values in seconds.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:<34} median {statistics.median(values):.2f} s ({spread}, n = {rounds})")
    inside = [sys.executable, "-c", INSIDE]
    beyond = [
        float(subprocess.run(inside, check=True, capture_output=True, text=True).stdout)
        for _ in range(rounds)
    ]
    print(f"beyond `import keras`, in one process: {1e3 * statistics.median(beyond):.0f} ms")


INSIDE = """
import time, keras
began = time.perf_counter()
import keras_resnet
print(time.perf_counter() - began)
"""

if __name__ == "__main__":
    main()

"""Compare `keras-resnet predict` on a folder of photographs with a bare LiteRT loop.

    python benchmarks/prediction.py [--count 10000] [--rounds 3] [--json FILE]

Both are whole commands that classify the same JPEG files (500×375 pixels) with the same int8 file
of a ResNet-18 at 128 pixels, and write the classes to a CSV file. They take turns. The bare loop is
peers/bare_predict.py. `predict` also classifies a tenth of the files, so that the record shows if
its memory grows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from input_pipeline import fill
from processes import Used, measured

from keras_resnet.export import manifest
from keras_resnet.export.measure.turns import ratio, spread

BARE = Path(__file__).parent / "peers" / "bare_predict.py"
EXPORT = """
import sys
import numpy as np
import keras_resnet
from keras_resnet.export import export

model = keras_resnet.create_model(
    "resnet18", weights=None, input_shape=(128, 128, 3), include_preprocessing=True, classes=10
)
images = np.random.default_rng(0).integers(0, 256, (32, 128, 128, 3)).astype("uint8")
export(model, ["tflite-int8"], out=sys.argv[1], calibration=images, verbose=False)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="images (default 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default 3)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-c", EXPORT, str(folder / "file")], check=True)
        (file,) = (folder / "file").glob("*.tflite")
        for count in (options.count, options.count // 10):
            fill(folder / str(count), count)
        ours = [sys.executable, "-m", "keras_resnet", "predict", str(file)]
        some, few = (
            [*ours, str(folder / str(count)), "--out", str(folder / "ours.csv")]
            for count in (options.count, options.count // 10)
        )
        bare = [sys.executable, str(BARE), str(file), str(folder / str(options.count))]
        commands = {"ours": some, "bare loop": [*bare, str(folder / "bare.csv")]}
        runs: dict[str, list[Used]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                runs[name].append(measured(command))
        peak_of_few = round(measured(few).peak_mib)
    seconds = {name: [run.seconds for run in rows] for name, rows in runs.items()}
    record = {
        "images_per_second": {
            name: spread([options.count / value for value in values])
            for name, values in seconds.items()
        },
        "over_bare": ratio(seconds["bare loop"], seconds["ours"]),
        "peak_mib": {name: round(max(run.peak_mib for run in rows)) for name, rows in runs.items()},
        "peak_mib_of_a_tenth": peak_of_few,
        "count": options.count,
        "n": options.rounds,
        "created": manifest.now(),
        **manifest.environment(),
    }
    for name, pace in record["images_per_second"].items():
        print(f"{name:<10} {pace['median']:6.0f} images/s, {record['peak_mib'][name]:,.0f} MiB")
    print(f"ours / bare loop {record['over_bare']['median']:.2f}; a tenth: {peak_of_few:,.0f} MiB")
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

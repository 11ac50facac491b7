"""Draw docs/explain.png: the explanations of ResNet-20 for three test images of CIFAR-10.

python benchmarks/explain_sheet.py --out FOLDER     (CIFAR-10: see the README)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

from keras_resnet.cli.main import main as keras_resnet_command
from keras_resnet.recipes import load_dataset

IMAGES = (1, 4, 5)  # an airplane, a dog that is taken for a horse, a car
METHODS = "gradcam,scorecam,smoothgrad,guided,maximization"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    options = parser.parse_args()
    dataset = load_dataset("cifar10")
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in IMAGES:
            label = dataset.class_names[int(dataset.test.labels[number])]
            paths.append(Path(folder) / label / f"{number}.png")  # so the true class is known
            paths[-1].parent.mkdir(exist_ok=True)
            Image.fromarray(dataset.test.images[number]).save(paths[-1])
        model = ["resnet20", "--weights", "cifar10", *map(str, paths)]
        how = ["--methods", METHODS, "--noise", "0.05", "--out", str(options.out)]
        return keras_resnet_command(["explain", *model, *how])


if __name__ == "__main__":
    sys.exit(main())

"""Write the images of an epoch where every peer can read them: CIFAR-10's, or noise of its shape.

python images.py FOLDER COUNT    prints which of the two it is
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.recipes import load_dataset


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    try:
        split = load_dataset("cifar10").train
        name, images, labels = "cifar10", split.images[:count], split.labels[:count]
    except UserError:  # the time of a step does not depend on the pixels
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (count, 32, 32, 3)).astype("uint8")
        name, labels = "noise", rng.integers(0, 10, count)
    images.tofile(folder / "images.uint8")
    labels.astype("int64").tofile(folder / "labels.int64")
    print(name)


if __name__ == "__main__":
    main()

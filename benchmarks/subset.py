"""Make a folder with some images of every class, as links, to measure fine-tuning with few images.

    python benchmarks/subset.py FOLDER OUT [--per-class 60] [--held-out 60] [--uneven]

FOLDER/train/CLASS has the images. OUT/train and OUT/val have different ones of them, so that
choices are not made with the images of FOLDER/val. The same images are drawn each time. With
`--uneven`, every second class has a tenth of the training images.
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

from keras_resnet.images.listing import folders_in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="images: FOLDER/train/CLASS/*.jpg")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--per-class", type=int, default=60, help="images to train on (default 60)")
    parser.add_argument("--held-out", type=int, default=60, help="images in OUT/val (default 60)")
    parser.add_argument("--uneven", action="store_true", help="a tenth for every second class")
    options = parser.parse_args()
    for index, source in enumerate(folders_in(options.folder.resolve() / "train")):
        count = options.per_class // 10 if options.uneven and index % 2 else options.per_class
        names = sorted(os.listdir(source))
        random.Random(source.name).shuffle(names)
        held_out = names[-options.held_out :]
        chosen = names[: -options.held_out][:count]
        for split, images in (("train", chosen), ("val", held_out)):
            target = options.out / split / source.name
            target.mkdir(parents=True)
            for image in images:
                (target / image).symlink_to(source / image)


if __name__ == "__main__":
    main()

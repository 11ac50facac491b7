"""Make a folder with some images of every class, as links, to measure fine-tuning with few images.

    python benchmarks/subset.py FOLDER OUT [--per-class 60] [--held-out 60] [--uneven]

FOLDER/train/CLASS has the images; `--tfds cifar10` writes them there first. OUT/train and OUT/val
have different ones of them, so that choices are not made with the images of FOLDER/val. The same
images are drawn each time. With `--uneven`, every second class has a tenth of the training images.
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
    parser.add_argument("--tfds", metavar="NAME", help="write this data set's images to FOLDER")
    options = parser.parse_args()
    if options.tfds:
        _write(options.tfds, options.folder)
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


def _write(name: str, folder: Path) -> None:
    """Write the training images of a data set as FOLDER/train/CLASS/*.png."""
    import tensorflow as tf  # not at the top: folders need neither
    import tensorflow_datasets as tfds

    data, about = tfds.load(name, split="train", as_supervised=True, with_info=True)
    classes = about.features["label"].names
    for class_name in classes:
        (folder / "train" / class_name).mkdir(parents=True)
    for index, (image, label) in enumerate(tfds.as_numpy(data)):
        path = folder / "train" / classes[label] / f"{index:05}.png"
        path.write_bytes(tf.io.encode_png(image).numpy())


if __name__ == "__main__":
    main()

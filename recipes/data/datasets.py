"""Load labelled images by name: scikit-learn's digits, a tensorflow-datasets dataset, a folder.

Small images of one size are decoded and held in memory (`Split`). Images of different sizes stay
encoded in their files (`EncodedSplit`). tensorflow-datasets looks for prepared data in
`TFDS_DATA_DIR` (default `~/tensorflow_datasets`) and downloads missing data if there is a network.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from keras_resnet.arguments import checked
from keras_resnet.display.notebook import html_table
from keras_resnet.errors import UnknownNameError, UserError, require, suggestion
from keras_resnet.files import expanded
from keras_resnet.images.labels import require_class_names
from keras_resnet.recipes.configs.schema import DataConfig
from keras_resnet.recipes.data import identity
from keras_resnet.recipes.data.decoded import Split
from keras_resnet.recipes.data.encoded import IN_MEMORY_BYTES, EncodedSplit
from keras_resnet.recipes.data.folders import (
    Folder,
    drawn_for_test,
    read_folder,
    refuse_archive,
)
from keras_resnet.recipes.data.shown import pixels, strip
from keras_resnet.recipes.data.tables import TABLES, read_table
from keras_resnet.recipes.data.tfrecords import read_split
from keras_resnet.weights.download import OFFLINE, is_offline

AnySplit = Split | EncodedSplit
_SLICED = re.compile(r"(.+)\[([^\[\]]*)\]")  # NAME[:80%]


@dataclass(frozen=True)
class _Loaded:
    """A loaded dataset, before validation images are held out."""

    train: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    said: str  # a description of the training split
    validation: AnySplit | None = None  # the data's own validation split, if it also has a test
    by_content: bool = False  # True if identities come from the content, not from the place
    places: np.ndarray | None = None  # places of `train` in the prepared split; None: all
    multi_label: bool = False  # True if an image can have several classes, or none


@dataclass(frozen=True)
class Dataset:
    """A labelled dataset.

    Attributes:
        name: the name for `load_dataset`; for a folder, its full path.
        train: the images to train on.
        validation: images for choosing the best epoch: a folder's own, or held out of the training
            split; it may be empty.
        test: images for reporting the accuracy. Data without a labelled test split has its own
            validation split here, or a fifth of the images, drawn by their content.
        class_names: the class names, by class number.
        said: a description of the images in `train`.
        by_content: True if image identities come from the content; else from the place in the
            dataset.
        multi_label: True if an image can have several classes, or none; see labels.py.
    """

    name: str
    train: AnySplit
    validation: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    said: str = ""
    by_content: bool = False
    multi_label: bool = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The (height, width, channels) of the evaluated images.

        Raises:
            UserError: the images vary in size, and no size is chosen.
        """
        return self.train.image_shape

    @property
    def sized(self) -> bool:
        """True if the images have one size; otherwise choose one with `at`."""
        return self.train.sized

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names of images that cannot be decoded."""
        splits = (self.train, self.validation, self.test)
        return tuple(name for split in splits for name in split.left_out)

    def at(self, size: int, crop_fraction: float = 0.875) -> Dataset:
        """Return the same images at `size` × `size` pixels; see `load_dataset`."""
        train, validation, test = (
            split.at(size, crop_fraction) for split in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)

    def __repr__(self) -> str:
        """Return two lines: the name with the number of classes, and the size of each split."""
        counts = ", ".join(f"{name} {size}" for name, size, _ in self._sizes())
        return f"Dataset {self.name!r}: {len(self.class_names)} classes\n{counts}"

    def _repr_html_(self) -> str:
        caption = f"{self.name}: {len(self.class_names)} classes"
        table = html_table(("split", "images", "pixels"), self._sizes(), caption)
        return table + strip(self.train, self.class_names)

    def _sizes(self) -> list[tuple[str, str, str]]:
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return [(name, f"{split.places:,}", pixels(split)) for name, split in splits.items()]

    def split(self, name: str) -> AnySplit:
        """Return "train", "validation" or "test".

        Raises:
            UserError: no such split, or it is empty.
        """
        if name not in ("train", "validation", "test"):
            raise UnknownNameError("split", name, ("train", "validation", "test"), "")
        split: AnySplit = getattr(self, name)
        if len(split) == 0:
            raise UserError(
                f"The {name} split of '{self.name}' is empty (data.validation = 0). Choose another "
                "split, or train with --set data.validation=N."
            )
        return split


@checked
def load_dataset(
    name: str,
    validation: int = 0,
    split_seed: int = 0,
    image_size: int = 0,
    crop_fraction: float = 0.875,
    layout: str = "auto",
    validation_share: float = 0.0,
) -> Dataset:
    """Load a dataset and hold `validation` images out of its training split.

    Args:
        name: "digits", a name in tensorflow-datasets, a folder (recipes/data/folders.py has its
            layout), or a CSV file with the labels of a folder (recipes/data/tables.py). If a name
            can be both, the folder is used. NAME[:80%] trains on that part of the training split,
            in tensorflow-datasets' syntax; the test split stays complete.
        validation: number of images to hold out. If a folder has its own validation and test
            splits, its validation split is used and no images are held out.
        split_seed: the seed that chooses the held-out images.
        image_size: side of the images in pixels; 0 for the size of all images. Images of different
            sizes need it, here or in `Dataset.at`, before they can be used.
        crop_fraction: for images of different sizes, the central part of the shorter side that is
            used for evaluation.
        layout: layout of a folder: "auto", "classes" or "splits"; see `folders.read_folder`.
        validation_share: instead of `validation`, the share of every class to hold out, at least
            one image of a class that has two or more. With several labels for each image, the
            share of all images.

    Returns:
        The `Dataset`. The digits, and tensorflow-datasets' images of one size, are held in memory
        as uint8 (n, height, width, channels). Folders and images of different sizes are decoded
        when needed.

    Raises:
        UserError: unknown name, missing data that cannot be downloaded, an archive, no labels, a
            negative `split_seed`, or no training images left after holding out the validation
            images.
    """
    if split_seed < 0:
        raise UserError(f"split_seed must be 0 or more; received {split_seed}.")
    name = canonical(name)
    loaded = _loader(name, layout)(name)
    train, own = loaded.train, loaded.validation
    if own is None:
        order = _drawn_order(loaded, validation or validation_share, split_seed)
        if validation_share:
            held = _first_of_each_class(loaded, order, validation_share)
        else:
            held = order[: _require_fewer(loaded.train, name, validation)]
        kept = np.setdiff1d(np.arange(loaded.train.places), held)
        train, own = loaded.train.subset(kept), loaded.train.subset(np.sort(held))
    elif validation or validation_share:
        print(
            f"{name}: using its own validation split of {own.places:,} images; data.validation is "
            "ignored",
            file=sys.stderr,
        )
    dataset = Dataset(
        name,
        train,
        own,
        loaded.test,
        loaded.class_names,
        loaded.said,
        loaded.by_content,
        loaded.multi_label,
    )
    return dataset.at(image_size, crop_fraction) if image_size else dataset


def _drawn_order(loaded: _Loaded, needed: float, seed: int) -> np.ndarray:
    """Return the places of the training split in the order in which they are held out.

    Images known by their content are ordered by a number that is drawn for each. So images that
    are added may take the place of some, but move none that was trained on into the validation
    split, as long as the number to hold out does not grow.
    """
    train = loaded.train
    if not loaded.by_content:
        return np.random.default_rng(seed).permutation(train.places)
    if not needed:  # nothing needs to be known of the images
        return np.arange(train.places)
    drawn = identity.draws(train.place_identities, f"validation {seed}")
    return np.argsort(drawn, kind="stable")


def _require_fewer(train: AnySplit, name: str, count: int) -> int:
    if count and count >= train.places:
        raise UserError(
            f"data.validation = {count} leaves no images to train on: '{name}' has only "
            f"{train.places} training images. Hold out fewer: --set data.validation=N"
        )
    return count


def _first_of_each_class(loaded: _Loaded, order: np.ndarray, share: float) -> np.ndarray:
    """Return the places of `share` of every class, the first ones in `order`."""
    if loaded.multi_label:  # an image is in several classes
        return order[: min(max(round(share * len(order)), 1), len(order) - 1)]
    train = loaded.train
    labels = (train.labels if isinstance(train, Split) else train.by_content()[1])[order]
    held = [order[:0]]
    for places in (order[labels == label] for label in np.unique(labels)):
        count = min(max(round(share * len(places)), 1), len(places) - 1)
        held.append(places[:count])
    return np.concatenate(held)


def configured_dataset(config: DataConfig) -> Dataset:
    """Load the dataset of a config; see `load_dataset`."""
    return load_dataset(
        config.name,
        config.validation,
        config.split_seed,
        config.image_size,
        config.crop_fraction,
        config.layout,
        config.validation_share,
    )


def canonical(name: str) -> str:
    """Return a dataset's name that is valid in every working directory.

    Raises:
        UserError: it is empty.
    """
    if not name.strip():
        raise UserError("data.name is empty. Give a dataset's name or a folder of images.")
    path = expanded(name)
    if path.suffix.lower() in TABLES:  # a link to it has its images beside it
        return str(path.parent.resolve() / path.name)
    return str(path.resolve()) if path.is_dir() else name


def _loader(name: str, layout: str) -> Callable[[str], _Loaded]:
    refuse_archive(name)
    if expanded(name).is_dir():
        return partial(_load_folder, layout=layout)
    if layout != "auto":
        raise UserError(
            f"data.layout = '{layout}' is only for folders, and '{name}' is not a folder. Drop "
            "data.layout, or give a folder."
        )
    if expanded(name).suffix.lower() in TABLES:
        return _load_table
    if name == "digits":
        return _load_digits
    if name.startswith((".", "~", "/")) or os.path.exists(name):
        raise UserError(f"'{name}' is not a folder. Give a folder of images or a dataset's name.")
    return _load_tfds


def _load_folder(name: str, layout: str) -> _Loaded:
    return _of_files(name, read_folder(expanded(name), layout))


def _load_table(name: str) -> _Loaded:
    return _of_files(name, read_table(expanded(name)))


def _of_files(name: str, folder: Folder) -> _Loaded:
    train, own, test, names = folder
    return _Loaded(
        EncodedSplit(train),
        EncodedSplit(test),
        names,
        f"training images of {name}",
        None if own is None else EncodedSplit(own),
        by_content=True,
        multi_label=train.labels.ndim == 2,
    )


def _load_digits(name: str) -> _Loaded:
    """Load the UCI handwritten digits as 32×32 RGB; a fixed random fifth is the test split."""
    raw = require("sklearn.datasets", "recipes").load_digits()
    grey = (raw.images * (255 / 16)).round().astype("uint8")
    enlarged = [
        np.asarray(Image.fromarray(digit).resize((32, 32), Image.Resampling.BILINEAR))
        for digit in grey
    ]
    images = np.repeat(np.stack(enlarged)[..., None], 3, axis=-1)
    labels = raw.target.astype("int32")
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[360:], order[:360]
    names = tuple(str(digit) for digit in raw.target_names)
    whole = Split(images, labels, identity.of_places("digits", len(labels)))
    return _Loaded(whole.subset(train), whole.subset(test), names, "training images of digits")


def _load_tfds(name: str) -> _Loaded:
    tfds = require("tensorflow_datasets", "recipes")
    sliced = _SLICED.fullmatch(name)
    plain_name, part = sliced.groups() if sliced else (name, None)
    builder = _tfds_builder(tfds, plain_name)
    features = builder.info.features  # known before the download
    if "image" not in features or "label" not in features:
        raise UserError(
            f"'{name}' must have the features 'image' and 'label'; received {list(features)}. "
            "Choose a dataset for image classification."
        )
    _prepare(builder, plain_name)
    loaded = _whole_tfds(builder, plain_name)
    return loaded if part is None else _sliced(tfds, builder, name, part, loaded)


def _whole_tfds(builder: Any, name: str) -> _Loaded:
    """Load the training and the test split of a prepared dataset."""
    features, splits = builder.info.features, builder.info.splits
    names, full_name = tuple(features["label"].names), builder.info.full_name
    require_class_names(names)
    held_back = [split for split in ("test", "validation") if split in splits]
    load = _load_encoded if None in features["image"].shape else _load_decoded
    if not held_back and "train" in splits:
        whole, labels = load(builder, "train").by_content()
        is_test = drawn_for_test(whole.place_identities, labels, names)
        places, test = np.flatnonzero(~is_test), whole.subset(np.flatnonzero(is_test))
        said = f"{full_name} train, without the fifth that is drawn for the test"
        return _Loaded(whole.subset(places), test, names, said, None, True, places)
    if not held_back:
        raise UserError(
            f"'{name}' must have a split named train, test or validation; received {list(splits)}. "
            "Choose another dataset."
        )
    for split in held_back:  # all labels of ImageNet's test split are -1
        test = load(builder, split)
        if test.subset(np.arange(min(10, test.places))).labels.min() >= 0:
            # For evaluation, ImageNet's validation images are enough: 6 of 144 GB.
            train = load(builder, "train") if "train" in splits else test.subset(np.arange(0))
            return _Loaded(train, test, names, f"{full_name} train")
    raise UserError(
        f"'{name}' has no labels in {' and '.join(held_back)}. Choose a dataset with labels."
    )


def _sliced(tfds: Any, builder: Any, name: str, part: str, loaded: _Loaded) -> _Loaded:
    """Return `loaded` with only `part` of its training split; the test split is unchanged."""
    splits = builder.info.splits
    if "train" not in splits:
        raise UserError(
            f"'{name}' asks for a part of the training split, but the dataset has no training "
            "split. Drop the part in brackets."
        )
    try:
        (read,) = tfds.core.ReadInstruction.from_spec(f"train[{part}]").to_absolute(splits)
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"'{name}': [{part}] is not a part of a split. Examples: NAME[:80%], NAME[20%:], "
            "NAME[100:200] (https://www.tensorflow.org/datasets/splits)."
        ) from error
    first, last = read.from_ or 0, read.to if read.to is not None else splits["train"].num_examples
    places = np.arange(loaded.train.places) if loaded.places is None else loaded.places
    chosen = np.flatnonzero((places >= first) & (places < last))
    if not len(chosen):
        raise UserError(f"'{name}' has no training images. Give a larger part, e.g. NAME[:80%].")
    print(
        f"{name}: {len(chosen):,} of {len(places):,} training images; the test split is complete",
        file=sys.stderr,
    )
    train = loaded.train.subset(chosen)
    return replace(loaded, train=train, said=f"{loaded.said}, part [{part}]", places=None)


def _load_encoded(builder: Any, split: str) -> EncodedSplit:
    return EncodedSplit(read_split(builder, split))


def _load_decoded(builder: Any, split: str) -> Split:
    info = builder.info
    size = info.splits[split].num_examples * int(np.prod(info.features["image"].shape))
    if size > IN_MEMORY_BYTES:
        raise UserError(
            f"The {split} split of '{info.name}' takes {size / 2**30:.0f} GiB decoded. Images of "
            f"one size are held in memory, and the limit is {IN_MEMORY_BYTES >> 30} GiB. Export "
            "them to a folder of image files and give that folder."
        )
    tfds = require("tensorflow_datasets", "recipes")
    part = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, shuffle_files=False))
    labels = part["label"].astype("int32")
    places = identity.of_places(f"{builder.info.full_name} {split}", len(labels))
    return Split(part["image"], labels, places)


def _tfds_builder(tfds: Any, name: str) -> Any:
    try:
        return tfds.builder(name)
    except Exception as error:  # tfds raises five types, depending on the typing mistake
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        if name in known:  # the name is right, but the prepared data is not
            raise UserError(f"tensorflow-datasets cannot open '{name}': {error}") from error
        raise UserError(
            f"'{name}' is neither a folder here nor a known dataset.{suggestion(name, known)} Give "
            "a folder of images, or a name from https://www.tensorflow.org/datasets/catalog."
        ) from error


def _prepare(builder: Any, name: str) -> None:
    """Download the dataset and write it in tfds' format, unless it is already prepared."""
    try:
        if not builder.is_prepared():
            _require_network()
            with contextlib.redirect_stdout(sys.stderr):  # tfds prints, but stdout is for results
                builder.download_and_prepare()
    except Exception as error:  # tfds raises a dozen unrelated types from here
        folder = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"The dataset '{name}' is not under {folder} and cannot be downloaded ({first_line}). "
            f"Without a network: prepare it elsewhere with tfds.load('{name}'), copy the folder, "
            "and set TFDS_DATA_DIR to its parent folder."
        ) from error


def _require_network() -> None:
    """Fail at once if there is no network or it is turned off; tfds would retry for minutes."""
    if is_offline():
        raise OSError(f"{OFFLINE} is set")
    if not urllib.request.getproxies():
        socket.getaddrinfo("storage.googleapis.com", 443)

"""Labelled images by name: the digits of scikit-learn, a dataset of tensorflow-datasets, a folder.

Small images of one size are held decoded in memory (`Split`); images that vary in size stay encoded
where they lie (`EncodedSplit`). `tfds` finds prepared data under `TFDS_DATA_DIR` (default
`~/tensorflow_datasets`) and downloads what is missing where there is a network.
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

from keras_resnet.display.notebook import html_table
from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.files import expanded
from keras_resnet.recipes.configs.schema import DataConfig
from keras_resnet.recipes.data import identity
from keras_resnet.recipes.data.decoded import Split
from keras_resnet.recipes.data.encoded import IN_MEMORY_BYTES, EncodedSplit
from keras_resnet.recipes.data.folders import drawn_for_test, read_folder, refuse_archive
from keras_resnet.recipes.data.shown import pixels, strip
from keras_resnet.recipes.data.tfrecords import read_split
from keras_resnet.weights.download import OFFLINE, is_offline

AnySplit = Split | EncodedSplit
_SLICED = re.compile(r"(.+)\[([^\[\]]*)\]")  # NAME[:80%]


@dataclass(frozen=True)
class _Loaded:
    """What a name stands for, before validation images are held out."""

    train: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    said: str  # what the training split is, for people
    validation: AnySplit | None = None  # the data's own, if it has one beside its test split
    by_content: bool = False  # whether images are known by their content, not by their place
    places: np.ndarray | None = None  # of `train` in the prepared split; None: all


@dataclass(frozen=True)
class Dataset:
    """A labelled dataset.

    Attributes:
        name: as `load_dataset` takes it, a folder with its whole path.
        train: the images to train on.
        validation: images to choose the best epoch by: a folder's own, or cut from the original
            training split; maybe none.
        test: the images that accuracy is reported on. Data without labelled ones has its own
            validation split here, or a fifth that was drawn for it by the images' content.
        class_names: by class number.
        said: which of the data's images are in `train`, in words.
        by_content: whether images are known by their content; else by their place in the data set.
    """

    name: str
    train: AnySplit
    validation: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    said: str = ""
    by_content: bool = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images that are evaluated.

        Raises:
            UserError: the images vary in size and none was chosen.
        """
        return self.train.image_shape

    @property
    def sized(self) -> bool:
        """Whether the images are given out in one size; if not, choose it (`at`)."""
        return self.train.sized

    @property
    def left_out(self) -> tuple[str, ...]:
        """The images that cannot be decoded."""
        splits = (self.train, self.validation, self.test)
        return tuple(name for split in splits for name in split.left_out)

    def at(self, size: int, crop_fraction: float = 0.875) -> Dataset:
        """The same images at `size` pixels a side; `crop_fraction` is of `load_dataset`."""
        train, validation, test = (
            split.at(size, crop_fraction) for split in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)

    def __repr__(self) -> str:
        """Two lines: what is there, and how many images each split has."""
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
            raise UserError(f"The {name} split of '{self.name}' is empty (data.validation = 0).")
        return split


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
        name: "digits", a name of tensorflow-datasets, or a folder (its layout stands in
            recipes/data/folders.py); where a name could be both, the folder is taken. NAME[:80%]
            trains on that part of the training split of NAME, in tensorflow-datasets' syntax; the
            test split is that of NAME.
        validation: how many images; none are held out where a folder has a validation split beside
            its test split, which is taken.
        split_seed: which ones.
        image_size: pixels a side; 0: the size all images have. It must be given, here or by
            `Dataset.at`, for images that vary before they are used.
        crop_fraction: for images that vary, the central part of the shorter side that is evaluated.
        layout: of a folder: "auto", "classes" or "splits"; see `folders.read_folder`.
        validation_share: hold out this share of every class instead, at least one image of a class
            that has two or more.

    Returns:
        The `Dataset`. What tensorflow-datasets has in one size, and the digits, are held in memory,
        uint8 (n, height, width, channels); folders and images that vary are decoded when needed.

    Raises:
        UserError: unknown name, data that is not there and cannot be downloaded, an archive, no
            labels, or a validation split larger than the training split.
    """
    name = canonical(name)
    loaded = _loader(name, layout)(name)
    train, own = loaded.train, loaded.validation
    if own is None:
        order = _drawn_order(loaded, validation or validation_share, split_seed)
        if validation_share:
            held = _first_of_each_class(loaded.train, order, validation_share)
        else:
            held = order[: _require_fewer(loaded.train, name, validation)]
        kept = np.setdiff1d(np.arange(loaded.train.places), held)
        train, own = loaded.train.subset(kept), loaded.train.subset(np.sort(held))
    elif validation or validation_share:
        print(
            f"{name}: its own validation split of {own.places:,} images is taken; data.validation "
            "holds out no others",
            file=sys.stderr,
        )
    dataset = Dataset(
        name, train, own, loaded.test, loaded.class_names, loaded.said, loaded.by_content
    )
    return dataset.at(image_size, crop_fraction) if image_size else dataset


def _drawn_order(loaded: _Loaded, needed: float, seed: int) -> np.ndarray:
    """Return the places of the training split in the order in which they are held out.

    Images known by their content are ordered by a number that is drawn for each. So images that
    are added may take the place of some, but move none that was trained on into the validation
    split.
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
            f"data.validation = {count} leaves nothing to train on: '{name}' has "
            f"{train.places} training images. Hold out fewer: --set data.validation=N."
        )
    return count


def _first_of_each_class(train: AnySplit, order: np.ndarray, share: float) -> np.ndarray:
    """Return the places of `share` of every class, the first ones in `order`."""
    labels = train.by_content()[1][order]
    held = [order[:0]]
    for places in (order[labels == label] for label in np.unique(labels)):
        count = min(max(round(share * len(places)), 1), len(places) - 1)
        held.append(places[:count])
    return np.concatenate(held)


def configured_dataset(config: DataConfig) -> Dataset:
    """`load_dataset` of a config."""
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
    """The name of a dataset that means the same in every working directory."""
    path = expanded(name)
    return str(path.resolve()) if path.is_dir() else name


def _loader(name: str, layout: str) -> Callable[[str], _Loaded]:
    refuse_archive(name)
    if expanded(name).is_dir():
        return partial(_load_folder, layout=layout)
    if layout != "auto":
        raise UserError(f"data.layout = '{layout}' is for folders; '{name}' is none.")
    if name == "digits":
        return _load_digits
    if name.startswith((".", "~", "/")) or os.path.exists(name):
        raise UserError(f"'{name}' is no folder; give a folder of images or a dataset's name.")
    return _load_tfds


def _load_folder(name: str, layout: str) -> _Loaded:
    train, own, test, names = read_folder(expanded(name), layout)
    return _Loaded(
        EncodedSplit(train),
        EncodedSplit(test),
        names,
        f"training images of {name}",
        None if own is None else EncodedSplit(own),
        by_content=True,
    )


def _load_digits(name: str) -> _Loaded:
    """UCI handwritten digits as 32×32 RGB; a fixed fifth, drawn at random, is the test split."""
    raw = require("sklearn.datasets", "recipes").load_digits()
    image_module = require("PIL.Image", "recipes")
    grey = (raw.images * (255 / 16)).round().astype("uint8")
    enlarged = [
        np.asarray(image_module.fromarray(digit).resize((32, 32), image_module.Resampling.BILINEAR))
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
    features = builder.info.features  # known before anything is downloaded
    if "image" not in features or "label" not in features:
        raise UserError(f"'{name}' has no 'image' and 'label': its features are {list(features)}.")
    _prepare(builder, plain_name)
    loaded = _whole_tfds(builder, plain_name)
    return loaded if part is None else _sliced(tfds, builder, name, part, loaded)


def _whole_tfds(builder: Any, name: str) -> _Loaded:
    """The training and the test split of a prepared dataset."""
    features, splits = builder.info.features, builder.info.splits
    names, full_name = tuple(features["label"].names), builder.info.full_name
    held_back = [split for split in ("test", "validation") if split in splits]
    load = _load_encoded if None in features["image"].shape else _load_decoded
    if not held_back and "train" in splits:
        whole, labels = load(builder, "train").by_content()
        is_test = drawn_for_test(whole.place_identities, labels, names)
        places, test = np.flatnonzero(~is_test), whole.subset(np.flatnonzero(is_test))
        said = f"{full_name} train, without the fifth that is drawn for the test"
        return _Loaded(whole.subset(places), test, names, said, None, True, places)
    if not held_back:
        raise UserError(f"'{name}' wants a split train, test or validation; it has {list(splits)}.")
    for split in held_back:  # ImageNet's test split has the label -1 throughout
        test = load(builder, split)
        if test.subset(np.arange(min(10, test.places))).labels.min() >= 0:
            # To evaluate, ImageNet's validation images are enough, 6 of 144 GB.
            train = load(builder, "train") if "train" in splits else test.subset(np.arange(0))
            return _Loaded(train, test, names, f"{full_name} train")
    raise UserError(f"'{name}' has no labels in {' and '.join(held_back)}.")


def _sliced(tfds: Any, builder: Any, name: str, part: str, loaded: _Loaded) -> _Loaded:
    """`loaded` with the images of `part` of its training split; its test split stays."""
    splits = builder.info.splits
    if "train" not in splits:
        raise UserError(f"'{name}' takes a part of the training split, of which there is none.")
    try:
        (read,) = tfds.core.ReadInstruction.from_spec(f"train[{part}]").to_absolute(splits)
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"'{name}': [{part}] is no part of a split. Examples: NAME[:80%], NAME[20%:], "
            "NAME[100:200] (https://www.tensorflow.org/datasets/splits)."
        ) from error
    first, last = read.from_ or 0, read.to if read.to is not None else splits["train"].num_examples
    places = np.arange(loaded.train.places) if loaded.places is None else loaded.places
    chosen = np.flatnonzero((places >= first) & (places < last))
    if not len(chosen):
        raise UserError(f"'{name}' has no training image.")
    print(
        f"{name}: {len(chosen):,} of {len(places):,} training images; the test split is all of it",
        file=sys.stderr,
    )
    train = loaded.train.subset(chosen)
    return replace(loaded, train=train, said=f"{loaded.said}, of it [{part}]", places=None)


def _load_encoded(builder: Any, split: str) -> EncodedSplit:
    return EncodedSplit(read_split(builder, split))


def _load_decoded(builder: Any, split: str) -> Split:
    info = builder.info
    size = info.splits[split].num_examples * int(np.prod(info.features["image"].shape))
    if size > IN_MEMORY_BYTES:
        raise UserError(
            f"The {split} split of '{info.name}' takes {size / 2**30:.0f} GiB decoded; images of "
            f"one size are held in memory, up to {IN_MEMORY_BYTES >> 30} GiB."
        )
    tfds = require("tensorflow_datasets", "recipes")
    part = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, shuffle_files=False))
    labels = part["label"].astype("int32")
    places = identity.of_places(f"{builder.info.full_name} {split}", len(labels))
    return Split(part["image"], labels, places)


def _tfds_builder(tfds: Any, name: str) -> Any:
    try:
        return tfds.builder(name)
    except Exception as error:  # by the kind of typing mistake, tfds raises any of five types
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        if name in known:  # the name is right, what lies in the folder is not
            raise UserError(f"tensorflow-datasets cannot open '{name}': {error}") from error
        see = "See https://www.tensorflow.org/datasets/catalog."
        raise UnknownNameError("dataset", name, known, see) from error


def _prepare(builder: Any, name: str) -> None:
    """Download the dataset and write it in tfds' format, unless that was done before."""
    try:
        if not builder.is_prepared():
            _require_network()
            with contextlib.redirect_stdout(sys.stderr):  # tfds prints; stdout is for results
                builder.download_and_prepare()
    except Exception as error:  # tfds raises a dozen unrelated types from here
        folder = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"The dataset '{name}' is not under {folder} and cannot be downloaded ({first_line}). "
            f"Without a network: prepare it elsewhere with tfds.load('{name}'), copy the folder, "
            "and set TFDS_DATA_DIR to the one that holds it."
        ) from error


def _require_network() -> None:
    """Fail at once where there is no network, or none is wanted; tfds would retry for minutes."""
    if is_offline():
        raise OSError(f"{OFFLINE} is set")
    if not urllib.request.getproxies():
        socket.getaddrinfo("storage.googleapis.com", 443)

"""Read the records of a dataset prepared by tensorflow-datasets in random order.

TFRecord files are made for reading in order. But a batch is a function of (seed, step), so any
image may be next. The start of each record is found once, from the length in front of it, without
reading the images. That takes seconds for ImageNet.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError, require
from keras_resnet.recipes.data import identity
from keras_resnet.recipes.data.decoded import PARALLEL, options, plain
from keras_resnet.recipes.data.encoded import Source


class Records(Source):
    """Images in TFRecord files."""

    def __init__(
        self,
        shards: list[str],
        shard: np.ndarray,
        offset: np.ndarray,
        parse: Callable[[Any], dict[str, Any]],
        identities: np.ndarray,
    ) -> None:
        """Keep each record's place: its file, `shards[shard]`, and its first byte, `offset`."""
        self.shards, self.shard, self.offset, self.parse = shards, shard, offset, parse
        self._identities = identities

    @property
    def identities(self) -> np.ndarray:
        """See Source."""
        return self._identities

    def __len__(self) -> int:
        """See Source."""
        return len(self.offset)

    def read(self, place: Any) -> tuple[Any, Any]:
        """See Source."""
        shards, shard, offset = self._tensors
        # tf.data.TFRecordDataset does not expose its operation's parameter for offsets.
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(shards, tf.gather(shard, place))[None],
            compression_type="",
            buffer_size=tf.constant(0, tf.int64),
            byte_offsets=tf.gather(offset, place)[None],
        )
        record = tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string))
        example = self.parse(record.take(1).get_single_element())
        return example["image"], tf.cast(example["label"], tf.int32)

    def where(self, place: int) -> str:
        """Return the record's file and byte."""
        return f"{self.shards[self.shard[place]]} at byte {self.offset[place]}"

    def subset(self, places: np.ndarray) -> Records:
        """See Source."""
        place = self.shard[places], self.offset[places]
        return Records(self.shards, *place, self.parse, self.identities[places])

    def by_content(self) -> tuple[Records, np.ndarray]:
        """See Source."""
        images = tf.data.Dataset.range(len(self)).map(
            plain(self.read), num_parallel_calls=PARALLEL, deterministic=True
        )
        pairs = images.with_options(options()).as_numpy_iterator()
        labels = np.zeros(len(self), "int32")

        def contents() -> Iterator[bytes]:
            for place, (content, label) in enumerate(pairs):
                labels[place] = label
                yield content

        found = identity.of_contents(contents(), len(self))
        return Records(self.shards, self.shard, self.offset, self.parse, found), labels

    @cached_property
    def _tensors(self) -> tuple[Any, Any, Any]:
        with tf.init_scope():  # once, not in every graph that reads
            return tf.constant(self.shards), tf.constant(self.shard), tf.constant(self.offset)


def read_split(builder: Any, split: str) -> Records:
    """Find the records of a prepared split of a tfds builder with features image and label.

    Raises:
        UserError: the records are not in TFRecord files, or a file is cut off.
    """
    if builder.info.file_format.value != "tfrecord":
        raise UserError(
            f"'{builder.info.name}' must be prepared as tfrecord; received "
            f"{builder.info.file_format.value}. Prepare it again with tensorflow-datasets' default "
            "file format."
        )
    decode = require("tensorflow_datasets", "recipes").decode
    features = builder.info.features

    def parse(record: Any) -> dict[str, Any]:
        example: dict[str, Any] = features.deserialize_example(
            record, decoders={"image": decode.SkipDecoding()}
        )
        return example

    shards = [str(path) for path in builder.info.splits[split].filepaths]
    offsets = [_offsets(Path(shard)) for shard in shards]
    shard = np.repeat(np.arange(len(shards), dtype="int32"), [len(part) for part in offsets])
    places = identity.of_places(f"{builder.info.full_name} {split}", len(shard))
    return Records(shards, shard, np.concatenate(offsets), parse, places)


def _offsets(path: Path) -> np.ndarray:
    """Return the start of each record; a record is its length (8 bytes), 4 bytes, data, 4 bytes."""
    found, position, size = [], 0, os.path.getsize(path)
    with path.open("rb", buffering=0) as file:
        while position + 16 <= size:
            file.seek(position)
            (length,) = struct.unpack("<Q", file.read(8))
            found.append(position)
            position += length + 16
    if position != size:
        raise UserError(f"{path} is cut off. Delete the dataset's folder and prepare it again.")
    return np.array(found, dtype="int64")

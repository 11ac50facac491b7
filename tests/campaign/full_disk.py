"""Exports to a disk that is full after some kilobytes, at whichever write that is."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from campaign import invariant

NAME = "full disks"
TRIALS, SHARE, SECONDS = 60, 0, 300.0  # its base runs take too long for the default tests

_FORMATS = ("savedmodel", "tflite-float32", "tflite-int8", "tflite-dynamic", "onnx", "openvino")
_MOST_KILOBYTES = 400  # an export of _model in two formats has about 300


def trial(seed: int, folder: Path) -> str | None:
    """Export where there is not enough room; return what went wrong."""
    chance = random.Random(seed)
    _model().save(folder / "model.keras")
    _write_images(folder / "images")
    formats = ",".join(chance.sample(_FORMATS, 2))
    kilobytes = chance.choice([0, 4, chance.randrange(_MOST_KILOBYTES)])
    limited = _tiny_disk if os.geteuid() == 0 and chance.random() < 0.7 else _short_files
    disk = folder / "disk"
    disk.mkdir()
    with limited(disk, kilobytes) as told:
        before = sorted(os.listdir(disk))
        command = ["export", "model.keras", "--formats", formats, "--calibration", "images"]
        problem = invariant.call([*command, "--out", str(disk / "out")], cwd=folder)
        left = sorted(set(os.listdir(disk)) - {*before, "out"})
        if problem is None and left:
            problem = f"left: {', '.join(left)}"
        out = disk / "out"
        if problem is None and out.exists() and not (out / "README.md").stat().st_size:
            problem = "an export that is not whole has the name of the whole one"
    return problem and f"{formats}, {told}: {problem}"


@contextlib.contextmanager
def _tiny_disk(disk: Path, kilobytes: int) -> Iterator[str]:
    """A file system of its own size, for the export and the temporary files; needs root."""
    size = f"size={kilobytes + 16}k"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        with _short_files(disk, kilobytes) as told:  # a container without the right to mount
            yield told
        return
    scratch = disk / "tmp"
    scratch.mkdir()
    try:
        with mock.patch.dict(os.environ, TMPDIR=str(scratch)), _fresh_temporary_folder():
            yield f"a disk of {kilobytes + 16} KB"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@contextlib.contextmanager
def _short_files(disk: Path, kilobytes: int) -> Iterator[str]:
    """No file of this process can be longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, before[1]))
    try:
        yield f"files of at most {kilobytes} KB"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def _fresh_temporary_folder() -> Iterator[None]:
    """Let `tempfile` read TMPDIR again."""
    before, tempfile.tempdir = tempfile.tempdir, None
    try:
        yield
    finally:
        tempfile.tempdir = before


def _write_images(folder: Path) -> None:
    folder.mkdir()
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3)).astype("uint8")
        (folder / f"{index}.png").write_bytes(tf.io.encode_png(pixels).numpy())


def _model() -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalMaxPooling2D()(x))
    return keras.Model(inputs, outputs, name="tiny")

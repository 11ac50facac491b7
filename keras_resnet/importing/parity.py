"""Compare our logits with those of the original network of a foreign file."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_resnet import registry
from keras_resnet.images.preprocessing import preprocess
from keras_resnet.weights import catalog
from keras_resnet.weights.foreign import keras_files
from keras_resnet.weights.foreign.keras_weights import takes_bgr
from keras_resnet.weights.foreign.read import Foreign
from keras_resnet.weights.foreign.torch_weights import weights_of

_LEAST_IMAGENET = 224  # pixels; timm has no CIFAR networks


@dataclass(frozen=True)
class Parity:
    """The comparison of our logits with those of the original network, with the same weights.

    Attributes:
        peer: the original network, e.g. "torchvision's resnet50"; "" if none was run.
        difference: the largest difference, divided by the largest logit; None if none was run.
        note: the reason why none was run.
    """

    peer: str = ""
    difference: float | None = None
    note: str = ""

    def __str__(self) -> str:
        """Return the text for people."""
        if self.difference is None:
            return f"not run: {self.note}"
        return f"{self.difference:.1e} of the largest logit from {self.peer}"


def compare(foreign: Foreign, model: keras.Model, name: str, size: int) -> Parity:
    """Compare the logits of `model`, our network `name`, with those of the original network."""
    images = preprocess(patched_images(size), name)
    try:
        peer, theirs = _RUN[foreign.contents.library](foreign, name, images)
    except _NotRunError as reason:
        return Parity(note=str(reason))
    return difference(peer, theirs, np.asarray(model(images, training=False)))


def difference(peer: str, theirs: np.ndarray, ours: np.ndarray) -> Parity:
    """Compare two arrays of logits (n, classes)."""
    return Parity(peer, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))


def patched_images(size: int) -> np.ndarray:
    """Return two RGB images (2, size, size, 3) of patches with noise. Noise alone averages out."""
    generator = np.random.Generator(np.random.PCG64(0))
    patch = np.arange(size) * 4 // size
    coarse = generator.integers(0, 192, (2, 4, 4, 3))[:, patch][:, :, patch]
    return coarse + generator.integers(0, 64, (2, size, size, 3))


class _NotRunError(Exception):
    """There is no network to compare with. The message has the reason, or what to install."""


Answer = tuple[str, np.ndarray]  # the other network, and its logits


def _run_keras(foreign: Foreign, name: str, images: np.ndarray) -> Answer:
    classes, size = foreign.contents.classes, images.shape[1]
    source = keras_files.model(foreign.path, foreign.family, classes, size)
    step = -1 if takes_bgr(source) else 1
    theirs = source(images[..., ::step], training=False)
    return f"keras.applications' {foreign.family}", np.asarray(theirs)


def _run_torch(foreign: Foreign, name: str, images: np.ndarray) -> Answer:
    peers = [(library, peer) for library, peer in catalog_peers(name) if library in TORCH_PEERS]
    if not peers:
        raise _NotRunError(f"neither torchvision nor timm has a network known as '{name}'")
    installed = [p for p in peers if all(map(importlib.util.find_spec, ("torch", p[0])))]
    if not installed:
        raise _NotRunError(f"this needs pip install {peers[0][0]}")
    problems = []
    for library, peer in dict.fromkeys(installed):
        try:
            return f"{library}'s {peer}", _run_torch_peer(library, peer, foreign, images)
        except _NotRunError as reason:  # timm's file does not fit torchvision's network
            problems.append(str(reason))
    raise _NotRunError("; ".join(problems))


def _run_torch_peer(library: str, peer: str, foreign: Foreign, images: np.ndarray) -> np.ndarray:
    """Return the logits of their network, which runs in a separate process."""
    found = foreign.contents
    request = json.dumps([library, peer, found.classes, found.auxiliary])
    weights = {k: np.asarray(v, np.float32) for k, v in weights_of(foreign.weights).items()}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("weights.npz", "images.npy", "logits.npy")]
        np.savez(files[0], **weights)  # type: ignore[arg-type]
        np.save(files[1], images)
        # -P: do not search the program's own folder for its imports.
        command = [sys.executable, "-P", str(_TORCH_PROGRAM), request, *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise _NotRunError(f"{library} could not run its {peer} ({why.strip()})")
        return np.asarray(np.load(files[2]))


def _run_none(foreign: Foreign, name: str, images: np.ndarray) -> Answer:
    raise _NotRunError(f"{foreign.contents.library} has no package to compare with")


TORCH_PEERS = ("torchvision", "timm")


_TORCH_PROGRAM = Path(__file__).with_name("torch_peer.py")


_RUN: Mapping[str, Callable[[Foreign, str, np.ndarray], Answer]] = {
    "PyTorch": _run_torch,
    "Keras Applications": _run_keras,
    "MLPerf Tiny": _run_none,
}


def catalog_peers(name: str) -> list[tuple[str, str]]:
    """Return (library, name of the network there) for every published file of network `name`."""
    published = [(e.source, e.peer.partition(".")[0]) for e in catalog.of_model(name)]
    if published or registry.architecture(name).network.input_size < _LEAST_IMAGENET:
        return published
    return [("timm", name)]  # timm's names of ImageNet networks are ours

"""The published and our own weights: what `weights="imagenet"` and `weights="cifar10"` mean.

`catalog.toml` has those that others published, `trained/catalog.toml` ours, which lie beside it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from keras_resnet.errors import UnknownNameError, UserError

_HERE = Path(__file__).parent
TRAINED = _HERE / "trained"


@dataclass(frozen=True)
class Evaluation:
    """How the accuracy was measured: shorter side to `resize`, the central crop of `size`."""

    size: int  # pixels a side
    resize: int
    interpolation: str  # "bilinear" or "bicubic"


@dataclass(frozen=True)
class Accuracy:
    """Single-crop accuracy on the test split (ImageNet: the validation split), percent."""

    top1: float
    top5: float | None
    source: str  # who says so


@dataclass(frozen=True)
class Entry:
    """Weights of one network.

    Attributes:
        model: registry name.
        tag: "imagenet/torchvision_v2": the data, and after the slash whose.
        default: whether the data alone ("imagenet") means these.
        source: "Keras Applications", "torchvision", "timm" or "keras_resnet".
        peer: the network's name there.
        url: where the file is; "" for one in this package.
        hash: "sha256:" and at least 8 hex digits of it, or "md5:".
        megabytes: its size in MiB, about.
        license: of the weights. The images they were trained on have terms of their own.
        variant: which of the forms that share a name in the field, "" if there is one only.
        preprocessing: what they were trained with, a key of `PREPROCESSING`.
        data: what they were trained on, by tensorflow-datasets' name.
        evaluation: the protocol of the accuracy.
        published: the accuracy; None if nobody gives one. Of our own weights it is measured.
    """

    model: str
    tag: str
    default: bool
    source: str
    peer: str
    url: str
    hash: str
    megabytes: float
    license: str
    variant: str
    preprocessing: str
    data: str
    evaluation: Evaluation
    published: Accuracy | None = None

    @property
    def file(self) -> str:
        """Its name in the cache, or in the package."""
        if self.url:
            return self.url.rpartition("/")[2]
        return f"{self.model}-{self.tag.replace('/', '-')}.weights.h5"

    def __str__(self) -> str:
        """For messages: resnet50 imagenet/keras."""
        return f"{self.model} {self.tag}"


@cache
def entries() -> tuple[Entry, ...]:
    """All of them, ours first."""
    files = (TRAINED / "catalog.toml", _HERE / "catalog.toml")
    tables = [tomllib.loads(file.read_text(encoding="utf-8")) for file in files]
    return tuple(_entry(row) for table in tables for row in table.get("weights", ()))


def _entry(row: dict[str, Any]) -> Entry:
    published = row.get("published")
    accuracy = Accuracy(**{"top5": None, **published}) if published else None
    return Entry(**{**row, "evaluation": Evaluation(**row["evaluation"]), "published": accuracy})


def of_model(name: str) -> tuple[Entry, ...]:
    """The weights that there are for a network, the defaults first."""
    found = [entry for entry in entries() if entry.model == name]
    return tuple(sorted(found, key=lambda entry: not entry.default))


def find(name: str, tag: str) -> Entry:
    """The weights of network `name` that `tag` means: "imagenet", "imagenet/timm_a1", "cifar10".

    Raises:
        UserError: there are none of that tag for this network; the message says for which form of
            the network there are, or which tags this one has.
    """
    mine = of_model(name)
    for entry in mine:
        if tag == entry.tag or (entry.default and tag == entry.tag.partition("/")[0]):
            return entry
    full = _in_full(tag)
    if full != tag and (full in [entry.tag for entry in mine] or _twins(name, full)):
        raise UserError(f"Unknown weights '{tag}'. Did you mean '{full}'?")
    twins = _twins(name, tag)
    if twins:
        variant = f"{twins[0].variant} weights" if twins[0].variant else "weights of another form"
        raise UserError(f"'{tag}' are {variant}: use {twins[0].model}. {_has(name, mine)}")
    if not mine:
        raise UserError(
            f"No weights of '{name}' are published or ours, so there is no '{tag}'. See "
            "'keras-resnet weights list' for those there are; weights= also takes a .weights.h5 "
            "file (a run's, or made by 'keras-resnet weights import')."
        )
    see = f"Run 'keras-resnet weights list {name}' to see what they are."
    raise UnknownNameError(f"weights for '{name}'", tag, [entry.tag for entry in mine], see)


def _in_full(tag: str) -> str:
    """What is meant by torchvision's own names, and by what stands after the slash."""
    if match := re.fullmatch(r"(?:imagenet1k|default)_?(v\d)", tag.lower()):
        return f"imagenet/torchvision_{match[1]}"
    return tag if "/" in tag else f"imagenet/{tag.lower()}"


def _has(name: str, mine: tuple[Entry, ...]) -> str:
    if not mine:
        return f"For '{name}' itself there are none."
    return f"'{name}' has {', '.join(entry.tag for entry in mine)}."


def _twins(name: str, tag: str) -> list[Entry]:
    """Weights of that very tag for another form of the network.

    The field gives several forms one name: torchvision's and timm's resnet50 is our resnet50v1_5.
    """
    return [
        entry
        for entry in entries()
        if (entry.tag == tag or ("/" in tag and entry.tag.startswith(tag)))
        and (
            entry.peer.partition(".")[0].lower() == name
            or re.fullmatch(rf"{entry.model}[^0-9].*", name)
        )
    ]

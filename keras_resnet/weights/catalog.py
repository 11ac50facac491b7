"""The catalog of trained weights: the meaning of `weights="imagenet"` and `weights="cifar10"`.

`catalog.toml` lists the weights of other publishers. `trained/catalog.toml` lists ours, whose files
are in the same folder.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from keras_resnet.errors import UserError, suggestion

_HERE = Path(__file__).parent
TRAINED = _HERE / "trained"


@dataclass(frozen=True)
class Evaluation:
    """The protocol of an accuracy: scale the shorter side to `resize`, then crop the center."""

    size: int  # pixels a side
    resize: int
    interpolation: str  # "bilinear" or "bicubic"


@dataclass(frozen=True)
class Accuracy:
    """Single-crop accuracy on the test split (ImageNet: the validation split), percent."""

    top1: float
    top5: float | None
    source: str  # who publishes this accuracy


@dataclass(frozen=True)
class Entry:
    """The weights of one network.

    Attributes:
        model: registry name.
        tag: the data and, after a slash, the publisher: "imagenet/torchvision_v2".
        default: True if the data alone ("imagenet") selects these weights.
        source: "Keras Applications", "torchvision", "timm" or "keras_resnet".
        peer: name of the network there.
        url: address of the file; "" for a file in this package.
        hash: "sha256:" and at least the first 8 hex digits, or "md5:" and all digits.
        megabytes: approximate size of the file in MiB.
        license: license of the weights. The training images have their own terms.
        variant: distinguishes forms that share a name in the field; "" if there is only one form.
        preprocessing: preprocessing used in training, a key of `PREPROCESSING`.
        data: training data, by its tensorflow-datasets name.
        evaluation: protocol of the accuracy.
        published: the accuracy; None if nobody publishes one. We measured it for our own weights.
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
        """Name of the file in the cache or in the package."""
        if self.url:
            return self.url.rpartition("/")[2]
        return f"{self.model}-{self.tag.replace('/', '-')}.weights.h5"

    def __str__(self) -> str:
        """Return the text for messages, e.g. "resnet50 imagenet/keras"."""
        return f"{self.model} {self.tag}"


@cache
def entries() -> tuple[Entry, ...]:
    """Return all entries, ours first."""
    files = (TRAINED / "catalog.toml", _HERE / "catalog.toml")
    tables = [tomllib.loads(file.read_text(encoding="utf-8")) for file in files]
    return tuple(_entry(row) for table in tables for row in table.get("weights", ()))


def _entry(row: dict[str, Any]) -> Entry:
    published = row.get("published")
    accuracy = Accuracy(**{"top5": None, **published}) if published else None
    return Entry(**{**row, "evaluation": Evaluation(**row["evaluation"]), "published": accuracy})


def of_model(name: str) -> tuple[Entry, ...]:
    """Return the weights of a network, the defaults first."""
    found = [entry for entry in entries() if entry.model == name]
    return tuple(sorted(found, key=lambda entry: not entry.default))


def find(name: str, tag: str) -> Entry:
    """Find the weights of network `name` by `tag`: "imagenet", "imagenet/timm_a1", "cifar10".

    Raises:
        UserError: this network has no weights with that tag. The message names the form of the
            network that has them, or the tags of this network.
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
            f"The catalog has no weights for '{name}', so '{tag}' does not exist. Run "
            "'keras-resnet weights list' to see the catalog. weights= also takes a .weights.h5 "
            "file: a run's, or one made by 'keras-resnet weights import'."
        )
    tags = [entry.tag for entry in mine]
    raise UserError(
        f"'{name}' has no weights '{tag}'.{suggestion(tag, tags)} It has: {', '.join(tags)}. "
        f"Run 'keras-resnet weights list {name}' to see their sources and accuracies."
    )


def _in_full(tag: str) -> str:
    """Return the full tag for torchvision's own names, or for the part after the slash."""
    if match := re.fullmatch(r"(?:imagenet1k|default)_?(v\d)", tag.lower()):
        return f"imagenet/torchvision_{match[1]}"
    return tag if "/" in tag else f"imagenet/{tag.lower()}"


def _has(name: str, mine: tuple[Entry, ...]) -> str:
    if not mine:
        return f"'{name}' itself has no weights."
    return f"'{name}' has {', '.join(entry.tag for entry in mine)}."


def _twins(name: str, tag: str) -> list[Entry]:
    """Return the weights with that tag for another form of the network.

    One name can mean several forms: resnet50 of torchvision and timm is our resnet50v1_5.
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

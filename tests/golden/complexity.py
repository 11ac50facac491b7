"""Parameters and multiply-adds of every network: the record, and the page made of it.

    python tests/golden/complexity.py [NAME ...]    # count (all, or those anew), write both

The record is complexity.json beside this file; the page is docs/models.md. The test
tests/models/test_complexity.py holds the networks to the record and the record to what their
authors published.
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("complexity.json")
PAGE = Path(__file__).parents[2] / "docs" / "models.md"

Record = dict[str, dict[str, int]]


def count(name: str) -> dict[str, int]:
    """Build `name` at its own size and count."""
    import keras

    import keras_resnet

    keras.backend.clear_session()
    model = keras_resnet.create_model(name)
    total = keras_resnet.profile(model).total
    return {
        "layers": len(model.layers),
        "parameters": model.count_params(),
        "trainable": model.count_params() - sum(_size(v) for v in model.non_trainable_weights),
        "multiply_adds": total.multiply_adds,
    }


def _size(variable: Any) -> int:
    return int(variable.value.shape.num_elements())


def load() -> Record:
    """The record as it is on disk."""
    record: Record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    return record


def page(record: Record) -> str:
    """docs/models.md."""
    lines = [
        "# The networks",
        "",
        "This page lists every network. `keras_resnet.create_model(NAME)` builds any of them. Some",
        "have a builder function too. `keras-resnet show NAME` prints more about a network.",
        "",
        "Parameters do not include BN's moving statistics. Multiply-adds are those of convolutions",
        "and dense layers, for one image of the network's input size. [The account](account.md)",
        "explains how they are counted.",
        "`python tests/golden/complexity.py` writes this page from `tests/golden/complexity.json`.",
        "Tests compare every network with this record.",
    ]
    for family, names in groupby(sorted(record, key=_family), key=_family):
        lines += ["", f"## {list(FAMILIES.values())[family]}", "", HEADER, RULE]
        lines += [_row(name, record[name]) for name in names]
    return "\n".join([*lines, ""])


HEADER = "| name | function | parameters | multiply-adds (M) | input | source |"
RULE = "| --- | --- | ---: | ---: | ---: | --- |"


# In the order of the page, by the class of the network; of residual ones by their image's size.
FAMILIES = {
    "ResNetSpec": "Residual networks for ImageNet",
    "ResNetSpec32": "Residual networks for CIFAR",
    "ChainSpec": "AlexNet, ZFNet and VGG",
    "GoogLeNetSpec": "GoogLeNet",
    "InceptionSpec": "Inception v3",
    "InceptionResNetSpec": "Inception-ResNet v2",
    "DenseNetSpec": "DenseNet",
    "HighwaySpec": "Highway networks",
    "": "Small networks for tests",
}


def _family(name: str) -> int:
    """The index of the network's heading on the page."""
    from keras_resnet import SPECS

    kind = type(SPECS[name]).__name__
    if name.startswith("test_"):
        kind = ""
    elif kind == "ResNetSpec" and SPECS[name].input_size == 32:
        kind = "ResNetSpec32"
    return list(FAMILIES).index(kind)


def _row(name: str, counts: dict[str, int]) -> str:
    from keras_resnet import registry

    entry = registry.architecture(name)
    return (
        f"| `{name}` | {entry.function or '–'} | {counts['trainable']:,} | "
        f"{counts['multiply_adds'] / 1e6:,.1f} | {entry.network.input_size} | {entry.source} |"
    )


def main() -> None:
    from keras_resnet import list_models

    names = sys.argv[1:] or list_models()
    record = load()
    for number, name in enumerate(names, 1):
        print(f"{number} of {len(names)}: {name}", file=sys.stderr, flush=True)
        record[name] = count(name)
    record = {name: record[name] for name in list_models() if name in record}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(record), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Parameters and multiply-adds of every network: the record, and the page made of it.

    python tests/golden/complexity.py [NAME ...]    # count (all, or those anew), write both

The record is complexity.json beside this file; the page is docs/models.md. tests/test_complexity.py
holds the networks to the record and the record to what their authors published.
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
    from keras_resnet import SPECS, list_models

    lines = [
        "# The networks",
        "",
        "Made by `python tests/golden/complexity.py` from `tests/golden/complexity.json`, to which",
        "the tests hold every network. Parameters without BN's moving statistics; multiply-adds of",
        "convolutions and dense layers for one image of the network's own size (see",
        "[account.md](account.md)). `keras-resnet show NAME` tells more of each.",
    ]
    names = [name for name in list_models() if name in record]
    for title, group in groupby(sorted(names, key=_family), key=_family):
        lines += ["", f"## {title[1]}", "", HEADER, RULE]
        lines += [_row(name, record[name]) for name in group]
    tested = [name for name in SPECS if name.startswith("test_")]
    lines += ["", f"For tests that need a family, not its size: {', '.join(tested)}.", ""]
    return "\n".join(lines)


HEADER = "| name | function | parameters | multiply-adds (M) | input | source |"
RULE = "| --- | --- | ---: | ---: | ---: | --- |"


def _family(name: str) -> tuple[int, str]:
    """The heading a network stands under, and where that stands."""
    from keras_resnet import SPECS
    from keras_resnet.models.resnet import ResNetSpec

    network = SPECS[name]
    kinds = list(dict.fromkeys(type(spec) for spec in SPECS.values()))
    if name.startswith("test_"):
        return 99, "Tiny"
    if isinstance(network, ResNetSpec):
        small = network.input_size < 64
        return int(small), f"Residual networks for {'CIFAR' if small else 'ImageNet'}"
    title = (type(network).__doc__ or "").splitlines()[0].rstrip(".")
    return 2 + kinds.index(type(network)), title


def _row(name: str, counts: dict[str, int]) -> str:
    from keras_resnet import registry

    entry = registry.architecture(name)
    return (
        f"| `{name}` | {entry.builder.__name__} | {counts['trainable']:,} | "
        f"{counts['multiply_adds'] / 1e6:,.1f} | {entry.input_size} | {entry.source} |"
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

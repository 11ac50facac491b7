"""Parameters and multiply-adds of every network: the table, and the page made of it.

    python tests/golden/complexity.py [NAME ...]    # count (all, or those anew), write both

The table is keras_resnet/analysis/networks.json; the page is docs/models.md. With a NAME that no
network has, such as `none`, nothing is counted again, but both are written. The test
tests/models/test_complexity.py holds the networks to the record and the record to what their
authors published.
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "keras_resnet" / "analysis" / "networks.json"
PAGE = ROOT / "docs" / "models.md"
RESULTS = ROOT / "benchmarks" / "results"

Record = dict[str, dict[str, Any]]

# The records of exports that have the int8 file of our own weights.
INT8 = {name: f"ptq_{name}" for name in ("resnet8", "resnet20", "resnetv2_20", "resnet32")}


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


def facts(name: str) -> dict[str, Any]:
    """The facts of a network that are known without building it, and its recorded int8 file."""
    from keras_resnet import registry

    entry = registry.architecture(name)
    return {
        "family": list(FAMILIES.values())[_family(name)][0],
        "summary": entry.summary,
        "source": entry.source,
        "function": entry.function,
        "input_size": entry.network.input_size,
        "classes": entry.network.classes,
        **_int8(name),
    }


def _int8(name: str) -> dict[str, Any]:
    if name not in INT8:
        return {}
    record = json.loads((RESULTS / INT8[name] / "perf.json").read_text())
    file = next(row for row in record["files"].values() if row["format"] == "tflite-int8")
    return {
        "int8_bytes": file["bytes"],
        "int8_ms": file["latency_ms"],
        "machine": record["machine"],
    }


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
        "`python tests/golden/complexity.py` writes this page from",
        "`keras_resnet/analysis/networks.json`. Tests compare every network with this record.",
        "",
        "`keras-resnet list` chooses among them by size and accuracy, for example `keras-resnet",
        "list --weights imagenet --max-params 12M --sort top1`. With `--picture FILE.svg` it",
        "draws this figure. The accuracies for ImageNet are published ones, which we have not",
        "measured:",
        "",
        "![Top-1 accuracy against multiply-adds of all networks with weights](networks.svg)",
    ]
    for family, names in groupby(sorted(record, key=_family), key=_family):
        lines += ["", f"## {list(FAMILIES.values())[family][1]}", "", HEADER, RULE]
        lines += [_row(name, record[name]) for name in names]
    return "\n".join([*lines, ""])


HEADER = "| name | function | parameters | multiply-adds (M) | input | source |"
RULE = "| --- | --- | ---: | ---: | ---: | --- |"


# In the order of the page, by the class of the network; of residual ones by their image's size.
# Each has its name for `keras-resnet list --family` and its heading.
FAMILIES = {
    "ResNetSpec": ("resnet", "Residual networks for ImageNet"),
    "ResNetSpec32": ("cifar_resnet", "Residual networks for CIFAR"),
    "ChainSpec": ("alexnet_vgg", "AlexNet, ZFNet and VGG"),
    "GoogLeNetSpec": ("googlenet", "GoogLeNet"),
    "InceptionSpec": ("inception", "Inception v3"),
    "InceptionResNetSpec": ("inception_resnet", "Inception-ResNet v2"),
    "DenseNetSpec": ("densenet", "DenseNet"),
    "HighwaySpec": ("highway", "Highway networks"),
    "": ("test", "Small networks for tests"),
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

    known = list_models()
    names = [name for name in sys.argv[1:] or known if name in known]
    record = load()
    for number, name in enumerate(names, 1):
        print(f"{number} of {len(names)}: {name}", file=sys.stderr, flush=True)
        record[name] = count(name)
    counts = ("layers", "parameters", "trainable", "multiply_adds")
    record = {
        name: {**facts(name), **{key: record[name][key] for key in counts}}
        for name in known
        if name in record
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(record), encoding="utf-8")
    list_models(table=True).picture(PAGE.with_name("networks.svg"))


if __name__ == "__main__":
    main()

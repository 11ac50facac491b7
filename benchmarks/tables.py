"""Make the pages' tables of measured figures from the records in benchmarks/results.

    python benchmarks/tables.py           # rewrite the tables in the pages, found by first line

The rows below have everything that is not in a record: published figures, machines, commands.
tests/package/test_benchmarks.py checks that the pages agree.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import bars

from keras_resnet.export import FORMATS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@cache
def _record(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _table(head: str, rows: Iterable[str]) -> str:
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *rows])


def _accuracy(run: str) -> float:
    """Return the test accuracy in percent, by the Keras model of a training."""
    return 100 * float(_record(f"{run}/summary.json")["test"]["accuracy"])


class Trained(NamedTuple):
    """A row of the results: a config, and its recorded training if there is one."""

    config: str
    published: str
    record: str = ""
    machine: str = ""
    package: str = ""
    unrecorded: str = "not run"


TRAINED = (
    Trained(
        "`cifar10/resnet8`",
        "12.79 (MLPerf Tiny)",
        "resnet8",
        "A 2.2, then B 0.9, with other jobs running",
        '`resnet8`, `weights="cifar10"`',
    ),
    Trained("`cifar10/resnet20`", "8.75 (He 2015, Table 6)"),
    Trained(
        "`cifar10/resnet20_fast`",
        "– (paper's schedule: 8.75)",
        "resnet20_fast",
        "A, 1.6 with other jobs running",
    ),
    Trained(
        "`cifar10/resnet20_long`",
        "– (paper's schedule: 8.75)",
        "resnet20_long",
        "A 2.4, then B 1.5, with other jobs running",
        '`resnet20`, `weights="cifar10"`',
    ),
    Trained(
        "`cifar10/resnet32_long`",
        "– (paper's schedule: 7.51)",
        "resnet32_long",
        "B, 2.4 on one core with other jobs running",
        '`resnet32`, `weights="cifar10"`',
    ),
    Trained("`cifar10/resnet32`", "7.51 (He 2015, Table 6)"),
    Trained(
        "`cifar10/resnet56_fast`",
        "– (paper's schedule: 6.97)",
        "resnet56_fast",
        "B, 3.6 on one core with other jobs running",
    ),
    Trained("`cifar10/resnet56`, `resnet56_long`", "6.97 (He 2015, Table 6)"),
    Trained(
        "`cifar10/resnetv2_20_long`",
        "–",
        "resnetv2_20_long",
        "B, 1.6 on one core with other jobs running",
        '`resnetv2_20`, `weights="cifar10"`',
    ),
    Trained("`cifar10/resnetv2_20`", "–"),
    Trained(
        "`cifar10/plain20_fast`",
        "a curve (He 2015, Figure 6)",
        "plain20_fast",
        "B, 0.7 on one core with other jobs running",
    ),
    Trained(
        "`cifar10/plain56_fast`",
        "a curve (He 2015, Figure 6)",
        "plain56_fast",
        "B, 1.6 on one core with other jobs running",
    ),
    Trained(
        "`cifar10/ablation20`",
        "– (the paper has them at depth 110)",
        unrecorded="see below",
    ),
    Trained("`cifar10/resnet110`", "6.43 (6.61 ± 0.16)"),
    Trained("`imagenet/*`", "in each config"),
)


def trained() -> str:
    """Return the published and measured error of every config that trains from scratch."""
    return _table(
        "| config | published error % | our error % (accuracy) | n | machine, hours "
        "| in the package as |",
        [_digits(), *map(_trained, TRAINED)],
    )


def _digits() -> str:
    rows = _record("quickstart.json")["rows"]
    model, file = (
        100 * sum(row[key] for row in rows) / len(rows) for key in ("savedmodel", "tflite-int8")
    )
    return (
        f"| `digits/resnet8` | – | {100 - model:.2f} ({model:.2f}; int8 {file:.2f}) "
        f"| {len(rows)} seeds | A, part of the quickstart | |"
    )


def _trained(row: Trained) -> str:
    if not row.record:
        return f"| {row.config} | {row.published} | {row.unrecorded} | | | |"
    accuracy = _accuracy(row.record)
    package = f"{row.package} " if row.package else ""
    return (
        f"| {row.config} | {row.published} | {100 - accuracy:.2f} ({accuracy:.2f}) | 1 run "
        f"| {row.machine} | {package}|"
    )


ABLATIONS = {  # what it is; the error at depth 110 in arXiv:1603.05027, Tables 1 and 2
    "resnet20": ("original", "6.61"),
    "resnet20_constant_scaling": ("constant scaling, λ = 0.5", "12.35"),
    "resnet20_exclusive_gating": ("exclusive gating, b = -6", "8.70"),
    "resnet20_shortcut_only_gating": ("shortcut-only gating, b = -6", "6.91"),
    "resnet20_conv_shortcut": ("1×1 convolution shortcut", "12.22"),
    "resnet20_dropout_shortcut": ("dropout shortcut, 0.5", "fails (> 20)"),
    "resnet20_bn_after_add": ("BN after addition", "8.17"),
    "resnet20_relu_before_add": ("ReLU before addition", "7.84"),
    "resnet20_relu_only_preact": ("ReLU-only pre-activation", "6.71"),
    "resnetv2_20": ("full pre-activation", "6.37"),
    "plain20": ("no shortcut", "–"),
}


def ablations() -> str:
    """Return the error of the ablations at depth 20, and the published error at depth 110."""
    rows = (
        f"| `{name}` | {what} | {100 - _accuracy(f'ablation_{name}'):.2f} | {published} |"
        for name, (what, published) in ABLATIONS.items()
    )
    return _table("| network | change | ours, depth 20 | published, depth 110 |", rows)


PHOTOGRAPHS = {  # the shortcuts; the published top-1 error on ImageNet (He 2015, Tables 2 and 3)
    "plain34": ("none", "28.54"),
    "resnet34_a": ("option A: zeros for new channels", "25.03"),
    "resnet34": ("option B: projections where the channels change", "24.52"),
    "resnet34_c": ("option C: projections everywhere", "24.19"),
}


def photographs() -> str:
    """Return the error of plain and residual networks of 34 layers on Imagenette."""
    rows = (
        f"| `{name}` | {what} | {100 - _accuracy(f'imagenette_ablation_{name}'):.2f} "
        f"| {published} |"
        for name, (what, published) in PHOTOGRAPHS.items()
    )
    return _table("| network | shortcuts | our error % | published error %, ImageNet |", rows)


class Compressed(NamedTuple):
    """A row of the compression results: files of one kind, compared with the float network."""

    network: str
    by: str
    start: str  # the record of the float network
    records: tuple[str, ...]
    format: str  # whose accuracy it is
    bar: float  # points that may be lost


def _seeds(record: str) -> tuple[str, ...]:
    """Return the records of the three seeds."""
    return tuple(f"{record}_{seed}" for seed in range(3))


COMPRESSED = (
    Compressed(
        "ResNet-20",
        "`export` (after training), one file",
        "resnet20_long",
        ("ptq_resnet20",),
        "tflite-int8",
        0.3,
    ),
    Compressed(
        "ResNet-20",
        "`qat resnet20 --weights cifar10 --distill --seed 0…2` (`qat_resnet20_*`)",
        "resnet20_long",
        _seeds("qat_resnet20"),
        "tflite-int8",
        0.1,
    ),
    Compressed(
        "ResNet-20",
        "`qat resnet20 --weights cifar10 --config compress/qat_taught --seed 0…2` "
        "(`qat_taught_resnet20_*`)",
        "resnet20_long",
        _seeds("qat_taught_resnet20"),
        "tflite-int8",
        0.1,
    ),
    Compressed(
        "pre-activation ResNet-20",
        "`export`, one file",
        "resnetv2_20_long",
        ("ptq_resnetv2_20",),
        "tflite-int8",
        0.4,
    ),
    Compressed(
        "pre-activation ResNet-20",
        "`qat resnetv2_20 --weights cifar10 --distill --seed 0…2` (`qat_resnetv2_20_*`)",
        "resnetv2_20_long",
        _seeds("qat_resnetv2_20"),
        "tflite-int8",
        0.1,
    ),
    Compressed(
        "pre-activation ResNet-20",
        "`qat resnetv2_20 --weights cifar10 --config compress/qat_taught --seed 0…2` "
        "(`qat_taught_resnetv2_20_*`)",
        "resnetv2_20_long",
        _seeds("qat_taught_resnetv2_20"),
        "tflite-int8",
        0.1,
    ),
    Compressed("ResNet-8", "`export`, one file", "resnet8", ("ptq_resnet8",), "tflite-int8", 1.2),
    Compressed(
        "ResNet-8",
        "`qat resnet8 --weights cifar10 --config compress/qat_taught --seed 0…2` "
        "(`qat_taught_resnet8_*`)",
        "resnet8",
        _seeds("qat_taught_resnet8"),
        "tflite-int8",
        1.2,
    ),
    Compressed(
        "ResNet-20, 80 % zeros",
        "`prune resnet20 --weights cifar10 --sparsity 0.8 --epochs 30` (`sparse_resnet20`), "
        "float32",
        "resnet20_long",
        ("sparse_resnet20",),
        "tflite-float32",
        0.7,
    ),
    Compressed(
        "ResNet-20, 80 % zeros",
        "`prune resnet20 --weights cifar10 --config compress/prune_taught` "
        "(`sparse_taught_resnet20`), float32",
        "resnet20_long",
        ("sparse_taught_resnet20",),
        "tflite-float32",
        0.7,
    ),
    Compressed(
        "the same, then 16 values per kernel",
        "`cluster RUN` (`clustered_resnet20`), float32",
        "resnet20_long",
        ("clustered_resnet20",),
        "tflite-float32",
        0.7,
    ),
    Compressed(
        "the same, then QAT",
        "`qat RUN --config compress/qat_clusters` (`pcqat_resnet20`)",
        "resnet20_long",
        ("pcqat_resnet20",),
        "tflite-int8",
        0.7,
    ),
    Compressed(
        "ResNet-56, half the multiply-adds",
        "`prune-filters RUN --keep 0.5 --set pruning.ranking=uniform --epochs 20` "
        "(`resnet56_half`), float32",
        "resnet56_fast",
        ("resnet56_half",),
        "tflite-float32",
        0.7,
    ),
    Compressed(
        "ResNet-56, half the multiply-adds",
        "`prune-filters RUN --keep 0.5` (`resnet56_inner`), float32",
        "resnet56_fast",
        ("resnet56_inner",),
        "tflite-float32",
        0.7,
    ),
)


def compressed() -> str:
    """Return the accuracy before and after; a loss above its limit is in bold."""
    return _table(
        "| network | method | float % | compressed % | difference |", map(_compressed, COMPRESSED)
    )


def _compressed(row: Compressed) -> str:
    start = _accuracy(row.start)
    found = [_file(record, row.format)["accuracy"] * 100 for record in row.records]
    mean = sum(found) / len(found)
    said = ", ".join(f"{accuracy:.2f}" for accuracy in found)
    digits = 3 if len(found) > 1 else 2  # one file's share of 10,000 images has no third
    if len(found) > 1:
        said += f": mean {mean:.3f}, standard deviation {statistics.stdev(found):.2f}"
    difference = f"{mean - start:+.{digits}f}"
    held = round(start - mean, 3) <= row.bar
    difference = difference if held else f"**{difference}**"
    return f"| {row.network} | {row.by} | {start:.2f} | {said} | {difference} |"


def _file(record: str, form: str) -> Any:
    """Return a record's figures for a format: accuracy, and the size if it was kept."""
    ((name, file),) = ((n, f) for n, f in _files(record, "numerics").items() if f["format"] == form)
    is_kept = (RESULTS / record / "perf.json").exists()
    return file | (_files(record, "perf")[name] if is_kept else {})


def _files(record: str, part: str) -> Any:
    return _record(f"{record}/{part}.json")["files"]


QUANTIZED = {  # after training: the column, and its record
    "ResNet-8": "ptq_resnet8",
    "ResNet-20": "ptq_resnet20",
    "ResNet-32": "ptq_resnet32",
    "pre-activation ResNet-20": "ptq_resnetv2_20",
}


# ResNet-20's other files after training: what, its record, its format.
ALSO_QUANTIZED = (
    ("int8, `min-max` (the default)", "ptq_resnet20", "tflite-int8"),
    ("int8, `percentile`", "ptq_resnet20_percentile", "tflite-int8"),
    ("int8, `moving-average`", "ptq_resnet20_moving_average", "tflite-int8"),
    ("int16x8", "ptq_resnet20_formats", "tflite-int16x8"),
    ("float16", "ptq_resnet20_formats", "tflite-float16"),
)


# The smallest file for an accuracy: percent, what it is, records of its seeds, the record of its
# bytes, which do not depend on the weights, and its format.
_TAUGHT = "int8, `qat … --config compress/qat_taught` (3 seeds: mean)"
SMALLEST = (
    (
        93.0,
        f"pre-activation ResNet-20, {_TAUGHT}",
        _seeds("qat_taught_resnetv2_20"),
        "qat_bytes_resnetv2_20",
        "tflite-int8",
    ),
    (91.7, "ResNet-20, int4", ("ptq_resnet20",), "ptq_resnet20", "tflite-int4"),
    (
        89.2,
        f"ResNet-8, {_TAUGHT}",
        _seeds("qat_taught_resnet8"),
        "qat_taught_resnet8_0",
        "tflite-int8",
    ),
    (87.2, "ResNet-8, int4", ("ptq_resnet8",), "ptq_resnet8", "tflite-int4"),
)


def smallest() -> str:
    """Return the smallest file for each of some accuracies."""
    return _table("| at least | file | accuracy | bytes |", (_smallest(*row) for row in SMALLEST))


def _smallest(least: float, what: str, records: tuple[str, ...], sized: str, form: str) -> str:
    accuracy = 100 * statistics.mean(_file(record, form)["accuracy"] for record in records)
    (size,) = (x["bytes"] for x in _files(sized, "perf").values() if x["format"] == form)
    return f"| {least} % | {what} | {accuracy:.2f} % | {size:,} |"


def also_quantized() -> str:
    """Return the calibration methods of int8, and the formats between int8 and float32."""
    return _table(
        "| ResNet-20's file | accuracy | agreement | signal-to-noise | bytes |",
        (_also_quantized(what, _file(record, form)) for what, record, form in ALSO_QUANTIZED),
    )


def _also_quantized(what: str, file: dict[str, Any]) -> str:
    shares = f"{100 * file['accuracy']:.2f} % | {100 * file['agreement']:.2f} %"
    return f"| {what} | {shares} | {file['snr_db']:.1f} dB | {file['bytes']:,} |"


def quantized() -> str:
    """Return accuracy, agreement and bytes of the files that are made without training."""
    return _table(
        f"| file | {' | '.join(QUANTIZED)} |",
        (
            f"| {form.removeprefix('tflite-')} | "
            + " | ".join(_quantized(_file(record, form)) for record in QUANTIZED.values())
            + " |"
            for form in ("tflite-float32", "tflite-int8", "tflite-dynamic", "tflite-int4")
        ),
    )


def _quantized(file: dict[str, Any]) -> str:
    least = FORMATS[file["format"]].tolerance.agreement
    failed = ", fails its check" if file["agreement"] < least else ""
    return (
        f"{file['accuracy']:.2%} ({100 * file['agreement']:.2f}) {file['bytes']:,}{failed}"
    ).replace("%", " %")


def training_steps() -> str:
    """Return the times of a training step, compared with stock Keras and PyTorch."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for row in _record("training.json")["rows"]:
        rows.setdefault((row["model"], row["batch_size"]), {})[row["peer"]] = row
    return _table(
        "| network | ms per step | stock Keras 3 `fit` | PyTorch 2.13, channels_last "
        "| peak MiB: ours, Keras, PyTorch |",
        (
            f"| {_NETWORKS[model]}, batch {batch} | {_spread(peers['ours']['ms'], '.0f')} "
            f"| {_times(peers['keras-fit'])} | {_times(peers['torch'])} | "
            + ", ".join(str(peers[p]["peak_memory_mib"]) for p in ("ours", "keras-fit", "torch"))
            + " |"
            for (model, batch), peers in rows.items()
        ),
    )


_NETWORKS = {"resnet20": "ResNet-20", "resnet18": "ResNet-18", "resnet50": "ResNet-50"}


def _times(row: dict[str, Any]) -> str:
    return _spread(row["ratio"], ".2f").replace(" ", " × ", 1)


def _spread(figure: dict[str, float], form: str) -> str:
    median, least, most = (format(figure[key], form) for key in ("median", "least", "most"))
    return f"{median} ({least} to {most})"


# The row; whose time it is, over whose of the same rounds; {} is the network's name in a file's.
OVER = (
    ("ours / stock converter, float32", "{}-float32.tflite", "stock-float32"),
    ("ours / stock converter, int8", "{}-int8.tflite", "stock-int8"),
    ("ONNX Runtime / ours, float32", "{}.onnx", "{}-float32.tflite"),
    ("ONNX Runtime / ours, int8", "{}-int8.onnx", "{}-int8.tflite"),
    ("OpenVINO / ours, float32", "openvino", "{}-float32.tflite"),
    ("PyTorch eager / ours, float32", "pytorch-eager", "{}-float32.tflite"),
    ("PyTorch compiled / ours, float32", "pytorch-compiled", "{}-float32.tflite"),
)
_COLUMNS = (("ResNet50", 1), ("ResNet50", 2), ("ResNet50V2", 1), ("ResNet50V2", 2))


def runtimes() -> str:
    """Return our files' latency, and the ratios to the stock converter and other runtimes."""
    ours = (
        f" {_median(network, threads, 'float32')}, {_median(network, threads, 'int8')} |"
        for network, threads in _COLUMNS
    )
    rows = (
        f"| {said} |" + "".join(f"{_over(*column, file, other)} |" for column in _COLUMNS)
        for said, file, other in OVER
    )
    return _table(
        "| time | ResNet50, 1 thread | 2 threads | ResNet50V2, 1 thread | 2 threads |",
        ["| ours: float32, int8 |" + "".join(ours), *rows],
    )


def _rounds(network: str, threads: int) -> dict[str, list[float]]:
    """Return the times of each file: a median for each round."""
    rows = _record("runtimes.json")["networks"][network]["rows"]
    return {row["file"]: row["rounds_ms"] for row in rows if row["threads"] == threads}


def _median(network: str, threads: int, precision: str) -> str:
    times = _rounds(network, threads)[f"{network.lower()}-{precision}.tflite"]
    return f"{statistics.median(times):.1f} ms"


def _over(network: str, threads: int, file: str, other: str) -> str:
    times = _rounds(network, threads)
    file, other = file.format(network.lower()), other.format(network.lower())
    if file not in times:
        return ""
    ratios = sorted(x / y for x, y in zip(times[file], times[other], strict=True))
    spread = {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}
    return f" {_spread(spread, '.3f')}"


def imagenet_size() -> str:
    """Return the int8 results of ImageNet's networks, before and after two steps of QAT."""
    rows = (
        f"| `{row['network']}` | {_signal(row['ptq'])} | {_signal(row['qat'])} |"
        for row in _record("quantized_imagenet.json")["rows"]
    )
    return _table("| network | quantized after training | after two steps of QAT |", rows)


def _signal(file: dict[str, Any]) -> str:
    if "error" in file:
        return f"refused: {file['error'].split('. ')[0]}"
    left = ", ".join(file["in_float"]) or "no operation"
    return (
        f"{left} in float, {file['snr_db']} dB, {100 * file['agreement']:.1f} %, "
        f"{file['bytes']:,} bytes" + ("" if file["passed"] else ", fails its check")
    )


def quantizers() -> str:
    """Return the accuracy and the noise of int8 files by the way they are made."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _record("quantizers.json")["rows"]:
        found.setdefault(row["network"], {})[row["way"]] = row
    ways = list(next(iter(found.values())))
    return _table(
        f"| int8 file of | {' | '.join(ways)} | bytes / TensorFlow's | time / TensorFlow's |",
        (
            f"| `{network}` | {' | '.join(_made(rows[way]) for way in ways)} "
            f"| {rows['ours']['bytes'] / rows['TensorFlow']['bytes']:.3f} "
            f"| {_spread(rows['ours']['ratio'], '.2f')} |"
            for network, rows in found.items()
        ),
    )


def _made(row: dict[str, Any]) -> str:
    accuracy = "" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %, "
    return f"{accuracy}{row['snr_db']} dB, {row['seconds']:.1f} s"


def int4_share() -> str:
    """Return the accuracy and the bytes of int4 files by the share that keeps 8 bits."""
    found: dict[float, list[str]] = {}
    for row in _record("int4_share.json")["rows"]:
        cell = f"{100 * row['accuracy']:.1f} %, {row['bytes']:,}"
        found.setdefault(row["share"], []).append(cell)
    return _table(
        "| share of the weights in 8 bits | ResNet-8: accuracy, bytes "
        "| ResNet-20: accuracy, bytes |",
        (f"| {100 * share:.0f} % | {' | '.join(cells)} |" for share, cells in found.items()),
    )


def finetune_defaults() -> str:
    """Return the accuracies of fine-tuning with one setting changed, by images of each class."""
    rows = _record("finetune_defaults.json")["rows"]
    found = {(row["change"], row["subset"]): row["accuracy"] for row in rows}
    changes = dict.fromkeys(row["change"] for row in rows if "uneven" not in row["subset"])
    sizes = ("5", "20", "60")
    return _table(
        "| changed | 5 images of each class | 20 | 60 |",
        (
            f"| {change} | " + " | ".join(_share(found.get((change, s))) for s in sizes) + " |"
            for change in changes
        ),
    )


def finetune_uneven() -> str:
    """Return the results on unequal classes, with and without a correction."""
    rows = _record("finetune_defaults.json")["rows"]
    return _table(
        "| unequal classes | accuracy | macro F1 |",
        (
            f"| {row['change']} | {_share(row['accuracy'])} | {_share(row['macro_f1'])} |"
            for row in rows
            if "uneven" in row["subset"]
        ),
    )


def transfer() -> str:
    """Return the accuracies of a trained network on other images, in both directions."""
    rows = (_transfer(name) for name in ("transfer_to_cifar10", "transfer_to_imagenette"))
    return _table("| from, to | whole | only the head | from scratch |", rows)


def _transfer(name: str) -> str:
    accuracies = _record(f"{name}.json")["accuracy"]
    cells = (_mean(accuracies[how]) for how in ("whole", "frozen", "from scratch"))
    return f"| {_DIRECTIONS[name]} | {' | '.join(cells)} |"


def _mean(values: list[float]) -> str:
    seeds = ", ".join(f"{100 * value:.1f}" for value in values)
    return f"{100 * statistics.mean(values):.1f} % ({seeds})"


_DIRECTIONS = {
    "transfer_to_cifar10": "Imagenette to CIFAR-10, ResNet-18-D",
    "transfer_to_imagenette": "CIFAR-10 to Imagenette, ResNet-20",
}


def _share(value: float | None) -> str:
    return "not run" if value is None else f"{100 * value:.1f} %"


def reliability() -> str:
    """Return the number of hostile trials of each class, and of those that ended badly."""
    record = _record("reliability.json")
    rows = [[f"`{row['class']}`", *map(row.get, _COUNTS)] for row in record["classes"]]
    where = f"all, seed {record['seed']}, {record['date']}, {record['machine']}"
    rows.append([where, *(sum(row[count] for row in record["classes"]) for count in _COUNTS)])
    lines = (f"| {name} | " + " | ".join(f"{n:,}" for n in counts) + " |" for name, *counts in rows)
    return _table("| class | tried | good | bad |", lines)


_COUNTS = ("tried", "good", "bad")


def aarch64() -> str:
    """Return the differences between this machine's and emulated ARM processors' answers."""
    found = [row for name in ("aarch64", "aarch64_128") for row in _record(f"{name}.json")["rows"]]
    files: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        files.setdefault(row["file"], []).append(row)
    cpus = dict.fromkeys(row["cpu"] for row in found)
    return _table(
        f"| file | images | {' | '.join(cpus)} | same class |",
        (
            f"| `{file}` | {rows[0]['n']} | "
            + " | ".join(f"{row['difference']:.2g} {_UNITS[row['unit']]}".strip() for row in rows)
            + f" | {min(row['same_class'] for row in rows):.0%} |".replace("%", " %")
            for file, rows in files.items()
        ),
    )


def recipes() -> str:
    """Return the wall time and the peak memory of each recipe on the digits."""
    rows = _record("recipes.json")["rows"].values()
    return _table(
        "| command, on the digits | seconds | peak MiB |",
        (f"| `{x['command']}` | {x['seconds']:.0f} | {x['peak_mib']:,.0f} |" for x in rows),
    )


def performance() -> str:
    """Return every performance bar with the figures of each kind of processor."""
    kinds = [kind for kind in bars.CPUS if kind != "other"]
    records = {
        (kind, path.stem): json.loads(path.read_text(encoding="utf-8"))
        for kind in kinds
        for path in (bars.FOLDER / kind).glob("*.json")
    }
    rows = (
        f"| {bar.what} | {bar.asked} | "
        + " | ".join(_judged(bar, records.get((kind, bar.program))) for kind in kinds)
        + " |"
        for bar in bars.BARS
    )
    return _table(f"| figure | bar | {' | '.join(bars.CPUS[kind][1] for kind in kinds)} |", rows)


def _judged(bar: bars.Bar, record: dict[str, Any] | None) -> str:
    found = None if record is None else bar.measured(record)
    if found is None:
        return "not measured"
    unit = f" {bar.unit}" if bar.unit else ""
    return f"{bars.text(found)}{unit}: {bars.judged(bar, found)}"


_UNITS = {"steps of the output": "steps", "of a probability": ""}

TABLES: dict[str, tuple[Callable[[], str], ...]] = {
    "recipes/README.md": (
        trained,
        ablations,
        photographs,
        compressed,
        training_steps,
        recipes,
        finetune_defaults,
        finetune_uneven,
        transfer,
    ),
    "export/README.md": (quantizers, quantized, also_quantized, smallest, int4_share),
    "benchmarks/README.md": (runtimes, imagenet_size),
    "docs/reliability.md": (reliability,),
    "docs/arm.md": (aarch64,),
    "docs/performance.md": (performance,),
}


def with_tables(text: str, tables: Iterable[str]) -> str:
    """Return `text` with each table replaced by the new one with the same first line.

    Raises:
        ValueError: There is no such table, or more than one.
    """
    for table in tables:
        head = table.partition("\n")[0]
        text, count = re.subn(
            rf"^{re.escape(head)}\n(?:\|.*\n)+", lambda _, t=table: f"{t}\n", text, flags=re.M
        )
        if count != 1:
            raise ValueError(f"{count} tables begin with {head!r}, not one")
    return text


def main() -> None:
    for page, makers in TABLES.items():
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        path.write_text(with_tables(text, (make() for make in makers)), encoding="utf-8")


if __name__ == "__main__":
    main()

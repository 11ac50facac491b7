"""The performance bars: what is measured, by which program, and what is asked of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from keras_resnet.export.measure.turns import ratio, spread

FOLDER = Path(__file__).parent / "results" / "performance"
# {folder of records: (instruction sets that the CPU has, heading)}; the first that fits.
CPUS = {
    "avx512_bf16": ({"avx512f", "avx512_bf16"}, "AVX512 with bf16 and VNNI"),
    "avx512": ({"avx512f"}, "AVX512"),
    "avx2": ({"avx2"}, "AVX2 only"),
    "other": (set[str](), "another CPU"),
}

Found = dict[str, float]  # median, least, most


class Bar(NamedTuple):
    """A bar.

    Attributes:
        what: the figure, in words.
        program: the program in benchmarks/ that writes the record.
        measured: takes the figure from the record; None if it is not there.
        least, most: the bar; one of them is given.
        unit: of the figure; "" for a ratio.
    """

    what: str
    program: str
    measured: Callable[[dict[str, Any]], Found | None]
    least: float | None = None
    most: float | None = None
    unit: str = ""

    @property
    def asked(self) -> str:
        """The bar in words."""
        sign, value = ("≥", self.least) if self.most is None else ("≤", self.most)
        return f"{sign} {value:g} {self.unit}".strip()


def judged(bar: Bar, found: Found) -> str:
    """Return the judgement on the median."""
    is_reached = (bar.least is None or found["median"] >= bar.least) and (
        bar.most is None or found["median"] <= bar.most
    )
    return "reached" if is_reached else "not reached"


def text(found: Found) -> str:
    """Return a figure with its range."""
    median, least, most = (f"{found[key]:.4g}" for key in ("median", "least", "most"))
    return median if least == most else f"{median} ({least} to {most})"


def _peers(record: dict[str, Any], model: str, precision: str) -> dict[str, dict[str, Any]]:
    where = (model, precision)
    rows = record["rows"]
    return {row["peer"]: row for row in rows if (row["model"], row["precision"]) == where}


def _over(theirs: str, ours: str, model: str, precision: str) -> Callable[..., Found | None]:
    """Return the time of a step of `theirs` over that of `ours`, round by round.

    "torch" stands for the faster of PyTorch's two modes.
    """

    def measured(record: dict[str, Any]) -> Found | None:
        peers = _peers(record, model, precision)
        modes = [name for name in peers if name.startswith("torch")]
        name = theirs
        if theirs == "torch" and modes:
            name = min(modes, key=lambda mode: peers[mode]["ms"]["median"])
        if name not in peers or ours not in peers:
            return None
        times = (
            [statistics.median(turn["ms"]) for turn in peers[who]["rounds"]] for who in (name, ours)
        )
        return ratio(*times)

    return measured


def _memory(ours: str, model: str) -> Callable[..., Found | None]:
    """Return our peak memory over that of PyTorch's mode with the least."""

    def measured(record: dict[str, Any]) -> Found | None:
        peers = _peers(record, model, "float32")
        modes = [row["peak_memory_mib"] for name, row in peers.items() if name.startswith("torch")]
        if not modes or ours not in peers:
            return None
        return spread([peers[ours]["peak_memory_mib"] / min(modes)])

    return measured


def _key(*keys: str) -> Callable[[dict[str, Any]], Found | None]:
    """Return the figure under these keys: a spread or a number."""

    def measured(record: dict[str, Any]) -> Found | None:
        found: Any = record
        for key in keys:
            found = found[key]
        return found if isinstance(found, dict) else spread([found])

    return measured


def _of_seeds(key: str) -> Callable[[dict[str, Any]], Found | None]:
    return lambda record: spread([row[key] for row in record["rows"]])


_NETWORKS = {
    "resnet20": "ResNet-20, batch 128",
    "resnet18": "ResNet-18, 128 pixels, batch 64",
    "resnet50": "ResNet-50, batch 16",
}
_PRECISIONS = {"float32": "float32", "mixed_bfloat16": "bf16"}

BARS = (
    *(
        Bar(
            f"training step: PyTorch's faster mode / ours, {network}, {named}",
            "training",
            _over("torch", "ours", model, precision),
            least=1.0,
        )
        for precision, named in _PRECISIONS.items()
        for model, network in _NETWORKS.items()
    ),
    *(
        Bar(
            f"training step: stock Keras' fit / ours, {network}, float32",
            "training",
            _over("keras-fit", "ours", model, "float32"),
            least=1.3,
        )
        for model, network in _NETWORKS.items()
    ),
    *(
        Bar(
            f"Keras' fit: stock layers / our layers, {network}, float32",
            "training",
            _over("keras-fit", "ours-fit", model, "float32"),
            least=1.25,
        )
        for model, network in _NETWORKS.items()
    ),
    Bar(
        "memory of training: ours / PyTorch, ResNet-50, batch 16",
        "training",
        _memory("ours", "resnet50"),
        most=1.1,
    ),
    Bar("the same with train.remat", "training", _memory("ours-remat", "resnet50"), most=1.1),
    Bar(
        "import keras_resnet, beyond import keras",
        "start",
        _key("seconds", "import keras_resnet, beyond import keras"),
        most=0.05,
        unit="s",
    ),
    *(
        Bar(what, "start", _key("seconds", what), most=0.5, unit="s")
        for what in ("keras-resnet --help", "keras-resnet list", "a mistyped key")
    ),
    Bar(
        "first step of train digits/resnet8",
        "start",
        _key("seconds", "first step of train digits/resnet8"),
        most=12,
        unit="s",
    ),
    Bar(
        "build ResNet50(): Keras Applications / ours",
        "building",
        _key("pairs", "ResNet50", "ratio"),
        least=1.0,
    ),
    Bar("quickstart", "quickstart", _of_seeds("seconds"), most=60, unit="s"),
    Bar(
        "quickstart: accuracy of the int8 file", "quickstart", _of_seeds("tflite-int8"), least=0.98
    ),
    Bar(
        "int8 of ResNet-50 with its check / the bare converter",
        "export_cost",
        _key("over_bare"),
        most=1.1,
    ),
    Bar(
        "memory of an export to all formats but int16x8 / the float32 file",
        "export_cost",
        _key("memory", "over_file"),
        most=3,
    ),
    Bar(
        "predict on a folder / a bare LiteRT loop, images/s",
        "prediction",
        _key("over_bare"),
        least=0.9,
    ),
    Bar(
        "reading a folder: evaluation / training",
        "folders",
        _key("over_training", "evaluation"),
        least=0.9,
    ),
    Bar(
        "reading a folder: calibration / training",
        "folders",
        _key("over_training", "calibration"),
        least=0.9,
    ),
    Bar(
        "two workers over loopback / one process, images/s",
        "two_workers",
        _key("over_one"),
        least=0.9,
    ),
)

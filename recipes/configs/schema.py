"""A training run as data: TOML into frozen dataclasses, unknown keys refused."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.files import replacing

CONFIGS = Path(__file__).parent


@dataclass(frozen=True)
class DataConfig:
    """Which images."""

    name: str = "cifar10"  # "digits" (scikit-learn's), a name of tensorflow-datasets, or a folder
    validation: int = 5000  # images held out of the training split to choose the best epoch
    split_seed: int = 0  # which ones; apart from train.seed, so that seeds compare
    image_size: int = 0  # pixels a side the network is given; 0: the size all images have
    crop_fraction: float = 0.875  # evaluation: the central part of the shorter side that is kept
    service: str = ""  # a tf.data service, grpc://HOST:PORT, that prepares the batches


@dataclass(frozen=True)
class AugmentConfig:
    """How images are varied in training; 0 is off."""

    crop: str = "pad"  # a key of recipes.augment.CROPS
    flip: str = "random"  # a key of recipes.augment.FLIPS
    min_area: float = 0.08  # crop = "resized": the least part of the image that is cut out
    randaugment: int = 0  # operations on each image (arXiv:1909.13719)
    magnitude: float = 9.0  # their strength, of 10
    erasing: float = 0.0  # part of the images with a rectangle erased (arXiv:1708.04896)
    mixup: float = 0.0  # alpha of arXiv:1710.09412
    cutmix: float = 0.0  # alpha of arXiv:1905.04899; with mixup, each batch draws one of the two
    repeats: int = 1  # variants of an image in one batch (arXiv:1902.05509)


@dataclass(frozen=True)
class TrainConfig:
    """How long and on what."""

    epochs: int = 0  # passes over the training split; or
    steps: int = 0  # updates (exactly one of the two is given)
    batch_size: int = 128  # of one update: over all devices, machines and accumulated parts
    accumulate: int = 1  # parts of a batch that are computed one after another, to save memory
    seed: int = 0  # of the first weights, the order of the images and how they are varied
    deterministic: bool = False  # also on GPUs, where it costs speed
    precision: str = "auto"  # float32 | mixed_float16 | mixed_bfloat16
    devices: str = "auto"  # auto | cpu | cpu:2 (logical devices) | gpu | gpu:2
    synchronized_bn: bool = False  # BN statistics over all devices
    loss: str = "cross_entropy"  # or "binary_cross_entropy" (arXiv:2110.00476)
    label_smoothing: float = 0.0  # part of the target that all classes share (arXiv:1512.00567)
    weight_decay: float = 1e-4  # on kernels; BN and biases are spared
    clip_norm: float = 0.0  # of the gradient of the whole batch; 0: not clipped
    ema: float = 0.0  # decay of the averaged weights that are evaluated and kept; 0: none
    sizes: tuple[int, ...] = ()  # progressive resizing: pixels a side, one after another
    size_boundaries: tuple[float, ...] = ()  # the fractions of the run where they change
    checkpoint_minutes: float = 1.0  # also saved at the end of every epoch
    wait_seconds: float = 300.0  # for the other machines or the data service to answer


@dataclass(frozen=True)
class OptimizerConfig:
    """What an update is."""

    name: str = "sgd"  # a key of recipes.optimizers.OPTIMIZERS
    learning_rate: float = 0.1  # the peak of the schedule, for reference_batch images
    reference_batch: int = 0  # the rate is scaled by batch_size / this (arXiv:1706.02677); 0: not
    momentum: float = 0.9  # beta_1 of adamw and lamb
    nesterov: bool = False  # sgd: the gradient at the point that momentum leads to
    beta_2: float = 0.999  # adamw, lamb
    epsilon: float = 1e-7  # adamw, lamb
    trust: float = 0.001  # lars: the trust coefficient (arXiv:1708.03888)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run, in fractions of it."""

    name: str = "step"  # a key of recipes.schedules.SCHEDULES
    warmup: float = 0.0  # linear from zero ("one_cycle": from a 25th of the peak)
    warmup_hold: float = 0.0  # instead of rising, it stays at this part of the peak
    boundaries: tuple[float, ...] = (0.5, 0.75)  # "step": where the rate is multiplied
    factor: float = 0.1  # "step": by what
    power: float = 2.0  # "polynomial"


@dataclass(frozen=True)
class FinetuneConfig:
    """What of the network that a fine-tuning starts from learns, and when."""

    frozen: float = 0.0  # part of the run, from its start, in which only the new head learns
    train_bn: bool = False  # whether BN layers learn and renew their statistics after that
    keep_head: bool = False  # go on with the trained classifier: the data has the same classes


@dataclass(frozen=True)
class PruningConfig:
    """What `prune-filters` removes before it trains; see `recipes.prune_filters`."""

    keep: float = 1.0  # the part of the multiply-adds that is left; 1: nothing is pruned
    criterion: str = "l1"  # a key of recipes.filter_pruning.CRITERIA
    ranking: str = "uniform"  # a key of recipes.filter_pruning.RANKINGS
    least: int = 4  # filters that stay in every layer
    divisor: int = 1  # the filters that stay are a multiple of it


@dataclass(frozen=True)
class DistillConfig:
    """A trained network whose answers are learned too (arXiv:1503.02531)."""

    teacher: str = ""  # a run folder, a .keras file, or a NAME with weights; "": none
    weights: str = ""  # of a NAME: a tag or a file
    temperature: float = 4.0  # by which both networks' logits are divided
    weight: float = 0.9  # the teacher's part of the loss; the rest is the labels'


@dataclass(frozen=True)
class CompressConfig:
    """How a trained network is made smaller while it is trained on."""

    technique: str = ""  # a key of recipes.job.TECHNIQUES; "": none
    freeze_bn: float = 0.5  # qat: part of the run after which BN keeps its statistics
    preserve: str = "auto"  # qat, cluster: keep zeros and clusters; see recipes.kernels.preserved
    sparsity: float = 0.8  # prune: the share of weights that become 0
    pattern: str = ""  # prune: "2:4", two zeros in every four input channels; "": anywhere
    allocation: str = "lamp"  # prune: how layers share the zeros, a key of kernels.ALLOCATIONS
    ramp: tuple[float, float] = (0.0, 0.5)  # prune: the part of the run in which zeros are added
    clusters: int = 16  # cluster: the values that a kernel has


@dataclass(frozen=True)
class Config:
    """One training run."""

    model: str  # a name of `keras-resnet list`
    network: dict[str, Any] = field(default_factory=dict)  # fields of its spec that differ
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    compress: CompressConfig = field(default_factory=CompressConfig)
    pruning: PruningConfig = field(default_factory=PruningConfig)

    def __post_init__(self) -> None:
        """Check what no single field can tell.

        Raises:
            UserError: neither or both of epochs and steps, or a value out of its range.
        """
        train = self.train
        if (train.epochs > 0) == (train.steps > 0):
            raise UserError(
                "Give exactly one of train.epochs and train.steps, above 0; "
                f"received epochs={train.epochs}, steps={train.steps}."
            )
        if train.sizes and len(train.sizes) != len(train.size_boundaries) + 1:
            raise UserError(
                "train.size_boundaries has one fraction between each two of train.sizes; received "
                f"{len(train.sizes)} sizes and {len(train.size_boundaries)} boundaries."
            )
        ramp = self.compress.ramp
        if len(ramp) != 2 or not 0 <= ramp[0] <= ramp[1] <= 1 or ramp[0] == 1:
            raise UserError(
                "compress.ramp is the part of the run in which zeros are added: where it begins, "
                f"below 1, and where it ends, not before that, e.g. (0.0, 0.5); received {ramp}."
            )
        for key, (least, below) in _LIMITS.items():
            section, _, leaf = key.partition(".")
            value = getattr(getattr(self, section), leaf)
            if not least <= value < below:
                end = "" if below == math.inf else f" and below {below}"
                raise UserError(f"{key} is at least {least}{end}; received {value}.")


# The values a number may have: at least the first and below the second.
_LIMITS = {
    "data.validation": (0, math.inf),
    "data.split_seed": (0, math.inf),
    "data.image_size": (0, math.inf),
    "data.crop_fraction": (0.1, 1.01),
    "augment.min_area": (0, 1.01),
    "augment.randaugment": (0, 15),
    "augment.magnitude": (0, 10.01),
    "augment.erasing": (0, 1.01),
    "augment.mixup": (0, math.inf),
    "augment.cutmix": (0, math.inf),
    "augment.repeats": (1, math.inf),
    "train.batch_size": (1, math.inf),
    "train.accumulate": (1, math.inf),
    "train.seed": (0, 2**31),
    "train.weight_decay": (0, math.inf),
    "train.label_smoothing": (0, 1),
    "train.clip_norm": (0, math.inf),
    "train.ema": (0, 1),
    "train.checkpoint_minutes": (0, math.inf),
    "train.wait_seconds": (0, math.inf),
    "optimizer.learning_rate": (0, math.inf),
    "optimizer.reference_batch": (0, math.inf),
    "optimizer.momentum": (0, 1),
    "optimizer.beta_2": (0, 1),
    "finetune.frozen": (0, 1.01),
    "distill.temperature": (0.1, math.inf),
    "distill.weight": (0, 1.01),
    "compress.freeze_bn": (0, 1.01),
    "compress.sparsity": (0.01, 1),
    "compress.clusters": (3, 1025),
    "pruning.keep": (0, 1.01),
    "pruning.least": (1, math.inf),
    "pruning.divisor": (1, math.inf),
    "optimizer.epsilon": (0, math.inf),
    "optimizer.trust": (0, math.inf),
    "schedule.warmup_hold": (0, 1.01),
    "schedule.factor": (0, math.inf),
    "schedule.power": (0, math.inf),
}


def shown_name(name: str) -> str:
    """A dataset as others may read of it: of a folder the last part, not where it lies."""
    return Path(name).name if Path(name).is_absolute() else name


def list_configs() -> list[str]:
    """The names of the shipped configs, e.g. "cifar10/resnet20"."""
    return sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.glob("*/*.toml"))


def load_config(name: str | Path, overrides: dict[str, Any] | None = None) -> Config:
    """Read a shipped config by `name`, or a TOML file by its path.

    `overrides` are values by key, `{"train.epochs": 3}`, that replace those of the file.

    Raises:
        UserError: no such config, broken TOML, an unknown key, a value of the wrong type.
    """
    path = CONFIGS / f"{name}.toml"
    if not path.is_file():
        path = Path(name)
    if path.suffix == ".toml" and not path.is_file():
        raise UserError(f"No such config file: {path}")
    if path.suffix != ".toml" or not path.is_file():
        see = "Run 'keras-resnet train --list' to see all, or give the path of a .toml file."
        raise UnknownNameError("config", name, list_configs(), see)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    for key, value in (overrides or {}).items():
        _override(table, key, value)
    return from_dict(table)


def from_dict(table: dict[str, Any]) -> Config:
    """A Config of a `table` of nested dicts; the inverse of `dataclasses.asdict`.

    Raises:
        UserError: no model, an unknown key, a value of the wrong type.
    """
    if "model" not in table:
        raise UserError("The config has no 'model', e.g. model = \"resnet20\".")
    return _build(Config, table, "")


def save_config(config: Config, path: Path) -> None:
    """Write the resolved `config` to `path` as TOML, under its name only when it is whole.

    Raises:
        MissingExtraError: tomli-w is not installed.
        OSError: it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(require("tomli_w", "recipes").dumps(dataclasses.asdict(config)))


def parse_override(text: str) -> tuple[str, Any]:
    """Parse the command line's `optimizer.learning_rate=0.2`; bare words are strings."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set takes KEY=VALUE, e.g. --set train.epochs=3; received '{text}'.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _override(table: dict[str, Any], key: str, value: Any) -> None:
    section, _, leaf = key.rpartition(".")
    target = table.setdefault(section, {}) if section else table
    if not isinstance(target, dict):
        raise UserError(f"'{section}' is not a section of the config (in '{key}').")
    target[leaf] = value
    # The length is given in one way: naming the other replaces it.
    other = {"train.epochs": "steps", "train.steps": "epochs"}.get(key)
    if other:
        target.pop(other, None)


def _build(cls: type, table: dict[str, Any], prefix: str) -> Any:
    types = typing.get_type_hints(cls)
    values = {}
    for key, value in table.items():
        if key not in types:
            where = f"key in the config's [{prefix[:-1]}]" if prefix else "key in the config"
            raise UnknownNameError(where, key, types, "")
        values[key] = _convert(types[key], value, prefix + key)
    return cls(**values)


def _convert(kind: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise UserError(f"'{key}' is a section of the config; received {value!r}.")
        return _build(kind, value, f"{key}.")
    if kind is float and type(value) is int:
        return float(value)
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_convert(typing.get_args(kind)[0], item, key) for item in value)
    if typing.get_origin(kind) is dict and isinstance(value, dict):
        return dict(value)
    if typing.get_origin(kind) is not None or type(value) is not kind:
        expected = getattr(kind, "__name__", str(kind))
        raise UserError(f"'{key}' is a {expected}; received {_short(value)}.")
    return value


def _short(value: Any) -> str:
    """A value in one line, whatever was given."""
    return " ".join(reprlib.repr(value).split())

"""The config of a training run: TOML is read into frozen dataclasses; unknown keys are errors."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import reprlib
import sys
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.files import expanded, replacing, require_small_text
from keras_resnet.text import is_safe

CONFIGS = Path(__file__).parent


@dataclass(frozen=True)
class Limits:
    """The allowed numbers of a key: at least `least`, at most `most`, and less than `below`."""

    least: float
    most: float = math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        """Return True if `value` is allowed; NaN and infinity are not."""
        return self.least <= value <= self.most and value < self.below

    def __str__(self) -> str:
        """Return the text for errors and for the documentation, e.g. "from 0 to 1"."""
        if self.most < math.inf:
            return f"from {self.least} to {self.most}"
        return f"at least {self.least}" + f" and below {self.below}" * (self.below < math.inf)


Count = Annotated[int, Limits(0)]
Positive = Annotated[int, Limits(1)]
Side = Annotated[int, Limits(0, 8192)]  # of an image; larger ones are not read
Amount = Annotated[float, Limits(0)]
Fraction = Annotated[float, Limits(0, 1)]
BelowOne = Annotated[float, Limits(0, below=1)]


@dataclass(frozen=True)
class DataConfig:
    """The images, and the number held out for validation."""

    name: str = "cifar10"  # "digits", a tensorflow-datasets NAME[:80%], a folder or its FILE.csv
    validation: Count = 5000  # training images held out to choose the best epoch
    validation_share: BelowOne = 0.0  # if not 0: hold out this share of every class instead
    split_seed: Count = 0  # chooses the held-out images, independently of train.seed
    image_size: Side = 0  # side of the network's input in pixels; 0: the size of all images
    crop_fraction: Annotated[float, Limits(0.1, 1)] = 0.875  # evaluation: central part of a side
    layout: str = "auto"  # folder: auto | classes | splits; "classes" if a class is named train
    balanced: bool = False  # show every class equally often, also if it has few images
    service: str = ""  # address of a tf.data service for preparing batches: grpc://HOST:PORT


@dataclass(frozen=True)
class AugmentConfig:
    """The augmentation of training images; 0 turns an operation off."""

    crop: str = "pad"  # pad | reflect | shift | resized | none
    flip: str = "random"  # none | random | alternating
    min_area: Fraction = 0.08  # crop = "resized": the smallest part of the image to crop
    randaugment: Annotated[int, Limits(0, 14)] = 0  # operations per image (arXiv:1909.13719)
    magnitude: Annotated[float, Limits(0, 10)] = 9.0  # strength of RandAugment's operations
    erasing: Fraction = 0.0  # share of images with an erased rectangle (arXiv:1708.04896)
    mixup: Amount = 0.0  # mixup's alpha (arXiv:1710.09412)
    cutmix: Amount = 0.0  # CutMix's alpha (arXiv:1905.04899); with mixup, each batch uses one
    repeats: Positive = 1  # variants of each image in a batch (arXiv:1902.05509)


@dataclass(frozen=True)
class TrainConfig:
    """The length of the run, its devices, and its loss."""

    epochs: Count = 0  # passes over the training split; give epochs or steps, not both
    steps: Count = 0  # updates of the weights
    least_steps: Count = 0  # with epochs: add epochs until there are this many updates
    batch_size: Positive = 128  # images per update, over all devices, machines and batch parts
    accumulate: Positive = 1  # split a batch into this many parts to save memory
    remat: bool = False  # save memory: compute activations again in the backward pass
    seed: Annotated[int, Limits(0, 2**31 - 1)] = 0  # seeds initial weights, order, augmentation
    deterministic: bool = False  # reproducible results also on GPUs, at a lower speed
    precision: str = "auto"  # auto | float32 | mixed_float16 | mixed_bfloat16
    devices: str = "auto"  # auto | cpu | cpu:2 (logical devices) | gpu | gpu:2
    synchronized_bn: bool = False  # compute BN statistics over all devices
    loss: str = "cross_entropy"  # cross_entropy | binary_cross_entropy (arXiv:2110.00476)
    class_weights: bool = False  # weight of a class in the loss: 1 / its number of images
    label_smoothing: BelowOne = 0.0  # part of the target spread over classes (arXiv:1512.00567)
    weight_decay: Amount = 1e-4  # applies to kernels, not to BN and biases
    clip_norm: Amount = 0.0  # largest norm of a batch's gradient; 0: no clipping
    ema: BelowOne = 0.0  # decay of averaged weights, which are evaluated and saved; 0: none
    sizes: tuple[Side, ...] = ()  # progressive resizing: image side in pixels for each phase
    size_boundaries: tuple[float, ...] = ()  # fractions of the run at which the size changes
    patience: Count = 0  # stop after this many epochs without better validation accuracy; 0: never
    callbacks: tuple[str, ...] = ()  # Keras callbacks by dotted name, "package.module.Class"
    checkpoint_minutes: Amount = 1.0  # minutes between checkpoints; each epoch also ends with one
    wait_seconds: Amount = 300.0  # longest wait for other machines or the data service


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer, which updates the weights."""

    name: str = "sgd"  # sgd | adamw | schedule_free_adamw | muon | lamb | lars
    learning_rate: Amount = 0.1  # peak of the schedule, for a batch of reference_batch images
    reference_batch: Count = 0  # scale the rate by batch_size / this (arXiv:1706.02677); 0: no
    momentum: BelowOne = 0.9  # momentum; beta_1 for adamw, schedule_free_adamw, lamb
    nesterov: bool = False  # sgd: Nesterov momentum
    beta_2: BelowOne = 0.999  # all but sgd, lars: decay of the squared gradients
    epsilon: Amount = 1e-7  # all but sgd, lars: added to the denominator
    trust: Amount = 0.001  # lars: trust coefficient (arXiv:1708.03888)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate schedule; times are fractions of the run."""

    name: str = "step"  # step | cosine | one_cycle | polynomial | constant
    warmup: float = 0.0  # length of the linear warmup from 0 (one_cycle: from peak / 25)
    warmup_hold: Fraction = 0.0  # if not 0: warm up at this constant fraction of the peak
    boundaries: tuple[float, ...] = (0.5, 0.75)  # "step": times at which the rate changes
    factor: Amount = 0.1  # "step": multiplier of the rate at each boundary
    power: Amount = 2.0  # "polynomial": the exponent


@dataclass(frozen=True)
class FinetuneConfig:
    """The layers that fine-tuning trains, and when."""

    frozen: Fraction = 0.0  # first part of the run that trains only the new head
    train_bn: bool = False  # after that, also train BN layers and update their statistics
    keep_head: bool = False  # keep the trained classifier, for data with the same classes


@dataclass(frozen=True)
class PruningConfig:
    """The filters that `prune-filters` removes before training; see `recipes.prune_filters`."""

    keep: Fraction = 1.0  # part of the multiply-adds to keep; 1: no pruning
    criterion: str = "l1"  # measure of a filter's importance: l1 | gamma
    ranking: str = "uniform"  # distribution of the pruning over layers: uniform | inner | global
    least: Positive = 4  # least number of filters in a layer
    divisor: Positive = 1  # each layer keeps a multiple of this number of filters


@dataclass(frozen=True)
class DistillConfig:
    """Distillation: a trained network (the teacher) also gives targets (arXiv:1503.02531)."""

    teacher: str = ""  # a run folder, a .keras file, or a NAME with weights; "": none
    weights: str = ""  # for a NAME: the weights' tag or file
    temperature: Annotated[float, Limits(0.1)] = 4.0  # divides the logits of both networks
    weight: Fraction = 0.9  # the teacher's part of the loss; the labels' part is the rest
    features: tuple[str, ...] = ()  # layers whose outputs are matched: "LAYER" or "STUDENT=TEACHER"
    feature_loss: str = "mse"  # mse | mae | huber | cosine_similarity
    feature_weight: Amount = 1.0  # factor of the features' loss, which is added to the loss


@dataclass(frozen=True)
class CompressConfig:
    """Compression by further training: quantization-aware training, pruning, clustering."""

    technique: str = ""  # qat | prune | cluster; "": none
    freeze_bn: Fraction = 1.0  # qat: part of the run after which BN is frozen; 1: never
    preserve: str = "auto"  # qat, cluster: keep auto | none | sparsity | clusters | both
    sparsity: Annotated[float, Limits(0.01, below=1)] = 0.8  # prune: share of zero weights
    pattern: str = ""  # prune: "2:4" for two zeros in every four input channels; "": anywhere
    allocation: str = "lamp"  # prune: distribution of zeros over layers, lamp | uniform
    ramp: tuple[float, float] = (0.0, 0.5)  # prune: start and end of adding zeros, in run fractions
    clusters: Annotated[int, Limits(3, 1024)] = 16  # cluster: number of values in a kernel


@dataclass(frozen=True)
class Config:
    """The config of one training run."""

    model: str  # a name from `keras-resnet list`
    network: dict[str, Any] = field(default_factory=dict)  # fields of the model's spec to change
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
        """Check every key, and the keys that depend on each other.

        Raises:
            UserError: neither or both of epochs and steps are set, or a value has the wrong type
                or is outside its limits.
        """
        for name, section in vars(self).items():
            if dataclasses.is_dataclass(section):
                _build(type(section), vars(section), f"{name}.")
        train, ramp = self.train, self.compress.ramp
        if (train.epochs > 0) == (train.steps > 0):
            raise UserError(
                "Give exactly one of train.epochs and train.steps, above 0; "
                f"received epochs={train.epochs}, steps={train.steps}."
            )
        if self.data.balanced and train.class_weights:
            raise UserError(
                "data.balanced and train.class_weights both correct for unequal classes. Set only "
                "one of them to true."
            )
        if train.sizes and len(train.sizes) != len(train.size_boundaries) + 1:
            raise UserError(
                "train.size_boundaries must have one item fewer than train.sizes; received "
                f"{len(train.sizes)} sizes and {len(train.size_boundaries)} boundaries."
            )
        if len(ramp) != 2 or not 0 <= ramp[0] <= ramp[1] <= 1 or ramp[0] == 1:
            raise UserError(
                "compress.ramp must be two fractions of the run: the start (below 1) and the end "
                f"of adding zeros; received {list(ramp)}. Example: [0.0, 0.5]."
            )


def shown_name(name: str) -> str:
    """Return a dataset's name for printing; for a folder, the last part of its path.

    For a CSV file, it is the file with its folder.
    """
    path = Path(name)
    if not path.is_absolute():
        return name
    return str(Path(*path.parts[-2:])) if path.suffix in (".csv", ".tsv") else path.name


def list_configs() -> list[str]:
    """List the names of the shipped configs, e.g. "cifar10/resnet20"."""
    return sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.glob("*/*.toml"))


def describe_config(name: str) -> str:
    """Return the first words of the comment of a shipped config: what it is for."""
    lines = (CONFIGS / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: re.match(r"# \S", line), lines)
    text = re.sub(r" \([^)]*\)", "", " ".join(line.removeprefix("# ") for line in comment))
    return re.split(r"[.:;](?: |$)", text)[0]


def load_config(name: str | Path, overrides: dict[str, Any] | None = None) -> Config:
    """Read a shipped config by `name`, or a TOML file by its path.

    `overrides` replace values of the file, by key: `{"train.epochs": 3}`.

    Raises:
        UserError: no such config, invalid TOML, an unknown key, or a value with the wrong type or
            outside its limits.
    """
    given = expanded(name)
    if not isinstance(overrides, Mapping | None):
        raise UserError(f"overrides must be a dictionary; received a {type(overrides).__name__}.")
    path = CONFIGS / f"{given}.toml"
    if not path.is_file():
        path = given
        if path.suffix != ".toml":
            see = "Run 'keras-resnet train --list' to see all, or give the path of a .toml file."
            raise UnknownNameError("config", name, list_configs(), see)
        if not path.is_file():
            raise UserError(f"No such config file: {path}")
    require_small_text(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # TOML's own, no UTF-8, 5,000 digits or brackets
        raise UserError(f"{path} is not valid TOML: {error}") from error
    for key, value in (overrides or {}).items():
        _override(table, key, value)
    return from_dict(table)


def from_dict(table: dict[str, Any]) -> Config:
    """Return the Config from a `table` of nested dicts; the inverse of `dataclasses.asdict`.

    Raises:
        UserError: no model, an unknown key, or a value with the wrong type or outside its limits.
    """
    if "model" not in table:
        raise UserError("The config has no 'model'. Add one, e.g. model = \"resnet20\".")
    return _build(Config, table, "")


def save_config(config: Config, path: Path) -> None:
    """Write the resolved `config` to `path` as TOML; `path` never holds a partial file.

    Raises:
        MissingExtraError: tomli-w is not installed.
        OSError: the file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(to_toml(config), encoding="utf-8")


def to_toml(config: Config) -> str:
    """Return `config` as TOML, with every key; `load_config` reads it back.

    Raises:
        MissingExtraError: tomli-w is not installed.
    """
    text: str = require("tomli_w", "recipes").dumps(dataclasses.asdict(config))
    return text


def parse_override(text: str, example: str = "train.epochs=3") -> tuple[str, Any]:
    """Parse the command line's `optimizer.learning_rate=0.2`; bare words are strings.

    `example` is shown in the error message.

    Raises:
        UserError: there is no equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set must be KEY=VALUE; received '{text}'. Example: --set {example}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return key.strip(), value.strip()


# The keys of the same section that a key replaces.
_INSTEAD = {
    "train.epochs": ("steps", "least_steps"),
    "train.steps": ("epochs", "least_steps"),
    "data.validation": ("validation_share",),
}


def _override(table: dict[str, Any], key: str, value: Any) -> None:
    *section, leaf = key.split(".", 1)
    target = table.setdefault(section[0], {}) if section else table
    if not isinstance(target, dict):
        raise UserError(
            f"'{section[0]}' has no keys inside it; received '{key}'. "
            f"Set it as a whole: --set {section[0]}=VALUE"
        )
    target[leaf] = value
    # Setting one key of a group removes the others that the config has.
    for other in _INSTEAD.get(key, ()):
        target.pop(other, None)


def _build(kind: type, table: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in table:
        if key not in hints:
            raise _unknown_key(prefix, key, hints)
    return kind(**{key: _convert(hints[key], table[key], prefix + key) for key in table})


def _unknown_key(prefix: str, key: str, hints: Mapping[str, Any]) -> UserError:
    """Return the error for an unknown key of the section `prefix`, whose keys are `hints`."""
    owners = [name for name, kind in _sections().items() if key in typing.get_type_hints(kind)]
    if owners:  # e.g. "epochs" or "optimizer.epochs" instead of "train.epochs"
        meant = " or ".join(f"'{section}.{key}'" for section in owners)
        return UserError(f"Unknown config key '{prefix}{key}'. Did you mean {meant}?")
    return UnknownNameError("config key", key, hints, "", prefix=prefix)


def _sections() -> dict[str, type]:
    kinds = typing.get_type_hints(Config)
    found = {name: kind for name, kind in kinds.items() if isinstance(kind, type)}
    return {name: kind for name, kind in found.items() if dataclasses.is_dataclass(kind)}


# Descriptions of the types in errors.
_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a string",
    tuple: "a list",
    dict: "a table",
}


_LARGEST = 2**53  # a whole number up to here is exact as a float, too


def _is_usable(value: Any) -> bool:
    """Return False for values that no key may have, whatever its own limits."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):  # it is written to config.toml, and may be a path
        return is_safe(value)
    return not isinstance(value, int) or abs(value) <= _LARGEST


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Return `value` in the config's type: a list becomes a tuple, and 1 becomes 1.0."""
    kind = getattr(hint, "__origin__", hint)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _build(hint, value, f"{key}.")
    if kind is tuple and isinstance(value, list | tuple):
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, each, f"{key}[{place}]") for place, each in enumerate(value))
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        value = float(value)
    limits = getattr(hint, "__metadata__", ())
    if type(value) is kind and _is_usable(value) and all(value in each for each in limits):
        return dict(value) if kind is dict else value
    allowed = ", ".join([_NAMES.get(kind, "a section of keys"), *map(str, limits)])
    if isinstance(value, str) and kind is str:
        allowed += " of visible characters"
    elif type(value) is int and kind is int and abs(value) > _LARGEST:
        allowed += f" and at most {_LARGEST:,}"
    received = " ".join(reprlib.repr(value).split())  # on one line
    raise UserError(f"{key} must be {allowed}; received {received}.")

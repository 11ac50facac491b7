"""A training run as data: TOML is read into frozen dataclasses, and unknown keys are refused."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import sys
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.files import expanded, replacing

CONFIGS = Path(__file__).parent


@dataclass(frozen=True)
class Limits:
    """The numbers a key may have: at least `least`, at most `most`, and less than `below`."""

    least: float
    most: float = math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        """Tell whether a key may have this `value`; it may not be nan or infinite."""
        return self.least <= value <= self.most and value < self.below

    def __str__(self) -> str:
        """Describe them as an error and the documentation do, e.g. "from 0 to 1"."""
        if self.most < math.inf:
            return f"from {self.least} to {self.most}"
        return f"at least {self.least}" + f" and below {self.below}" * (self.below < math.inf)


Count = Annotated[int, Limits(0)]
Positive = Annotated[int, Limits(1)]
Amount = Annotated[float, Limits(0)]
Fraction = Annotated[float, Limits(0, 1)]
BelowOne = Annotated[float, Limits(0, below=1)]


@dataclass(frozen=True)
class DataConfig:
    """The images, and which of them are held out."""

    name: str = "cifar10"  # "digits", a name of tensorflow-datasets (NAME[:80%]), or a folder
    validation: Count = 5000  # training images held out to choose the best epoch by
    validation_share: BelowOne = 0.0  # instead: this share of every class, at least one image
    split_seed: Count = 0  # chooses them; train.seed does not, so runs with other seeds compare
    image_size: Count = 0  # pixels a side of the network's input; 0: the size all images have
    crop_fraction: Annotated[float, Limits(0.1, 1)] = 0.875  # evaluation: central part of a side
    layout: str = "auto"  # of a folder: auto | classes | splits; "classes": one is called train
    balanced: bool = False  # show every class equally often, whatever the number of its images
    service: str = ""  # a tf.data service, grpc://HOST:PORT, that prepares the batches


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are varied; 0 is off."""

    crop: str = "pad"  # pad | reflect | shift | resized | none
    flip: str = "random"  # none | random | alternating
    min_area: Fraction = 0.08  # crop = "resized": the smallest part of the image to cut out
    randaugment: Annotated[int, Limits(0, 14)] = 0  # operations on each image (arXiv:1909.13719)
    magnitude: Annotated[float, Limits(0, 10)] = 9.0  # their strength, up to 10
    erasing: Fraction = 0.0  # share of images with a rectangle erased (arXiv:1708.04896)
    mixup: Amount = 0.0  # alpha of arXiv:1710.09412
    cutmix: Amount = 0.0  # alpha of arXiv:1905.04899; with mixup, each batch draws one of the two
    repeats: Positive = 1  # variants of an image in one batch (arXiv:1902.05509)


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, on which devices, and the loss."""

    epochs: Count = 0  # passes over the training split; give this or steps, not both
    steps: Count = 0  # updates of the weights
    least_steps: Count = 0  # with epochs: as many more epochs as this many updates need
    batch_size: Positive = 128  # images in an update: all devices, machines and parts of a batch
    accumulate: Positive = 1  # parts a batch is computed in, one after another, to save memory
    seed: Annotated[int, Limits(0, 2**31 - 1)] = 0  # of first weights, image order and augmentation
    deterministic: bool = False  # also on GPUs, where it costs speed
    precision: str = "auto"  # auto | float32 | mixed_float16 | mixed_bfloat16
    devices: str = "auto"  # auto | cpu | cpu:2 (logical devices) | gpu | gpu:2
    synchronized_bn: bool = False  # BN statistics over all devices
    loss: str = "cross_entropy"  # cross_entropy | binary_cross_entropy (arXiv:2110.00476)
    class_weights: bool = False  # weigh each class in the loss by 1 / its number of images
    label_smoothing: BelowOne = 0.0  # share of the target for all classes (arXiv:1512.00567)
    weight_decay: Amount = 1e-4  # on kernels, not on BN and biases
    clip_norm: Amount = 0.0  # largest norm of the gradient of a whole batch; 0: not clipped
    ema: BelowOne = 0.0  # decay of the averaged weights, which are evaluated and saved; 0: none
    sizes: tuple[int, ...] = ()  # progressive resizing: pixels a side of each phase
    size_boundaries: tuple[float, ...] = ()  # where the size changes, in fractions of the run
    patience: Count = 0  # stop after this many epochs without a better validation accuracy; 0: no
    callbacks: tuple[str, ...] = ()  # Keras callbacks by dotted name, "package.module.Class"
    checkpoint_minutes: Amount = 1.0  # between checkpoints; every epoch ends with one, too
    wait_seconds: Amount = 300.0  # how long to wait for other machines or the data service


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights are updated."""

    name: str = "sgd"  # sgd | adamw | schedule_free_adamw | muon | lamb | lars
    learning_rate: Amount = 0.1  # the peak of the schedule, for reference_batch images
    reference_batch: Count = 0  # scale the rate by batch_size / this (arXiv:1706.02677); 0: do not
    momentum: BelowOne = 0.9  # beta_1 of adamw, schedule_free_adamw and lamb
    nesterov: bool = False  # sgd: the gradient at the point that momentum leads to
    beta_2: BelowOne = 0.999  # all but sgd and lars
    epsilon: Amount = 1e-7  # all but sgd and lars
    trust: Amount = 0.001  # lars: the trust coefficient (arXiv:1708.03888)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run, in fractions of it."""

    name: str = "step"  # step | cosine | one_cycle | polynomial | constant
    warmup: float = 0.0  # linear from zero ("one_cycle": from a 25th of the peak)
    warmup_hold: Fraction = 0.0  # if not 0, warm up at this constant part of the peak instead
    boundaries: tuple[float, ...] = (0.5, 0.75)  # "step": where the rate is multiplied
    factor: Amount = 0.1  # "step": what the rate is multiplied by
    power: Amount = 2.0  # "polynomial"


@dataclass(frozen=True)
class FinetuneConfig:
    """Which layers of the trained network a fine-tuning trains, and when."""

    frozen: Fraction = 0.0  # first part of the run, in which only the new head is trained
    train_bn: bool = False  # after that, train BN layers and update their statistics, too
    keep_head: bool = False  # keep the trained classifier, for data with the same classes


@dataclass(frozen=True)
class PruningConfig:
    """What `prune-filters` removes before it trains; see `recipes.prune_filters`."""

    keep: Fraction = 1.0  # the part of the multiply-adds to keep; 1: prune nothing
    criterion: str = "l1"  # what makes a filter important: l1 | gamma
    ranking: str = "uniform"  # how layers share the pruning: uniform | inner | global
    least: Positive = 4  # filters that every layer keeps
    divisor: Positive = 1  # every layer keeps a multiple of this many filters


@dataclass(frozen=True)
class DistillConfig:
    """A trained network, the teacher, whose answers are learned too (arXiv:1503.02531)."""

    teacher: str = ""  # a run folder, a .keras file, or a NAME with weights; "": none
    weights: str = ""  # of a NAME: a tag or a file
    temperature: Annotated[float, Limits(0.1)] = 4.0  # divides the logits of both networks
    weight: Fraction = 0.9  # the teacher's part of the loss; the labels have the rest


@dataclass(frozen=True)
class CompressConfig:
    """How further training makes a trained network smaller."""

    technique: str = ""  # qat | prune | cluster; "": none
    freeze_bn: Fraction = 1.0  # qat: part of the run after which BN keeps its statistics
    preserve: str = "auto"  # qat, cluster: what to keep, auto | none | sparsity | clusters | both
    sparsity: Annotated[float, Limits(0.01, below=1)] = 0.8  # prune: share of weights that become 0
    pattern: str = ""  # prune: "2:4", two zeros in every four input channels; "": anywhere
    allocation: str = "lamp"  # prune: how layers share the zeros, lamp | uniform
    ramp: tuple[float, float] = (0.0, 0.5)  # prune: the part of the run in which zeros are added
    clusters: Annotated[int, Limits(3, 1024)] = 16  # cluster: different values in a kernel


@dataclass(frozen=True)
class Config:
    """One training run."""

    model: str  # a name that `keras-resnet list` shows
    network: dict[str, Any] = field(default_factory=dict)  # fields of its spec to change
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
        """Check every key, and what no single key can tell.

        Raises:
            UserError: neither or both of epochs and steps, a value of the wrong type or out of its
                limits.
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
        if self.data.validation and self.data.validation_share:
            raise UserError(
                "Give data.validation (a number of images) or data.validation_share (a share of "
                f"every class), not both; received {self.data.validation} and "
                f"{self.data.validation_share}. Set one of them to 0."
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
                "compress.ramp must be two fractions of the run, where zeros begin to be added "
                f"(below 1) and where that ends, e.g. [0.0, 0.5]; received {list(ramp)}."
            )


def shown_name(name: str) -> str:
    """Return the name of a dataset to print: of a folder the last part, not where it lies."""
    return Path(name).name if Path(name).is_absolute() else name


def list_configs() -> list[str]:
    """List the names of the shipped configs, e.g. "cifar10/resnet20"."""
    return sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.glob("*/*.toml"))


def load_config(name: str | Path, overrides: dict[str, Any] | None = None) -> Config:
    """Read a shipped config by `name`, or a TOML file by its path.

    `overrides` are values by key, `{"train.epochs": 3}`, that replace those of the file.

    Raises:
        UserError: no such config, broken TOML, an unknown key, a value of the wrong type or out of
            its limits.
    """
    path = CONFIGS / f"{name}.toml"
    if not path.is_file():
        path = expanded(name)
        if path.suffix != ".toml":
            see = "Run 'keras-resnet train --list' to see all, or give the path of a .toml file."
            raise UnknownNameError("config", name, list_configs(), see)
        if not path.is_file():
            raise UserError(f"No such config file: {path}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    for key, value in (overrides or {}).items():
        _override(table, key, value)
    return from_dict(table)


def from_dict(table: dict[str, Any]) -> Config:
    """Return the Config of a `table` of nested dicts; the inverse of `dataclasses.asdict`.

    Raises:
        UserError: no model, an unknown key, a value of the wrong type or out of its limits.
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

    `example` is for the message.

    Raises:
        UserError: no equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set takes KEY=VALUE, e.g. --set {example}; received '{text}'.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _override(table: dict[str, Any], key: str, value: Any) -> None:
    *section, leaf = key.split(".", 1)
    target = table.setdefault(section[0], {}) if section else table
    if not isinstance(target, dict):
        raise UserError(f"'{section[0]}' is not a section of keys; received the key '{key}'.")
    target[leaf] = value
    # The length is given in one way: naming one key replaces the others.
    if key in ("train.epochs", "train.steps"):
        for other in {"epochs", "steps", "least_steps"} - {leaf}:
            target.pop(other, None)


def _build(kind: type, table: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in table:
        if key not in hints:
            raise _unknown_key(prefix, key, hints)
    return kind(**{key: _convert(hints[key], table[key], prefix + key) for key in table})


def _unknown_key(prefix: str, key: str, hints: Mapping[str, Any]) -> UserError:
    """The error for a key of the section `prefix`, which has `hints` and not this one."""
    owners = [name for name, kind in _sections().items() if key in typing.get_type_hints(kind)]
    if owners:  # "epochs" or "optimizer.epochs" instead of "train.epochs"
        meant = " or ".join(f"'{section}.{key}'" for section in owners)
        return UserError(f"Unknown config key '{prefix}{key}'. Did you mean {meant}?")
    return UnknownNameError("config key", prefix + key, hints, "", meant=key)


def _sections() -> dict[str, type]:
    kinds = typing.get_type_hints(Config)
    found = {name: kind for name, kind in kinds.items() if isinstance(kind, type)}
    return {name: kind for name, kind in found.items() if dataclasses.is_dataclass(kind)}


# What a value of a type is called in an error.
_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a string",
    tuple: "a list",
    dict: "a table",
}


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Return `value` as the config has it: a list becomes a tuple, and 1 becomes 1.0."""
    kind = getattr(hint, "__origin__", hint)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _build(hint, value, f"{key}.")
    if kind is tuple and isinstance(value, list | tuple):
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, each, f"{key}[{place}]") for place, each in enumerate(value))
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        value = float(value)
    limits = getattr(hint, "__metadata__", ())
    if type(value) is kind and all(value in each for each in limits):
        return dict(value) if kind is dict else value
    allowed = ", ".join([_NAMES.get(kind, "a section of keys"), *map(str, limits)])
    received = " ".join(reprlib.repr(value).split())  # in one line, whatever was given
    raise UserError(f"{key} must be {allowed}; received {received}.")

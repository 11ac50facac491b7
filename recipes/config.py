"""A training run as data: TOML into frozen dataclasses, unknown keys refused."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.files import replacing

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are varied in training."""

    name: str = "cifar10"  # "digits" (scikit-learn's), or a name of tensorflow-datasets
    validation: int = 5000  # images held out of the training split to choose the best epoch
    split_seed: int = 0  # which ones; apart from train.seed, so that seeds compare
    augment: str = "pad_crop_flip"  # a key of recipes.augment.AUGMENTATIONS


@dataclass(frozen=True)
class TrainConfig:
    """How long and on what."""

    epochs: int = 0  # passes over the training split; or
    steps: int = 0  # updates (exactly one of the two is given)
    batch_size: int = 128  # global: over all devices
    seed: int = 0
    precision: str = "auto"  # float32 | mixed_float16 | mixed_bfloat16
    devices: str = "auto"  # auto | cpu | cpu:2 (logical devices) | gpu | gpu:2
    weight_decay: float = 1e-4  # L2 on kernels; BN and biases are spared
    label_smoothing: float = 0.0
    checkpoint_minutes: float = 1.0  # also saved at the end of every epoch


@dataclass(frozen=True)
class OptimizerConfig:
    """SGD with momentum."""

    learning_rate: float = 0.1  # the peak of the schedule, for train.batch_size images
    momentum: float = 0.9
    nesterov: bool = False


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run, in fractions of it."""

    name: str = "step"  # "step" or "cosine" (to zero)
    warmup: float = 0.0  # linear from zero
    boundaries: tuple[float, ...] = (0.5, 0.75)  # "step": where the rate is multiplied
    factor: float = 0.1  # "step": by what


@dataclass(frozen=True)
class Config:
    """One training run."""

    model: str
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        """Check what no single field can tell.

        Raises:
            UserError: neither or both of epochs and steps, or a value out of its range.
        """
        train, optimizer = self.train, self.optimizer
        if (train.epochs > 0) == (train.steps > 0):
            raise UserError(
                "Give exactly one of train.epochs and train.steps, above 0; "
                f"received epochs={train.epochs}, steps={train.steps}."
            )
        limits = (
            ("train.batch_size", train.batch_size, 1, math.inf),
            ("train.seed", train.seed, 0, 2**31),
            ("train.weight_decay", train.weight_decay, 0, math.inf),
            ("train.label_smoothing", train.label_smoothing, 0, 1),
            ("train.checkpoint_minutes", train.checkpoint_minutes, 0, math.inf),
            ("data.validation", self.data.validation, 0, math.inf),
            ("data.split_seed", self.data.split_seed, 0, math.inf),
            ("optimizer.learning_rate", optimizer.learning_rate, 0, math.inf),
            ("optimizer.momentum", optimizer.momentum, 0, 1),
        )
        for key, value, least, below in limits:
            if not least <= value < below:
                end = "" if below == math.inf else f" and below {below}"
                raise UserError(f"{key} is at least {least}{end}; received {value}.")


def list_configs() -> list[str]:
    """Return the names of the shipped configs, e.g. "cifar10/resnet20"."""
    return sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.glob("*/*.toml"))


def load_config(name: str | Path, overrides: dict[str, Any] | None = None) -> Config:
    """Read a shipped config by name, or a TOML file by path, and apply `{"train.epochs": 3}`.

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
    """Turn nested dicts into a Config; the inverse of `dataclasses.asdict`."""
    if "model" not in table:
        raise UserError("The config has no 'model', e.g. model = \"resnet20\".")
    return _build(Config, table, "")


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config as TOML."""
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
    if typing.get_origin(kind) is tuple or type(value) is not kind:
        expected = getattr(kind, "__name__", str(kind))
        raise UserError(f"'{key}' is a {expected}; received {value!r}.")
    return value

"""Shared parts of the verbs that train: options for config keys, and the output at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.cli.options import Parser, integer, natural
from keras_resnet.display.console import print_json, print_lines

if TYPE_CHECKING:
    from keras_resnet.recipes.configs.schema import Config
    from keras_resnet.recipes.runs.folder import Run
    from keras_resnet.recipes.training.plan import Plan

CONFIG_HELP = "a config: a name or a .toml file (default %(default)s)"


def add_recipe(sub: Parser) -> None:
    """Add the options of a training that supports --profile."""
    add_training(sub)
    add_dry_run(sub)
    sub.add_argument(
        "--profile",
        action="store_true",
        help="profile ten training steps for TensorBoard",
    )


def add_training(sub: Parser) -> None:
    """Add the options of every training: the config keys that people change most."""
    sub.add_argument("--epochs", type=natural, metavar="N", help="passes over the training images")
    sub.add_argument(
        "--batch-size", type=natural, metavar="N", help="images per step, over all devices"
    )
    sub.add_argument("--seed", type=integer, metavar="N", help="random seed")
    sub.add_argument("--devices", help="auto (default), cpu, gpu, cpu:N or gpu:N")
    sub.add_argument(
        "--precision",
        help="auto (default), float32, mixed_bfloat16 or mixed_float16; qat, prune and cluster "
        "always use float32",
    )
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change any config key, e.g. --set optimizer.learning_rate=0.2; can be repeated",
    )


def add_dry_run(sub: Parser) -> None:
    """Add `--dry-run`."""
    sub.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything and print the full config, the steps and the run folder, then stop",
    )


def add_find_rate(sub: Parser) -> None:
    """Add `--find-lr`."""
    sub.add_argument(
        "--find-lr",
        metavar="PICTURE",
        help="train up to 100 steps at rising learning rates, plot the loss as .svg, .png or .pdf, "
        "print a learning rate to use, then stop",
    )


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Return the config keys that the options and every --set change."""
    from keras_resnet.recipes.configs.schema import parse_override

    short = {
        "train.epochs": options.epochs,
        "train.batch_size": options.batch_size,
        "train.seed": options.seed,
        "train.devices": options.devices,
        "train.precision": options.precision,
        "data.name": getattr(options, "data", None),  # quickstart has no --data
        "data.layout": getattr(options, "layout", None),
        "data.service": getattr(options, "data_service", None),
        "data.image_size": getattr(options, "image_size", None),
        "data.balanced": getattr(options, "balanced", None) or None,
        "train.class_weights": getattr(options, "class_weights", None) or None,
        "train.patience": getattr(options, "patience", None),
        "optimizer.learning_rate": getattr(options, "lr", None),
        "finetune.frozen": getattr(options, "freeze", None),
        "pruning.keep": getattr(options, "keep", None),
        "pruning.criterion": getattr(options, "criterion", None),
        "compress.preserve": getattr(options, "preserve", None),
        "compress.sparsity": getattr(options, "sparsity", None),
        "compress.pattern": getattr(options, "pattern", None),
        "compress.clusters": getattr(options, "clusters", None),
    }
    given = {key: value for key, value in short.items() if value is not None}
    return given | dict(parse_override(text) for text in options.set)


def read_config(options: argparse.Namespace, given: Mapping[str, Any] | None = None) -> Config:
    """Read the config of a verb. Its options replace keys, and `given` replaces both.

    It does not need TensorFlow, so it is the `check` of the verbs that train.

    Raises:
        UserError: the config or a key is unknown (the message has the nearest one), or a value is
            wrong.
    """
    from keras_resnet.recipes.configs import schema

    return schema.load_config(options.config, overrides(options) | dict(given or {}))


def train_or_show(planned: Plan, options: argparse.Namespace) -> int:
    """Train what was planned and print how it ended; --dry-run and --find-lr do not train it."""
    if options.dry_run:
        return show(planned, options.json)
    if getattr(options, "find_lr", None):
        return _find_rate(planned, options)
    from keras_resnet.recipes import train

    run = train.carry_out(planned, profile=getattr(options, "profile", False))
    return print_run(run, options.json)


def _find_rate(planned: Plan, options: argparse.Namespace) -> int:
    from keras_resnet.display import figures
    from keras_resnet.recipes.training.rate_finder import find_rate

    path = Path(options.find_lr)
    figures.require_writable(path)
    found = find_rate(planned)
    figures.save(found.figure(), path)
    if options.json:
        curve = {"rates": found.rates.tolist(), "losses": found.losses.tolist()}
        return print_json({"learning_rate": found.suggestion, "picture": str(path), **curve})
    print(f"{path}: the loss at learning rates from {found.rates[0]:g} to {found.rates[-1]:.2g}")
    print(f"Next: train with --set optimizer.learning_rate={found.suggestion:g}")
    return 0


def show(planned: Plan, as_json: bool) -> int:
    """Print the plan of a training.

    Raises:
        UserError: its folder is not free.
    """
    from keras_resnet.recipes.runs.folder import require_free

    require_free(planned.folder)
    return print_json(planned.to_dict()) if as_json else print_lines(str(planned).splitlines())


def print_run(run: Run, as_json: bool) -> int:
    """Print the result of a training and the next command."""
    from keras_resnet.recipes.runs.scores import deciding, spoken

    if run.home:  # this is one of several workers, not the chief, which writes the run
        print(f"done; the chief wrote {run.home}", file=sys.stderr)
        return 0
    summary = run.summary()
    if as_json:
        return print_json({"run": str(run.path), **summary})
    test = summary["test"]
    key = deciding(test)
    print(f"test {spoken(key)} {test[key]:.2%} on {test['n']} images · {run.model}")
    print(f"Next: keras-resnet export {run.path}")
    return 0

"""The verbs that train: their options, their work and their output."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from keras_resnet.cli.options import Parser, Verb, add_layout, add_model, integer, natural, real
from keras_resnet.cli.training_options import (
    CONFIG_HELP,
    add_find_rate,
    add_recipe,
    add_training,
    overrides,
    print_run,
    read_config,
    train_or_show,
)
from keras_resnet.display.console import print_checks, print_json, print_lines
from keras_resnet.errors import UserError

if TYPE_CHECKING:
    from keras_resnet.recipes.configs.schema import Config


_LAST_PORT = 65_534  # the batches are sent by the next one


def _quickstart(options: argparse.Namespace) -> int:
    from keras_resnet.recipes import quickstart

    result = quickstart.run(options.out, overrides(options))
    if options.json:
        return print_json(result, result["passed"])
    model = result["model"]
    print_checks(result["files"], f"Accuracy on {model['n']} test images", model)
    pictures = [Path(path) for path in result["images"]]
    print(
        f"\nrun      {result['run']}\nexports  {result['exports']}\nimages   {pictures[0].parent}"
    )
    int8 = next(row["file"] for row in result["files"] if row["format"] == "tflite-int8")
    print(f"\nTry: keras-resnet predict {Path(result['exports']) / int8} {pictures[-1]}")
    return 0 if result["passed"] else 1


def _train(options: argparse.Namespace) -> int:
    """Train a config, or continue a run."""
    if options.list:
        return _list_configs(options)

    from keras_resnet.recipes import train as training

    if options.resume is not None:
        return print_run(training.resume(options.resume, profile=options.profile), options.json)
    planned = training.plan(read_config(options), options.out, name=Path(options.config).stem)
    return train_or_show(planned, options)


def _list_configs(options: argparse.Namespace) -> int:
    from keras_resnet.recipes.configs import schema

    names = schema.list_configs()
    if options.json:
        return print_json({"configs": names})
    width = max(map(len, names))
    return print_lines(
        f"{name:<{width}}  "
        + textwrap.shorten(schema.describe_config(name), 98 - width, placeholder=" …")
        for name in names
    )


def _check_train(options: argparse.Namespace) -> None:
    """Refuse a wrong config, or options that exclude each other."""
    if options.list:
        return
    if (options.config is None) == (options.resume is None):
        raise UserError(
            "Give either a config (see --list), e.g. cifar10/resnet20, or --resume RUN; received "
            f"{'neither' if options.config is None else 'both'}."
        )
    if options.config is not None:
        read_config(options)
    elif overrides(options) or options.out or options.dry_run or options.find_lr:
        raise UserError(
            "--resume continues with the run's own config and takes no other options. To change "
            f"it, edit {Path(options.resume) / 'config.toml'}."
        )


def _distill(options: argparse.Namespace) -> int:
    """Train a config with a teacher model."""
    from keras_resnet.recipes import train as training

    planned = training.plan(_taught(options), options.out, name=Path(options.config).stem)
    return train_or_show(planned, options)


def _taught(options: argparse.Namespace) -> Config:
    """Return the config with its teacher."""
    chosen = {"distill.teacher": options.teacher, "distill.weights": options.weights}
    given = {key: value for key, value in chosen.items() if value is not None}
    loaded = read_config(options, given)
    if not loaded.distill.teacher:
        raise UserError(
            f"The config {options.config} names no teacher. Give --teacher: a run folder, a .keras "
            "file, or a NAME with --weights."
        )
    return loaded


def _finetune(options: argparse.Namespace) -> int:
    """Fine-tune a trained network on other classes."""
    from keras_resnet.recipes import finetune as tuning
    from keras_resnet.recipes.runs import sources
    from keras_resnet.recipes.training import devices

    source = sources.find(options.model, options.weights, keras=True)
    loaded = read_config(options)
    devices.claim(loaded.train)
    return train_or_show(tuning.plan(source, loaded, options.out), options)


def _data_service(options: argparse.Namespace) -> int:
    """Prepare batches for training on other machines."""
    from keras_resnet.recipes.training import data_service as service

    def started(address: str) -> None:
        print(f"serving batches at {address} (stop with Ctrl-C)", file=sys.stderr, flush=True)
        if options.json:
            print_json({"address": address})

    service.serve(options.port, options.host, started)
    return 0


# Options ------------------------------------------------------------------------------------------


def _quickstart_options(sub: Parser) -> None:
    sub.set_defaults(config="digits/resnet8")
    sub.add_argument(
        "--out", metavar="FOLDER", default="quickstart", help="output folder (default ./quickstart)"
    )
    add_training(sub)


def _train_options(sub: Parser) -> None:
    sub.add_argument("config", nargs="?", help="name of a config (see --list) or a .toml file")
    sub.add_argument("--list", action="store_true", help="list the configs and exit")
    sub.add_argument("--resume", metavar="RUN", help="continue an interrupted run")
    sub.add_argument("--out", metavar="FOLDER", help="run folder (default runs/NAME-DATE-TIME)")
    sub.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="training data: digits, a dataset of tensorflow-datasets, a folder of images, or a "
        "CSV file with the labels of the images in its folder; default: the config's",
    )
    add_layout(sub)
    sub.add_argument(
        "--data-service",
        metavar="grpc://HOST:PORT",
        help="load batches from a machine that runs 'keras-resnet data-service'",
    )
    add_recipe(sub)
    add_find_rate(sub)


def _distill_options(sub: Parser) -> None:
    sub.add_argument(
        "config", help="name of a config (see 'keras-resnet train --list') or a .toml file"
    )
    sub.add_argument(
        "--teacher",
        metavar="MODEL",
        help="the teacher model: a run folder, a .keras file, or a network NAME with --weights; "
        "default: the config's",
    )
    sub.add_argument(
        "--weights", metavar="TAG|FILE", help="weights of the teacher, if it is a NAME"
    )
    sub.add_argument("--out", metavar="FOLDER", help="run folder (default runs/NAME-DATE-TIME)")
    sub.add_argument("--data", metavar="NAME|FOLDER", help="as in 'keras-resnet train'")
    add_layout(sub)
    add_recipe(sub)
    add_find_rate(sub)


def _finetune_options(sub: Parser) -> None:
    add_model(sub, "the trained network: a run folder or a .keras file")
    sub.add_argument(
        "--data", metavar="NAME|FOLDER", required=True, help="training data, as in 'train'"
    )
    add_layout(sub)
    sub.add_argument("--config", default="finetune/default", help=CONFIG_HELP)
    sub.add_argument(
        "--image-size",
        type=natural,
        metavar="N",
        help="side of the images that the network sees, in pixels (default: chosen from the "
        "photographs and the network, and printed)",
    )
    sub.add_argument("--lr", type=real, metavar="RATE", help="peak learning rate")
    sub.add_argument(
        "--freeze",
        type=real,
        metavar="SHARE",
        help="train only the new classifier for this share of the run, 0 to 1",
    )
    sub.add_argument(
        "--patience",
        type=integer,
        metavar="N",
        help="stop after N epochs without a better validation accuracy; 0: never",
    )
    sub.add_argument(
        "--class-weights",
        action="store_true",
        help="weigh each class in the loss by 1 / its number of images",
    )
    sub.add_argument(
        "--balanced",
        action="store_true",
        help="show every class equally often, whatever the number of its images",
    )
    sub.add_argument(
        "--out", metavar="FOLDER", help="run folder (default runs/finetune-NAME-DATE-TIME)"
    )
    add_recipe(sub)
    add_find_rate(sub)


def _data_service_options(sub: Parser) -> None:
    sub.add_argument(
        "--port",
        type=_port,
        metavar="N",
        default=5050,
        help="port to listen on (default 5050); the next port sends the batches",
    )
    sub.add_argument(
        "--host", help="name or address of this machine, as others reach it (default its host name)"
    )


def _port(text: str) -> int:
    if (port := natural(text)) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be from 1 to {_LAST_PORT}; received '{text}'")
    return port


VERBS = {
    "quickstart": Verb(
        "train, export and check on handwritten digits: 1 to 2 minutes",
        "quickstart --out quickstart",
        _quickstart_options,
        _quickstart,
        read_config,
    ),
    "train": Verb(
        "train a new network; CONFIG is one of 'train --list'",
        "train cifar10/resnet20 --epochs 3",
        _train_options,
        _train,
        _check_train,
    ),
    "distill": Verb(
        "train a network to match a teacher model (distillation)",
        "distill cifar10/resnet20_fast --teacher RUN",
        _distill_options,
        _distill,
        _taught,
    ),
    "finetune": Verb(
        "fine-tune a trained network on your own classes",
        "finetune RUN --data FOLDER",
        _finetune_options,
        _finetune,
        read_config,
    ),
    "data-service": Verb(
        "serve training batches to other machines",
        "data-service --port 5050",
        _data_service_options,
        _data_service,
    ),
}

"""The verbs that compress a trained network: qat, prune, cluster, prune-filters."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from keras_resnet.cli.options import Parser, Verb, add_layout, add_model, natural, real
from keras_resnet.cli.training_options import (
    CONFIG_HELP,
    add_dry_run,
    add_recipe,
    add_training,
    overrides,
    print_run,
    read_config,
    show,
    train_or_show,
)
from keras_resnet.errors import UserError

if TYPE_CHECKING:
    from keras_resnet.recipes.configs.schema import Config
    from keras_resnet.recipes.runs.sources import Source


def _compress(options: argparse.Namespace) -> int:
    """Fine-tune a trained network with the technique of the verb."""
    from keras_resnet.recipes import compress
    from keras_resnet.recipes.runs import sources
    from keras_resnet.recipes.training import devices

    # This process holds the model while another trains it, so on a GPU neither may take all memory.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

    source = sources.find(options.model, options.weights, keras=True)
    loaded = _read(options, _own_data(source, overrides(options)))
    devices.claim(loaded.train)
    name = f"{options.verb}-{source.name}"
    model, about = source.keras_model(), source.lineage()
    planned = compress.plan(model, loaded, options.out, name=name, about=about)
    return train_or_show(planned, options)


def _own_data(source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config keys of the model's training data, unless `given` has other data."""
    known = asdict(source.run.config.data) if source.run else {"name": source.data}
    if given.get("data.name", known["name"]) != known["name"] or not known["name"]:
        return {}  # other data has another split
    return {f"data.{key}": value for key, value in known.items() if f"data.{key}" not in given}


def _read(options: argparse.Namespace, data: Mapping[str, Any] | None = None) -> Config:
    """Read the config, with the model's own `data`, and the model as its teacher for --distill."""
    teacher = {"distill.teacher": options.model, "distill.weights": options.weights or ""}
    loaded = read_config(options, {**(data or {}), **(teacher if options.distill else {})})
    if loaded.compress.technique != options.verb:
        meant = loaded.compress.technique or "train"
        raise UserError(
            f"The config {options.config} is for 'keras-resnet {meant}', not for 'keras-resnet "
            f"{options.verb}'. Remove --config, or see: keras-resnet train --list"
        )
    return loaded


def _prune_filters(options: argparse.Namespace) -> int:
    """Remove filters from a trained network, then fine-tune it."""
    from keras_resnet.recipes import compress
    from keras_resnet.recipes import train as training
    from keras_resnet.recipes.runs import sources
    from keras_resnet.recipes.training import devices

    source = sources.find(options.model, options.weights, keras=True)
    loaded = read_config(options)
    devices.claim(loaded.train)
    planned = compress.plan_pruned(source, loaded, options.out)
    if options.dry_run:
        return show(planned, options.json)
    run = training.carry_out(planned, profile=options.profile)
    if not options.json and not run.home:
        pruned = run.summary()["pruned_filters"]
        for what in ("filters", "multiply_adds", "parameters"):
            before, after = pruned[what]
            print(f"{what.replace('_', '-')} {before:,} → {after:,} ({after / before:.1%})")
    return print_run(run, options.json)


# Options ------------------------------------------------------------------------------------------


def _qat_options(sub: Parser) -> None:
    _add_compressing(sub, "qat")
    sub.add_argument(
        "--preserve",
        help="earlier compression to keep: auto (default), none, sparsity, clusters or both",
    )


def _prune_options(sub: Parser) -> None:
    _add_compressing(sub, "prune")
    sub.add_argument(
        "--sparsity", type=real, metavar="SHARE", help="share of weights to set to zero, e.g. 0.8"
    )
    sub.add_argument("--pattern", help="2:4 sets two of every four input channels to zero")


def _cluster_options(sub: Parser) -> None:
    _add_compressing(sub, "cluster")
    sub.add_argument(
        "--clusters", type=natural, metavar="N", help="distinct values per kernel, e.g. 16"
    )


def _add_compressing(sub: Parser, verb: str) -> None:
    add_model(sub, "the trained network: a run folder or a .keras file")
    sub.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="training data (default: what the model was trained on)",
    )
    add_layout(sub)
    sub.add_argument("--config", default=f"compress/{verb}", help=CONFIG_HELP)
    sub.add_argument(
        "--distill", action="store_true", help="also learn from the original network's outputs"
    )
    sub.add_argument(
        "--out", metavar="FOLDER", help=f"run folder (default runs/{verb}-NAME-DATE-TIME)"
    )
    add_training(sub)
    add_dry_run(sub)


def _prune_filters_options(sub: Parser) -> None:
    add_model(sub, "the trained network: a run folder or a .keras file")
    sub.add_argument(
        "--data", metavar="NAME|FOLDER", required=True, help="training data, with the same classes"
    )
    add_layout(sub)
    sub.add_argument(
        "--keep",
        type=real,
        metavar="SHARE",
        help="share of the multiply-adds to keep, e.g. 0.5 (default: the config's)",
    )
    sub.add_argument(
        "--criterion",
        help="how to rank filters: l1 (norm of the weights, default) or gamma (of the BN layer)",
    )
    sub.add_argument("--config", default="compress/prune_filters", help=CONFIG_HELP)
    sub.add_argument(
        "--out", metavar="FOLDER", help="run folder (default runs/prune-filters-NAME-DATE-TIME)"
    )
    add_recipe(sub)


VERBS = {
    "qat": Verb(
        "train further so that the int8 file is more accurate (QAT)",
        "qat RUN --epochs 4",
        _qat_options,
        _compress,
        _read,
        more="The method is quantization-aware training.",
    ),
    "prune": Verb(
        "set small weights to zero and fine-tune (file zips smaller)",
        "prune resnet20 --weights cifar10 --sparsity 0.8",
        _prune_options,
        _compress,
        _read,
    ),
    "cluster": Verb(
        "make weights share few values, fine-tune (file zips smaller)",
        "cluster RUN --clusters 16",
        _cluster_options,
        _compress,
        _read,
    ),
    "prune-filters": Verb(
        "remove whole filters, then fine-tune: fewer multiply-adds",
        "prune-filters resnet20 --weights cifar10 --data cifar10 --keep 0.5",
        _prune_filters_options,
        _prune_filters,
        read_config,
    ),
}

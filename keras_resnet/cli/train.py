"""Verbs of `keras-resnet` that train, and what they print."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_resnet.display.console import number, print_json, print_lines, print_table
from keras_resnet.errors import UserError


def train(options: argparse.Namespace) -> int:
    """Train a config, or go on with a run."""
    from keras_resnet.recipes import train as training
    from keras_resnet.recipes.configs import schema

    if options.list:
        names = schema.list_configs()
        return print_json({"configs": names}) if options.json else print_lines(names)
    if (options.config is None) == (options.resume is None):
        raise UserError(
            "Give a config (see --list), e.g. cifar10/resnet20, or --resume RUN, and not both."
        )
    given = overrides(options)
    if options.resume:
        if given or options.out:
            raise UserError(
                f"--resume goes on as the run was configured and takes no other options. To change "
                f"it, edit {Path(options.resume) / 'config.toml'}."
            )
        run = training.resume(options.resume, profile=options.profile)
    else:
        loaded = schema.load_config(options.config, given)
        name = Path(options.config).stem
        run = training.run(loaded, options.out, name=name, profile=options.profile)
    return _print_run(run, options.json)


def distill(options: argparse.Namespace) -> int:
    """Train a config with a teacher."""
    from keras_resnet.recipes import train as training
    from keras_resnet.recipes.configs import schema

    chosen = {"distill.teacher": options.teacher, "distill.weights": options.weights}
    given = {key: value for key, value in chosen.items() if value is not None}
    loaded = schema.load_config(options.config, overrides(options) | given)
    if not loaded.distill.teacher:
        raise UserError(
            f"The config {options.config} names no teacher. Give --teacher: a run folder, a .keras "
            "file, or a NAME with --weights."
        )
    name = Path(options.config).stem
    return _print_run(
        training.run(loaded, options.out, name=name, profile=options.profile), options.json
    )


def compress(options: argparse.Namespace) -> int:
    """Train a trained network on by the technique that the verb names."""
    from keras_resnet.recipes import compress
    from keras_resnet.recipes.configs import schema
    from keras_resnet.recipes.runs import sources
    from keras_resnet.recipes.training import devices

    # This process holds the model while another trains it: on a GPU neither may take all memory.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

    source = sources.find(options.model, options.weights)
    source.require_keras()
    given = overrides(options)
    own = asdict(source.run.config.data) if source.run else {"name": source.data}
    if source.run and given.get("data.name", own["name"]) == own["name"]:  # and its split of them
        given = {f"data.{key}": value for key, value in own.items()} | given
    elif own["name"]:
        given = {"data.name": source.data, **given}
    if options.distill:
        given |= {"distill.teacher": options.model, "distill.weights": options.weights or ""}
    loaded = schema.load_config(options.config, given)
    if loaded.compress.technique != options.verb:
        meant = loaded.compress.technique or "train"
        raise UserError(
            f"The config {options.config} is one of 'keras-resnet {meant}', not of "
            f"'keras-resnet {options.verb}'. Leave --config out, or see: keras-resnet train --list"
        )
    devices.claim(loaded.train)
    name = f"{options.verb}-{source.name}"
    run = compress.run(source.keras_model(), loaded, options.out, name=name)
    return _print_run(run, options.json)


def finetune(options: argparse.Namespace) -> int:
    """Train a trained network on other classes."""
    from keras_resnet.recipes import finetune as tuning
    from keras_resnet.recipes.configs import schema
    from keras_resnet.recipes.runs import sources
    from keras_resnet.recipes.training import devices

    source = sources.find(options.model, options.weights)
    source.require_keras()
    loaded = schema.load_config(options.config, overrides(options))
    devices.claim(loaded.train)
    run = tuning.run(source, loaded, options.out, profile=options.profile)
    return _print_run(run, options.json)


def prune_filters(options: argparse.Namespace) -> int:
    """Remove filters of a trained network and train it on."""
    from keras_resnet.recipes import prune_channels
    from keras_resnet.recipes.configs import schema
    from keras_resnet.recipes.runs import sources
    from keras_resnet.recipes.training import devices

    source = sources.find(options.model, options.weights)
    source.require_keras()
    loaded = schema.load_config(options.config, overrides(options))
    devices.claim(loaded.train)
    run = prune_channels.run(source, loaded, options.out, profile=options.profile)
    if not options.json and not run.home:
        pruned = run.summary()["pruned_filters"]
        for what in ("filters", "multiply_adds", "parameters"):
            before, after = pruned[what]
            print(f"{what.replace('_', '-')} {before:,} → {after:,} ({after / before:.1%})")
    return _print_run(run, options.json)


def list_runs(options: argparse.Namespace) -> int:
    """List the runs of a folder."""
    from keras_resnet.recipes.runs.folder import list_runs

    found = list_runs(options.folder)
    if options.json:
        return print_json({"runs": found})
    if not found:
        raise UserError(f"No runs in {options.folder}. Start one: keras-resnet train --list")
    header = ("run", "model", "data", "done", "validation", "test", "minutes", "state")
    rows = [
        [
            row["run"],
            row["model"] or "–",
            row["data"] or "–",
            f"{row['done']}/{row['total']} {row['unit']}" if row["unit"] else "–",
            number(row["validation"], ".2%"),
            number(row["test"], ".2%"),
            number(row["minutes"], ".1f"),
            row["state"],
        ]
        for row in found
    ]
    print_table(f"Runs in {options.folder}", header, rows)
    for row in found:
        if row["problem"]:
            print(f"warning: {row['run']}: {row['problem']}", file=sys.stderr)
    return 0


def report(options: argparse.Namespace) -> int:
    """Write the page about a run."""
    from keras_resnet.recipes.runs import report
    from keras_resnet.recipes.runs.folder import find_run

    path = report.write(find_run(options.run), options.out)
    return print_json({"report": str(path)}) if options.json else print_lines([str(path)])


def compare(options: argparse.Namespace) -> int:
    """Print what was recorded of several models."""
    from keras_resnet.recipes.runs import compare as comparing

    if options.picture:
        comparing.require_drawable(Path(options.picture))
    rows = comparing.rows(options.models)
    for warning in comparing.warnings(rows):
        print(f"warning: {warning}", file=sys.stderr)
    if options.picture:
        comparing.draw(rows, Path(options.picture))
    if options.json:
        return print_json({"models": comparing.as_dicts(rows)})
    header = ("file", "accuracy", "parameters", "multiply-adds", "bytes", "gzipped", "ms")
    table = [
        [
            row.name,
            number(row.accuracy, ".2%"),
            number(row.parameters, ","),
            number(row.multiply_adds, ","),
            f"{row.bytes:,}",
            f"{row.bytes_gzipped:,}",
            number(row.latency_ms, ".3f"),
        ]
        for row in rows
    ]
    print_table("As recorded when each was trained or exported", header, table)
    return 0


def _print_run(run: Any, as_json: bool) -> int:
    if run.home:  # one of several workers, and not the one that writes
        print(f"done; the chief wrote {run.home}", file=sys.stderr)
        return 0
    summary = run.summary()
    if as_json:
        return print_json({"run": str(run.path), **summary})
    test = summary["test"]
    print(f"test accuracy {test['accuracy']:.2%} on {test['n']} images · {run.model}")
    print(f"Next: keras-resnet export {run.path}")
    return 0


def data_service(options: argparse.Namespace) -> int:
    """Prepare batches for trainings on other machines."""
    from keras_resnet.recipes.training import data_service as service

    def started(address: str) -> None:
        print(f"serving batches at {address} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        if options.json:
            print_json({"address": address})

    service.serve(options.port, options.host, started)
    return 0


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The options that stand for config keys, and every --set."""
    from keras_resnet.recipes.configs.schema import parse_override

    short = {
        "train.epochs": options.epochs,
        "train.batch_size": options.batch_size,
        "train.seed": options.seed,
        "train.devices": options.devices,
        "train.precision": options.precision,
        "data.name": getattr(options, "data", None),  # the quickstart has its own
        "data.service": getattr(options, "data_service", None),
        "pruning.keep": getattr(options, "keep", None),
        "pruning.criterion": getattr(options, "criterion", None),
        "compress.preserve": getattr(options, "preserve", None),
        "compress.sparsity": getattr(options, "sparsity", None),
        "compress.pattern": getattr(options, "pattern", None),
        "compress.clusters": getattr(options, "clusters", None),
    }
    given = {key: value for key, value in short.items() if value is not None}
    return given | dict(parse_override(text) for text in options.set)

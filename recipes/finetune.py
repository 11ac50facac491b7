"""Fine-tune a trained network on other classes: first only its new head, then all layers.

keras-resnet finetune RUN|FILE.keras --data FOLDER [--set data.image_size=64]
keras-resnet finetune NAME --weights TAG --data FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_resnet.errors import UserError
from keras_resnet.recipes import train
from keras_resnet.recipes.compression import zeros_and_clusters
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.recipes.runs.folder import Run
from keras_resnet.recipes.runs.sources import Source
from keras_resnet.recipes.training import transfer
from keras_resnet.recipes.training.plan import Plan

CONFIG = "finetune/default"


def run(
    source: Source,
    config: Config,
    out: str | Path | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    profile: bool = False,
) -> Run:
    """Fine-tune the model of `source` with `config`, in a new run folder.

    The folder keeps a copy of the start model, so the run can be resumed without the source.

    Args:
        source: a trained classifier; see `recipes.sources.find`.
        config: the config of the run. The source's name replaces its `model`, and the source's
            image size replaces a `data.image_size` of 0.
        out: the run folder; default `runs/NAME-DATE-TIME`.
        callbacks: Keras callbacks in addition to the progress bar and the logs.
        profile: write a profiler trace; see `train.run`.

    Raises:
        UserError: the model does not end in a Dense classifier, its normalisation is not inside
            the model, or an error from `train.run`.
    """
    return train.carry_out(plan(source, config, out), callbacks=callbacks, profile=profile)


def plan(source: Source, config: Config, out: str | Path | None = None) -> Plan:
    """Find and check everything that `run` needs, before a folder is created.

    `source`, `config` and `out` are the arguments of `run`.

    Raises:
        UserError: see `run`.
    """
    if config.pruning.keep < 1:
        raise UserError(
            f"Fine-tuning does not prune; received pruning.keep = {config.pruning.keep}. To prune: "
            "keras-resnet prune-filters MODEL --data NAME|FOLDER"
        )
    name, start = f"finetune-{source.name}", source.keras_model()
    return plan_from(start, config, out, model=source.name, name=name, about=source.lineage())


def _warn_of_zeros(start: keras.Model) -> None:
    """Warn that training fills the zeros of a pruned network, because it has no masks."""
    if any(zeros_and_clusters.preserved(start, "auto")):
        print(
            f"warning: '{start.name}' was pruned or clustered; fine-tuning changes these weights. "
            "Prune or cluster the result again (keras-resnet prune, keras-resnet cluster).",
            file=sys.stderr,
        )


def plan_from(
    start: keras.Model,
    config: Config,
    out: str | Path | None,
    *,
    model: str,
    name: str,
    about: dict[str, Any] | None = None,
) -> Plan:
    """Plan to fine-tune `start`, which the run calls `model`; `name` names the default folder.

    Raises:
        UserError: see `run`.
    """
    transfer.require_preprocessing(start)
    transfer.require_float(start)
    transfer.classifier(start)
    _warn_of_zeros(start)
    config = replace(transfer.sized(config, start), model=model)
    return train.plan(config, out, name=name, start=start, about_start=about)


if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["finetune", *sys.argv[1:]]))

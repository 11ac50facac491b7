"""Fine-tune a trained network on other classes: first its new head alone, then all of it.

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
    """Fine-tune the model of `source` as `config` says, in a new run folder.

    The folder holds a copy of the model it started from, so it goes on without the source.

    Args:
        source: a trained classifier; see `recipes.sources.find`.
        config: what to train on and how; its `model` becomes the source's name, and a
            `data.image_size` of 0 the size the source was made for.
        out: the folder; default `runs/NAME-DATE-TIME`.
        callbacks: Keras callbacks beside the progress bar and the logs.
        profile: write a profiler trace, as `train.run`.

    Raises:
        UserError: no Dense classifier at the model's end, normalisation that is not inside the
            model, or what `train.run` refuses.
    """
    return train.carry_out(plan(source, config, out), callbacks=callbacks, profile=profile)


def plan(source: Source, config: Config, out: str | Path | None = None) -> Plan:
    """Find and check everything that `run` needs, before a folder is made; the same arguments.

    Raises:
        UserError: as `run`.
    """
    if config.pruning.keep < 1:
        raise UserError("pruning.keep is for keras-resnet prune-filters; finetune keeps all.")
    name, start = f"finetune-{source.name}", source.keras_model()
    return plan_from(start, config, out, model=source.name, name=name, about=source.lineage())


def _warn_of_zeros(start: keras.Model) -> None:
    """A pruned network has no masks with it, so that training fills its zeros."""
    if any(zeros_and_clusters.preserved(start, "auto")):
        print(
            f"warning: '{start.name}' was pruned or clustered; fine-tuning lets its weights move "
            "freely. Prune or cluster the result again (keras-resnet prune, keras-resnet cluster).",
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
        UserError: as `run`.
    """
    transfer.require_preprocessing(start)
    transfer.require_float(start)
    transfer.classifier(start)
    _warn_of_zeros(start)
    config = replace(config, model=model)
    return train.plan(config, out, name=name, start=start, about_start=about)


if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["finetune", *sys.argv[1:]]))

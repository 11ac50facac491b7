"""Prune a trained network's filters and train on what is left.

keras-resnet prune-filters RUN|FILE.keras --data cifar10 --keep 0.5
keras-resnet prune-filters NAME --weights TAG --data cifar10 --keep 0.5 --criterion gamma
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_resnet.recipes import finetune
from keras_resnet.recipes.compression.channels import Channels
from keras_resnet.recipes.compression.filters import compare, prune_filters
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.recipes.runs.folder import Run
from keras_resnet.recipes.runs.sources import Source
from keras_resnet.recipes.training import transfer

CONFIG = "compress/prune_filters"


def run(
    source: Source,
    config: Config,
    out: str | Path | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    profile: bool = False,
) -> Run:
    """Prune the model of `source` as `config.pruning` says and train it on, in a new run folder.

    The summary's "pruned_filters" has filters, multiply-adds and parameters before and after.

    Args:
        source: a trained classifier; see `recipes.sources.find`.
        config: how to prune and what to train on; see `recipes.finetune.run`.
        out: the folder; default `runs/prune-filters-NAME-DATE-TIME`.
        callbacks: Keras callbacks beside the progress bar and the logs.
        profile: write a profiler trace, as `train.run`.

    Raises:
        UserError: what `prune_filters` or `recipes.finetune.run` refuses.
    """
    choice, model = config.pruning, source.keras_model()
    transfer.require_float(model)
    transfer.classifier(model)
    pruned = prune_filters(
        model,
        choice.keep,
        criterion=choice.criterion,
        ranking=choice.ranking,
        least=choice.least,
        divisor=choice.divisor,
    )
    return finetune.train_from(
        pruned,
        config,
        out,
        model=source.name,
        name=f"prune-filters-{source.name}",
        about={"pruned_filters": compare(Channels(model).model, pruned)},
        callbacks=callbacks,
        profile=profile,
    )


if __name__ == "__main__":
    from keras_resnet.cli.main import main

    sys.exit(main(["prune-filters", *sys.argv[1:]]))

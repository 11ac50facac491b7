"""Fine-tune a trained network on other classes: first only its new head, then all layers.

keras-resnet finetune RUN|FILE.keras --data FOLDER [--image-size 128]
keras-resnet finetune NAME --weights TAG --data FOLDER

In Python this module can be called: `finetune("resnet20", "photographs", weights="cifar10")`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_resnet.arguments import checked
from keras_resnet.errors import UserError
from keras_resnet.recipes import train
from keras_resnet.recipes.compression import zeros_and_clusters
from keras_resnet.recipes.configs.schema import Config, load_config
from keras_resnet.recipes.runs import sources
from keras_resnet.recipes.runs.folder import Run
from keras_resnet.recipes.runs.sources import Source
from keras_resnet.recipes.training import devices, transfer
from keras_resnet.recipes.training.plan import Plan

CONFIG = "finetune/default"


class _Program(types.ModuleType):
    """This module, which can be called."""

    def __call__(
        self,
        model: keras.Model | str | Path,
        data: str | Path,
        out: str | Path | None = None,
        *,
        weights: str | None = None,
        image_size: int | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        freeze: float | None = None,
        patience: int | None = None,
        class_weights: bool | None = None,
        balanced: bool | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        **settings: Any,
    ) -> Run:
        """Fine-tune `model` on the images of `data` and return the run.

        The config `finetune/default` has the values of the arguments that you leave out. The image
        size is chosen from the photographs and the network. A tenth of every class is held out for
        validation, and the weights of the best epoch are kept.

        Args:
            model: a trained classifier: a Keras model that takes RGB 0...255, a run folder, a
                `.keras` file, or a network's name with `weights`.
            data: a folder with a folder of images for each class, a CSV file with the labels of the
                images in its folder, or a name of tensorflow-datasets.
            out: the run folder; by default a new one in `runs`.
            weights: a tag or a file, for a network's name.
            image_size: pixels a side that the network is shown.
            epochs: passes over the training images.
            learning_rate: the peak of the schedule.
            freeze: the first part of the run, 0 to 1, in which only the new head is trained.
            patience: stop after this many epochs without a better validation accuracy; 0: never.
            class_weights: weigh each class in the loss by 1 / its number of images.
            balanced: show every class equally often.
            callbacks: Keras callbacks in addition to the progress bar and the logs.
            settings: other keys of the config, a double underscore for the dot:
                `train__batch_size=16`.

        Returns:
            The finished run: `run.keras_model()`, `run.summary()`.

        Raises:
            UserError: see `run`.
        """
        given = {
            "data.name": str(data),
            "data.image_size": image_size,
            "train.epochs": epochs,
            "optimizer.learning_rate": learning_rate,
            "finetune.frozen": freeze,
            "train.patience": patience,
            "train.class_weights": class_weights,
            "data.balanced": balanced,
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        given = {key: value for key, value in given.items() if value is not None}
        config = load_config(CONFIG, given)
        _require_all_filters(config)
        devices.claim(config.train)
        if isinstance(model, keras.Model):
            names = {"model": model.name, "name": f"finetune-{model.name}"}
            planned = plan_from(transfer.functional(model), config, out, **names)
        else:
            planned = plan(sources.find(str(model), weights), config, out)
        return train.carry_out(planned, callbacks=callbacks)


sys.modules[__name__].__class__ = _Program


@checked
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
        config: the config of the run. The source's name replaces its `model`. A `data.image_size`
            of 0 is chosen from the images and the network; see `transfer.image_size`.
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
    _require_all_filters(config)
    if source.run is not None and not config.data.image_size:
        size = source.run.config.data.image_size  # 0 if its images had one size of their own
        config = replace(config, data=replace(config.data, image_size=size))
    name, start = f"finetune-{source.name}", source.keras_model()
    return plan_from(start, config, out, model=source.name, name=name, about=source.lineage())


def _require_all_filters(config: Config) -> None:
    if config.pruning.keep < 1:
        raise UserError(
            f"Fine-tuning does not prune; received pruning.keep = {config.pruning.keep}. To prune: "
            "keras-resnet prune-filters MODEL --data NAME|FOLDER"
        )


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
    config = replace(config, model=model)
    return train.plan(config, out, name=name, start=start, about_start=about)


if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["finetune", *sys.argv[1:]]))

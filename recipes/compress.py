"""Make a trained network smaller or faster, and train it further.

keras-resnet qat NAME --weights TAG --distill             quantization-aware training
keras-resnet prune RUN|FILE.keras --sparsity 0.8          set small weights to zero
keras-resnet cluster RUN|FILE.keras --clusters 16         share few values among the weights
keras-resnet prune-filters RUN|FILE.keras --data cifar10 --keep 0.5    remove whole filters

These commands can follow each other, but a quantization-aware model cannot be trained further. The
first three use tensorflow-model-optimization and train in a separate process, because its import
turns `tf.keras` into tf_keras. `prune-filters` ends with a normal fine-tuning.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_resnet.arguments import checked
from keras_resnet.errors import UserError
from keras_resnet.layers import LocalResponseNormalization
from keras_resnet.recipes import finetune, train
from keras_resnet.recipes.compression import process, zeros_and_clusters
from keras_resnet.recipes.compression.channels import Channels
from keras_resnet.recipes.compression.filters import compare, prune_filters
from keras_resnet.recipes.compression.table import technique
from keras_resnet.recipes.configs.schema import Config, load_config
from keras_resnet.recipes.runs.folder import Run, new_folder
from keras_resnet.recipes.runs.sources import Source
from keras_resnet.recipes.training import devices, machines, transfer
from keras_resnet.recipes.training.plan import Plan

QAT, PRUNE, CLUSTER = "compress/qat", "compress/prune", "compress/cluster"
PRUNE_FILTERS = "compress/prune_filters"


@checked
def run(
    model: keras.Model,
    config: Config,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    about: dict[str, Any] | None = None,
) -> Run:
    """Train `model` with the technique of `config.compress`, in a new run folder.

    The folder keeps a copy of the model. The result is a run like any other.

    Args:
        model: a trained functional (or sequential) Keras 3 classifier that takes RGB 0...255: from
            this package with `include_preprocessing=True`, from a run, or your own.
        config: the config of the run.
        out: the run folder; default `runs/NAME-DATE-TIME`.
        name: the NAME in the default folder; default the technique and the model's name.
        about: the origin of the model, for the summary; see `Source.lineage`.

    Raises:
        UserError: a layer that cannot be quantized, a missing package, several machines, or an
            error from `train.run`.
    """
    return train.carry_out(plan(model, config, out, name=name, about=about))


def plan(
    model: keras.Model,
    config: Config,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    about: dict[str, Any] | None = None,
) -> Plan:
    """Find and check everything that `run` needs, before a folder is created.

    `model`, `config`, `out`, `name` and `about` are the arguments of `run`.

    Raises:
        UserError: see `run`.
    """
    _require_one_machine()
    model = transfer.functional(model)
    devices.claim(config.train)
    process.require_packages()
    transfer.require_preprocessing(model)
    _require_trainable(model, config)
    trainee, config = technique(config)(model), transfer.sized(config, model)
    chosen = replace(config.train, precision="float32", sizes=(), ema=trainee.ema(config))
    config = replace(config, model=model.name, train=chosen)
    folder = new_folder(out, name or f"{config.compress.technique}-{model.name}")
    return train.plan_of(trainee, config, folder, about)


def _require_one_machine() -> None:
    if machines.from_environment() is not None:
        raise UserError(
            "Compression trains on one machine, but the environment describes several (TF_CONFIG "
            "or Slurm). Unset TF_CONFIG, or start without srun."
        )


def _require_trainable(model: keras.Model, config: Config) -> None:
    if config.train.precision not in ("auto", "float32"):
        raise UserError(
            "Compression trains in float32; received train.precision = "
            f"'{config.train.precision}'. Leave train.precision out."
        )
    transfer.require_float(model)
    transfer.require_rebuildable(model)
    if not zeros_and_clusters.find(model):
        raise UserError(
            f"Compression changes the kernels of Conv2D and Dense layers except the first; "
            f"'{model.name}' has no second one. It does not support SeparableConv2D: build the "
            "model with a DepthwiseConv2D and a 1×1 Conv2D instead."
        )
    for layer in model.layers:
        if isinstance(layer, LocalResponseNormalization):
            raise UserError(
                f"The layer '{layer.name}' of '{model.name}' (local response normalisation) has no "
                "counterpart in tf_keras, which tensorflow-model-optimization needs. Use a network "
                "with batch normalisation (googlenet_bn), or quantize it after training: "
                "keras-resnet export MODEL --formats tflite-int8"
            )


@checked
def qat(
    model: keras.Model,
    data: str | Path = "cifar10",
    out: str | Path | None = None,
    **settings: Any,
) -> keras.Model:
    """Return `model` after quantization-aware training on `data`, for a more accurate int8 file.

    Training simulates the rounding of the int8 file (arXiv:1712.05877, section 3). This is the
    short form for notebooks. Export the result: `export(model, ["tflite-int8"], out=...)`. Zeros
    and clusters from `prune_weights` and `cluster_weights` are kept.

    Args:
        model: a functional (or sequential) Keras 3 classifier that takes RGB 0...255, from (batch,
            height, width, channels) to (batch, classes).
        data: the training data: a name in tensorflow-datasets, "digits" or a folder.
        out: the run folder; default a new one in `runs`.
        settings: keys of the config, with a double underscore for the dot: `train__epochs=2`.

    Returns:
        A model of stock float32 layers from RGB 0...255 (batch, height, width, channels) to
        probabilities (batch, classes), with Keras' fake quantization where the file rounds.

    Raises:
        UserError: see `run`.
    """
    return _trained(QAT, model, data, out, settings)


@checked
def prune_weights(
    model: keras.Model,
    sparsity: float = 0.8,
    data: str | Path = "cifar10",
    out: str | Path | None = None,
    **settings: Any,
) -> keras.Model:
    """Return `model` with the share `sparsity` of its kernels' weights at zero, trained on `data`.

    The smallest weights become zero, more and more of them during training (arXiv:1710.01878,
    section 3). The first convolution and depthwise convolutions are not pruned. The files have the
    same size, but compress well. For fewer multiply-adds, see `prune_filters`.

    Args:
        model: a classifier as for `qat`, from (batch, height, width, channels) to (batch, classes).
        sparsity: the share of zeros in all pruned kernels together.
        data: see `qat`.
        out: see `qat`.
        settings: see `qat`.

    Returns:
        The same network in stock float32 layers, from RGB 0...255 (batch, height, width, channels)
        to probabilities (batch, classes).

    Raises:
        UserError: see `run`.
    """
    return _trained(PRUNE, model, data, out, {"compress__sparsity": sparsity} | settings)


@checked
def cluster_weights(
    model: keras.Model,
    clusters: int = 16,
    data: str | Path = "cifar10",
    out: str | Path | None = None,
    **settings: Any,
) -> keras.Model:
    """Return `model` with at most `clusters` distinct values per kernel, trained on `data`.

    Each weight takes the value of the nearest centroid of its kernel, and training adjusts the
    centroids (arXiv:1510.00149, section 3). The first convolution and depthwise convolutions are
    not clustered. Zeros from `prune_weights` are kept. The files have the same size, but compress
    well.

    Args:
        model: a classifier as for `qat`, from (batch, height, width, channels) to (batch, classes).
        clusters: largest number of values in a kernel.
        data: see `qat`.
        out: see `qat`.
        settings: see `qat`.

    Returns:
        The same network in stock float32 layers, from RGB 0...255 (batch, height, width, channels)
        to probabilities (batch, classes).

    Raises:
        UserError: see `run`.
    """
    return _trained(CLUSTER, model, data, out, {"compress__clusters": clusters} | settings)


def _trained(
    config: str,
    model: keras.Model,
    data: str | Path,
    out: str | Path | None,
    settings: dict[str, Any],
) -> keras.Model:
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    if "compress.technique" in overrides:
        raise UserError(
            "compress.technique cannot be set here; received "
            f"{overrides['compress.technique']!r}. Call qat, prune_weights or cluster_weights."
        )
    loaded = load_config(config, {"data.name": str(data), **overrides})
    return run(model, loaded, out).keras_model()


def finetune_pruned(
    source: Source,
    config: Config,
    out: str | Path | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    profile: bool = False,
) -> Run:
    """Prune filters of the model of `source` as in `config.pruning`, and fine-tune it in a new run.

    The summary's "pruned_filters" has filters, multiply-adds and parameters before and after.

    Args:
        source: a trained classifier; see `recipes.sources.find`.
        config: the config of the run, with [pruning]; see `recipes.finetune.run`.
        out: the run folder; default `runs/prune-filters-NAME-DATE-TIME`.
        callbacks: Keras callbacks in addition to the progress bar and the logs.
        profile: write a profiler trace; see `train.run`.

    Raises:
        UserError: an error from `prune_filters` or `recipes.finetune.run`.
    """
    planned = plan_pruned(source, config, out)
    return train.carry_out(planned, callbacks=callbacks, profile=profile)


def plan_pruned(source: Source, config: Config, out: str | Path | None = None) -> Plan:
    """Prune the model and check everything else that `finetune_pruned` needs.

    `source`, `config` and `out` are the arguments of `finetune_pruned`.

    Raises:
        UserError: see `finetune_pruned`.
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
    about = {"pruned_filters": compare(Channels(model).model, pruned), **source.lineage()}
    name = f"prune-filters-{source.name}"
    return finetune.plan_from(pruned, config, out, model=source.name, name=name, about=about)


if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(sys.argv[1:]))  # the first argument is the command, one of four

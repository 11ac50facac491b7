"""Make a trained network smaller or faster and train it further. Any of these can follow another.

keras-resnet qat NAME --weights TAG --distill             quantization-aware training
keras-resnet prune RUN|FILE.keras --sparsity 0.8          set small weights to zero
keras-resnet cluster RUN|FILE.keras --clusters 16         share few values among the weights
keras-resnet prune-filters RUN|FILE.keras --data cifar10 --keep 0.5    remove whole filters

The first three are techniques of tensorflow-model-optimization and train in a process of their
own, since its import turns `tf.keras` into tf_keras. `prune-filters` ends in a usual fine-tuning.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_resnet.errors import MissingExtraError, UserError, require
from keras_resnet.layers import LocalResponseNormalization
from keras_resnet.recipes import finetune, train
from keras_resnet.recipes.compression import zeros_and_clusters
from keras_resnet.recipes.compression.channels import Channels
from keras_resnet.recipes.compression.compressed import TFMOT
from keras_resnet.recipes.compression.filters import compare, prune_filters
from keras_resnet.recipes.compression.table import technique
from keras_resnet.recipes.configs.schema import Config, load_config
from keras_resnet.recipes.runs.folder import Run, new_folder
from keras_resnet.recipes.runs.sources import Source
from keras_resnet.recipes.training import devices, machines, transfer
from keras_resnet.recipes.training.plan import Plan

QAT, PRUNE, CLUSTER = "compress/qat", "compress/prune", "compress/cluster"
PRUNE_FILTERS = "compress/prune_filters"


def run(
    model: keras.Model,
    config: Config,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    about: dict[str, Any] | None = None,
) -> Run:
    """Train `model` by the technique that `config.compress` names, in a new run folder.

    The folder holds a copy of the model; the result is a run as any other.

    Args:
        model: a trained functional (or sequential) Keras 3 classifier that takes RGB 0...255: ours
            with `include_preprocessing=True`, a run's, or your own.
        config: what to train on and how.
        out: the folder; default `runs/NAME-DATE-TIME`.
        name: names it; default the technique and the model's name.
        about: what the summary says of the model; see `Source.lineage`.

    Raises:
        UserError: a layer that cannot be quantized, a package that is not installed, several
            machines, or what `train.run` refuses.
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
    """Find and check everything that `run` needs, before a folder is made; the same arguments.

    Raises:
        UserError: as `run`.
    """
    _require_one_machine()
    model = transfer.functional(model)
    devices.claim(config.train)
    require("tf_keras", "compress")
    if importlib.util.find_spec(TFMOT) is None:  # imported in the other process only
        raise MissingExtraError(TFMOT, "compress")
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
            "This trains on one machine, but the environment describes several (TF_CONFIG, Slurm). "
            "Unset it, or start without srun."
        )


def _require_trainable(model: keras.Model, config: Config) -> None:
    if config.train.precision not in ("auto", "float32"):
        raise UserError(
            "tensorflow-model-optimization trains in float32 here; received train.precision = "
            f"'{config.train.precision}'. Leave it out."
        )
    transfer.require_float(model)
    transfer.require_rebuildable(model)
    if not zeros_and_clusters.find(model):
        raise UserError(
            f"Kernels of Conv2D and Dense are compressed, all but the first; '{model.name}' has no "
            "second one. Of a SeparableConv2D none is: build the model of DepthwiseConv2D and a "
            "Conv2D of 1×1."
        )
    for layer in model.layers:
        if isinstance(layer, LocalResponseNormalization):
            raise UserError(
                f"The layer '{layer.name}' of '{model.name}' (local response normalisation) has no "
                "counterpart in tf_keras, on which tensorflow-model-optimization works. Take a "
                "network with batch normalisation (googlenet_bn), or quantize it after training: "
                "keras-resnet export MODEL --formats tflite-int8"
            )


def qat(
    model: keras.Model,
    data: str | Path = "cifar10",
    out: str | Path | None = None,
    **settings: Any,
) -> keras.Model:
    """Return `model` trained quantized on `data`: it rounds where its int8 file will.

    Quantization is simulated in training (arXiv:1712.05877, section 3). This is the one-liner for
    notebooks. Export the result: `export(model, ["tflite-int8"], out=...)`. Zeros and clusters that
    `prune_weights` and `cluster_weights` made are kept.

    Args:
        model: a functional (or sequential) Keras 3 classifier that takes RGB 0...255: (batch,
            height, width, channels) to (batch, classes).
        data: what it is trained on: a name of tensorflow-datasets, "digits" or a folder.
        out: the run folder; by default a new one in `runs`.
        settings: keys of the config, a double underscore for the dot: `train__epochs=2`.

    Returns:
        A model of stock float32 layers from RGB 0...255 (batch, height, width, channels) to
        probabilities (batch, classes), with Keras' fake quantization where the file rounds.

    Raises:
        UserError: see `run`.
    """
    return _trained(QAT, model, data, out, settings)


def prune_weights(
    model: keras.Model,
    sparsity: float = 0.8,
    data: str | Path = "cifar10",
    out: str | Path | None = None,
    **settings: Any,
) -> keras.Model:
    """Return `model` with the share `sparsity` of its kernels' weights at 0, trained on `data`.

    The smallest weights go, more of them as the training goes on (arXiv:1710.01878, section 3).
    The first convolution and depthwise ones stay whole. The files are no smaller, but compress; for
    fewer multiply-adds see `prune_filters`.

    Args:
        model: as of `qat`: (batch, height, width, channels) to (batch, classes).
        sparsity: the share of zeros in all other kernels together.
        data: as of `qat`.
        out: as of `qat`.
        settings: as of `qat`.

    Returns:
        The same network in stock float32 layers, from RGB 0...255 (batch, height, width, channels)
        to probabilities (batch, classes).

    Raises:
        UserError: see `run`.
    """
    return _trained(PRUNE, model, data, out, {"compress__sparsity": sparsity} | settings)


def cluster_weights(
    model: keras.Model,
    clusters: int = 16,
    data: str | Path = "cifar10",
    out: str | Path | None = None,
    **settings: Any,
) -> keras.Model:
    """Return `model` with at most `clusters` distinct values in a kernel, trained on `data`.

    Each weight is the nearest of its kernel's centroids, which learn (arXiv:1510.00149, section 3).
    The first convolution and depthwise ones are not clustered. Zeros that `prune_weights` made are
    kept. The files are no smaller, but compress.

    Args:
        model: as of `qat`: (batch, height, width, channels) to (batch, classes).
        clusters: values in a kernel, at most.
        data: as of `qat`.
        out: as of `qat`.
        settings: as of `qat`.

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
    if not isinstance(data, str | Path):
        raise UserError(
            "data is the name of a dataset (of tensorflow-datasets, or 'digits') or a folder of "
            f"images, which is read here; received a {type(data).__name__}. Give its name, as to "
            "load_dataset."
        )
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    if "compress.technique" in overrides:
        raise UserError(
            "compress.technique is what the function is named for and cannot be set to "
            f"{overrides['compress.technique']!r}: call qat, prune_weights or cluster_weights."
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
    """Prune the model of `source` as `config.pruning` says and train it further, in a new run.

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
    planned = plan_pruned(source, config, out)
    return train.carry_out(planned, callbacks=callbacks, profile=profile)


def plan_pruned(source: Source, config: Config, out: str | Path | None = None) -> Plan:
    """Prune the model and check everything else that `finetune_pruned` needs; the same arguments.

    Raises:
        UserError: as `finetune_pruned`.
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

    sys.exit(program(sys.argv[1:]))  # the verb, one of four, is the first of them

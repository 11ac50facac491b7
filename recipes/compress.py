"""Compress a trained network with tensorflow-model-optimization: train it quantized, prune its
weights, cluster them, and any of these after another.

keras-resnet prune RUN|FILE.keras --sparsity 0.8
keras-resnet cluster RUN|FILE.keras --clusters 16
keras-resnet qat NAME --weights TAG --distill

The work is done in a process of its own, since importing tensorflow-model-optimization turns
`tf.keras` into tf_keras.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_resnet.errors import MissingExtraError, UserError, require
from keras_resnet.images.preprocessing import missing_preprocessing
from keras_resnet.layers import LocalResponseNormalization
from keras_resnet.recipes.compression import zeros_and_clusters
from keras_resnet.recipes.compression.process import train_apart
from keras_resnet.recipes.configs.schema import Config, load_config
from keras_resnet.recipes.runs.folder import Run, create_run
from keras_resnet.recipes.training import devices, machines, transfer
from keras_resnet.recipes.training.job import prepare
from keras_resnet.recipes.training.teacher import find_teacher, require_same_classes

QAT, PRUNE, CLUSTER = "compress/qat", "compress/prune", "compress/cluster"
_TFMOT = "tensorflow_model_optimization"


def run(
    model: keras.Model, config: Config, out: str | Path | None = None, *, name: str | None = None
) -> Run:
    """Train `model` by the technique that `config.compress` names, in a new run folder.

    The folder holds a copy of the model; the result is a run as any other.

    Args:
        model: a trained functional (or sequential) Keras 3 classifier that takes RGB 0...255: ours
            with `include_preprocessing=True`, a run's, or your own.
        config: what to train on and how.
        out: the folder; default `runs/NAME-DATE-TIME`.
        name: names it; default the technique and the model's name.

    Raises:
        UserError: a layer that cannot be quantized, a package that is not installed, several
            machines, or what `train.run` refuses.
    """
    if machines.from_environment() is not None:
        raise UserError(
            "This trains on one machine, but the environment describes several (TF_CONFIG, Slurm). "
            "Unset it, or start without srun."
        )
    model = transfer.functional(model)
    devices.claim(config.train)
    require("tf_keras", "compress")
    if importlib.util.find_spec(_TFMOT) is None:  # imported in the other process only
        raise MissingExtraError(_TFMOT, "compress")
    if hint := missing_preprocessing(model):
        raise UserError(f"{hint} Build it with include_preprocessing=True and save it again.")
    _require_trainable(model, config)
    if config.data.image_size == 0 and model.input_shape[1]:
        config = replace(config, data=replace(config.data, image_size=model.input_shape[1]))
    config = replace(
        config,
        model=model.name,
        train=replace(config.train, precision="float32", sizes=(), ema=_averaging(model, config)),
    )
    teacher = find_teacher(config.distill)
    job = prepare(config, model, teacher)
    require_same_classes(config.distill, job.dataset.class_names)
    name = name or f"{config.compress.technique}-{model.name}"
    made = create_run(out, name, job.config, {"start": model, "teacher": teacher})
    try:
        train_apart(made)
    except UserError:
        if not made.checkpoints.is_dir():  # it was refused before its first step
            shutil.rmtree(made.path)
        raise
    return made


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


def _averaging(model: keras.Model, config: Config) -> float:
    """`train.ema`, or 0 where clusters are kept: a mean of two clusters' values is in neither."""
    choice = config.compress
    if choice.technique != "qat" or not zeros_and_clusters.preserved(model, choice.preserve)[1]:
        return config.train.ema
    if config.train.ema:
        print(f"'{model.name}' is clustered: its weights are not averaged", file=sys.stderr)
    return 0.0


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
    result: keras.Model = keras.models.load_model(run(model, loaded, out).model)
    return result


if __name__ == "__main__":
    from keras_resnet.cli.main import main

    sys.exit(main(sys.argv[1:]))  # the verb, one of three, is the first of them

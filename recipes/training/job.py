"""What a config means here: everything it names, found and checked before anything is written."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType

import keras
import tensorflow as tf

from keras_resnet import registry
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.models.build import with_options
from keras_resnet.models.network import Network
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.recipes.data import augment
from keras_resnet.recipes.data.datasets import Dataset, configured_dataset
from keras_resnet.recipes.training import data_service, devices, optimizers, schedules, transfer
from keras_resnet.recipes.training.loop import Loop
from keras_resnet.recipes.training.losses import LOSSES
from keras_resnet.recipes.training.teacher import Teacher, require_fit

# Modules that train in a model of their own: `build_model`, `choose_layers` and `result`.
TECHNIQUES = {
    "cluster": "keras_resnet.recipes.compression.cluster",
    "prune": "keras_resnet.recipes.compression.prune",
    "qat": "keras_resnet.recipes.compression.qat",
}


def technique(config: Config) -> ModuleType | None:
    """The module that compresses, in the process that may import it (`recipes.compress`)."""
    name = config.compress.technique
    return importlib.import_module(TECHNIQUES[name]) if name else None


@dataclass(frozen=True)
class Job:
    """A config with all that it names, found and checked."""

    config: Config
    start: keras.Model | None
    teacher: keras.Model | None
    strategy: tf.distribute.Strategy
    dataset: Dataset
    schedule: keras.optimizers.schedules.LearningRateSchedule
    steps_per_epoch: int
    total_steps: int

    @property
    def precision(self) -> str:
        """The dtype policy, resolved."""
        return self.config.train.precision

    @property
    def epochs(self) -> int:
        """Their number; the last one may be cut short."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(first step, pixels a side) of progressive resizing; a change waits for its epoch."""
        train = self.config.train
        epochs = [round(self.epochs * fraction) for fraction in (0.0, *train.size_boundaries)]
        starts = [epoch * self.steps_per_epoch for epoch in epochs]
        return tuple(zip(starts, train.sizes, strict=False))


def prepare(config: Config, start: keras.Model | None, teacher: keras.Model | None) -> Job:
    """Find what `config` names.

    Args:
        config: the run.
        start: the model that a fine-tuning starts from.
        teacher: the model that is learned from; see `find_teacher`.

    Raises:
        UserError: unknown names, absent data, devices, workers or services, or sizes that do not
            go together.
    """
    _check_names(config, start)
    train = config.train
    if train.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = devices.strategy(train.devices, train.batch_size, train.wait_seconds)
    if train.batch_size % (strategy.num_replicas_in_sync * train.accumulate):
        raise UserError(
            f"train.batch_size = {train.batch_size} does not divide into {train.accumulate} parts "
            f"(train.accumulate) on each of {strategy.num_replicas_in_sync} devices."
        )
    data_service.require(config.data.service, train.wait_seconds)
    dataset = configured_dataset(config.data)
    if teacher is not None:
        shown = _shown_shape(config, dataset)
        require_fit(teacher, shown, len(dataset.class_names))
    if start is not None and (config.finetune.keep_head or config.compress.technique):
        transfer.require_classes(start, len(dataset.class_names))
    if start is None:  # before images of many sizes are looked through
        _require_size(config, (*train.sizes, *dataset.input_shape[:2]))
    steps_per_epoch = _steps_per_epoch(dataset, train.batch_size)
    total_steps = train.steps or train.epochs * steps_per_epoch
    precision = devices.precision(train.precision)
    return Job(
        # A resumed run computes in the precision it began with, whatever it resumes on, and finds
        # a folder of images wherever it is resumed from.
        config=replace(
            config,
            train=replace(train, precision=precision),
            data=replace(config.data, name=dataset.name),
        ),
        start=start,
        teacher=teacher,
        strategy=strategy,
        dataset=dataset,
        schedule=schedules.schedule(
            config.optimizer, config.schedule, total_steps, train.batch_size
        ),
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
    )


def _check_names(config: Config, start: keras.Model | None) -> None:
    if start is None:
        registry.architecture(config.model)
        _check_network(config)
    if start is not None and config.network:
        raise UserError("[network] is for a network that is built; a fine-tuning starts from one.")
    if start is None and config.finetune.frozen:
        raise UserError(
            "finetune.frozen keeps layers that were trained before as they are; start from some "
            "with: keras-resnet finetune MODEL --data NAME|FOLDER"
        )
    if config.compress.technique and config.compress.technique not in TECHNIQUES:
        raise UnknownNameError("compress.technique", config.compress.technique, TECHNIQUES, "")
    if config.compress.technique and start is None:
        raise UserError(
            "compress.technique works on a trained network; start from one with: keras-resnet "
            f"{config.compress.technique} MODEL --data NAME|FOLDER"
        )
    if config.train.ema and config.compress.technique in ("cluster", "prune"):
        raise UserError(
            "train.ema averages weights, which brings back what was pruned and new values between "
            "the clusters; set train.ema=0."
        )
    if start is None and config.pruning.keep < 1:
        raise UserError(
            "pruning.keep is for a trained network; prune one with: keras-resnet prune-filters "
            "MODEL --data NAME|FOLDER"
        )
    if config.train.loss not in LOSSES:
        raise UnknownNameError("train.loss", config.train.loss, LOSSES, "")
    augment.check(config.augment, config.train.batch_size)
    optimizers.check(config.optimizer)


def _network(config: Config) -> Network:
    network = registry.architecture(config.model).network
    return with_options(network, config.network, config.model)


def _check_network(config: Config) -> None:
    given = {"classes", "input_size", "preprocessing"} & set(config.network)
    if given:
        raise UserError(
            f"network.{min(given)} is not for a config: classes and image size follow from the "
            "data, and the normalisation is the network's own."
        )
    if getattr(_network(config), "auxiliary", False) and config.train.sizes:
        raise UserError(
            "network.auxiliary and train.sizes exclude each other: auxiliary classifiers are made "
            "for one image size."
        )


def _steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    steps = len(dataset.train) // batch_size
    if steps == 0:
        raise UserError(
            f"train.batch_size = {batch_size} is more than the {len(dataset.train)} training "
            "images."
        )
    return steps


def _require_size(config: Config, sides: Sequence[int]) -> None:
    least = _network(config).min_size
    if min(sides) < least:
        raise UserError(
            f"'{config.model}' takes images of {least}×{least} pixels or more; data.image_size and "
            f"train.sizes give {min(sides)}."
        )


def _shown_shape(config: Config, dataset: Dataset) -> tuple[int | None, int | None, int]:
    """The shape of the images that are trained on; free where their size changes in the run."""
    return (None, None, dataset.input_shape[-1]) if config.train.sizes else dataset.input_shape


def build_model(job: Job, shape: tuple[int | None, int | None, int]) -> keras.Model:
    """The network from RGB 0...255 to logits; `inference_model` drops its auxiliary ones."""
    if job.start is not None:
        keep_head, classes = job.config.finetune.keep_head, len(job.dataset.class_names)
        return transfer.adapt(job.start, shape, classes, keep_head=keep_head)
    return registry.create_model(
        job.config.model,
        input_shape=shape,
        classes=len(job.dataset.class_names),
        classifier_activation=None,
        include_preprocessing=True,
        **job.config.network,
    )


def build_loop(job: Job) -> Loop:
    """The network and its optimizer in their loop, under the job's strategy and precision."""
    config, train = job.config, job.config.train
    shape = _shown_shape(config, job.dataset)
    compressing = technique(config)
    with job.strategy.scope(), dtype_policy(job.precision):
        if compressing is not None:
            model = compressing.build_model(job, job.start)
        else:
            model = build_model(job, shape)  # with its auxiliary classifiers, if any
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = train.synchronized_bn
        teacher = None if job.teacher is None else Teacher(job.teacher, config.distill, shape)
        optimizer, l2 = optimizers.build(
            config.optimizer, job.schedule, train.weight_decay, model.trainable_variables
        )
        # Callbacks look for model.optimizer; the loss scaling is the loop's.
        if compressing is None:
            model.compile(optimizer, auto_scale_loss=False, jit_compile=False)
    return Loop(
        job.strategy,
        model,
        optimizer,
        batch_size=train.batch_size,
        weight_decay=l2,
        label_smoothing=train.label_smoothing,
        loss=train.loss,
        accumulate=train.accumulate,
        clip_norm=train.clip_norm,
        ema=train.ema,
        teacher=teacher,
    )


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Build under a Keras dtype policy and leave the process' own as it was."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)

"""The job of a config: everything the config names is found and checked before writing anything."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.recipes.configs.schema import Config, TrainConfig
from keras_resnet.recipes.data import augment
from keras_resnet.recipes.data.batches import training_batches
from keras_resnet.recipes.data.datasets import Dataset, configured_dataset
from keras_resnet.recipes.training import (
    callbacks,
    data_service,
    devices,
    features,
    optimizers,
    schedules,
)
from keras_resnet.recipes.training.loop import Loop
from keras_resnet.recipes.training.losses import LOSSES
from keras_resnet.recipes.training.teacher import Teacher, require_fit
from keras_resnet.recipes.training.trainee import Trainee
from keras_resnet.recipes.training.transfer import Shape


@dataclass(frozen=True)
class Job:
    """A config with everything that it names, found and checked."""

    config: Config
    trainee: Trainee
    teacher: keras.Model | None
    strategy: tf.distribute.Strategy
    dataset: Dataset
    schedule: keras.optimizers.schedules.LearningRateSchedule
    steps_per_epoch: int
    total_steps: int

    @property
    def precision(self) -> str:
        """The resolved dtype policy."""
        return self.config.train.precision

    @property
    def epochs(self) -> int:
        """The number of epochs; the last one may be shorter."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The (first step, image side) of each size; sizes change only between epochs."""
        train = self.config.train
        epochs = [round(self.epochs * fraction) for fraction in (0.0, *train.size_boundaries)]
        starts = [epoch * self.steps_per_epoch for epoch in epochs]
        return tuple(zip(starts, train.sizes, strict=False))

    def batches(self, start_step: int) -> tf.data.Dataset:
        """Return the training batches from this step on, made here or by the data service."""
        train, service = self.config.train, self.config.data.service
        batches = training_batches(
            self.dataset.train,
            train.batch_size,
            train.seed,
            self.config.augment,
            start_step=start_step,
            sizes=self.sizes,
            classes=len(self.dataset.class_names),
            balanced=self.config.data.balanced,
        )
        return data_service.served(batches, service) if service else batches

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that must be equal for all workers: the config and the number of images."""
        facts: dict[str, Any] = {"model": self.config.model}
        facts["the number of training images"] = len(self.dataset.train)
        for section, table in asdict(self.config).items():
            if isinstance(table, dict):
                facts |= {f"{section}.{key}": value for key, value in table.items()}
        return facts


def prepare(config: Config, trainee: Trainee, teacher: keras.Model | None) -> Job:
    """Find and check everything that `config` names.

    Args:
        config: the config of the run.
        trainee: the trainee of the run.
        teacher: the teacher's model, or None; see `find_teacher`.

    Raises:
        UserError: unknown names, missing data, devices, workers or services, or sizes that do not
            fit together.
    """
    trainee.check(config)
    _check_names(config)
    strategy = _strategy(config.train)
    data_service.require(config.data.service, config.train.wait_seconds)
    dataset = configured_dataset(config.data)
    config = _fitting_labels(config, dataset)
    parts = strategy.num_replicas_in_sync * config.train.accumulate * config.augment.repeats
    given, config = config, trainee.completed(config, dataset, parts)
    if config.data != given.data:
        dataset = dataset.at(config.data.image_size, config.data.crop_fraction)
    train = config.train
    if teacher is not None:
        require_fit(teacher, _shown_shape(config, dataset), len(dataset.class_names))
    trainee.require_fit(config, dataset)  # before all encoded images are checked
    data_service.require_readable(config.data.service, dataset.train)
    _warn_of_no_validation(train, dataset)
    steps_per_epoch = _steps_per_epoch(dataset, train.batch_size)
    least_epochs = -(-train.least_steps // steps_per_epoch)
    total_steps = train.steps or max(train.epochs, least_epochs) * steps_per_epoch
    job = Job(
        config=_resolved(config, dataset, steps_per_epoch, total_steps),
        trainee=trainee,
        teacher=teacher,
        strategy=strategy,
        dataset=dataset,
        schedule=schedules.schedule(
            config.optimizer, config.schedule, total_steps, train.batch_size
        ),
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
    )
    if teacher is not None and config.distill.features:
        student = trainee.build(job, _shown_shape(config, dataset))
        features.require_fit(config.distill, student, teacher)
    return job


def _fitting_labels(config: Config, dataset: Dataset) -> Config:
    """Return `config` with the loss of several labels, if the images have them.

    Raises:
        UserError: a key that is only for images with one label each.
    """
    if not dataset.multi_label:
        return config
    given = {
        "data.balanced": config.data.balanced,
        "train.class_weights": config.train.class_weights,
        "distill.teacher": config.distill.teacher,
    }
    if key := next((key for key, value in given.items() if value), None):
        raise UserError(
            f"{key} is for images with one label each, but '{dataset.name}' has any number of "
            f"labels for an image. Leave it out: --set {key}={'' if 'teacher' in key else 'false'}"
        )
    return replace(config, train=replace(config.train, loss="binary_cross_entropy"))


def _check_names(config: Config) -> None:
    if config.train.loss not in LOSSES:
        raise UnknownNameError("train.loss", config.train.loss, LOSSES, "")
    augment.check(config.augment, config.train.batch_size)
    optimizers.check(config.optimizer)
    features.check(config)
    callbacks.named(config.train.callbacks)
    if config.optimizer.name == "schedule_free_adamw":
        _require_schedule_free(config)


def _require_schedule_free(config: Config) -> None:
    if config.schedule.name != "constant" or config.train.ema:
        raise UserError(
            "schedule_free_adamw averages by itself and takes neither a schedule nor train.ema; "
            f"received the schedule '{config.schedule.name}' and train.ema = {config.train.ema}. "
            "Give: --set schedule.name=constant --set train.ema=0"
        )


def _strategy(train: TrainConfig) -> tf.distribute.Strategy:
    """Return the strategy over the devices; check that the batch can be divided."""
    if train.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = devices.strategy(train.devices, train.batch_size, train.wait_seconds)
    if train.batch_size % (strategy.num_replicas_in_sync * train.accumulate):
        raise UserError(
            f"train.batch_size must be a multiple of {strategy.num_replicas_in_sync} devices × "
            f"{train.accumulate} parts (train.accumulate); received {train.batch_size}. Change "
            "train.batch_size or train.accumulate."
        )
    return strategy


def _resolved(config: Config, dataset: Dataset, steps_per_epoch: int, total_steps: int) -> Config:
    """Return the config to save with the run.

    Its precision is resolved, so a resumed run uses the same precision on any device. The path of
    an image folder is absolute, so a run can be resumed from any working directory.
    """
    precision = devices.precision(config.train.precision)
    epochs = config.train.epochs and total_steps // steps_per_epoch
    train = replace(config.train, precision=precision, epochs=epochs)
    return replace(
        config,
        train=train,
        data=replace(config.data, name=dataset.name),
    )


def _steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    if not len(dataset.train):
        raise UserError(f"'{dataset.name}' has no training images. Give data that has some.")
    steps = len(dataset.train) // batch_size
    if steps == 0:
        raise UserError(
            f"train.batch_size = {batch_size} is more than the {len(dataset.train)} training "
            f"images. Use a smaller batch: --set train.batch_size={max(1, len(dataset.train))}"
        )
    return steps


def _shown_shape(config: Config, dataset: Dataset) -> Shape:
    """Return the shape of the training images; free if their size changes during the run."""
    return (None, None, dataset.input_shape[-1]) if config.train.sizes else dataset.input_shape


def _warn_of_no_validation(train: TrainConfig, dataset: Dataset) -> None:
    if train.patience and not dataset.validation.places:
        print(
            f"warning: train.patience = {train.patience} needs validation images, and there are "
            "none; the run trains all its epochs. Hold some out: --set data.validation_share=0.1",
            file=sys.stderr,
        )


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the weight of each class in the loss, float32 (classes,).

    It is n / (number of classes · images of the class), as scikit-learn's "balanced"; so the mean
    weight of an image is 1.

    Args:
        labels: of the training images, int (n,).
        classes: their number, also of those without an image.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return (len(labels) / (present * np.maximum(counts, 1))).astype("float32")


def build_loop(job: Job) -> Loop:
    """Build the loop with its network and optimizer, under the job's strategy and precision."""
    config, train = job.config, job.config.train
    shape = _shown_shape(config, job.dataset)
    with job.strategy.scope(), dtype_policy(job.precision):
        model = job.trainee.build(job, shape)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = train.synchronized_bn
        teacher = None if job.teacher is None else Teacher(job.teacher, config.distill, shape)
        optimizer, l2 = optimizers.build(
            config.optimizer, job.schedule, train.weight_decay, model.trainable_variables
        )
        if isinstance(model, keras.Model):  # a tf_keras model takes no optimizer of Keras 3
            # Callbacks look for model.optimizer; the loop scales the loss itself.
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
        remat=train.remat,
        teacher=teacher,
        class_weights=_weights_of(job) if train.class_weights else None,
        multi_label=job.dataset.multi_label,
    )


def _weights_of(job: Job) -> np.ndarray:
    return class_weights(job.dataset.train.labels, len(job.dataset.class_names))


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Build under a Keras dtype policy; restore the process' policy afterwards."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)

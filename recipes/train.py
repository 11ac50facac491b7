"""Train a network from a config.

keras-resnet train cifar10/resnet20 [--epochs 3] [--devices cpu:2] [--out RUN]
keras-resnet train --resume RUN
"""

from __future__ import annotations

import importlib.metadata
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_resnet import registry
from keras_resnet.errors import UserError
from keras_resnet.files import replacing
from keras_resnet.models.layers import to_stock
from keras_resnet.recipes import (
    augment,
    data,
    data_service,
    devices,
    evaluate,
    runs,
    schedules,
    workers,
)
from keras_resnet.recipes.callbacks import ProgressBar
from keras_resnet.recipes.config import Config
from keras_resnet.recipes.loop import Loop, NonFiniteLossError
from keras_resnet.recipes.state import State

_LOSS_CHECK_STEPS = 50  # looking at the loss waits for the device, so not at every step


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training; the state is saved and the message is the run's folder."""


def run(
    config: Config,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> runs.Run:
    """Train `config` in a new run folder and return the run; see `recipes/runs.py` for its files.

    Args:
        config: what to train.
        out: the folder; default `runs/NAME-DATE-TIME`.
        name: names the default folder; default the model's name.
        callbacks: Keras callbacks beside the progress bar and the logs.

    Raises:
        UserError: something the caller can mend (data, devices, folder, config, NaN loss).
    """
    job = _prepare(config)  # what can be refused is refused before a folder is made
    return _train(job, lambda: runs.create(out, name or config.model, job.config), callbacks)


def resume(path: str | Path, *, callbacks: Sequence[keras.callbacks.Callback] = ()) -> runs.Run:
    """Go on with an interrupted run from its last checkpoint, as if it had not stopped.

    Raises:
        UserError: `path` is no run, or it is finished.
    """
    found = runs.find(path)
    if found.model.is_file():
        raise UserError(f"{path} is finished; its model is {found.model}.")
    return _train(_prepare(found.config), lambda: found, callbacks)


@dataclass(frozen=True)
class _Job:
    """A config with all that it names, found and checked."""

    config: Config
    strategy: tf.distribute.Strategy
    dataset: data.Dataset
    schedule: keras.optimizers.schedules.LearningRateSchedule
    precision: str
    steps_per_epoch: int
    total_steps: int

    @property
    def epochs(self) -> int:
        """Their number; the last one may be cut short."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images that are evaluated."""
        shape: tuple[int, int, int] = self.dataset.train.images.shape[1:]
        return shape

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(first step, pixels a side) of progressive resizing; a change waits for its epoch."""
        train = self.config.train
        epochs = [round(self.epochs * fraction) for fraction in (0.0, *train.size_boundaries)]
        starts = [epoch * self.steps_per_epoch for epoch in epochs]
        return tuple(zip(starts, train.sizes, strict=False))


def _prepare(config: Config) -> _Job:
    train = config.train
    registry.architecture(config.model)
    augment.check(config.augment)
    strategy = devices.strategy(train.devices, train.batch_size, train.wait_seconds)
    data_service.require(config.data.service, train.wait_seconds)
    dataset = data.load_dataset(config.data.name, config.data.validation, config.data.split_seed)
    steps_per_epoch = len(dataset.train) // train.batch_size
    if steps_per_epoch == 0:
        raise UserError(
            f"train.batch_size = {train.batch_size} is more than the {len(dataset.train)} "
            "training images."
        )
    total_steps = train.steps or train.epochs * steps_per_epoch
    precision = devices.precision(train.precision)
    return _Job(
        # A resumed run computes in the precision it began with, whatever it resumes on.
        config=replace(config, train=replace(train, precision=precision)),
        strategy=strategy,
        dataset=dataset,
        schedule=schedules.schedule(config.optimizer, config.schedule, total_steps),
        precision=precision,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
    )


def _train(
    job: _Job,
    open_run: Callable[[], runs.Run],
    callbacks: Sequence[keras.callbacks.Callback],
) -> runs.Run:
    service = job.config.data.service
    with (
        _opened(job, open_run) as run,
        data_service.watched(service, run.name),
        workers.together(job.strategy, run.name),
    ):
        keras.utils.set_random_seed(job.config.train.seed)
        loop = _loop(job)
        print(
            f"{run.name}: {job.config.model} on {job.config.data.name}, "
            f"{len(job.dataset.train):,} training images, {job.precision}, "
            f"{job.strategy.num_replicas_in_sync} device(s)",
            file=sys.stderr,
        )
        state = State(run, loop, job.config.train.checkpoint_minutes)
        runs.drop_rows_from(run.log, int(state.epochs_done))
        observers = [] if run.home else _observers(job, run, loop)
        observers = keras.callbacks.CallbackList([*observers, *callbacks], model=loop.model)
        with state.votes.on_interrupt():
            _fit(job, loop, state, observers)
        _finish(job, run, loop, state)
        return run


@contextmanager
def _opened(job: _Job, open_run: Callable[[], runs.Run]) -> Iterator[runs.Run]:
    """The run, locked. Only the chief's is real: other workers get a folder that is thrown away."""
    facts = {"model": job.config.model, "the number of training images": len(job.dataset.train)}
    for section, table in asdict(job.config).items():
        if isinstance(table, dict):
            facts |= {f"{section}.{key}": value for key, value in table.items()}
    workers.require_same(job.strategy, facts)
    with ExitStack() as stack:
        if workers.index(job.strategy) == 0:
            try:
                run = open_run()
                stack.enter_context(runs.locked(run))
            except UserError as error:  # it is every worker's
                workers.share(job.strategy, f"error {error}".encode())
                raise
            workers.share(job.strategy, f"run {run.path}".encode())
        else:
            kind, _, text = workers.share(job.strategy).decode().partition(" ")
            if kind == "error":
                raise UserError(f"The chief: {text}")
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="keras-resnet-"))
            run = runs.Run(Path(scratch), home=Path(text))
        yield run


def _observers(job: _Job, run: runs.Run, loop: Loop) -> list[keras.callbacks.Callback]:
    return [
        ProgressBar(job.total_steps, job.epochs, int(loop.step)),
        keras.callbacks.CSVLogger(str(run.log), append=True),
        keras.callbacks.TensorBoard(str(run.path / "tensorboard"), write_graph=False),
    ]


def _model(job: _Job, shape: tuple[int | None, int | None, int]) -> keras.Model:
    """The network from RGB 0...255 to logits."""
    return registry.create_model(
        job.config.model,
        input_shape=shape,
        classes=len(job.dataset.class_names),
        classifier_activation=None,
        include_preprocessing=True,
    )


def _loop(job: _Job) -> Loop:
    config, train = job.config, job.config.train
    shape = (None, None, job.input_shape[-1]) if train.sizes else job.input_shape
    with job.strategy.scope(), _dtype_policy(job.precision):
        model = _model(job, shape)
        optimizer = keras.optimizers.SGD(
            job.schedule, momentum=config.optimizer.momentum, nesterov=config.optimizer.nesterov
        )
        # Callbacks look for model.optimizer; the loss scaling is the loop's.
        model.compile(optimizer, auto_scale_loss=False, jit_compile=False)
    return Loop(
        job.strategy,
        model,
        optimizer,
        batch_size=train.batch_size,
        weight_decay=train.weight_decay,
        label_smoothing=train.label_smoothing,
        loss=train.loss,
        accumulate=train.accumulate,
        clip_norm=train.clip_norm,
        ema=train.ema,
    )


def _fit(job: _Job, loop: Loop, state: State, observers: keras.callbacks.CallbackList) -> None:
    """From the loop's step to the last: update, save, and at the end of each epoch evaluate."""
    batches = data.training_batches(
        job.dataset.train,
        job.config.train.batch_size,
        job.config.train.seed,
        job.config.augment,
        start_step=int(loop.step),
        sizes=job.sizes,
    )
    if job.config.data.service:
        batches = data_service.served(batches, job.config.data.service)
    iterator = loop.distribute(batches)
    observers.on_train_begin()
    try:
        for epoch in range(int(state.epochs_done), job.epochs):
            observers.on_epoch_begin(epoch)
            logs = _train_epoch(job, loop, state, observers, iterator, epoch)
            if len(job.dataset.validation):
                observers.on_test_begin()
                validation = _validate(job, loop, state, epoch)
                observers.on_test_end(validation)
                logs |= {f"val_{key}": value for key, value in validation.items()}
            observers.on_epoch_end(epoch, logs)
            state.finish_epoch()
            if state.votes.any(loop.model.stop_training):  # a callback's wish, as in Keras
                break
    except KeyboardInterrupt as error:
        state.save()
        raise Interrupted(str(state.run.name)) from error
    except NonFiniteLossError as error:
        raise UserError(
            f"The loss became NaN or infinite at step {error.step} of {job.total_steps}, so the "
            f"run was stopped. The last good state is {state.drop_from(error.step)}. Lower "
            "optimizer.learning_rate or raise schedule.warmup: in a new run, or in "
            f"{state.run.name / 'config.toml'} and go on with --resume."
        ) from error
    finally:
        observers.on_train_end()


def _train_epoch(
    job: _Job,
    loop: Loop,
    state: State,
    observers: keras.callbacks.CallbackList,
    iterator: Iterator[Any],
    epoch: int,
) -> dict[str, float]:
    """The steps that are left of an epoch; return what is logged of it."""
    began, first, loop.input_seconds = time.perf_counter(), int(loop.step), 0.0
    last = min((epoch + 1) * job.steps_per_epoch, job.total_steps)
    for step in range(first, last):
        observers.on_train_batch_begin(step)
        loop.train_step(iterator)
        observers.on_train_batch_end(step)
        if step % _LOSS_CHECK_STEPS == 0:
            loop.require_finite_loss()
        if step + 1 < last:  # the end of the epoch saves anyway
            state.save_if_due()
    loop.require_finite_loss()
    seconds = time.perf_counter() - began
    return {
        **loop.metrics(),
        "step": last,
        "learning_rate": float(loop.optimizer.learning_rate),
        "images_per_second": (last - first) * job.config.train.batch_size / seconds,
        "input_wait": loop.input_seconds / seconds,
        "seconds": seconds,
    }


def _validate(job: _Job, loop: Loop, state: State, epoch: int) -> dict[str, float]:
    """Loss and accuracy on the validation split; the weights are kept if they are the best yet."""
    with loop.evaluated_weights():
        validation = loop.evaluate(job.dataset.validation)
        if not math.isfinite(validation["loss"]):
            raise NonFiniteLossError(int(loop.step))
        state.keep_best(epoch, validation["accuracy"])
    return validation


def _finish(job: _Job, run: runs.Run, loop: Loop, state: State) -> None:
    """Write the model of the best epoch and what it does on the test split, evaluated once.

    The chief does; the other workers wait for it.
    """
    with _dtype_policy(job.precision), loop.evaluated_weights():
        model = None if run.home else _best_model(job, run, loop)
    if model is not None:
        _write_result(job, run, loop, state, model)
    workers.share(job.strategy)


def _best_model(job: _Job, run: runs.Run, loop: Loop) -> keras.Model:
    if run.best.is_file():
        loop.model.load_weights(run.best)
    model = _model(job, job.input_shape)  # of one size, whatever sizes it was trained on
    model.set_weights(loop.model.get_weights())
    return model


def _write_result(job: _Job, run: runs.Run, loop: Loop, state: State, model: keras.Model) -> None:
    config, dataset = job.config, job.dataset
    plain = to_stock(model)
    outputs = keras.layers.Activation("softmax", dtype="float32", name="predictions")(plain.output)
    (run.path / "labels.txt").write_text("\n".join(dataset.class_names) + "\n", encoding="utf-8")
    result = keras.Model(plain.input, outputs, name=config.model)
    test = evaluate.measure_model(result, dataset.test)
    runs.write_json(
        run.path / "summary.json",
        {
            "model": config.model,
            "parameters": result.count_params(),
            "data": config.data.name,
            "steps": int(loop.step),
            "best_epoch": int(state.best_epoch),
            "validation": {"accuracy": float(state.best_accuracy), "n": len(dataset.validation)}
            if len(dataset.validation)
            else None,
            "test": test,
            "seconds": round(float(state.seconds), 1),
            "precision": job.precision,
            "replicas": job.strategy.num_replicas_in_sync,
            "workers": workers.count(job.strategy),
            "versions": {
                package: importlib.metadata.version(package) for package in ("keras", "tensorflow")
            },
        },
    )
    with replacing(run.model) as partial:  # last, since it is what marks the run as finished
        result.save(partial)


@contextmanager
def _dtype_policy(name: str) -> Iterator[Any]:
    """Build under a Keras dtype policy and leave the process' own as it was."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


if __name__ == "__main__":
    from keras_resnet.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))

"""Train a network from a config.

keras-resnet train cifar10/resnet20 [--epochs 3] [--devices cpu:2] [--out RUN]
keras-resnet train --resume RUN
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.arguments import checked
from keras_resnet.errors import UserError
from keras_resnet.export import manifest
from keras_resnet.export.runtimes.keras import load_keras
from keras_resnet.files import replacing
from keras_resnet.images.labels import LABELS, remember
from keras_resnet.layers import to_stock
from keras_resnet.recipes import evaluate
from keras_resnet.recipes.compression.process import train_apart, trains_apart
from keras_resnet.recipes.compression.table import choose_trainee
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.recipes.runs import earlier, log, seen
from keras_resnet.recipes.runs.folder import Run, find_run, new_folder, write_json
from keras_resnet.recipes.runs.scores import ACCURACY, AVERAGE_PRECISION, deciding, spoken
from keras_resnet.recipes.training import data_service, devices, workers
from keras_resnet.recipes.training.callbacks import Log, ProgressBar, TensorBoard, named
from keras_resnet.recipes.training.checkpoints import State
from keras_resnet.recipes.training.job import Job, build_loop, dtype_policy, prepare
from keras_resnet.recipes.training.loop import Loop, NonFiniteLossError
from keras_resnet.recipes.training.plan import Plan
from keras_resnet.recipes.training.teacher import find_teacher, require_same_classes
from keras_resnet.recipes.training.trainee import Trainee

_UNEQUAL = 3  # from this many times the images of another class on, a warning is printed
_LOOK_STEPS = 10  # reading the loss waits for the device, so it is not read at every step
_PROFILED_STEPS = (5, 15)  # steps since this start; the first steps trace and warm up


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training. The state is saved, and the message is the run's folder."""


@checked
def run(
    config: Config,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    start: keras.Model | None = None,
    about_start: dict[str, Any] | None = None,
    profile: bool = False,
) -> Run:
    """Train `config` in a new run folder and return the run.

    `recipes/runs/folder.py` lists the files of the folder.

    Args:
        config: the config of the run.
        out: the run folder; default `runs/NAME-DATE-TIME`.
        name: the NAME in the default folder; default the model's name.
        callbacks: Keras callbacks in addition to the progress bar and the logs. As in `fit`, they
            get epochs counted from 0.
        start: a trained classifier to begin with; see `recipes.finetune.run`.
        about_start: the origin of `start`, for the summary.
        profile: write a TensorFlow profiler trace of ten steps to `tensorboard/`.

    Raises:
        UserError: something is wrong with the data, devices, folder or config, or the loss is NaN.
    """
    planned = plan(config, out, name=name, start=start, about_start=about_start)
    return carry_out(planned, callbacks=callbacks, profile=profile)


def plan(
    config: Config,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    start: keras.Model | None = None,
    about_start: dict[str, Any] | None = None,
) -> Plan:
    """Find and check everything that `run` needs, before a folder is created.

    `config`, `out`, `name`, `start` and `about_start` are the arguments of `run`.

    Raises:
        UserError: see `run`.
    """
    devices.claim(config.train)
    trainee = choose_trainee(config, start)
    return plan_of(trainee, config, new_folder(out, name or config.model), about_start)


def plan_of(
    trainee: Trainee, config: Config, folder: Path, about_start: dict[str, Any] | None
) -> Plan:
    """Return the plan to train `trainee` in `folder`.

    Raises:
        UserError: see `run`.
    """
    job = prepare(config, trainee, find_teacher(config.distill))
    require_same_classes(config.distill, job.dataset.class_names)
    return Plan(job, folder, {"start": trainee.start, "teacher": job.teacher}, about_start)


def carry_out(
    planned: Plan,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    profile: bool = False,
) -> Run:
    """Carry out the plan `planned` and return the run.

    `callbacks` and `profile` are the arguments of `run`.

    Raises:
        UserError: see `run`.
    """
    if trains_apart(planned.job.config):
        return _carry_out_apart(planned)
    return _train(planned.job, planned.create, callbacks, profile)


def _carry_out_apart(planned: Plan) -> Run:
    """Train in a separate process; delete the run folder if the run fails before its first step."""
    made = planned.create()
    try:
        train_apart(made)
    except UserError:
        if not made.checkpoints.is_dir():
            shutil.rmtree(made.path)
        raise
    return made


@checked
def resume(
    path: str | Path,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    profile: bool = False,
) -> Run:
    """Resume the interrupted run at `path` from its last checkpoint, as if it had not stopped.

    `callbacks` and `profile` are the arguments of `run`.

    Raises:
        UserError: `path` is not a run, or the run is finished.
    """
    found = find_run(path)
    if found.model.is_file():
        raise UserError(
            f"{path} is finished; its model is {found.model}. To train it further: keras-resnet "
            f"finetune {path} --data NAME|FOLDER"
        )
    if trains_apart(found.config):
        train_apart(found)
        return found
    return go_on(found, callbacks=callbacks, profile=profile)


def go_on(
    found: Run,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    profile: bool = False,
) -> Run:
    """Resume a run in this process; see `resume`."""
    devices.claim(found.config.train)
    start, teacher = (
        load_keras(path) if path.is_file() else None for path in (found.start, found.teacher)
    )
    job = prepare(found.config, choose_trainee(found.config, start), teacher)
    return _train(job, lambda: found, callbacks, profile)


def _train(
    job: Job,
    open_run: Callable[[], Run],
    callbacks: Sequence[keras.callbacks.Callback],
    profile: bool,
) -> Run:
    service = job.config.data.service
    workers.require_same(job.strategy, job.facts)
    with (
        workers.shared_run(job.strategy, open_run) as run,
        data_service.watched(service, run.name),
        workers.together(job.strategy, run.name),
    ):
        keras.utils.set_random_seed(job.config.train.seed)
        loop = build_loop(job)
        print(
            f"{run.name}: {job.config.model} on {job.config.data.name}, "
            f"{len(job.dataset.train):,} training images, {job.precision}, "
            f"{job.strategy.num_replicas_in_sync} device(s), {devices.kernels()}",
            file=sys.stderr,
        )
        if not run.home:
            _record_images(job, run)
            _warn_of_unequal_classes(job)
        state = State(run, loop, job.config.train.checkpoint_minutes)
        log.keep(run.log, int(state.epochs_done))
        earlier.renumber_events(run.tensorboard)
        observers = [] if run.home else _observers(job, run, loop, profile)
        observers = keras.callbacks.CallbackList([*observers, *callbacks], model=loop.model)
        with state.votes.on_interrupt():
            _fit(job, loop, state, observers)
        _finish(job, run, loop, state)
        return run


def _record_images(job: Job, run: Run) -> None:
    """Record the training images before the first step, so that an interrupted run has them too."""
    seen.record(run, job.dataset)
    if found := seen.in_training(job.dataset):
        print(
            f"warning: {found:,} of {len(job.dataset.test):,} test images are among the training "
            "images, byte by byte, so the test accuracy is not reliable",
            file=sys.stderr,
        )


def _warn_of_unequal_classes(job: Job) -> None:
    config, names = job.config, job.dataset.class_names
    if job.dataset.multi_label:
        return
    counts = np.bincount(job.dataset.train.labels, minlength=len(names))
    most, least = int(counts.argmax()), int(np.where(counts, counts, counts.max()).argmin())
    corrected = config.data.balanced or config.train.class_weights
    if corrected or counts[most] < _UNEQUAL * counts[least]:
        return
    print(
        f"warning: classes are unequal: '{names[most]}' has {counts[most]:,} training images, "
        f"'{names[least]}' {counts[least]:,}. If small classes matter as much as large ones, add "
        "--set data.balanced=true (finetune: --balanced)",
        file=sys.stderr,
    )


def _observers(job: Job, run: Run, loop: Loop, profile: bool) -> list[keras.callbacks.Callback]:
    return [
        ProgressBar(job.total_steps, job.epochs, int(loop.step)),
        Log(str(run.log), append=True),
        TensorBoard(
            str(run.tensorboard),
            write_graph=False,
            profile_batch=_PROFILED_STEPS if profile else 0,
        ),
        *(kind() for kind in named(job.config.train.callbacks)),
    ]


def _fit(job: Job, loop: Loop, state: State, observers: keras.callbacks.CallbackList) -> None:
    """Train from the loop's step to the last one: update, save, and evaluate after each epoch."""
    iterator = loop.distribute(job.batches(int(loop.step)))
    observers.on_train_begin()
    try:
        for epoch in range(int(state.epochs_done), job.epochs):
            if state.votes.any(_is_out_of_patience(job, state.run)):
                break
            _run_epoch(job, loop, state, observers, iterator, epoch)
            if state.votes.any(loop.model.stop_training):  # a callback can stop it, as in Keras
                break
    except KeyboardInterrupt as error:
        state.save()
        raise Interrupted(str(state.run.name)) from error
    except NonFiniteLossError as error:
        raise UserError(
            f"The loss became NaN or infinite at step {error.step} of {job.total_steps}, so the "
            f"run was stopped. The last good checkpoint is {state.drop_from(error.step)}. Lower "
            f"optimizer.learning_rate (it is {job.config.optimizer.learning_rate:g}) or raise "
            "schedule.warmup: in a new run (to find a rate, add --find-lr rates.svg to its "
            f"command), or in {state.run.name / 'config.toml'}; then resume with: keras-resnet "
            f"train --resume {state.run.name}"
        ) from error
    finally:
        observers.on_train_end()


def _is_out_of_patience(job: Job, run: Run) -> bool:
    """Tell whether the last `train.patience` epochs brought no better validation score.

    The log tells it, so a resumed run stops where an uninterrupted one does. Only the chief has a
    log, and its answer is voted for.
    """
    patience, least = job.config.train.patience, job.config.train.least_steps
    if not patience or run.home:
        return False
    # A fine-tuning is judged from the epoch on in which all layers learn.
    first = round(job.config.finetune.frozen * job.epochs) % job.epochs
    rows = run.rows()[first:]
    if not rows or float(rows[-1]["step"]) < least:
        return False
    key = deciding(rows[-1], "val_")
    scores = [float(row[key]) for row in rows if key in row]
    if len(scores) <= patience or max(scores[-patience:]) > max(scores[:-patience]):
        return False
    print(
        f"stopped after epoch {first + len(rows)}: the last {patience} epochs brought no better "
        f"validation {spoken(key)} than {max(scores):.2%} (train.patience = {patience})",
        file=sys.stderr,
    )
    return True


def _run_epoch(
    job: Job,
    loop: Loop,
    state: State,
    observers: keras.callbacks.CallbackList,
    iterator: Iterator[Any],
    epoch: int,
) -> None:
    """Train an epoch or the rest of it; then evaluate, log and save."""
    observers.on_epoch_begin(epoch)
    job.trainee.choose_layers(job, loop, epoch)
    logs = _train_epoch(job, loop, state, observers, iterator, epoch)
    if len(job.dataset.validation):
        observers.on_test_begin()
        validation = _validate(job, loop, state, epoch)
        observers.on_test_end(validation)
        logs |= {f"val_{key}": value for key, value in validation.items()}
    logs["training_seconds"] = state.count_time()
    with state.writing():
        observers.on_epoch_end(epoch, logs)
    state.finish_epoch()


def _train_epoch(
    job: Job,
    loop: Loop,
    state: State,
    observers: keras.callbacks.CallbackList,
    iterator: Iterator[Any],
    epoch: int,
) -> dict[str, float]:
    """Do the remaining steps of an epoch; return its entries for the log."""
    began, first, loop.input_seconds = time.perf_counter(), int(loop.step), 0.0
    last = min((epoch + 1) * job.steps_per_epoch, job.total_steps)
    for step in range(first, last):
        observers.on_train_batch_begin(step)
        loop.train_step(iterator)
        looks = step % _LOOK_STEPS == 0
        if looks:
            loop.require_finite_loss()
        observers.on_train_batch_end(step, _progress(job, loop, began, first) if looks else None)
        if step + 1 < last:  # the end of the epoch always saves
            state.save_if_due()
    loop.require_finite_loss()
    return _progress(job, loop, began, first)


def _progress(job: Job, loop: Loop, began: float, first: int) -> dict[str, float]:
    """Return the values to show and log; this waits for the last step.

    The means are since the start of the epoch; the speed is since the time `began` at step `first`.
    """
    step, metrics = int(loop.step), loop.metrics()
    seconds = time.perf_counter() - began
    return {
        **metrics,
        "step": step,
        "learning_rate": float(loop.optimizer.learning_rate),
        "images_per_second": (step - first) * job.config.train.batch_size / seconds,
        "input_wait": loop.input_seconds / seconds,
    }


def _validate(job: Job, loop: Loop, state: State, epoch: int) -> dict[str, float]:
    """Return loss and accuracy on the validation split; save the weights if they are the best."""
    with loop.evaluated_weights():
        validation = loop.evaluate(job.dataset.validation)
        if not math.isfinite(validation["loss"]):
            raise NonFiniteLossError(int(loop.step))
        state.keep_best(epoch, validation[deciding(validation)])
    return validation


def _finish(job: Job, run: Run, loop: Loop, state: State) -> None:
    """Write the model of the best epoch and its results on the test split, evaluated once.

    Only the chief does this; the other workers wait for it.
    """
    with dtype_policy(job.precision), loop.evaluated_weights():
        model = None if run.home else _best_model(job, run, loop)
    if model is not None:
        _write_result(job, run, loop, state, model)
    workers.share(job.strategy)


def _best_model(job: Job, run: Run, loop: Loop) -> keras.Model:
    if run.best.is_file():
        loop.model.load_weights(run.best)
    result: keras.Model = job.trainee.result(job, loop.model)
    return result


def _write_result(job: Job, run: Run, loop: Loop, state: State, model: keras.Model) -> None:
    plain, names = to_stock(model), "\n".join(job.dataset.class_names) + "\n"
    ending = "sigmoid" if job.dataset.multi_label else "softmax"
    outputs = keras.layers.Activation(ending, dtype="float32", name="predictions")(plain.output)
    result = keras.Model(plain.input, outputs, name=job.config.model)
    (run.path / LABELS).write_text(names, encoding="utf-8")
    write_json(run.path / "summary.json", _summary(job, run, loop, state, result))
    with replacing(run.model) as partial:  # last, because it marks the run as finished
        result.save(partial)
    remember(result, run.known())


def _summary(job: Job, run: Run, loop: Loop, state: State, result: keras.Model) -> dict[str, Any]:
    dataset, validation = job.dataset, None
    if len(dataset.validation):
        count = len(dataset.validation)
        validation = {**_best_score(job, state, count), "n": count}
    return {
        "model": job.config.model,
        **run.about_start(),
        "parameters": result.count_params(),
        "data": job.config.data.name,
        **job.trainee.about(job, result),
        **({} if job.teacher is None else {"teacher": job.teacher.name}),
        "images_left_out": len(dataset.left_out),
        "test_images_trained_on": seen.in_training(dataset),
        "steps": int(loop.step),
        "best_epoch": int(state.best_epoch) + 1 or None,
        "validation": validation,
        "test": evaluate.measure_model(result, dataset.test),
        "training_seconds": round(float(state.seconds), 1),
        "precision": job.precision,
        "replicas": job.strategy.num_replicas_in_sync,
        "workers": workers.count(job.strategy),
        **manifest.environment(),
    }


def _best_score(job: Job, state: State, count: int) -> dict[str, float]:
    best = float(state.best_accuracy)  # a float32
    if job.dataset.multi_label:
        return {AVERAGE_PRECISION: round(best, 6)}
    return {ACCURACY: round(best * count) / count}


if __name__ == "__main__":
    from keras_resnet.cli.main import program

    sys.exit(program(["train", *sys.argv[1:]]))

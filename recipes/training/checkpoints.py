"""Saving during a run: checkpoints for resuming, and the best weights."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export.write_errors import WRITE_ERRORS, why_not_written
from keras_resnet.files import replacing
from keras_resnet.recipes.runs.folder import Run
from keras_resnet.recipes.training import workers
from keras_resnet.recipes.training.loop import Loop


class State:
    """The checkpoints of a run. A new object restores the newest readable checkpoint.

    With several workers, each saves into its own folder, because a checkpoint has sums over all of
    them. Only the chief's folder is kept, and all workers resume from it.

    Attributes:
        epochs_done: number of epochs that were evaluated and logged. A checkpoint between the last
            step of an epoch and its log has the step, but not yet the epoch.
        best_accuracy, best_epoch: the best validation result. The epoch counts from 0, as in Keras,
            and is -1 before the first. Files and screens count from 1.
        seconds: training time so far; see `count_time`.
    """

    def __init__(self, run: Run, loop: Loop, minutes: float) -> None:
        self.run, self.loop, self.interval = run, loop, minutes * 60
        self.folder = run.checkpoints
        self.epochs_done = tf.Variable(0, trainable=False)
        self.best_accuracy = tf.Variable(-1.0, trainable=False)
        self.best_epoch = tf.Variable(-1, trainable=False)
        self.seconds = tf.Variable(0.0, trainable=False, dtype=tf.float64)
        checkpoint = loop.checkpoint
        checkpoint.epochs_done = self.epochs_done
        checkpoint.best_accuracy = self.best_accuracy
        checkpoint.best_epoch = self.best_epoch
        checkpoint.seconds = self.seconds
        self.manager = self._manager(checkpoint)
        self.counted_at = time.perf_counter()
        self.votes = workers.Votes(loop.strategy)
        restored = self._restore(checkpoint) if self.manager.checkpoints else ""
        restored = workers.share(loop.strategy, restored.encode()).decode()
        if not restored:
            self.save()  # so that there is a checkpoint from the first step on
        elif workers.count(loop.strategy) > 1:
            self._restore_the_chiefs(checkpoint, Path(restored).name)

    def _manager(self, checkpoint: tf.train.Checkpoint) -> tf.train.CheckpointManager:
        """Return the manager; refuse to start again, and lose the log, if checkpoints exist."""
        for path in self.folder.glob("*"):  # TensorFlow would wait for a FIFO without end
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise UserError(
                    f"{self.run.name / 'checkpoints' / path.name} is not a file. Restore it, or "
                    "start a new run."
                )
        there, manager = any(self.folder.glob("ckpt-*.index")), None
        with suppress(ValueError):  # TensorFlow's error for an unreadable file
            manager = tf.train.CheckpointManager(checkpoint, str(self.folder), max_to_keep=2)
        if manager is None or (there and not manager.checkpoints):
            raise UserError(
                f"{self.run.name / 'checkpoints' / 'checkpoint'} is missing or damaged. It has the "
                "name of the newest checkpoint. Restore it, or start a new run."
            )
        return manager

    def _restore_the_chiefs(self, checkpoint: tf.train.Checkpoint, name: str) -> None:
        """Send the chief's files to all workers, so that the machines need no common disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        is_chief = workers.index(self.loop.strategy) == 0
        for suffix in ("index", "data-00000-of-00001"):
            path = self.folder / f"{name}.{suffix}"
            content = workers.share(self.loop.strategy, path.read_bytes() if is_chief else b"")
            if not is_chief:
                path.write_bytes(content)
        if not is_chief:
            checkpoint.restore(str(self.folder / name)).assert_consumed()

    def _restore(self, checkpoint: tf.train.Checkpoint) -> str:
        for path in reversed(self.manager.checkpoints):
            try:
                checkpoint.restore(path).assert_consumed()
                return str(path)
            except (tf.errors.OpError, ValueError, AssertionError, IndexError):  # a cut file
                print(f"warning: cannot read the checkpoint {path}", file=sys.stderr)
        raise UserError(
            f"No checkpoint in {self.run.name / 'checkpoints'} fits this run"
            f"{self._first_difference(self.manager.latest_checkpoint)}. If config.toml was "
            "changed, undo that; otherwise start a new run."
        )

    def _first_difference(self, path: str) -> str:
        """Describe the first difference between model and checkpoint; "" if it is unreadable."""
        try:
            saved = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        except (tf.errors.OpError, ValueError, IndexError):
            return ""
        name = "optimizer/_trainable_variables/{}/.ATTRIBUTES/VARIABLE_VALUE"
        variables = self.loop.variables
        for index, variable in enumerate(variables):
            shape = saved.get(name.format(index))
            if shape is None or tuple(shape) != tuple(variable.shape):
                there = "missing" if shape is None else f"of shape {tuple(shape)}"
                return (
                    f": {variable.path} has shape {tuple(variable.shape)}, but in the checkpoint "
                    f"it is {there}"
                )
        if name.format(len(variables)) in saved:
            return f": it has more layers than '{self.loop.model.name}'"
        return ": the network is the same, but the optimizer, train.ema or the precision differs"

    def save_if_due(self) -> None:
        """Save if the interval has passed; call it at every step.

        Raises:
            KeyboardInterrupt: Ctrl-C on one of several workers.
        """
        if self.votes.any_in_a_while(time.perf_counter() - self.counted_at >= self.interval):
            self.save()

    def save(self) -> None:
        """Save now.

        Raises:
            NonFiniteLossError: the loss is not finite; the last checkpoint stays.
            UserError: writing fails, e.g. the disk is full; the last checkpoint stays.
        """
        self.count_time()
        self._save()

    def count_time(self) -> float:
        """Add the time since the last call to the training time; return the total, to 0.1 s.

        It is wall time with validation and checkpoints, over all starts of the run. Work that is
        lost when the process is killed, and then repeated, counts once.
        """
        now = time.perf_counter()
        self.seconds.assign_add(now - self.counted_at)
        self.counted_at = now
        return round(float(self.seconds), 1)

    def _save(self) -> None:
        self.loop.require_finite_loss()
        with self.writing():
            self.manager.save(checkpoint_number=int(self.loop.step))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write to the run's folder in the body; turn write errors into a `UserError`.

        Raises:
            UserError: writing fails.
        """
        try:
            yield
        except (OSError, *WRITE_ERRORS) as error:
            latest = self.manager.latest_checkpoint
            saved = f"step {latest.rpartition('-')[2]}" if latest else "none"
            raise UserError(
                f"Cannot write to {self.run.name}: {why_not_written(error)}. The last checkpoint "
                f"is {saved}. Free some space, then resume with: keras-resnet train --resume "
                f"{self.run.name}"
            ) from error

    def finish_epoch(self) -> None:
        """Close an epoch that is already logged, and save."""
        self.epochs_done.assign_add(1)
        self.loop.reset_metrics()
        self._save()  # without adding time: the summary's time is that of the log's last row

    def keep_best(self, epoch: int, accuracy: float) -> None:
        """Save the weights if this epoch is the best so far; among equals, keep the later one."""
        if np.float32(accuracy) < float(self.best_accuracy):  # best_accuracy is float32
            return
        with self.writing(), replacing(self.run.best) as partial:
            self.loop.model.save_weights(partial)
        self.best_accuracy.assign(accuracy)
        self.best_epoch.assign(epoch)

    def drop_from(self, step: int) -> str:
        """Delete a checkpoint that leads to the bad loss of `step`; return the last good one.

        Saved weights can be finite and still lead to a loss that is not.
        """
        *older, latest = self.manager.checkpoints
        if older and int(latest.rpartition("-")[2]) >= step:
            tf.compat.v1.train.update_checkpoint_state(str(self.folder), older[-1], older)
            for path in self.folder.glob(f"{Path(latest).name}.*"):
                path.unlink()
            latest = older[-1]
        return str(self.run.name / "checkpoints" / Path(latest).name)

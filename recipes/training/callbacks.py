"""Keras callbacks of the recipes: the progress bar, log.csv and TensorBoard's log.

Keras counts epochs from 0 in callbacks; files and screens count from 1.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import keras
from rich.progress import MofNCompleteColumn, TextColumn

from keras_resnet.display.bars import Bar
from keras_resnet.errors import UserError


class ProgressBar(keras.callbacks.Callback):
    """A progress bar over the whole run with an estimate, and a line per epoch, on stderr.

    If stderr is not a terminal (for example a log file), only the lines are written.

    Args:
        total_steps: updates of the run; `done` of them were done before this start.
        epochs: number of epochs, for the lines.
    """

    def __init__(self, total_steps: int, epochs: int, done: int = 0) -> None:
        """Keep the counts; see the class."""
        super().__init__()
        self.total, self.epochs, self.done = total_steps, epochs, done
        self.bar = Bar(MofNCompleteColumn(), TextColumn("steps"))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Show the bar."""
        self.bar.start()
        self.task = self.bar.add_task("training", total=self.total, completed=self.done)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Name the epoch."""
        self.bar.update(self.task, description=f"epoch {epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Advance the bar; only some steps have `logs`."""
        if logs:
            self.bar.measured = _summary(logs)
        self.bar.advance(self.task)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the epoch's line."""
        text = f"epoch {epoch + 1:>3}/{self.epochs} · {_summary(logs or {})}"
        self.bar.console.print(text, highlight=False, soft_wrap=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Remove the bar."""
        self.bar.stop()


class Log(keras.callbacks.CSVLogger):
    """A row of measurements per epoch, counted from 1.

    Keras' own logger adds val_… columns of "NA" if there is no validation split.
    """

    keys: list[str] | None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the columns before Keras does; write the row."""
        self.keys = sorted(logs or {}) if self.keys is None else self.keys
        super().on_epoch_end(epoch + 1, logs)


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras' TensorBoard callback, with epochs counted from 1."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the epoch's figures."""
        super().on_epoch_end(epoch + 1, logs)


def _summary(logs: dict[str, Any]) -> str:
    return " · ".join(text.format(logs[key]) for key, text in _SHOWN if key in logs)


_SHOWN = (
    ("loss", "loss {:.4f}"),
    ("accuracy", "accuracy {:.4f}"),
    ("val_accuracy", "validation {:.4f}"),
    ("val_mean_average_precision", "mean average precision {:.4f}"),
    ("learning_rate", "rate {:.2g}"),
    ("images_per_second", "{:.0f} images/s"),
    ("input_wait", "input wait {:.1%}"),
    ("training_seconds", "{:.1f} s so far"),
)


def named(names: Iterable[str]) -> list[type[keras.callbacks.Callback]]:
    """Import the callbacks of `train.callbacks`; each is called without arguments.

    For arguments, name a subclass of your own that sets them.

    Args:
        names: dotted names, "package.module.Class".

    Raises:
        UserError: a name that cannot be imported, or is no Keras callback.
    """
    return [_named(name) for name in names]


def _named(name: str) -> type[keras.callbacks.Callback]:
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"train.callbacks: cannot import '{name}' ({error}). Give the dotted name of a class, "
            'e.g. "keras.callbacks.TerminateOnNaN".'
        ) from error
    if not (isinstance(found, type) and issubclass(found, keras.callbacks.Callback)):
        raise UserError(
            f"train.callbacks: '{name}' is no Keras callback; received a {type(found).__name__}. "
            "Name a subclass of keras.callbacks.Callback."
        )
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise UserError(
            f"train.callbacks: '{name}' needs arguments ({error}). Name a subclass that sets them."
        ) from error
    return found

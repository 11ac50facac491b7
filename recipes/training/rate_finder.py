"""Find a learning rate: train a few steps at rising rates and look where the loss falls.

The test is that of arXiv:1506.01186, section 3.3. The suggestion is fast.ai's: a tenth of the rate
at which the smoothed loss is lowest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_resnet.display import figures
from keras_resnet.display.bars import progress
from keras_resnet.errors import UserError
from keras_resnet.recipes.training.job import build_loop
from keras_resnet.recipes.training.plan import Plan
from keras_resnet.recipes.training.schedules import peak_rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOWEST, HIGHEST = 1e-6, 10.0
_SMOOTHING = 0.9  # of the moving average
_DIVERGED = 4  # times the lowest smoothed loss


@dataclass(frozen=True)
class Finding:
    """The loss at rising learning rates.

    Attributes:
        rates: the learning rate of each step as `optimizer.learning_rate` gives it, float (n,).
        losses: the smoothed loss after each step, float (n,).
    """

    rates: np.ndarray
    losses: np.ndarray

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the loss is lowest, with two digits."""
        return float(f"{self.rates[self.losses.argmin()] / 10:.1e}")

    def figure(self) -> Figure:
        """Draw the loss against the rate, with a line at the suggestion.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        with figures.style():
            figure = figures.new(5, 3.2)
            panel = figure.subplots()
            panel.plot(self.rates, self.losses)
            label = f"suggested: {self.suggestion:g}"
            panel.axvline(self.suggestion, color=figures.GREY, ls=":", label=label)
            panel.set(xscale="log", xlabel="learning rate", ylabel="training loss, smoothed")
            lowest, highest = self.losses.min(), self.losses[0]
            margin = 0.25 * max(highest - lowest, 0.1 * abs(lowest))  # the divergence is cut off
            panel.set_ylim(lowest - margin, highest + margin)
            panel.legend(frameon=False)
            return figure


def find_rate(planned: Plan, steps: int = 100) -> Finding:
    """Train `planned` for up to `steps` steps, the rate rising from 1e-6 to 10; nothing is written.

    It stops early when the loss has grown to four times its lowest value. A fine-tuning trains all
    its layers here, as after its frozen phase.

    Args:
        planned: the training; see `train.plan`. A `Plan` can be used once.
        steps: the number of rates.

    Raises:
        UserError: the loss is not finite at the lowest rates.
    """
    rise = keras.optimizers.schedules.ExponentialDecay(LOWEST, steps, HIGHEST / LOWEST)
    job = replace(planned.job, schedule=rise)
    keras.utils.set_random_seed(job.config.train.seed)
    loop = build_loop(job)
    job.trainee.choose_layers(job, loop, job.epochs - 1)
    batches = loop.distribute(job.batches(0))
    rates, losses, mean = [], [], 0.0
    with progress("rates", steps) as advance:
        for step in range(steps):
            loop.reset_metrics()
            loop.train_step(batches)
            loss = loop.metrics()["loss"]
            if not math.isfinite(loss):
                break
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            rates.append(float(rise(step)))
            losses.append(mean / (1 - _SMOOTHING ** (step + 1)))
            if losses[-1] > _DIVERGED * min(losses):
                break
            advance(1)
    if not rates:
        raise UserError(
            f"The loss is not finite at the learning rate {LOWEST:g} already. Look at the images, "
            "and at train.precision: --precision float32"
        )
    optimizer, batch_size = job.config.optimizer, job.config.train.batch_size
    scale = peak_rate(replace(optimizer, learning_rate=1.0), batch_size)  # of reference_batch
    return Finding(np.array(rates) / scale, np.array(losses))

"""Learning rate schedules: Keras' schedules with a warm-up in front of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import (
    CosineDecay,
    LearningRateSchedule,
    PiecewiseConstantDecay,
    PolynomialDecay,
)

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.recipes.configs.schema import OptimizerConfig, ScheduleConfig

# Start and end of the one-cycle schedule, as in PyTorch's OneCycleLR and in fastai: it begins at
# peak / 25 and ends at a 10,000th of that.
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = _ONE_CYCLE_START / 1e4


@keras.saving.register_keras_serializable("keras_resnet")
class WarmUp(LearningRateSchedule):
    """A linear warm-up over `steps` updates; then `after` begins at its step 0.

    Args:
        after: the schedule that follows.
        steps: length of the warm-up.
        first: the first rate, as a fraction of the first rate of `after`.
        last: the last rate (exclusive), as a fraction of the first rate of `after`.
    """

    def __init__(
        self, after: LearningRateSchedule, steps: int, first: float = 0.0, last: float = 1.0
    ) -> None:
        self.after, self.steps, self.first, self.last = after, steps, first, last

    def __call__(self, step: Any) -> Any:
        """Return the rate of update `step`, counted from 0."""
        step = ops.cast(step, "float32")
        part = self.first + (self.last - self.first) * step / self.steps
        return ops.where(step < self.steps, part * self.after(0), self.after(step - self.steps))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        after = keras.saving.serialize_keras_object(self.after)
        return {"after": after, "steps": self.steps, "first": self.first, "last": self.last}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmUp:
        """Build the schedule from the output of `get_config`."""
        return cls(**{**config, "after": keras.saving.deserialize_keras_object(config["after"])})


def _step(peak: float, config: ScheduleConfig, warmup: int, total: int) -> LearningRateSchedule:
    """Return a rate that is multiplied by `factor` at each boundary (He 2015)."""
    # Subtract 1, because Keras changes the rate only after the boundary's own step.
    boundaries = [round(fraction * total) - warmup - 1 for fraction in config.boundaries]
    rates = [peak * config.factor**index for index in range(len(boundaries) + 1)]
    return PiecewiseConstantDecay(boundaries, rates)


def _cosine(peak: float, config: ScheduleConfig, warmup: int, total: int) -> LearningRateSchedule:
    """Return half a cosine to zero, without restarts (arXiv:1608.03983)."""
    return CosineDecay(peak, total - warmup)


def _one_cycle(
    peak: float, config: ScheduleConfig, warmup: int, total: int
) -> LearningRateSchedule:
    """Return half a cosine to nearly zero; the warm-up is the cycle's rise (arXiv:1708.07120).

    The rise is linear as in the paper (PyTorch: half a cosine). The momentum is not cycled.
    """
    return CosineDecay(peak, total - warmup, alpha=_ONE_CYCLE_END)


def _polynomial(
    peak: float, config: ScheduleConfig, warmup: int, total: int
) -> LearningRateSchedule:
    """Return (1 - t) ** `power`; MLPerf's LARS uses 2 (its reference ends at 1e-4, not 0)."""
    return PolynomialDecay(peak, total - warmup, end_learning_rate=0.0, power=config.power)


def _constant(peak: float, config: ScheduleConfig, warmup: int, total: int) -> LearningRateSchedule:
    """The peak at every step; schedule-free optimizers need it (arXiv:2405.15682)."""
    return PiecewiseConstantDecay([total], [peak, peak])


# Functions (peak, config, warm-up steps, total steps) → the schedule after the warm-up.
SCHEDULES: dict[str, Callable[[float, ScheduleConfig, int, int], LearningRateSchedule]] = {
    "step": _step,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "polynomial": _polynomial,
    "constant": _constant,
}


def peak_rate(optimizer: OptimizerConfig, batch_size: int) -> float:
    """Return the peak rate for `batch_size` images, by the linear scaling rule (arXiv:1706.02677).

    Without a reference batch, return the configured rate.
    """
    if not optimizer.reference_batch:
        return optimizer.learning_rate
    return optimizer.learning_rate * batch_size / optimizer.reference_batch


def schedule(
    optimizer: OptimizerConfig, config: ScheduleConfig, total_steps: int, batch_size: int
) -> LearningRateSchedule:
    """Build the schedule of a run of `total_steps` updates of `batch_size` images.

    Raises:
        UserError: an unknown name, one_cycle without a warm-up, or fractions that do not increase
            from 0 to below 1.
    """
    if config.name not in SCHEDULES:
        raise UnknownNameError("schedule", config.name, SCHEDULES, "")
    fractions = [config.warmup, *(config.boundaries if config.name == "step" else ())]
    if fractions[0] < 0 or fractions[-1] >= 1 or fractions != sorted(set(fractions)):
        raise UserError(
            "schedule.warmup and schedule.boundaries must be fractions of the run that increase "
            f"from 0 to below 1; received {fractions}."
        )
    warmup = min(round(config.warmup * total_steps), total_steps - 1)
    after = SCHEDULES[config.name](peak_rate(optimizer, batch_size), config, warmup, total_steps)
    if config.name == "one_cycle":
        if not config.warmup:
            raise UserError(
                "The schedule one_cycle needs a warm-up; received schedule.warmup = 0. "
                "Use --set schedule.warmup=0.3 (PyTorch's default)."
            )
        return WarmUp(after, max(warmup, 1), first=_ONE_CYCLE_START)
    if not warmup:
        return after
    if config.warmup_hold:
        return WarmUp(after, warmup, first=config.warmup_hold, last=config.warmup_hold)
    return WarmUp(after, warmup)

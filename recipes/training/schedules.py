"""Learning rates over a run: Keras' schedules, and a warm-up in front of them."""

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

# The one cycle's ends, of PyTorch's OneCycleLR and of fastai before it: it begins at a 25th of the
# peak and ends at a 10,000th of where it began.
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = _ONE_CYCLE_START / 1e4


@keras.saving.register_keras_serializable("keras_resnet")
class WarmUp(LearningRateSchedule):
    """Linear over `steps` updates, then `after`, whose step 0 that is.

    Args:
        after: the schedule that follows.
        steps: length of the warm-up.
        first: the part of `after`'s first rate it begins with.
        last: the part it ends with, exclusive.
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
        """Undo get_config."""
        return cls(**{**config, "after": keras.saving.deserialize_keras_object(config["after"])})


def _step(peak: float, config: ScheduleConfig, warmup: int, total: int) -> LearningRateSchedule:
    """Multiplied by `factor` at each boundary (He 2015)."""
    # Less 1: Keras gives a boundary's own step the rate before it.
    boundaries = [round(fraction * total) - warmup - 1 for fraction in config.boundaries]
    rates = [peak * config.factor**index for index in range(len(boundaries) + 1)]
    return PiecewiseConstantDecay(boundaries, rates)


def _cosine(peak: float, config: ScheduleConfig, warmup: int, total: int) -> LearningRateSchedule:
    """Half a cosine to zero, without restarts (arXiv:1608.03983)."""
    return CosineDecay(peak, total - warmup)


def _one_cycle(
    peak: float, config: ScheduleConfig, warmup: int, total: int
) -> LearningRateSchedule:
    """Half a cosine to nearly zero, after a rise that is part of the cycle (arXiv:1708.07120).

    The rise is linear as in the paper (PyTorch's: half a cosine); the momentum is not cycled.
    """
    return CosineDecay(peak, total - warmup, alpha=_ONE_CYCLE_END)


def _polynomial(
    peak: float, config: ScheduleConfig, warmup: int, total: int
) -> LearningRateSchedule:
    """To zero as (1 - t) ** `power`; MLPerf's LARS: 2 (its reference ends at 1e-4, not 0)."""
    return PolynomialDecay(peak, total - warmup, end_learning_rate=0.0, power=config.power)


def _constant(peak: float, config: ScheduleConfig, warmup: int, total: int) -> LearningRateSchedule:
    """The peak throughout, as schedule-free optimizers want it (arXiv:2405.15682)."""
    return PiecewiseConstantDecay([total], [peak, peak])


# (peak, config, steps of warm-up, steps of the run) → what follows the warm-up.
SCHEDULES: dict[str, Callable[[float, ScheduleConfig, int, int], LearningRateSchedule]] = {
    "step": _step,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "polynomial": _polynomial,
    "constant": _constant,
}


def peak_rate(optimizer: OptimizerConfig, batch_size: int) -> float:
    """Return the rate for `batch_size` images by the linear scaling rule (arXiv:1706.02677).

    Without a reference batch it is the configured rate.
    """
    if not optimizer.reference_batch:
        return optimizer.learning_rate
    return optimizer.learning_rate * batch_size / optimizer.reference_batch


def schedule(
    optimizer: OptimizerConfig, config: ScheduleConfig, total_steps: int, batch_size: int
) -> LearningRateSchedule:
    """Build the schedule of a run of `total_steps` updates of `batch_size` images.

    Raises:
        UserError: unknown name, a cycle that does not rise, or fractions that do not increase from
            0 to below 1.
    """
    if config.name not in SCHEDULES:
        raise UnknownNameError("schedule", config.name, SCHEDULES, "")
    fractions = [config.warmup, *(config.boundaries if config.name == "step" else ())]
    if fractions[0] < 0 or fractions[-1] >= 1 or fractions != sorted(set(fractions)):
        raise UserError(
            "schedule.warmup and schedule.boundaries are fractions of the run and increase "
            f"from 0 to below 1; received {fractions}."
        )
    warmup = min(round(config.warmup * total_steps), total_steps - 1)
    after = SCHEDULES[config.name](peak_rate(optimizer, batch_size), config, warmup, total_steps)
    if config.name == "one_cycle":
        if not config.warmup:
            raise UserError("one_cycle rises first; set schedule.warmup, e.g. 0.3 (PyTorch's).")
        return WarmUp(after, max(warmup, 1), first=_ONE_CYCLE_START)
    if not warmup:
        return after
    if config.warmup_hold:
        return WarmUp(after, warmup, first=config.warmup_hold, last=config.warmup_hold)
    return WarmUp(after, warmup)

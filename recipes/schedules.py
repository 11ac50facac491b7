"""Learning rates over a run, as stock Keras schedules."""

from __future__ import annotations

import keras

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.recipes.config import OptimizerConfig, ScheduleConfig


def schedule(
    optimizer: OptimizerConfig, config: ScheduleConfig, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Build the schedule of a run of `total_steps` updates.

    "step" multiplies the rate by `factor` at each boundary and starts, if there is a warm-up, at a
    tenth of it (as He 2015 warms up ResNet-110); "cosine" rises linearly and falls to zero.

    Raises:
        UserError: unknown name, or fractions that do not increase from 0 to below 1.
    """
    peak, warmup = optimizer.learning_rate, round(config.warmup * total_steps)
    fractions = [config.warmup, *(config.boundaries if config.name == "step" else ())]
    if fractions[0] < 0 or fractions[-1] >= 1 or fractions != sorted(set(fractions)):
        raise UserError(
            "schedule.warmup and schedule.boundaries are fractions of the run and increase "
            f"from 0 to below 1; received {fractions}."
        )
    if config.name == "step":
        boundaries = [round(fraction * total_steps) for fraction in config.boundaries]
        rates = [peak * config.factor**index for index in range(len(boundaries) + 1)]
        if warmup:
            boundaries, rates = [warmup, *boundaries], [peak / 10, *rates]
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)
    if config.name == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else peak,
            decay_steps=total_steps - warmup,
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
        )
    raise UnknownNameError("schedule", config.name, ("step", "cosine"), "")

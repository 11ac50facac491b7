"""The optimizers: how each updates the weights.

SGD and AdamW are Keras' own. Muon is Keras', applied to convolutions. Schedule-free AdamW, LAMB and
LARS are written here.

Weight decay and layer-wise rates apply only to kernels; BN's parameters and the biases take plain
steps. Some optimizers apply the decay themselves, so `build` returns the decay that is left to the
loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops
from keras.optimizers import Optimizer
from keras.optimizers.schedules import LearningRateSchedule

from keras_resnet import keras_compat
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.recipes.configs.schema import OptimizerConfig

Rate: TypeAlias = float | LearningRateSchedule


def _norm(values: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(values)))


class _LayerWise(Optimizer):
    """The base of LAMB and LARS: it tells kernels from BN's parameters and biases."""

    def __init__(self, learning_rate: Rate, kernel_decay: float, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        # Keras' weight_decay is not used: it would shrink the weights before update_step.
        self.kernel_decay = kernel_decay

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Remember the kernels among the variables."""
        super().build(variables)
        # update_step cannot do this: it gets TensorFlow's variables, which have other names.
        self._kernels = frozenset(i for i, v in enumerate(variables) if v.name == "kernel")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "kernel_decay": self.kernel_decay}


@keras.saving.register_keras_serializable("keras_resnet")
class Lars(_LayerWise):
    """Layer-wise adaptive rate scaling (arXiv:1708.03888, Algorithm 1).

    For each kernel w with gradient g and the global rate γ::

        λ = trust · ‖w‖ / (‖g‖ + decay · ‖w‖)      (1 if ‖w‖ or ‖g‖ is 0)
        v = momentum · v + γ · λ · (g + decay · w)
        w = w − v

    BN's parameters and biases have λ = 1 and no decay, as in MLPerf's reference; the paper does not
    mention them. γ is inside the velocity, as in the paper and in MLPerf. timm and NVIDIA's LARC
    use w = w − γ · v with a v that does not contain γ. That differs whenever γ changes.

    Args:
        learning_rate: γ.
        momentum: momentum of the velocity.
        kernel_decay: weight decay of the kernels.
        trust: the trust coefficient, η in the paper.
    """

    def __init__(
        self,
        learning_rate: Rate,
        momentum: float = 0.9,
        kernel_decay: float = 0.0,
        trust: float = 0.001,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, kernel_decay, **kwargs)
        self.momentum, self.trust = momentum, trust

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create a velocity for every variable."""
        if not self.built:
            super().build(variables)
            self._velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        index = keras_compat.variable_index(self, variable)
        step = ops.cast(learning_rate, variable.dtype) * gradient
        if index in self._kernels:
            decay, rate = self.kernel_decay, ops.cast(learning_rate, variable.dtype)
            weights, slope = _norm(variable), _norm(gradient)
            local = self.trust * weights / (slope + decay * weights)
            local = ops.where((weights > 0) & (slope > 0), local, 1.0)
            step = rate * local * (gradient + decay * variable)
        velocity = self._velocities[index]
        self.assign(velocity, self.momentum * velocity + step)
        self.assign_sub(variable, velocity)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "momentum": self.momentum, "trust": self.trust}


class _Adaptive(_LayerWise):
    """The shared arguments of LAMB and schedule-free AdamW, which divide by a mean square."""

    def __init__(
        self,
        learning_rate: Rate,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        kernel_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, kernel_decay, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("keras_resnet")
class Lamb(_Adaptive):
    """Layer-wise adaptive moments (arXiv:1904.00962, Algorithm 2, with φ the identity).

    For each kernel w with gradient g, update t = 1, 2, … and rate η::

        m = β₁ · m + (1 − β₁) · g           v = β₂ · v + (1 − β₂) · g²
        r = m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)
        u = r + decay · w
        w = w − η · ‖w‖ / ‖u‖ · u           (ratio 1 if ‖w‖ or ‖u‖ is 0)

    BN's parameters and biases use w = w − η · r, without decay and ratio, as in timm, the program
    of "ResNet strikes back". `keras.optimizers.Lamb` is a different algorithm. Its decay is
    AdamW's: it shrinks the weights by η · decay, outside the ratio. The paper's decay is a part of
    u and is scaled by the ratio. Keras also adapts BN's parameters and biases.

    Args:
        learning_rate: η.
        beta_1: decay of the mean of the gradients.
        beta_2: decay of the mean of their squares.
        epsilon: added outside the root, after the correction of v, as in the paper and PyTorch.
        kernel_decay: weight decay of the kernels, λ in the paper.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the two moments of every variable."""
        if not self.built:
            super().build(variables)
            names = ["mean", "square"]
            self._means, self._squares = self.add_optimizer_variables(variables, names)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        index = keras_compat.variable_index(self, variable)
        mean, square = self._means[index], self._squares[index]
        self.assign_add(mean, (1 - self.beta_1) * (gradient - mean))
        self.assign_add(square, (1 - self.beta_2) * (ops.square(gradient) - square))
        time = ops.cast(self.iterations + 1, variable.dtype)
        root = ops.sqrt(square / (1 - self.beta_2**time))
        update = mean / (1 - self.beta_1**time) / (root + self.epsilon)
        if index in self._kernels:
            update += self.kernel_decay * variable
            weights, length = _norm(variable), _norm(update)
            update *= ops.where((weights > 0) & (length > 0), weights / length, 1.0)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * update)


@keras.saving.register_keras_serializable("keras_resnet")
class Muon(keras.optimizers.Muon):
    """Momentum whose update is made orthogonal (https://kellerjordan.github.io/posts/muon).

    Keras applies Muon to matrices only and gives convolutions AdamW. Here Muon updates the kernels
    of convolutions, each as a matrix (height · width · channels in, channels out), as in the
    original; AdamW updates the classifier, BN's parameters and biases. The size of an update is
    that of arXiv:2502.16982, section 2.2, so AdamW's learning rates and decays fit.

    Args:
        matrix_dtype: precision in which a matrix is made orthogonal. The original takes bfloat16.
            CPUs without bfloat16 are slow at it.
        **kwargs: the arguments of `keras.optimizers.Muon`.
    """

    def __init__(self, *args: Any, matrix_dtype: str = "float32", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.matrix_dtype = matrix_dtype

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) != 4

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign(m, self.momentum * m + gradient)
        matrix = ops.reshape(gradient + self.momentum * m, (-1, variable.shape[-1]))
        matrix = ops.cast(matrix / (_norm(matrix) + 1e-7), self.matrix_dtype)
        matrix = self.zeropower_via_newtonschulz5(matrix, self.ns_steps)
        update = self.lr_adjust(ops.cast(matrix, variable.dtype))
        rate = ops.cast(lr, variable.dtype)
        self.assign_sub(variable, rate * ops.reshape(update, variable.shape))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "matrix_dtype": self.matrix_dtype}


@keras.saving.register_keras_serializable("keras_resnet")
class ScheduleFreeAdamW(_Adaptive):
    """AdamW without a schedule (arXiv:2405.15682, Algorithm 1).

    For each variable with gradient g at y, at update t = 1, 2, … and rate γ::

        v = β₂ · v + (1 − β₂) · g²
        z = z − γ · (g / (√(v / (1 − β₂ᵗ)) + ε) + decay · y)
        x = (1 − c) · x + c · z             (c = γ² / the sum of γ² so far)
        y = (1 − β₁) · z + β₁ · x

    The model holds y in training, and x is evaluated (`averages`). Only kernels are decayed.
    `keras.optimizers.ScheduleFreeAdamW` (3.15) is another algorithm: it takes x from y and the z
    that it has updated already, where the paper's is the z before; a test shows it.

    Args:
        learning_rate: γ.
        beta_1: of the interpolation between z and x.
        beta_2: of the mean of the squared gradients.
        epsilon: outside the root.
        kernel_decay: weight decay of the kernels, λ in the paper.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make z, the mean square and the sum of γ² of every variable."""
        if not self.built:
            super().build(variables)
            self._points, self._squares = self.add_optimizer_variables(variables, ["z", "square"])
            # For each variable, since a fine-tuning updates some of them later than others.
            self._weights, self._times = (
                [self.add_variable((), name=name, initializer="zeros") for _ in variables]
                for name in ("weight", "time")
            )
            for point, variable in zip(self._points, variables, strict=True):
                self.assign(point, variable)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        index = keras_compat.variable_index(self, variable)
        point, square, weight, steps = (
            slots[index] for slots in (self._points, self._squares, self._weights, self._times)
        )
        rate, time = ops.cast(learning_rate, variable.dtype), steps + 1
        average = (variable - (1 - self.beta_1) * point) / self.beta_1
        self.assign_add(square, (1 - self.beta_2) * (ops.square(gradient) - square))
        step = gradient / (ops.sqrt(square / (1 - self.beta_2**time)) + self.epsilon)
        if index in self._kernels:
            step += self.kernel_decay * variable
        moved = point - rate * step
        total = weight + ops.square(rate)
        share = ops.where(total > 0, ops.square(rate) / ops.maximum(total, 1e-30), 1.0)
        average += share * (moved - average)
        self.assign(weight, total)
        self.assign(steps, time)
        self.assign(point, moved)
        self.assign(variable, (1 - self.beta_1) * moved + self.beta_1 * average)

    def averages(self, variables: Sequence[keras.Variable]) -> list[Any]:
        """Return x for each of the variables that the optimizer was built for."""
        return [
            (ops.convert_to_numpy(y) - (1 - self.beta_1) * ops.convert_to_numpy(z)) / self.beta_1
            for y, z in zip(variables, self._points, strict=True)
        ]


def _sgd(config: OptimizerConfig, rate: Rate, decay: float) -> Optimizer:
    return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=config.nesterov)


def _adamw(config: OptimizerConfig, rate: Rate, decay: float) -> Optimizer:
    moments = {"beta_1": config.momentum, "beta_2": config.beta_2, "epsilon": config.epsilon}
    return keras.optimizers.AdamW(rate, weight_decay=decay, **moments)


def _schedule_free_adamw(config: OptimizerConfig, rate: Rate, decay: float) -> Optimizer:
    return ScheduleFreeAdamW(rate, config.momentum, config.beta_2, config.epsilon, decay)


def _muon(config: OptimizerConfig, rate: Rate, decay: float) -> Optimizer:
    adam = {"adam_beta_2": config.beta_2, "epsilon": config.epsilon, "adam_weight_decay": decay}
    policy = keras.config.dtype_policy().compute_dtype
    matrix = "bfloat16" if policy == "bfloat16" else "float32"  # float16 would overflow
    return Muon(rate, weight_decay=decay, momentum=config.momentum, matrix_dtype=matrix, **adam)


def _lamb(config: OptimizerConfig, rate: Rate, decay: float) -> Optimizer:
    return Lamb(rate, config.momentum, config.beta_2, config.epsilon, decay)


def _lars(config: OptimizerConfig, rate: Rate, decay: float) -> Optimizer:
    return Lars(rate, config.momentum, decay, config.trust)


Builder = Callable[[OptimizerConfig, Rate, float], Optimizer]

OPTIMIZERS: dict[str, Builder] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "schedule_free_adamw": _schedule_free_adamw,
    "muon": _muon,
    "lamb": _lamb,
    "lars": _lars,
}


def check(config: OptimizerConfig) -> None:
    """Refuse an unknown name, or Nesterov momentum for an optimizer without it.

    Raises:
        UserError: the name is unknown, or `nesterov` is set for another optimizer than sgd.
    """
    if config.name not in OPTIMIZERS:
        raise UnknownNameError("optimizer", config.name, OPTIMIZERS, "")
    if config.name == "schedule_free_adamw" and not config.momentum:
        raise UserError(
            "schedule_free_adamw divides by optimizer.momentum (its beta_1); received 0. Use 0.9."
        )
    if config.nesterov and config.name != "sgd":
        raise UserError(
            f"optimizer.nesterov is only for sgd; received it with '{config.name}'. "
            "Use --set optimizer.nesterov=false"
        )


def build(
    config: OptimizerConfig,
    rate: Rate,
    weight_decay: float,
    variables: Sequence[keras.Variable],
) -> tuple[Optimizer, float]:
    """Return the optimizer, and the L2 decay that the loop adds to the kernels' gradients.

    For SGD the loop adds the whole decay as L2 (He 2015). The other optimizers decay the kernels
    themselves, so the loop's decay is 0. AdamW's decay is separate from the gradient
    (arXiv:1711.05101); LAMB and LARS follow their equations.

    Args:
        config: the optimizer's config.
        rate: the learning rate or its schedule.
        weight_decay: weight decay of the kernels.
        variables: the trained variables; call this inside the scope of their strategy.

    Raises:
        UserError: see `check`.
    """
    check(config)
    optimizer = OPTIMIZERS[config.name](config, rate, weight_decay)
    optimizer.exclude_from_weight_decay([v for v in variables if v.name != "kernel"])
    return optimizer, weight_decay if config.name == "sgd" else 0.0

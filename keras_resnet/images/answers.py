"""How the outputs of a classifier are read: a softmax, one sigmoid, several sigmoids, or logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_resnet.errors import UserError

SOFTMAX, SIGMOID, LINEAR = "softmax", "sigmoid", "linear"
ACTIVATIONS = (SOFTMAX, SIGMOID, LINEAR)
# float32 knows a sigmoid near 1 to 6e-8, and so its logit there to 6e-8 / (1 - p).
_LEAST_SOFTMAX, _LEAST_SIGMOID = 1e-7, 1e-3
_PROBES, _PROBE_SIDE = 8, 224
_TIE = 1e-3  # of a probability: what a float model does not tell apart


@dataclass(frozen=True)
class Answers:
    """What the outputs of a classifier mean. Everything that reads an answer asks this class.

    | activation | outputs | the answer to an image |
    |---|---|---|
    | softmax | n | the class of the highest probability |
    | linear | n | the class of the highest logit; a softmax makes probabilities of them |
    | sigmoid | 1 | class 1 where the probability is over 1/2, else class 0 |
    | linear | 1 | the same, of the sigmoid of the logit |
    | sigmoid | n | for each class whether its probability is over 1/2 |

    Attributes:
        activation: what the outputs went through: "softmax", "sigmoid" or "linear" (logits).
        outputs: how many numbers the model gives for an image.
    """

    activation: str
    outputs: int

    def __post_init__(self) -> None:
        """Refuse what says nothing.

        Raises:
            UserError: a softmax over one output, which is always 1.
        """
        if (self.activation, self.outputs) == (SOFTMAX, 1):
            raise UserError(
                "The model ends in a softmax over one output, which is always 1. End it in "
                "Dense(1, activation='sigmoid'), or in two outputs, and train it again."
            )

    @property
    def classes(self) -> int:
        """How many classes there are to name; one sigmoid tells two apart."""
        return class_count(self.outputs)

    @property
    def binary(self) -> bool:
        """Whether one output tells two classes apart."""
        return self.outputs == 1

    @property
    def independent(self) -> bool:
        """Whether an image can have several classes, or none: several sigmoids."""
        return self.activation == SIGMOID and not self.binary

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Turn outputs (n, outputs) into the probability of every class, (n, classes)."""
        if self.binary:
            positive = _sigmoid(outputs) if self.activation == LINEAR else outputs
            return np.concatenate([1 - positive, positive], axis=-1)
        if self.activation != LINEAR:
            return outputs
        exponentials = np.exp(outputs - outputs.max(-1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))

    def logits(self, outputs: np.ndarray) -> np.ndarray:
        """Turn outputs into logits; those of a softmax are known up to a constant per row.

        They are cut off where float32's softmax or sigmoid is itself coarse.
        """
        if self.activation == LINEAR:
            return outputs
        if self.activation == SOFTMAX:
            return np.log(np.clip(outputs, _LEAST_SOFTMAX, None))
        inside = np.clip(outputs, _LEAST_SIGMOID, 1 - _LEAST_SIGMOID)
        return np.log(inside) - np.log1p(-inside)

    def decisions(self, outputs: np.ndarray) -> np.ndarray:
        """Return what the model answers.

        Returns:
            The class of every image, int (n,); of independent classes bool (n, classes).
        """
        if self.independent:
            return outputs > 0.5
        return self.probabilities(outputs).argmax(-1)

    def accuracy(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of right answers.

        Args:
            outputs: (n, outputs).
            labels: the class of every image, (n,). For independent classes also 0 or 1 for every
                class, (n, classes): then every class of every image is an answer. With one class an
                image, the model's most probable one is its answer.
        """
        if labels.ndim == 2:
            return float((self.decisions(outputs) == labels.astype(bool)).mean())
        return float((self.probabilities(outputs).argmax(-1) == labels).mean())

    def same(self, outputs: np.ndarray, expected: np.ndarray, *, one: bool = False) -> np.ndarray:
        """Return which answers are those of `expected`, bool, of the shape of `decisions`.

        With `one`, independent classes too are compared by the most probable of each image.
        """
        if one and self.independent:
            return np.asarray(outputs.argmax(-1) == expected.argmax(-1))
        return np.asarray(self.decisions(outputs) == self.decisions(expected))

    def same_up_to_ties(
        self, outputs: np.ndarray, expected: np.ndarray, step: float = 0.0, *, one: bool = False
    ) -> np.ndarray:
        """Return `same`, where another answer counts too if `expected` is as good as undecided.

        That is a class rated as high as the best up to a thousandth of the row's spread, or a
        probability that near to 1/2; or up to `step`, the least difference that a quantized output
        can express (at most a tenth of the spread).
        """
        if self.binary or (self.independent and not one):
            probabilities = expected if self.independent else self.probabilities(expected)[:, 1]
            margin = max(_TIE, min(step, 0.1))
            return self.same(outputs, expected) | (np.abs(probabilities - 0.5) <= margin)
        chosen = np.take_along_axis(expected, outputs.argmax(-1)[:, None], axis=-1)[:, 0]
        spread = np.ptp(expected, axis=-1)
        margins = np.maximum(_TIE * spread, np.minimum(step, 0.1 * spread))
        return np.asarray(expected.max(-1) - chosen <= margins)


def class_count(outputs: int) -> int:
    """Return how many classes a model of so many outputs tells apart: of one output, two."""
    return 2 if outputs == 1 else outputs


def names_of(labels: Sequence[object] | None, outputs: int) -> tuple[str, ...] | None:
    """Return the names of all classes of a model; None where there are no labels.

    Args:
        labels: a name for each class. For a model of one output two names, or one: that of the
            class that a high output stands for.
        outputs: how many the model has.

    Raises:
        UserError: too few names or too many.
    """
    if labels is None:
        return None
    names = tuple(map(str, labels))
    if outputs == 1 and len(names) == 1:
        names = (f"not {names[0]}", *names)
    if len(names) != class_count(outputs):
        wanted = "one output, so it takes 1 or 2" if outputs == 1 else f"{outputs} classes"
        raise UserError(f"{len(names)} class names for a model of {wanted}.")
    return names


def numbered(names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """Return the class names, or "class 0", "class 1", … where there are none."""
    return tuple(names) if names else tuple(f"class {index}" for index in range(classes))


def are_probabilities(outputs: np.ndarray, step: float = 0.0) -> bool:
    """Return whether every row is a distribution, up to rounding to multiples of `step`."""
    slack = 1e-3 + outputs.shape[-1] * step / 2
    return _in_range(outputs) and bool(np.abs(outputs.sum(-1) - 1).max() <= slack)


def told_by(outputs: np.ndarray, step: float = 0.0) -> str:
    """Return the activation that these outputs look like, for a model whose graph does not tell.

    Rows that sum to 1 are a softmax; numbers from 0 to 1 are sigmoids; all others are logits.
    """
    if outputs.shape[-1] > 1 and are_probabilities(outputs, step):
        return SOFTMAX
    return SIGMOID if _in_range(outputs) else LINEAR


def noise(shape: Sequence[int | None]) -> np.ndarray:
    """Return images of noise, uint8, for `told_by` to look at what a model makes of them.

    Args:
        shape: (height, width, channels); 224 pixels are taken where a side is free.
    """
    sides = (_PROBES, *(side or _PROBE_SIDE for side in shape))
    return np.random.default_rng(0).integers(0, 256, sides).astype("uint8")


def agreed(said: str | None, told: str | None) -> str | None:
    """Return the activation that was said or that the graph tells; None where neither is known.

    Raises:
        UserError: `said` is no activation, or the graph tells another.
    """
    if said is None:
        return told
    if said not in ACTIVATIONS:
        raise UserError(f"activation is one of {', '.join(ACTIVATIONS)}; received {said!r}.")
    if told not in (None, said):
        raise UserError(
            f"activation='{said}' was given, but the model ends in '{told}': its graph tells. "
            "Leave activation (--activation) out."
        )
    return said


def _in_range(outputs: np.ndarray) -> bool:
    return bool(outputs.min() >= 0 and outputs.max() <= 1 + 1e-3)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """Of large negative numbers too, whose exponential overflows."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), logits.dtype)

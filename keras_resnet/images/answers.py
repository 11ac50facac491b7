"""Interpret the outputs of a classifier: a softmax, one sigmoid, several sigmoids, or logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_resnet.errors import UserError

SOFTMAX, SIGMOID, LINEAR = "softmax", "sigmoid", "linear"
ACTIVATIONS = (SOFTMAX, SIGMOID, LINEAR)
# In float32 a sigmoid near 1 is exact to 6e-8, and so its logit to 6e-8 / (1 - p).
_LEAST_SOFTMAX, _LEAST_SIGMOID = 1e-7, 1e-3
_PROBES, _PROBE_SIDE = 8, 224
_TIE = 1e-3  # of a probability: a difference too small for a float model to decide


@dataclass(frozen=True)
class Answers:
    """The meaning of a classifier's outputs. All code that reads an answer uses this class.

    | activation | outputs | the answer to an image |
    |---|---|---|
    | softmax | n | the class of the highest probability |
    | linear | n | the class of the highest logit; a softmax makes probabilities of them |
    | sigmoid | 1 | class 1 if the probability is over 1/2, else class 0 |
    | linear | 1 | the same, of the sigmoid of the logit |
    | sigmoid | n | for each class, True if its probability is over 1/2 |

    Attributes:
        activation: the activation of the outputs: "softmax", "sigmoid" or "linear" (logits).
        outputs: number of outputs for one image.
    """

    activation: str
    outputs: int

    def __post_init__(self) -> None:
        """Refuse a model whose outputs mean nothing.

        Raises:
            UserError: a softmax over one output, which is always 1.
        """
        if (self.activation, self.outputs) == (SOFTMAX, 1):
            raise UserError(
                "The model ends in a softmax over one output, which is always 1. Replace it with "
                "Dense(1, activation='sigmoid') or with two outputs, and train again."
            )

    @property
    def classes(self) -> int:
        """Number of classes to name. A single output distinguishes two."""
        return class_count(self.outputs)

    @property
    def binary(self) -> bool:
        """True if one output distinguishes two classes."""
        return self.outputs == 1

    @property
    def independent(self) -> bool:
        """True if an image can have several classes or none: several sigmoids."""
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
        """Turn outputs into logits. For a softmax they are exact up to a constant per row.

        They are clipped where the softmax or sigmoid is coarse in float32.
        """
        if self.activation == LINEAR:
            return outputs
        if self.activation == SOFTMAX:
            return np.log(np.clip(outputs, _LEAST_SOFTMAX, None))
        inside = np.clip(outputs, _LEAST_SIGMOID, 1 - _LEAST_SIGMOID)
        return np.log(inside) - np.log1p(-inside)

    def decisions(self, outputs: np.ndarray) -> np.ndarray:
        """Return the model's decisions.

        Returns:
            The class of every image, int (n,); for independent classes bool (n, classes).
        """
        if self.independent:
            return outputs > 0.5
        return self.probabilities(outputs).argmax(-1)

    def accuracy(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of correct answers.

        Args:
            outputs: (n, outputs).
            labels: the class of every image, (n,). For independent classes also 0 or 1 for every
                class, (n, classes): then each class of each image is one answer. With one class per
                image, the answer is the model's most probable class.
        """
        if labels.ndim == 2:
            return float((self.decisions(outputs) == labels.astype(bool)).mean())
        return float((self.probabilities(outputs).argmax(-1) == labels).mean())

    def same(self, outputs: np.ndarray, expected: np.ndarray, *, one: bool = False) -> np.ndarray:
        """Return True where the answers equal those of `expected`, in the shape of `decisions`.

        With `one`, the most probable class of each image is compared for independent classes too.
        """
        if one and self.independent:
            return np.asarray(outputs.argmax(-1) == expected.argmax(-1))
        return np.asarray(self.decisions(outputs) == self.decisions(expected))

    def same_up_to_ties(
        self, outputs: np.ndarray, expected: np.ndarray, step: float = 0.0, *, one: bool = False
    ) -> np.ndarray:
        """Return `same`, but also True if `expected` is nearly undecided between the two answers.

        Undecided means that the class's score is within a thousandth of the row's spread of the
        best, or that a probability is within a thousandth of 1/2. The margin grows to `step`, the
        smallest difference of a quantized output, but at most to a tenth of the spread.
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
    """Return the number of classes for a number of outputs. One output means two classes."""
    return 2 if outputs == 1 else outputs


def names_of(labels: Sequence[object] | None, outputs: int) -> tuple[str, ...] | None:
    """Return the names of all classes of a model; None if there are no labels.

    Args:
        labels: a name for each class. For a model with one output two names, or only the name of
            the class that a high output means.
        outputs: number of outputs of the model.

    Raises:
        UserError: the number of names does not fit.
    """
    if labels is None:
        return None
    names = tuple(map(str, labels))
    if outputs == 1 and len(names) == 1:
        names = (f"not {names[0]}", *names)
    if len(names) != class_count(outputs):
        wanted = "one output, which needs 1 or 2" if outputs == 1 else f"{outputs} classes"
        raise UserError(f"There are {len(names)} class names for a model with {wanted}.")
    return names


def numbered(names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """Return the class names, or "class 0", "class 1", … without names."""
    return tuple(names) if names else tuple(f"class {index}" for index in range(classes))


def are_probabilities(outputs: np.ndarray, step: float = 0.0) -> bool:
    """Return True if every row is a distribution, up to rounding to multiples of `step`."""
    slack = 1e-3 + outputs.shape[-1] * step / 2
    return _in_range(outputs) and bool(np.abs(outputs.sum(-1) - 1).max() <= slack)


def told_by(outputs: np.ndarray, step: float = 0.0) -> str:
    """Return the likely activation of these outputs, if the graph of the model does not show it.

    Rows that sum to 1 are a softmax; numbers from 0 to 1 are sigmoids; all others are logits.
    """
    if outputs.shape[-1] > 1 and are_probabilities(outputs, step):
        return SOFTMAX
    return SIGMOID if _in_range(outputs) else LINEAR


def noise(shape: Sequence[int | None]) -> np.ndarray:
    """Return images of noise, uint8, to get outputs for `told_by`.

    Args:
        shape: (height, width, channels). A free side becomes 224 pixels.
    """
    sides = (_PROBES, *(side or _PROBE_SIDE for side in shape))
    return np.random.default_rng(0).integers(0, 256, sides).astype("uint8")


def agreed(said: str | None, told: str | None) -> str | None:
    """Return the activation that was given or that the graph shows; None if neither is known.

    Raises:
        UserError: `said` is no activation, or the graph shows another.
    """
    if said is None:
        return told
    if said not in ACTIVATIONS:
        raise UserError(f"activation must be one of {', '.join(ACTIVATIONS)}; received {said!r}.")
    if told not in (None, said):
        raise UserError(
            f"activation='{said}' was given, but the model ends in '{told}', as its graph shows. "
            "Remove activation (--activation)."
        )
    return said


def _in_range(outputs: np.ndarray) -> bool:
    return bool(outputs.min() >= 0 and outputs.max() <= 1 + 1e-3)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """Compute the sigmoid, also for large negative numbers, whose exponential overflows."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), logits.dtype)

"""Filter pruning: find the least important filters, and build the smaller network without them.

`recipes/compress.py` trains the result further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_resnet.analysis.profile import profile
from keras_resnet.arguments import checked
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.recipes.compression.channels import Channels, Family, Numbers, filter_scores

# Criteria: pairs of channel numbers and their scores ---------------------------------------------

Scores = Iterable[tuple[Numbers, np.ndarray]]


def _l1(channels: Channels) -> Scores:
    """Yield the mean |w| of the filter that makes each channel (arXiv:1608.08710)."""
    for step in channels.graph.steps:
        scores = filter_scores(step.operation)
        if scores is not None:
            yield channels.of[step.outputs[0]], scores


def _gamma(channels: Channels) -> Scores:
    """Yield |gamma| of the BN layers that scale each channel (arXiv:1708.06519)."""
    for step in channels.graph.steps:
        layer = step.operation
        if isinstance(layer, keras.layers.BatchNormalization) and layer.scale:
            yield channels.of[step.outputs[0]], np.abs(layer.get_weights()[0])


CRITERIA: dict[str, Callable[[Channels], Scores]] = {"l1": _l1, "gamma": _gamma}


def importance(channels: Channels, criterion: str) -> np.ndarray:
    """Return a score for every root: the mean over the layers of its channels.

    First, each layer's scores are divided by their mean, because kernels with different fan-in have
    weights of different sizes. A channel without BN is scored by its filter.
    """
    if criterion not in CRITERIA:
        raise UnknownNameError("criterion", criterion, CRITERIA, "")
    scores, counts = _mean_scores(channels, CRITERIA[criterion](channels))
    missing = counts == 0
    if missing.any():
        scores[missing] = _mean_scores(channels, _l1(channels))[0][missing]
    return scores


def _mean_scores(channels: Channels, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    sums, counts = np.zeros((2, len(channels.roots)))
    for numbers, values in scores:
        roots = channels.roots[numbers]
        np.add.at(sums, roots, values / max(values.mean(), np.finfo(values.dtype).tiny))
        np.add.at(counts, roots, 1)
    return sums / np.maximum(counts, 1), counts


# The number of filters to keep in each family ----------------------------------------------------

Counts = list[int]


def _uniform(families: list[Family], scores: np.ndarray, share: float) -> Counts:
    """Keep the same share of every family."""
    return [round(share * family.size) for family in families]


def _inner(families: list[Family], scores: np.ndarray, share: float) -> Counts:
    """Keep everything that additions tie together, and the same share of every other family."""
    return [
        family.size if len(family.makers) > 1 else round(share * family.size) for family in families
    ]


def _global(families: list[Family], scores: np.ndarray, share: float) -> Counts:
    """Keep the best filters of all families together."""
    roots = np.concatenate([family.roots for family in families])
    order = np.argsort(-scores[roots], kind="stable")
    owners = np.repeat(np.arange(len(families)), [family.size for family in families])
    best = owners[order[: round(share * owners.size)]]
    return np.bincount(best, minlength=len(families)).tolist()


RANKINGS: dict[str, Callable[[list[Family], np.ndarray, float], Counts]] = {
    "uniform": _uniform,
    "inner": _inner,
    "global": _global,
}


@dataclass(frozen=True)
class _Budget:
    """Families with their best filters first, and the limits on the filters to keep."""

    channels: Channels
    families: list[Family]
    scores: np.ndarray
    least: int
    divisor: int

    @property
    def total(self) -> int:
        """The number of filters (roots) in all families."""
        return sum(family.size for family in self.families)

    def counts(self, ranking: str, share: float) -> Counts:
        """Return the ranking's counts, adjusted to `least` and `divisor`."""
        wanted = RANKINGS[ranking](self.families, self.scores, share)
        pairs = zip(wanted, self.families, strict=True)
        return [self._allowed(count, family.size) for count, family in pairs]

    def _allowed(self, count: int, size: int) -> int:
        multiple = max(1, round(count / self.divisor), -(-self.least // self.divisor))
        return min(size, self.divisor * multiple)

    def mask(self, counts: Counts) -> np.ndarray:
        """Return the mask of the channels to keep."""
        pairs = zip(self.families, counts, strict=True)
        kept = [family.roots[:count] for family, count in pairs]
        return self.channels.mask(np.concatenate(kept))

    def multiply_adds(self, counts: Counts) -> int:
        """Return the multiply-adds that remain with these counts."""
        return self.channels.multiply_adds(self.mask(counts))

    def largest(self, ranking: str, most: int) -> Counts:
        """Return the ranking's largest counts with at most `most` multiply-adds."""
        low, high = 0, self.total  # a larger total never lowers the count of a family
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.multiply_adds(self.counts(ranking, middle / self.total)) <= most
            low, high = (middle, high) if fits else (low, middle)
        return self._filled_up(self.counts(ranking, low / self.total), most)

    def _filled_up(self, counts: Counts, most: int) -> Counts:
        """Add a few filters while the limit allows it, first where most were removed."""
        shares = [n / family.size for n, family in zip(counts, self.families, strict=True)]
        for index in np.argsort(shares, kind="stable"):
            more = list(counts)
            more[index] = min(self.families[index].size, counts[index] + self.divisor)
            if self.multiply_adds(more) <= most:
                counts = more
        return counts


def choose(
    channels: Channels,
    share: float,
    *,
    criterion: str = "l1",
    ranking: str = "uniform",
    least: int = 4,
    divisor: int = 1,
) -> np.ndarray:
    """Return a mask of the channels to keep; see `prune_filters`."""
    if not 0 < share < 1:
        raise UserError(
            f"The part of the multiply-adds to keep must be between 0 and 1; received {share}. "
            "Example: --keep 0.5 (multiply_adds=0.5)."
        )
    for name, count in (("least", least), ("divisor", divisor)):
        if not isinstance(count, Integral) or count < 1:
            raise UserError(f"{name} must be a number of filters, at least 1; received {count!r}.")
    if ranking not in RANKINGS:
        raise UnknownNameError("ranking", ranking, RANKINGS, "")
    scores = importance(channels, criterion)
    families = [
        Family(f.makers, f.roots[np.argsort(-scores[f.roots], kind="stable")])
        for f in channels.families()
    ]
    if not families:
        raise UserError(
            f"'{channels.model.name}' has no filters that can be removed. Use another network."
        )
    budget = _Budget(channels, families, scores, least, divisor)
    whole = budget.multiply_adds([family.size for family in families])
    smallest, most = budget.multiply_adds(budget.counts(ranking, 0)), round(share * whole)
    if smallest > most:
        raise UserError(
            f"'{channels.model.name}' cannot be pruned to {share:.1%} of its multiply-adds: at "
            f"least {smallest / whole:.1%} remain with {least} filters per layer, multiples of "
            f"{divisor} and the ranking '{ranking}'. Keep more, or lower least or divisor"
            + (", or also remove tied channels: ranking 'uniform'." if ranking == "inner" else ".")
        )
    return budget.mask(budget.largest(ranking, most))


# The network --------------------------------------------------------------------------------------


@checked
def prune_filters(
    model: keras.Model,
    multiply_adds: float = 0.5,
    *,
    criterion: str = "l1",
    ranking: str = "uniform",
    least: int = 4,
    divisor: int = 1,
) -> keras.Model:
    """Return a smaller network: `model` without its least important filters.

    The remaining filters keep their trained weights. The network computes the same as `model` with
    the removed channels set to zero. Channels that an addition ties together are removed together,
    and a grouped convolution loses whole groups. The channels of the images and the classes stay.
    Train the result further afterwards.

    Args:
        model: a trained classifier with a fixed image size, from (batch, height, width, channels)
            to (batch, classes). It may have Conv2D, DepthwiseConv2D, Dense, BN, pooling, additions,
            products, concatenations and other layers that work channel by channel.
        multiply_adds: the largest share of the multiply-adds to keep, counted as in
            `keras_resnet.profile`.
        criterion: the measure of a filter's importance, a key of `CRITERIA`: "l1", its mean |w|
            (arXiv:1608.08710), or "gamma", |gamma| of its BN (arXiv:1708.06519).
        ranking: "uniform" (default) keeps the same share in all layers, and the best filters in
            each. The norms of two layers say little about which layer can lose filters, and with
            "uniform" no layer becomes empty. "inner" keeps all channels that additions tie, such
            as the width of a residual stage, and the same share of all others (arXiv:1608.08710
            removes only the first filters of a unit). "global" compares the scores of all layers,
            relative to their layer's mean.
        least: least number of filters to keep in each layer (or family of tied layers).
        divisor: keep multiples of this number; 8 suits int8 kernels. A layer that keeps all its
            filters is unchanged.

    Returns:
        A float32 model of stock Keras layers with the same name, layer names, input shape and
        classes.

    Raises:
        UserError: a layer that channels cannot be followed through (the message has its name), a
            share that cannot be reached, or an unknown criterion or ranking.
    """
    channels = Channels(model)
    kept = choose(
        channels,
        multiply_adds,
        criterion=criterion,
        ranking=ranking,
        least=least,
        divisor=divisor,
    )
    return channels.without(kept)


def compare(before: keras.Model, after: keras.Model) -> dict[str, Any]:
    """Return [before, after] of filters (total and by layer), multiply-adds and parameters."""
    accounts = [profile(before), profile(after)]
    kernels = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    names = [layer.name for layer in after.layers if isinstance(layer, kernels)]
    layers = {
        name: [int(model.get_layer(name).output.shape[-1]) for model in (before, after)]
        for name in names
    }
    return {
        "filters": [sum(pair[i] for pair in layers.values()) for i in (0, 1)],
        "multiply_adds": [account.total.multiply_adds for account in accounts],
        "parameters": [model.count_params() for model in (before, after)],
        "filters_by_layer": layers,
    }

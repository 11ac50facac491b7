"""Filter pruning: which filters matter least, and the smaller network without them.

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
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.recipes.compression.channels import Channels, Family, Numbers, filter_scores

# Criteria: numbers of channels, and what each of them is worth -----------------------------------

Scores = Iterable[tuple[Numbers, np.ndarray]]


def _l1(channels: Channels) -> Scores:
    """The mean |w| of the filter that makes a channel (arXiv:1608.08710)."""
    for step in channels.graph.steps:
        scores = filter_scores(step.operation)
        if scores is not None:
            yield channels.of[step.outputs[0]], scores


def _gamma(channels: Channels) -> Scores:
    """|gamma| of the BN layers that scale a channel (arXiv:1708.06519)."""
    for step in channels.graph.steps:
        layer = step.operation
        if isinstance(layer, keras.layers.BatchNormalization) and layer.scale:
            yield channels.of[step.outputs[0]], np.abs(layer.get_weights()[0])


CRITERIA: dict[str, Callable[[Channels], Scores]] = {"l1": _l1, "gamma": _gamma}


def importance(channels: Channels, criterion: str) -> np.ndarray:
    """Return a score for every root: the mean over the layers that its channels belong to.

    Each layer's scores are divided by their mean first: kernels of different fan-in have weights of
    different size. A channel without BN is judged by its filter.
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


# How many of each family stay --------------------------------------------------------------------

Counts = list[int]


def _uniform(families: list[Family], scores: np.ndarray, share: float) -> Counts:
    """The same share of every family."""
    return [round(share * family.size) for family in families]


def _inner(families: list[Family], scores: np.ndarray, share: float) -> Counts:
    """All that additions tie together, and the same share of every other family."""
    return [
        family.size if len(family.makers) > 1 else round(share * family.size) for family in families
    ]


def _global(families: list[Family], scores: np.ndarray, share: float) -> Counts:
    """The best of all, wherever they are."""
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
    """Families, their best filters first, and how many of each may stay."""

    channels: Channels
    families: list[Family]
    scores: np.ndarray
    least: int
    divisor: int

    @property
    def total(self) -> int:
        """Filters (roots) of all families."""
        return sum(family.size for family in self.families)

    def counts(self, ranking: str, share: float) -> Counts:
        """What the ranking wants, as far as `least` and `divisor` allow."""
        wanted = RANKINGS[ranking](self.families, self.scores, share)
        pairs = zip(wanted, self.families, strict=True)
        return [self._allowed(count, family.size) for count, family in pairs]

    def _allowed(self, count: int, size: int) -> int:
        multiple = max(1, round(count / self.divisor), -(-self.least // self.divisor))
        return min(size, self.divisor * multiple)

    def mask(self, counts: Counts) -> np.ndarray:
        """Which channels stay."""
        pairs = zip(self.families, counts, strict=True)
        kept = [family.roots[:count] for family, count in pairs]
        return self.channels.mask(np.concatenate(kept))

    def multiply_adds(self, counts: Counts) -> int:
        """What is left."""
        return self.channels.multiply_adds(self.mask(counts))

    def largest(self, ranking: str, most: int) -> Counts:
        """The ranking's largest choice of at most so many multiply-adds."""
        low, high = 0, self.total  # more filters in all are not fewer in any family
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.multiply_adds(self.counts(ranking, middle / self.total)) <= most
            low, high = (middle, high) if fits else (low, middle)
        return self._filled_up(self.counts(ranking, low / self.total), most)

    def _filled_up(self, counts: Counts, most: int) -> Counts:
        """A few more filters where there still is room: first where most were removed."""
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
    """Return which channels stay (a truth value for each); see `prune_filters`."""
    if not 0 < share < 1:
        raise UserError(f"The part of the multiply-adds to keep is between 0 and 1; got {share}.")
    for name, count in (("least", least), ("divisor", divisor)):
        if not isinstance(count, Integral) or count < 1:
            raise UserError(f"{name} is a number of filters, at least 1; received {count!r}.")
    if ranking not in RANKINGS:
        raise UnknownNameError("ranking", ranking, RANKINGS, "")
    scores = importance(channels, criterion)
    families = [
        Family(f.makers, f.roots[np.argsort(-scores[f.roots], kind="stable")])
        for f in channels.families()
    ]
    if not families:
        raise UserError(f"'{channels.model.name}' has no filters that can be removed.")
    budget = _Budget(channels, families, scores, least, divisor)
    whole = budget.multiply_adds([family.size for family in families])
    smallest, most = budget.multiply_adds(budget.counts(ranking, 0)), round(share * whole)
    if smallest > most:
        raise UserError(
            f"'{channels.model.name}' cannot be pruned to {share:.1%} of its multiply-adds: "
            f"{smallest / whole:.1%} are left with {least} filters a layer, in multiples of "
            f"{divisor}, by the ranking '{ranking}'. Keep more, or lower least or divisor"
            + (", or let tied channels go: ranking 'uniform'." if ranking == "inner" else ".")
        )
    return budget.mask(budget.largest(ranking, most))


# The network --------------------------------------------------------------------------------------


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

    What stays has its trained weights, and the network computes what `model` does with the removed
    channels at zero. Channels that additions tie together go together, a grouped convolution loses
    whole groups; the images' channels and the classes stay. Train it on afterwards.

    Args:
        model: a trained classifier of one image size, (batch, height, width, channels) to (batch,
            classes): Conv2D, DepthwiseConv2D, Dense, BN, pooling, additions, products,
            concatenations and other layers that work channel by channel.
        multiply_adds: the share of the multiply-adds that is left, at most; counted as
            `keras_resnet.profile` does.
        criterion: what makes a filter important, a key of `CRITERIA`: "l1", its mean |w|
            (arXiv:1608.08710), or "gamma", |gamma| of its BN (arXiv:1708.06519).
        ranking: "uniform" keeps the same share in all layers and the best within each. It is the
            default since the norms of two layers say little about which layer can spare filters,
            and no layer is emptied. "inner" keeps what additions tie, the width that a residual
            stage adds up in, and the same share of all else (arXiv:1608.08710 removes only the
            first filters of a unit). "global" compares the scores, relative to their layer's mean.
        least: filters that stay in each layer (or family of tied ones), if it has as many.
        divisor: keep multiples of it; 8 suits int8 kernels. A layer that keeps all is left as is.

    Returns:
        A float32 model of stock Keras layers, of the same name and layer names, from the same
        (batch, height, width, channels) to (batch, classes).

    Raises:
        UserError: a layer that channels cannot be followed through (the message names it), a share
            that cannot be reached, an unknown criterion or ranking.
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
    """Return [before, after] of filters (in all, by layer), multiply-adds and parameters."""
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

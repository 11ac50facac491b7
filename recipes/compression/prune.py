"""Magnitude pruning with tensorflow-model-optimization: the smallest weights become zeros.

During training, a growing share of each kernel is masked (arXiv:1710.01878).
`zeros_and_clusters.shares` sets the number of zeros in each layer. The result is the start network
with zeros in its kernels. Its files have the same size, but compress well.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_resnet.errors import UserError, require
from keras_resnet.recipes.compression import zeros_and_clusters
from keras_resnet.recipes.compression.compressed import TFMOT, Compressed
from keras_resnet.recipes.compression.to_tf_keras import to_legacy
from keras_resnet.recipes.configs.schema import CompressConfig
from keras_resnet.recipes.training import transfer
from keras_resnet.recipes.training.job import Job
from keras_resnet.recipes.training.transfer import Shape

_UPDATES = 100  # updates of the masks during the ramp
_PATTERNS = {"": None, "2:4": (2, 4)}


class Pruned(Compressed):
    """Magnitude pruning of a trained network."""

    averages = False

    def build(self, job: Job, shape: Shape) -> Any:
        """Return a tf_keras model with masks."""
        sparsity = require(TFMOT, "compress").sparsity.keras
        choice, goals = job.config.compress, _goals(self.start, job.config.compress)
        # Each forward pass counts as a step of the masks.
        steps = job.total_steps * job.config.train.accumulate

        def wrap(layer: Any) -> Any:
            if not goals.get(layer.name):
                return layer
            return sparsity.prune_low_magnitude(
                layer,
                _schedule(sparsity, goals[layer.name], choice, steps),
                sparsity_m_by_n=_PATTERNS[choice.pattern],
            )

        legacy = to_legacy(transfer.same(self.start, shape))
        masked = require("tf_keras", "compress").models.clone_model(legacy, clone_function=wrap)
        for layer in _masked_layers(masked):
            layer.pruning_step.assign(0)  # -1 would wait for a callback of `fit`
        return masked

    def result(self, job: Job, trained: Any) -> keras.Model:
        """Return the start network with the trained and masked weights."""
        wrapped = {layer.layer.name: layer for layer in _masked_layers(trained)}
        network = transfer.same(self.start, trained.input_shape[1:])
        for layer in network.layers:
            if layer.name in wrapped:
                ((kernel, mask, _),) = wrapped[layer.name].pruning_vars
                _, *others = wrapped[layer.name].layer.get_weights()
                layer.set_weights([(kernel * mask).numpy(), *others])
            elif layer.weights:
                layer.set_weights(trained.get_layer(layer.name).get_weights())
        return network


def _goals(start: keras.Model, choice: CompressConfig) -> dict[str, float]:
    """Return the final share of zeros of each kernel, by layer."""
    if choice.pattern not in _PATTERNS:
        raise UserError(f"compress.pattern must be '' or '2:4'; received '{choice.pattern}'.")
    found = zeros_and_clusters.find(start)
    if not choice.pattern:
        return zeros_and_clusters.shares(found, choice.sparsity, choice.allocation)
    whole = {name for name, kernel in found.items() if kernel.shape[-2] % 4 == 0}
    return dict.fromkeys(whole, 0.5)


def _schedule(sparsity: Any, goal: float, choice: CompressConfig, steps: int) -> Any:
    """Return tfmot's schedule: a cubic curve from no zeros to `goal`.

    The pattern 2:4 has its full share from the start; only the places of its zeros change.
    """
    begin, end = (1 + round(part * steps) for part in choice.ramp)
    every = max(1, (end - begin) // _UPDATES)
    end = begin + (end - begin) // every * every  # the last update, which reaches the goal
    if choice.pattern:
        return sparsity.ConstantSparsity(goal, begin, max(end, begin), every)
    return sparsity.PolynomialDecay(0.0, goal, begin, max(end, begin + 1), 3, every)


def _masked_layers(model: Any) -> list[Any]:
    return [layer for layer in model.layers if hasattr(layer, "pruning_vars")]

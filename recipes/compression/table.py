"""The table of compression techniques, and the choice of a run's trainee."""

from __future__ import annotations

import keras

from keras_resnet.errors import UnknownNameError
from keras_resnet.recipes.compression.cluster import Clustered
from keras_resnet.recipes.compression.compressed import Compressed
from keras_resnet.recipes.compression.prune import Pruned
from keras_resnet.recipes.compression.qat import QuantizationAware
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.recipes.training.trainee import FineTuned, FromScratch, Trainee

TECHNIQUES: dict[str, type[Compressed]] = {
    "cluster": Clustered,
    "prune": Pruned,
    "qat": QuantizationAware,
}


def technique(config: Config) -> type[Compressed]:
    """Return the technique that `compress.technique` names.

    Raises:
        UnknownNameError: an unknown technique.
    """
    name = config.compress.technique
    if name not in TECHNIQUES:
        raise UnknownNameError("compress.technique", name, TECHNIQUES, "")
    return TECHNIQUES[name]


def choose_trainee(config: Config, start: keras.Model | None) -> Trainee:
    """Return the trainee for a run of `config`; `start` is the trained network, or None.

    Raises:
        UnknownNameError: an unknown technique.
    """
    kind = technique(config) if config.compress.technique else FineTuned
    return FromScratch() if start is None else kind(start)

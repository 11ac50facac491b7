"""A trained network that becomes smaller while it is trained further: what all techniques share."""

from __future__ import annotations

from typing import Any, ClassVar

import keras

from keras_resnet.errors import UserError
from keras_resnet.recipes.compression import zeros_and_clusters
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.recipes.data.datasets import Dataset
from keras_resnet.recipes.training import transfer
from keras_resnet.recipes.training.job import Job
from keras_resnet.recipes.training.trainee import Trained

TFMOT = "tensorflow_model_optimization"


class Compressed(Trained):
    """What a technique trains; each technique is a class derived from this one.

    A technique trains in a process of its own (`process.py`), since the import of
    tensorflow-model-optimization turns `tf.keras` into tf_keras. Both processes check; only that
    one calls `build` and what follows. So a technique's file imports the package in `build`.

    Attributes:
        averages: whether the mean of the weights of several steps is as compressed as they are.
    """

    averages: ClassVar[bool]

    def check(self, config: Config) -> None:
        """Refuse averaged weights if averaging undoes the technique."""
        super().check(config)
        if config.train.ema and not self.averages:
            raise UserError(
                "train.ema averages weights, which brings back what was pruned and new values "
                "between the clusters; set train.ema=0."
            )

    def ema(self, config: Config) -> float:
        """Return the decay of the averaged weights to train with.

        Raises:
            UserError: an unknown `compress.preserve`, or one for what the network does not have.
        """
        return config.train.ema

    def require_fit(self, config: Config, dataset: Dataset) -> None:
        """Refuse another number of classes, since the head is kept."""
        transfer.require_classes(self.start, len(dataset.class_names))

    def about(self, job: Job, result: keras.Model) -> dict[str, Any]:
        """Return the technique, and how many zeros and distinct values the kernels have."""
        return {
            "technique": job.config.compress.technique,
            "kernels": zeros_and_clusters.report(result),
        }

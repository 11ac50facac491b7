"""The base class of all compression techniques that train a network further."""

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
    """The base class of the trainees that compress a network.

    A technique trains in a separate process (`process.py`), because importing
    tensorflow-model-optimization turns `tf.keras` into tf_keras. Both processes call the checks.
    Only the separate process calls `build` and the later methods, so techniques import the package
    in `build`.

    Attributes:
        averages: True if the average of compressed weights is compressed too.
    """

    averages: ClassVar[bool]

    def check(self, config: Config) -> None:
        """Refuse averaged weights if averaging undoes the technique, and rematerialisation."""
        super().check(config)
        if config.train.remat:
            raise UserError(
                "train.remat is only for Keras 3 models, but compression trains tf_keras models. "
                "To save memory, use --set train.accumulate=2"
            )
        if config.train.ema and not self.averages:
            raise UserError(
                "train.ema averages weights, which would undo pruning and clustering; received "
                f"{config.train.ema}. Use --set train.ema=0"
            )

    def ema(self, config: Config) -> float:
        """Return the decay of the averaged weights.

        Raises:
            UserError: an unknown `compress.preserve`, or the network has no such zeros or clusters.
        """
        return config.train.ema

    def require_fit(self, config: Config, dataset: Dataset) -> None:
        """Refuse a different number of classes, because the head is kept."""
        transfer.require_classes(self.start, len(dataset.class_names), dataset.multi_label)

    def about(self, job: Job, result: keras.Model) -> dict[str, Any]:
        """Return the technique, and the zeros and distinct values of the kernels."""
        return {
            "technique": job.config.compress.technique,
            "kernels": zeros_and_clusters.report(result),
        }

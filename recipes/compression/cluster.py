"""Weight clustering with tensorflow-model-optimization: a kernel has a few values only.

Each weight stands for the nearest of its kernel's centroids, and the centroids learn
(arXiv:1510.00149, section 3). What comes out is the network it started from, its kernels made of
few values: files of the same size, which compress.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_resnet.errors import require
from keras_resnet.recipes.compression import zeros_and_clusters
from keras_resnet.recipes.compression.compressed import TFMOT, Compressed
from keras_resnet.recipes.compression.to_tf_keras import to_legacy
from keras_resnet.recipes.training import transfer
from keras_resnet.recipes.training.job import Job
from keras_resnet.recipes.training.transfer import Shape


class Clustered(Compressed):
    """A trained network whose kernels get a few values each."""

    averages = False

    def build(self, job: Job, shape: Shape) -> Any:
        """Return a tf_keras model with centroids.

        Kernels with no more weights than clusters stay as they are.
        """
        clustering = require(TFMOT, "compress").clustering.keras
        choice, found = job.config.compress, zeros_and_clusters.find(self.start)
        keep_zeros, _ = zeros_and_clusters.preserved(self.start, choice.preserve)

        def wrap(layer: Any) -> Any:
            if layer.name not in found or found[layer.name].size <= choice.clusters:
                return layer
            return clustering.cluster_weights(
                layer,
                choice.clusters,
                clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
                preserve_sparsity=keep_zeros,
            )

        legacy = to_legacy(transfer.same(self.start, shape))
        return require("tf_keras", "compress").models.clone_model(legacy, clone_function=wrap)

    def result(self, job: Job, trained: Any) -> keras.Model:
        """Return the network it started from with the trained weights, each its centroid."""
        made = {getattr(layer, "layer", layer).name: layer for layer in trained.layers}
        network = transfer.same(self.start, trained.input_shape[1:])
        for layer in network.layers:
            if layer.weights:
                layer.set_weights(_weights(made[layer.name]))
        return network


def _weights(layer: Any) -> list[np.ndarray]:
    """Of a layer, or of the one in a wrapper: its kernel and what else it has."""
    if not hasattr(layer, "original_weight_kernel"):
        weights: list[np.ndarray] = layer.get_weights()
        return weights
    layer.update_clustered_weights_associations()
    # The wrapped layer's kernel is a tensor by now, so that its variables are the others.
    return [np.asarray(layer.layer.kernel), *layer.layer.get_weights()]

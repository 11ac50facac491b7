"""Weight clustering with tensorflow-model-optimization: each kernel has only a few values.

Each weight takes the value of the nearest centroid of its kernel, and training adjusts the
centroids (arXiv:1510.00149, section 3). The result is the start network with few values in its
kernels. Its files have the same size, but compress well.
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
    """Weight clustering of a trained network."""

    averages = False

    def build(self, job: Job, shape: Shape) -> Any:
        """Return a tf_keras model with centroids.

        Kernels that have no more weights than clusters are unchanged.
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
        """Return the start network; each weight has the value of its trained centroid."""
        made = {getattr(layer, "layer", layer).name: layer for layer in trained.layers}
        network = transfer.same(self.start, trained.input_shape[1:])
        for layer in network.layers:
            if layer.weights:
                layer.set_weights(_weights(made[layer.name]))
        return network


def _weights(layer: Any) -> list[np.ndarray]:
    """Return the weights of a layer, or of the layer inside a wrapper, with the kernel first."""
    if not hasattr(layer, "original_weight_kernel"):
        weights: list[np.ndarray] = layer.get_weights()
        return weights
    layer.update_clustered_weights_associations()
    # The wrapped layer's kernel is a tensor now, so its variables are all the other weights.
    return [np.asarray(layer.layer.kernel), *layer.layer.get_weights()]

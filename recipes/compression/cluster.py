"""Weight clustering with tensorflow-model-optimization: a kernel has a few values only.

Each weight stands for the nearest of its kernel's centroids, and the centroids learn
(arXiv:1510.00149, section 3). What comes out is the network it started from, its kernels made of
few values: files of the same size, which compress.

Imported in a process of its own only (`recipes.compress`): tfmot turns `tf.keras` into tf_keras.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

from keras_resnet.recipes.compression import zeros_and_clusters
from keras_resnet.recipes.compression.to_tf_keras import to_legacy
from keras_resnet.recipes.training import transfer
from keras_resnet.recipes.training.job import Job
from keras_resnet.recipes.training.loop import Loop


def build_model(job: Job, start: keras.Model) -> Any:
    """The start model as a tf_keras model with centroids, from RGB 0...255 to logits.

    Kernels with no more weights than clusters stay as they are.

    Raises:
        UserError: an unknown `compress.preserve`, or a layer that tf_keras does not have.
    """
    choice = job.config.compress
    keep_zeros, _ = zeros_and_clusters.preserved(start, choice.preserve)
    legacy = to_legacy(transfer.same(start, job.dataset.input_shape))
    found = zeros_and_clusters.find(start)

    def wrap(layer: Any) -> Any:
        if layer.name not in found or found[layer.name].size <= choice.clusters:
            return layer
        return tfmot.clustering.keras.cluster_weights(
            layer,
            choice.clusters,
            tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
            preserve_sparsity=keep_zeros,
        )

    return tf_keras.models.clone_model(legacy, clone_function=wrap)


def choose_layers(job: Job, loop: Loop, epoch: int) -> None:
    """All learn all along."""


def result(start: keras.Model, trained: Any) -> keras.Model:
    """The trained weights, each its centroid, in the network it started from."""
    made = {getattr(layer, "layer", layer).name: layer for layer in trained.layers}
    network = transfer.same(start, trained.input_shape[1:])
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

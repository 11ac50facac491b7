"""Quantization-aware training with tensorflow-model-optimization (tfmot).

Training uses a tf_keras model in tfmot's wrappers. The result is a Keras 3 model of stock layers.
Its weights are on the grids of an int8 file, and Keras' own fake quantization stands wherever the
file rounds an activation. It computes the same as the file; the remaining differences come from
rounding ties (class agreement of 99 % or more, measured on CIFAR-10). It can be exported, evaluated
and loaded like any other model.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import keras_compat
from keras_resnet.errors import require
from keras_resnet.export.formats.tflite.ranges import Range
from keras_resnet.export.rewrites import fold_rescaling
from keras_resnet.recipes.compression import int8_network, zeros_and_clusters
from keras_resnet.recipes.compression.compressed import TFMOT, Compressed
from keras_resnet.recipes.compression.to_tf_keras import to_legacy
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.recipes.training.job import Job
from keras_resnet.recipes.training.loop import Loop
from keras_resnet.recipes.training.transfer import Shape

_CALIBRATION_IMAGES = 256
_CLUSTERS = "clst_impl"  # tfmot's name for a quantizer's clusters
_RANGES = (
    ("output_min", "output_max"),
    ("post_activation_min", "post_activation_max"),
    ("quantize_layer_min", "quantize_layer_max"),
)


class QuantizationAware(Compressed):
    """Quantization-aware training of a trained network."""

    averages = True

    def ema(self, config: Config) -> float:
        """Return `train.ema`, or 0 if clusters are kept: an average of values is in no cluster."""
        _, keep_clusters = zeros_and_clusters.preserved(self.start, config.compress.preserve)
        if config.train.ema and keep_clusters:
            name = self.start.name
            print(
                f"'{name}' is clustered, so train.ema is ignored: averaging would undo clusters",
                file=sys.stderr,
            )
        return 0.0 if keep_clusters else config.train.ema

    def build(self, job: Job, shape: Shape) -> Any:
        """Return a tf_keras model with the roundings of an int8 file."""
        from keras_resnet.recipes.compression import rounded_layers  # imports tfmot

        network = int8_network.prepared(self.start)
        rescaling = int8_network.normalisation(network)
        legacy = to_legacy(network if rescaling is None else _behind(network, rescaling))
        kept = zeros_and_clusters.preserved(self.start, job.config.compress.preserve)
        quantized = rounded_layers.rounded(legacy, *kept)
        images = job.dataset.train.sample(_CALIBRATION_IMAGES).images.astype("float32")
        if rescaling is not None:
            images = np.asarray(rescaling(images))
        ranges = _measured_ranges(legacy, images)
        ranges["quantize_layer"] = int8_network.range_behind(rescaling)
        _set_ranges(quantized, ranges)
        _freeze_clustered_kernels(quantized)
        return _from_pixels(quantized, network, rescaling)

    def choose_layers(self, job: Job, loop: Loop, epoch: int) -> None:
        """Freeze BN's statistics, scale and offset after `compress.freeze_bn` of the run."""
        if epoch < math.ceil(job.config.compress.freeze_bn * job.epochs):
            return
        batch_norm = require("tf_keras", "compress").layers.BatchNormalization
        frozen = [
            wrapper
            for wrapper in loop.model.layers[-1].layers
            if isinstance(getattr(wrapper, "layer", None), batch_norm)
        ]
        for wrapper in frozen:
            wrapper.trainable = False  # freezes the statistics, but not the weights
        loop.freeze(weight for wrapper in frozen for weight in wrapper.trainable_weights)

    def result(self, job: Job, trained: Any) -> keras.Model:
        """Return a Keras 3 model that rounds as the int8 file will; see `int8_network`."""
        network, ranges = int8_network.prepared(self.start), {}
        _write_kernels(trained.layers[-1])
        for wrapper in trained.layers[-1].layers:
            variables, name = _variables(wrapper), _name(wrapper)
            for least, most in _RANGES:
                if least in variables and not _keeps_range(network, name):
                    ranges[name] = (float(variables[least].numpy()), float(variables[most].numpy()))
            if hasattr(wrapper, "layer") and (layer := network.get_layer(name)).weights:
                weights = {key.removeprefix("depthwise_"): v for key, v in variables.items()}
                layer.set_weights([weights[variable.name].numpy() for variable in layer.weights])
        return int8_network.rounded(fold_rescaling.fold_rescaling(network), ranges)


def _behind(network: keras.Model, layer: keras.Layer) -> keras.Model:
    """Return the part of `network` behind `layer`."""
    return keras.Model(layer.output, network.output, name=network.name)


def _from_pixels(
    quantized: Any, network: keras.Model, rescaling: keras.layers.Rescaling | None
) -> Any:
    """Put the normalisation of `network`, if it has one, in front of `quantized`."""
    legacy = require("tf_keras", "compress")
    x = inputs = legacy.Input(network.input_shape[1:], name="images")
    if rescaling is not None:
        x = legacy.layers.Rescaling(rescaling.scale, rescaling.offset)(x)
    return legacy.Model(inputs, quantized(x), name=network.name)


def _measured_ranges(legacy: Any, images: np.ndarray) -> dict[str, Range]:
    """Return the range of each layer's output on `images`, by name; it always includes zero."""
    tf_keras = require("tf_keras", "compress")
    every = tf_keras.Model(legacy.input, {x.name: x.output for x in legacy.layers})
    ends: dict[str, Range] = {}
    for start in range(0, len(images), 16):
        outputs = every(images[start : start + 16], training=False)
        for name, output in outputs.items():
            least, most = ends.get(name, (0.0, 0.0))
            ends[name] = (
                min(least, float(tf.reduce_min(output))),
                max(most, float(tf.reduce_max(output))),
            )
    return ends


def _set_ranges(quantized: Any, ranges: dict[str, Range]) -> None:
    """Start with the measured ranges; from tfmot's -6...6, training would need 1,000 steps."""
    for layer in quantized.layers:
        variables = _variables(layer)
        for names in _RANGES:
            if names[0] in variables:
                for name, value in zip(names, ranges[_name(layer)], strict=True):
                    variables[name].assign(value)
        for kernel in ("kernel", "depthwise_kernel"):
            if f"{kernel}_min" in variables:
                most = _largest(variables[kernel].numpy(), variables[f"{kernel}_max"].shape)
                variables[f"{kernel}_min"].assign(-most)
                variables[f"{kernel}_max"].assign(most)


def _wrappers(quantized: Any) -> list[Any]:
    """Return tfmot's wrappers around layers; the input and its quantizer have no wrapper."""
    wrapper = require(TFMOT, "compress").quantization.keras.QuantizeWrapper
    return [layer for layer in quantized.layers if isinstance(layer, wrapper)]


def _freeze_clustered_kernels(quantized: Any) -> None:
    """Freeze clustered kernels: their centroids are trained instead."""
    for wrapper in _wrappers(quantized):
        for kernel, variables in keras_compat.quantized_weights(wrapper):
            if _CLUSTERS in variables:
                keras_compat.freeze_weight(wrapper, kernel)


def _write_kernels(quantized: Any) -> None:
    """Write the zeros and clusters of the quantizers into the kernels."""
    for wrapper in _wrappers(quantized):
        for kernel, variables in keras_compat.quantized_weights(wrapper):
            if _CLUSTERS in variables:
                places, originals = (
                    variables["pulling_indices_tf"],
                    variables["ori_weights_vars_tf"],
                )
                kernel.assign(variables[_CLUSTERS].get_clustered_weight(places, originals))
            if "sparsity_mask" in variables:
                kernel.assign(kernel * variables["sparsity_mask"])


def _largest(kernel: np.ndarray, shape: Any) -> np.ndarray:
    """Return the largest |weight| of the kernel or of each channel, in the shape `shape`."""
    channels = int(np.prod(shape))
    sizes = np.abs(kernel)
    if kernel.ndim == 4 and channels == kernel.shape[2] * kernel.shape[3]:  # depthwise
        return np.reshape(sizes.max(axis=(0, 1)), shape)
    return np.reshape(sizes.reshape(-1, channels).max(axis=0), shape)


def _name(layer: Any) -> str:
    """Return the name of a layer, or of the layer inside a wrapper."""
    return str(getattr(layer, "layer", layer).name)


def _variables(layer: Any) -> dict[str, Any]:
    """Return the variables of a wrapper and its layer, by the last part of their names."""
    return {v.name.rpartition("/")[2].partition(":")[0]: v for v in layer.weights}


def _keeps_range(network: keras.Model, name: str) -> bool:
    """Return True if the int8 file knows the range of the layer's output, or copies its input's."""
    return name == "quantize_layer" or isinstance(
        network.get_layer(name), keras.layers.AveragePooling2D
    )

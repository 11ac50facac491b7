"""Quantization-aware training with tensorflow-model-optimization: the network in, the ranges out.

What is trained is a tf_keras model in tfmot's wrappers; what comes out is a Keras 3 model again,
of stock layers, with its weights on the grids of an int8 file and Keras' own fake quantization
wherever such a file rounds an activation. It computes what the file computes but for steps
that lie half-way (99 % agreement of classes and more, measured on CIFAR-10), and exports,
evaluates and loads as any other.

Imported in a process of its own only (`recipes.compress`): tfmot turns `tf.keras` into tf_keras.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from keras_resnet import keras_compat
from keras_resnet.errors import UserError
from keras_resnet.export.formats.int8_ranges import Range
from keras_resnet.export.rewrites import fold_rescaling
from keras_resnet.recipes.compression import int8_network, zeros_and_clusters
from keras_resnet.recipes.compression.to_tf_keras import to_legacy
from keras_resnet.recipes.training.job import Job
from keras_resnet.recipes.training.loop import Loop

_CALIBRATION_IMAGES = 256
_CLUSTERS = "clst_impl"  # what tfmot calls a quantizer's clusters
_RANGES = (
    ("output_min", "output_max"),
    ("post_activation_min", "post_activation_max"),
    ("quantize_layer_min", "quantize_layer_max"),
)


class RoundedOutput(tfmot.quantization.keras.QuantizeConfig):
    """For layers that tfmot has no rule for but an int8 file does: the output is rounded."""

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        """None of its weights is rounded."""
        return []

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        """None inside."""
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """There are none."""

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """There are none."""

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """Eight bits, the range followed by a moving average."""
        return [
            tfmot.quantization.keras.quantizers.MovingAverageQuantizer(
                num_bits=8, per_axis=False, symmetric=False, narrow_range=False
            )
        ]

    def get_config(self) -> dict[str, Any]:
        """Nothing to configure."""
        return {}


# The product of squeeze-and-excitation and of gates.
_ROUNDED = (tf_keras.layers.Multiply, tf_keras.layers.Subtract)


def build_model(job: Job, start: keras.Model) -> Any:
    """The start model as a tf_keras model that rounds, from RGB 0...255 to logits.

    Raises:
        UserError: a layer that cannot be quantized; the message names it.
    """
    network = int8_network.prepared(start)
    rescaling = int8_network.normalisation(network)
    core = network if rescaling is None else _behind(network, rescaling)
    legacy = to_legacy(core)
    quantized = _wrapped(legacy, *zeros_and_clusters.preserved(start, job.config.compress.preserve))
    images = job.dataset.train.sample(_CALIBRATION_IMAGES).images.astype("float32")
    if rescaling is not None:
        images = np.asarray(rescaling(images))
    ranges = _measured_ranges(legacy, images)
    ranges["quantize_layer"] = int8_network.range_behind(rescaling)
    _set_ranges(quantized, ranges)
    _freeze_clustered_kernels(quantized)
    inputs = tf_keras.Input(network.input_shape[1:], name="images")
    x = inputs
    if rescaling is not None:
        x = tf_keras.layers.Rescaling(rescaling.scale, rescaling.offset)(x)
    return tf_keras.Model(inputs, quantized(x), name=start.name)


def _behind(network: keras.Model, layer: keras.Layer) -> keras.Model:
    """The part of `network` that reads the output of `layer`."""
    return keras.Model(layer.output, network.output, name=network.name)


def _wrapped(legacy: Any, keep_zeros: bool, keep_clusters: bool) -> Any:
    """The model in tfmot's wrappers.

    Raises:
        UserError: a layer for which there is no rule.
    """

    def annotate(layer: Any) -> Any:
        _require_rule(layer)
        if isinstance(layer, _ROUNDED):
            return tfmot.quantization.keras.quantize_annotate_layer(layer, RoundedOutput())
        return layer

    annotated = tf_keras.models.clone_model(legacy, clone_function=annotate)
    logging.disable(logging.WARNING)  # that the first convolution, never pruned, has no zeros
    try:
        with tfmot.quantization.keras.quantize_scope({"RoundedOutput": RoundedOutput}):
            return tfmot.quantization.keras.quantize_apply(
                tfmot.quantization.keras.quantize_annotate_model(annotated),
                _scheme(keep_zeros, keep_clusters),
            )
    except (RuntimeError, ValueError) as error:
        said, *_ = str(error).splitlines()[0].partition(" You can")  # its own interface
        raise UserError(
            f"'{legacy.name}' cannot be trained quantized: {said} Take another, or quantize it "
            "after training: keras-resnet export MODEL --formats tflite-int8"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def _require_rule(layer: Any) -> None:
    """Refuse an activation that tfmot does not know, since it names the function and no layer.

    Raises:
        UserError: with the layer's name.
    """
    if (function := getattr(layer, "activation", None)) is None:
        return
    alone = tf_keras.layers.Activation(function)
    rules = tfmot.quantization.keras.default_8bit.Default8BitQuantizeRegistry()
    try:
        rules.get_quantize_config(alone).get_output_quantizers(alone)
    except ValueError as error:
        raise UserError(
            f"The activation '{layer.get_config()['activation']}' of the layer '{layer.name}' has "
            "no rule by which it is trained quantized. Take relu, sigmoid, swish, gelu or tanh, or "
            "quantize it after training: keras-resnet export MODEL --formats tflite-int8"
        ) from error


class _ClusterScheme(tfmot.experimental.combine.Default8BitClusterPreserveQuantizeScheme):
    """tfmot's, with a quantizer for each layer.

    tfmot's layers share one, which keeps no zeros anymore once it has met a layer that has none.
    """

    def get_quantize_registry(self) -> Any:
        return _Anew(super().get_quantize_registry)


class _Anew:
    """Stands for what `make` makes, made anew each time it is asked for something."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)


def _scheme(keep_zeros: bool, keep_clusters: bool) -> Any:
    """tfmot's rules: plain, or those that keep what pruning and clustering made of the weights."""
    schemes = tfmot.experimental.combine
    if keep_clusters:
        return _ClusterScheme(preserve_sparsity=keep_zeros)
    if keep_zeros:
        return schemes.Default8BitPrunePreserveQuantizeScheme()
    return tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme()


def _measured_ranges(legacy: Any, images: np.ndarray) -> dict[str, Range]:
    """What each layer's output spans on `images`, by name; zero is always within."""
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
    """Start from what was measured; tfmot's own start, -6...6, is left in a thousand steps."""
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
    """tfmot's wrappers around layers; an input and its quantizer have none."""
    wrapper = tfmot.quantization.keras.QuantizeWrapper
    return [layer for layer in quantized.layers if isinstance(layer, wrapper)]


def _freeze_clustered_kernels(quantized: Any) -> None:
    """A clustered kernel is written from its centroids, which learn in its place."""
    for wrapper in _wrappers(quantized):
        for kernel, variables in keras_compat.quantized_weights(wrapper):
            if _CLUSTERS in variables:
                keras_compat.freeze_weight(wrapper, kernel)


def _write_kernels(quantized: Any) -> None:
    """Give the kernels the zeros and clusters that their quantizers see in them."""
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
    """The largest |weight|, of all or of each channel, as many as `shape` has."""
    channels = int(np.prod(shape))
    sizes = np.abs(kernel)
    if kernel.ndim == 4 and channels == kernel.shape[2] * kernel.shape[3]:  # depthwise
        return np.reshape(sizes.max(axis=(0, 1)), shape)
    return np.reshape(sizes.reshape(-1, channels).max(axis=0), shape)


def _name(layer: Any) -> str:
    """Of the layer inside the wrapper."""
    return str(getattr(layer, "layer", layer).name)


def _variables(layer: Any) -> dict[str, Any]:
    """A wrapper's variables, its layer's included, by the last part of their names."""
    return {v.name.rpartition("/")[2].partition(":")[0]: v for v in layer.weights}


def choose_layers(job: Job, loop: Loop, epoch: int) -> None:
    """From `compress.freeze_bn` of the run on, BN keeps its statistics, scale and offset."""
    frozen = epoch >= math.ceil(job.config.compress.freeze_bn * job.epochs)
    for layer in loop.model.layers[-1].layers:
        if isinstance(getattr(layer, "layer", None), tf_keras.layers.BatchNormalization):
            layer.trainable = not frozen
    loop.trained = len(loop.model.trainable_variables)


def _keeps_range(network: keras.Model, name: str) -> bool:
    """Whether an int8 file gives the range of the layer's input to its output, or knows it."""
    return name == "quantize_layer" or isinstance(
        network.get_layer(name), keras.layers.AveragePooling2D
    )


def result(start: keras.Model, trained: Any) -> keras.Model:
    """What was trained as a Keras 3 model that rounds as the int8 file will; see `quantizable`."""
    network, ranges = int8_network.prepared(start), {}
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

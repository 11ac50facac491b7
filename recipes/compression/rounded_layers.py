"""A tf_keras network in tensorflow-model-optimization's layers, which round as int8 files do.

Imported in a process of its own only (`process.py`): tfmot turns `tf.keras` into tf_keras.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import tensorflow_model_optimization as tfmot
import tf_keras

from keras_resnet.errors import UserError


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


def rounded(legacy: Any, keep_zeros: bool, keep_clusters: bool) -> Any:
    """Return the tf_keras model `legacy` in tfmot's wrappers.

    Args:
        legacy: from float images to logits.
        keep_zeros: keep the weights that are zero at zero.
        keep_clusters: keep as many different values in a kernel as there are.

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

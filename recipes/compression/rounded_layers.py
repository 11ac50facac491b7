"""Wrap a tf_keras network in tensorflow-model-optimization's layers, which round as int8 files do.

Import this only in a separate process (`process.py`): tfmot turns `tf.keras` into tf_keras.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import tensorflow_model_optimization as tfmot
import tf_keras

from keras_resnet.errors import UserError


class RoundedOutput(tfmot.quantization.keras.QuantizeConfig):
    """A rule for layers that an int8 file rounds but tfmot does not know: round the output."""

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        """Return an empty list: no weights are rounded."""
        return []

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        """Return an empty list: no activation inside the layer is rounded."""
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Do nothing: no weights are rounded."""

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Do nothing: no activations inside the layer are rounded."""

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """Return an 8-bit quantizer that follows the range with a moving average."""
        return [
            tfmot.quantization.keras.quantizers.MovingAverageQuantizer(
                num_bits=8, per_axis=False, symmetric=False, narrow_range=False
            )
        ]

    def get_config(self) -> dict[str, Any]:
        """Return an empty config."""
        return {}


# Squeeze-and-excitation and gates multiply; other networks may also subtract.
_ROUNDED = (tf_keras.layers.Multiply, tf_keras.layers.Subtract)


def rounded(legacy: Any, keep_zeros: bool, keep_clusters: bool) -> Any:
    """Return the tf_keras model `legacy` in tfmot's wrappers.

    Args:
        legacy: a model from float images to logits.
        keep_zeros: keep zero weights at zero.
        keep_clusters: keep the number of different values in each kernel.

    Raises:
        UserError: there is no rule for a layer.
    """

    def annotate(layer: Any) -> Any:
        _require_rule(layer)
        if isinstance(layer, _ROUNDED):
            return tfmot.quantization.keras.quantize_annotate_layer(layer, RoundedOutput())
        return layer

    annotated = tf_keras.models.clone_model(legacy, clone_function=annotate)
    logging.disable(logging.WARNING)  # "no zeros": the first convolution is never pruned
    try:
        with tfmot.quantization.keras.quantize_scope({"RoundedOutput": RoundedOutput}):
            return tfmot.quantization.keras.quantize_apply(
                tfmot.quantization.keras.quantize_annotate_model(annotated),
                _scheme(keep_zeros, keep_clusters),
            )
    except (RuntimeError, ValueError) as error:
        said, *_ = str(error).splitlines()[0].partition(" You can")  # advice on tfmot's own API
        raise UserError(
            f"Quantization-aware training is not possible for '{legacy.name}': {said} Use another "
            "layer, or quantize it after training: keras-resnet export MODEL --formats tflite-int8"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def _require_rule(layer: Any) -> None:
    """Refuse an activation that tfmot does not know; tfmot's own error does not name the layer.

    Raises:
        UserError: the activation is unknown; the message has the layer's name.
    """
    if (function := getattr(layer, "activation", None)) is None:
        return
    alone = tf_keras.layers.Activation(function)
    rules = tfmot.quantization.keras.default_8bit.Default8BitQuantizeRegistry()
    try:
        rules.get_quantize_config(alone).get_output_quantizers(alone)
    except ValueError as error:
        raise UserError(
            f"Quantization-aware training does not know the activation "
            f"'{layer.get_config()['activation']}' of the layer '{layer.name}'. Use relu, sigmoid, "
            "swish, gelu or tanh, or quantize it after training: keras-resnet export MODEL "
            "--formats tflite-int8"
        ) from error


class _ClusterScheme(tfmot.experimental.combine.Default8BitClusterPreserveQuantizeScheme):
    """tfmot's cluster scheme with a separate quantizer for each layer.

    In tfmot all layers share one quantizer. It stops keeping zeros after a layer without zeros.
    """

    def get_quantize_registry(self) -> Any:
        return _Anew(super().get_quantize_registry)


class _Anew:
    """A proxy that calls `make` again for each access to an attribute."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)


def _scheme(keep_zeros: bool, keep_clusters: bool) -> Any:
    """Return tfmot's scheme: the plain one, or one that keeps zeros and clusters."""
    schemes = tfmot.experimental.combine
    if keep_clusters:
        return _ClusterScheme(preserve_sparsity=keep_zeros)
    if keep_zeros:
        return schemes.Default8BitPrunePreserveQuantizeScheme()
    return tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme()

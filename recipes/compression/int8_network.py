"""The Keras 3 side of quantization-aware training: prepare the network, and build the result.

An int8 file rounds weights per output channel and activations per tensor (arXiv:1712.05877). Before
training, the network is rewritten so that every layer can be rounded. After training, its weights
are rounded to their grids, and Keras' fake quantization is inserted wherever the file rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_resnet import keras_compat
from keras_resnet.errors import UserError
from keras_resnet.export.formats.tflite.ranges import Range
from keras_resnet.export.rewrites import batch_norms, fold_rescaling
from keras_resnet.export.rewrites.rebuild import copy_weights, rebuilt_on
from keras_resnet.layers import to_stock
from keras_resnet.models.auxiliary import inference_model
from keras_resnet.recipes.training import transfer

PIXELS: Range = (0.0, 255.0)
_PIXEL_UNIT = 64.0  # about the standard deviation of photographs; powers of 2 divide exactly
_WEIGHTED = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def prepared(model: keras.Model) -> keras.Model:
    """Return `model` prepared for quantization: float32, stock layers, RGB 0...255 to logits.

    A BN that no convolution absorbs becomes a depthwise convolution, as in exported TFLite files;
    tensorflow-model-optimization can train that. An activation inside a layer with weights becomes
    a separate layer, because the input of a sigmoid is rounded too. The mean colour is rounded as
    in the file.

    Raises:
        UserError: no Dense classifier at the end, or a SeparableConv2D layer.
    """
    model = inference_model(model)
    _require_whole_layers(model)
    head = transfer.classifier(model)
    network = keras.Model(model.input, head.output, name=model.name)
    stock = _with_small_input(_with_rounded_offset(to_stock(network)))
    stock, _ = batch_norms.to_depthwise(stock)

    def rebuild(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config(
            config | {"activation": "linear"} if isinstance(layer, _WEIGHTED) else config
        )

    def behind(layer: keras.Layer, y: Any) -> Any:
        if not isinstance(layer, _WEIGHTED) or layer.name == head.name:
            return y
        kind = stock.get_layer(layer.name).get_config()["activation"]
        if kind == "linear":
            return y
        return keras.layers.Activation(kind, name=f"{layer.name}_activation")(y)

    linear = keras.models.clone_model(
        stock,
        clone_function=rebuild,
        call_function=lambda layer, *args, **kwargs: behind(layer, layer(*args, **kwargs)),
    )
    copy_weights(stock, linear)
    return linear


def _require_whole_layers(model: keras.Model) -> None:
    """Refuse layers that tensorflow-model-optimization splits into two layers with other names.

    Raises:
        UserError: there is such a layer; the message has its name.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.SeparableConv2D):
            raise UserError(
                f"Quantization-aware training does not support the layer '{layer.name}' "
                "(SeparableConv2D). Build the model with a DepthwiseConv2D and a 1×1 Conv2D "
                "instead, or quantize it after training: keras-resnet export MODEL --formats "
                "tflite-int8"
            )


def _with_small_input(model: keras.Model) -> keras.Model:
    """Divide the pixels during training, for a network without normalisation.

    With frozen BN, the effect of a step grows with the square of the inputs' size. With pixels up
    to 255, training would diverge at the learning rate that suits the other layers.
    `fold_rescaling` undoes the division.
    """
    reader = fold_rescaling.convolution_behind(keras_compat.producer(model.input))
    if reader is None:
        return model
    inputs = keras.layers.Input(model.input_shape[1:], name="images")
    x = keras.layers.Rescaling(1 / _PIXEL_UNIT, name="rescaling_in_training")(inputs)
    copy = rebuilt_on(model, inputs, x)
    kernel, *bias = reader.get_weights()
    copy.get_layer(reader.name).set_weights([kernel * _PIXEL_UNIT, *bias])
    return copy


def _with_rounded_offset(model: keras.Model) -> keras.Model:
    """Round the mean colour to the grid of the int8 file, whose step is half a grey level.

    Otherwise the file would shift every layer's input by up to a quarter of a level, which training
    does not see. For nearly every image, some value would then round differently.
    """
    rescaling = normalisation(model)
    if rescaling is None:
        return model
    scale, offset = np.asarray(rescaling.scale), np.asarray(rescaling.offset)
    levels = offset / scale
    step = (max(0.0, levels.max()) - min(0.0, levels.min())) / 255
    if step == 0:
        return model

    def rebuild(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name == rescaling.name:
            config["offset"] = (np.round(levels / step) * step * scale).tolist()
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=rebuild)
    copy.set_weights(model.get_weights())
    return copy


def normalisation(model: keras.Model) -> keras.layers.Rescaling | None:
    """Return the `Rescaling` at the input, or None."""
    readers = keras_compat.readers(keras_compat.producer(model.input))
    first = readers[0] if len(readers) == 1 else None
    return first if isinstance(first, keras.layers.Rescaling) else None


def range_behind(rescaling: keras.layers.Rescaling | None) -> Range:
    """Return the range of pixels 0...255 after `rescaling`; it is known and need not be learned."""
    if rescaling is None:
        return PIXELS
    scale, offset = np.broadcast_arrays(rescaling.scale, rescaling.offset)
    ends = np.stack([offset, offset + 255.0 * scale])
    return min(0.0, float(ends.min())), max(0.0, float(ends.max()))


def rounded(model: keras.Model, ranges: Mapping[str, Range]) -> keras.Model:
    """Return `model` (see `prepared`) with the roundings of its int8 file.

    Args:
        model: the model with trained weights; the scale of its normalisation is in the first
            convolution.
        ranges: the range of each layer's output, which is rounded to 256 steps; zero is a step.

    Raises:
        UserError: there is a range for an unknown layer.
    """
    missing = set(ranges) - {layer.name for layer in model.layers}
    if missing:
        raise UserError(
            f"A range was trained for the layer '{min(missing)}', but '{model.name}' has no such "
            "layer. Start a new run."
        )
    inputs = keras.layers.Input(model.input_shape[1:], name="images")
    known = dict(ranges)
    if (rescaling := normalisation(model)) is not None:
        known[rescaling.name] = range_behind(rescaling)

    def behind(layer: keras.Layer, y: Any) -> Any:
        if layer.name not in known:
            return y
        return keras.quantizers.fake_quant_with_min_max_vars(y, *known[layer.name])

    x = keras.quantizers.fake_quant_with_min_max_vars(inputs, *PIXELS)
    copy = rebuilt_on(model, inputs, x, behind)
    for layer in model.layers:
        if layer.weights:
            copy.get_layer(layer.name).set_weights(_on_grid(layer))
    return copy


def _on_grid(layer: keras.Layer) -> list[np.ndarray]:
    """Return the weights, with kernels rounded to 255 steps per channel as the converter will.

    The largest weight of each channel lies on the grid. So the converter finds the same grid, even
    after multiplying the channel by a BN's scale.
    """
    weights = layer.get_weights()
    if isinstance(layer, _WEIGHTED):
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        axes = (0, 1) if depthwise else tuple(range(weights[0].ndim - 1))
        step = np.abs(weights[0]).max(axis=axes, keepdims=True) / 127
        step = np.where(step == 0, 1, step)
        weights[0] = (np.round(weights[0] / step) * step).astype("float32")
    return weights

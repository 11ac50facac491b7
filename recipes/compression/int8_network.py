"""The Keras 3 side of quantization-aware training: what goes in, and what is made of the result.

An int8 file rounds weights per output channel and activations per tensor (arXiv:1712.05877). A
network is rewritten so that every layer can be; after training its weights are put on their grids
and Keras' fake quantization stands wherever the file rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_resnet import keras_compat
from keras_resnet.errors import UserError
from keras_resnet.export.formats.int8_ranges import Range
from keras_resnet.export.rewrites import batch_norms, fold_rescaling
from keras_resnet.export.rewrites.rebuild import copy_weights, rebuilt_on
from keras_resnet.layers import to_stock
from keras_resnet.models.auxiliary import inference_model
from keras_resnet.recipes.training import transfer

PIXELS: Range = (0.0, 255.0)
_PIXEL_UNIT = 64.0  # about the standard deviation of photographs' pixels; a power of 2 is exact
_WEIGHTED = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def prepared(model: keras.Model) -> keras.Model:
    """Return `model` as it is quantized: float32, stock layers, RGB 0...255 to logits.

    A BN that no convolution absorbs becomes a depthwise one, as in every TFLite file of ours, and
    as tensorflow-model-optimization can train. An activation inside a layer of weights becomes a
    layer behind it: what a sigmoid reads is rounded, too. The mean colour is the file's.

    Raises:
        UserError: no Dense classifier at the end, or a layer that is not trained as one.
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
    """Refuse what tensorflow-model-optimization trains as two layers of other names.

    Raises:
        UserError: with the layer's name.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.SeparableConv2D):
            raise UserError(
                f"The layer '{layer.name}' (SeparableConv2D) cannot be trained quantized, as it is "
                "two layers in one: build the model of DepthwiseConv2D and a Conv2D of 1×1. Or "
                "quantize it after training: keras-resnet export MODEL --formats tflite-int8"
            )


def _with_small_input(model: keras.Model) -> keras.Model:
    """Divide the pixels of a network that takes them as they are, for the time of training.

    Once BN is frozen, a step changes the outputs by the square of the inputs' size: with pixels up
    to 255 the rate that suits the other layers diverges. `fold_rescaling` undoes it.
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
    """Take the mean colour on the grid that an int8 file writes it on, half a grey level wide.

    Else the file shifts what every layer reads by up to a quarter of a level, which training does
    not see, and some rounding of nearly every image falls to the other side.
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
    """The `Rescaling` that stands at the input, if any."""
    readers = keras_compat.readers(keras_compat.producer(model.input))
    first = readers[0] if len(readers) == 1 else None
    return first if isinstance(first, keras.layers.Rescaling) else None


def range_behind(rescaling: keras.layers.Rescaling | None) -> Range:
    """What pixels 0...255 become: known, so that it need not be learned."""
    if rescaling is None:
        return PIXELS
    scale, offset = np.broadcast_arrays(rescaling.scale, rescaling.offset)
    ends = np.stack([offset, offset + 255.0 * scale])
    return min(0.0, float(ends.min())), max(0.0, float(ends.max()))


def rounded(model: keras.Model, ranges: Mapping[str, Range]) -> keras.Model:
    """Return `model` (see `prepared`) computing as its int8 file does.

    Args:
        model: with the trained weights, and the scale of its normalisation in the first
            convolution.
        ranges: by layer, what its output is rounded to 256 steps between; zero is one of them.

    Raises:
        UserError: a range of a layer that is not there.
    """
    missing = set(ranges) - {layer.name for layer in model.layers}
    if missing:
        raise UserError(f"'{model.name}' has no layer '{min(missing)}', whose range was learned.")
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
    """The weights, kernels rounded to 255 steps per output channel as the converter will.

    The largest weight of a channel is on its grid, so that the converter finds the same one, also
    after it has multiplied the channel by the scale of a BN.
    """
    weights = layer.get_weights()
    if isinstance(layer, _WEIGHTED):
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        axes = (0, 1) if depthwise else tuple(range(weights[0].ndim - 1))
        step = np.abs(weights[0]).max(axis=axes, keepdims=True) / 127
        step = np.where(step == 0, 1, step)
        weights[0] = (np.round(weights[0] / step) * step).astype("float32")
    return weights

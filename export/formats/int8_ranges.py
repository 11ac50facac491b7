"""Which range of values an int8 file's feature maps stand for: `calibration_method`.

TensorFlow's converter knows one method, the least and the largest value seen. It calibrates and
quantizes in two steps, though, and the file between them holds the ranges, where other methods
write theirs. Of the two ends of a network the whole range is kept: of the input it is known, and of
the scores the largest is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet import keras_compat
from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.export.formats import keep_float
from keras_resnet.export.runtimes import tflite_graph

if TYPE_CHECKING:
    import keras

Range = tuple[float, float]
MIN_MAX = "min-max"
_BINS = 8192  # over the whole range: 32 to a step of int8
# Of a network that was trained quantized: the files that round as it does.
TRAINED_FORMATS = ("savedmodel", *keep_float.INT8_FORMATS)


def parse(text: str) -> tuple[str, float]:
    """Split "percentile:99.9" into name and value; the value may be left out.

    "min-max": the least and the largest value of all images; what the converter does itself.
    "percentile:P" (default 99.999): without the largest 100 - P percent of the values, and without
    as many of the least.
    "moving-average:D" (default 0.99): the averages of the images' least and largest values, where
    each image before the last counts D times the one after it.

    Raises:
        UserError: a value outside of 50...100 or 0...1.
        UnknownNameError: with the nearest method.
    """
    name, colon, given = text.partition(":")
    if text == MIN_MAX:
        return text, 100.0
    if name not in _METHODS:
        raise UnknownNameError("calibration method", text, (MIN_MAX, *_METHODS), "")
    default, least, most, _ = _METHODS[name]
    try:
        value = float(given) if colon else default
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise UserError(
            f"{name} takes a number of {least:g} to {most:g}, as in '{name}:{default:g}'; "
            f"received '{text}'."
        )
    return name, value


def full_name(text: str) -> str:
    """`text` with its value, for the manifest: "percentile" is "percentile:99.999"."""
    name, value = parse(text)
    return name if name == MIN_MAX else f"{name}:{value:g}"


def convert(
    converter: Any, method: str, samples: np.ndarray, layers_in_float: Sequence[str]
) -> bytes:
    """Convert to int8 with the ranges of `method`, but for the operations of some layers.

    Args:
        converter: a `tf.lite.TFLiteConverter`, set up for int8 with a representative dataset.
        method: see `parse`.
        samples: the images of that dataset (n, height, width, channels), float32.
        layers_in_float: their names.

    Raises:
        UserError: one of them has no operation in the file that is called after it.
    """
    calibrated = keras_compat.calibrate(converter)
    return keras_compat.quantize(
        rewrite(calibrated, method, samples),
        input_type=converter.inference_input_type,
        output_type=converter.inference_output_type,
        float_operations=keep_float.nodes(calibrated, layers_in_float),
    )


def rewrite(calibrated: bytes, method: str, samples: np.ndarray) -> bytes:
    """Replace the ranges of the feature maps in a calibrated float file by those of `method`."""
    name, value = parse(method)
    if name == MIN_MAX:
        return calibrated
    import flatbuffers

    model = tflite_graph.read(calibrated)
    graph = model.subgraphs[0]
    whole = {
        index: (float(tensor.quantization.min[0]), float(tensor.quantization.max[0]))
        for index, tensor in enumerate(graph.tensors)
        if _is_feature_map(tensor) and index not in graph.inputs
    }
    ranges = _METHODS[name][-1](_values(calibrated, samples, list(whole)), whole, value)
    for index, (least, most) in ranges.items():
        graph.tensors[index].quantization.min = [least]
        graph.tensors[index].quantization.max = [most]
    builder = flatbuffers.Builder(len(calibrated))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _is_feature_map(tensor: Any) -> bool:
    """Whether it is (1, height, width, channels) and was calibrated."""
    quantization = tensor.quantization
    calibrated = quantization is not None and quantization.min is not None
    return calibrated and len(quantization.min) == 1 and len(tensor.shape) == 4


def _values(
    calibrated: bytes, samples: np.ndarray, indices: list[int]
) -> Iterator[dict[int, np.ndarray]]:
    """Run the images one by one and give out these tensors, flat."""
    litert = require("ai_edge_litert.interpreter", "export")
    interpreter = litert.Interpreter(
        model_content=calibrated,
        experimental_preserve_all_tensors=True,
        # XNNPACK keeps what lies between its operations to itself.
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    for image in samples:
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        yield {index: interpreter.get_tensor(index).ravel() for index in indices}


def _percentile(
    images: Iterator[dict[int, np.ndarray]], whole: dict[int, Range], value: float
) -> dict[int, Range]:
    """From histograms over the whole ranges, since all values of a large network are too many."""
    counts = {index: np.zeros(_BINS, np.int64) for index, (a, b) in whole.items() if a < b}
    for values in images:
        for index, count in counts.items():
            least, most = whole[index]
            place = (values[index] - least) * (_BINS / (most - least))
            count += np.bincount(np.clip(place.astype(np.int32), 0, _BINS - 1), minlength=_BINS)
    return {index: _between(count, whole[index], value / 100) for index, count in counts.items()}


def _between(count: np.ndarray, whole: Range, share: float) -> Range:
    """The outer edges of the bins in which the `1 - share` and the `share` quantile lie."""
    edges = np.linspace(*whole, _BINS + 1)
    first = int(np.searchsorted(count.cumsum(), (1 - share) * count.sum(), side="right"))
    last = int(np.searchsorted(count.cumsum(), share * count.sum(), side="left"))
    return float(edges[min(first, last)]), float(edges[last + 1])


def _moving_average(
    images: Iterator[dict[int, np.ndarray]], whole: dict[int, Range], value: float
) -> dict[int, Range]:
    extremes = [
        [(values[index].min(), values[index].max()) for index in whole] for values in images
    ]
    weights = value ** np.arange(len(extremes))[::-1]
    averages = np.average(np.asarray(extremes, "float64"), axis=0, weights=weights)
    return {index: (float(a), float(b)) for index, (a, b) in zip(whole, averages, strict=True)}


_Method = Callable[[Iterator[dict[int, np.ndarray]], dict[int, Range], float], dict[int, Range]]
# Default value, the least and the largest it may be, function.
_METHODS: dict[str, tuple[float, float, float, _Method]] = {
    "percentile": (99.999, 50.0, 100.0, _percentile),
    "moving-average": (0.99, 0.0, 1.0, _moving_average),
}


def has_ranges(model: keras.Model) -> bool:
    """Whether `model` was trained quantized: it rounds activations itself, in Keras' operations."""
    rounding = keras_compat.operations("FakeQuantWithMinMaxVars")
    return any(isinstance(operation, rounding) for operation in model.operations)

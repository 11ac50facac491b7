"""The ranges of values that an int8 file's feature maps can represent: `calibration_method`.

TensorFlow's converter has only one method: the least and the largest value seen. It calibrates and
quantizes in two steps. The file between the two steps holds the ranges, and other methods replace
them there. The input and the output of a network keep their whole range: the input's range is
known, and the largest score is the answer.
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
_BINS = 8192  # over the whole range: 32 bins per int8 step
# The formats of a quantization-aware model: they round as it does.
TRAINED_FORMATS = ("savedmodel", *keep_float.INT8_FORMATS)


def parse(text: str) -> tuple[str, float]:
    """Split "percentile:99.9" into name and value; the value may be left out.

    "min-max": the least and the largest value of all images, as in TensorFlow's converter.
    "percentile:P" (default 99.999): leaves out the largest 100 - P percent of the values, and the
    same share of the smallest.
    "moving-average:D" (default 0.99): the weighted averages of the images' least and largest
    values. Each image has D times the weight of the image after it.

    Raises:
        UserError: the value is outside 50...100 (percentile) or 0...1 (moving-average).
        UnknownNameError: an unknown method; the message suggests the nearest one.
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
            f"{name} takes a number from {least:g} to {most:g}; received '{text}'. "
            f"Example: '{name}:{default:g}'."
        )
    return name, value


def full_name(text: str) -> str:
    """Return `text` with its value, for the manifest: "percentile" gives "percentile:99.999"."""
    name, value = parse(text)
    return name if name == MIN_MAX else f"{name}:{value:g}"


def convert(
    converter: Any, method: str, samples: np.ndarray, layers_in_float: Sequence[str]
) -> bytes:
    """Convert to int8 with the ranges of `method`; keep some layers in float32.

    Args:
        converter: a `tf.lite.TFLiteConverter`, set up for int8 with a representative dataset.
        method: see `parse`.
        samples: the images of that dataset (n, height, width, channels), float32.
        layers_in_float: names of the layers that stay in float32.

    Raises:
        UserError: the file has no operation named after one of those layers.
    """
    calibrated = keras_compat.calibrate(converter)
    return keras_compat.quantize(
        rewrite(calibrated, method, samples),
        input_type=converter.inference_input_type,
        output_type=converter.inference_output_type,
        float_operations=keep_float.nodes(calibrated, layers_in_float),
    )


def rewrite(calibrated: bytes, method: str, samples: np.ndarray) -> bytes:
    """Replace the ranges of the feature maps in a calibrated float file by those from `method`."""
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
    """Return True if the tensor is (1, height, width, channels) and was calibrated."""
    quantization = tensor.quantization
    calibrated = quantization is not None and quantization.min is not None
    return calibrated and len(quantization.min) == 1 and len(tensor.shape) == 4


def _values(
    calibrated: bytes, samples: np.ndarray, indices: list[int]
) -> Iterator[dict[int, np.ndarray]]:
    """Run the images one by one and yield these tensors, flattened."""
    litert = require("ai_edge_litert.interpreter", "export")
    interpreter = litert.Interpreter(
        model_content=calibrated,
        experimental_preserve_all_tensors=True,
        # XNNPACK does not expose the tensors between its operations.
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
    """Compute percentiles from histograms, since a large network has too many values to keep."""
    counts = {index: np.zeros(_BINS, np.int64) for index, (a, b) in whole.items() if a < b}
    for values in images:
        for index, count in counts.items():
            least, most = whole[index]
            place = (values[index] - least) * (_BINS / (most - least))
            count += np.bincount(np.clip(place.astype(np.int32), 0, _BINS - 1), minlength=_BINS)
    return {index: _between(count, whole[index], value / 100) for index, count in counts.items()}


def _between(count: np.ndarray, whole: Range, share: float) -> Range:
    """Return the outer edges of the bins that hold the `1 - share` and the `share` quantile."""
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
# {method: (default value, least and largest allowed value, function)}.
_METHODS: dict[str, tuple[float, float, float, _Method]] = {
    "percentile": (99.999, 50.0, 100.0, _percentile),
    "moving-average": (0.99, 0.0, 1.0, _moving_average),
}


def has_ranges(model: keras.Model) -> bool:
    """Return True if `model` is quantization-aware: its operations round the activations."""
    rounding = keras_compat.operations("FakeQuantWithMinMaxVars")
    return any(isinstance(operation, rounding) for operation in model.operations)

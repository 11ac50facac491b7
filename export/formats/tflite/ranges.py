"""The ranges of values that an integer file's feature maps can represent: `calibration_method`.

We run the float32 file on the calibration images and look at every activation. TensorFlow's
converter and ai-edge-quantizer can do this, too. We do it ourselves for three reasons:

- The ranges of TensorFlow 2.21's calibrator are too large where an addition or multiplication
  writes its result over its input: the calibrator looks at the input afterwards. In a residual
  network that is the last feature map of every unit's F, by a factor of two to ten
  (`tests/export/test_calibration.py` shows it).
- ai-edge-quantizer 0.10 takes moving averages, which cut off large values, and measures the two
  inputs of a concatenation apart, so it adds operations that change one scale into the other.
- TensorFlow's calibrator runs one thread and no fast kernels. With XNNPACK a ResNet-50 takes a
  fifth of the time.

The input and the output of a network keep their whole range: the input's range is known, and the
largest score is the answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet import keras_compat
from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.export.formats.tflite import keep_float
from keras_resnet.export.runtimes import tflite_graph

if TYPE_CHECKING:
    import keras

Range = tuple[float, float]
MIN_MAX = "min-max"
# Operations whose integer kernels have one scale before and after.
_ONE_SCALE = (
    "CONCATENATION",
    "MAXIMUM",
    "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
    "PAD",
    "PADV2",
    "RESHAPE",
    "TRANSPOSE",
    "REDUCE_MAX",
)
_LEAST_WIDTH = 1e-6  # of a range; below it the runtime refuses the scale
_BINS = 8192  # over the whole range: 32 bins per int8 step
# The formats of a quantization-aware model: they round as it does.
TRAINED_FORMATS = ("savedmodel", *keep_float.INT8_FORMATS)


def parse(text: str) -> tuple[str, float]:
    """Split "percentile:99.9" into name and value; the value may be left out.

    "min-max": the least and the largest value of all images.
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


def measure(float_file: bytes, method: str, samples: np.ndarray) -> dict[str, Range]:
    """Return the range of each activation of a float32 TFLite file, by the tensor's name.

    Args:
        float_file: the content of the file, for one image at a time.
        method: see `parse`.
        samples: images (n, height, width, channels), float32.
    """
    name, value = parse(method)
    model = tflite_graph.read(float_file)
    graph = model.subgraphs[0]
    whole = _min_max(float_file, samples)
    found = whole
    if name != MIN_MAX:
        maps = {index: range_ for index, range_ in whole.items() if _is_feature_map(graph, index)}
        images = (
            {index: array.ravel() for index, array in values.items() if index in maps}
            for values in _activations(float_file, samples)
        )
        found = whole | _METHODS[name][-1](images, maps, value)
    shared = _shared(tflite_graph.operations(model), found, graph.inputs)
    return {graph.tensors[i].name.decode(): _wide_enough(range_) for i, range_ in shared.items()}


def step(range_: Range) -> float:
    """Return the scale of int8 values with this range, which is extended to zero."""
    return (max(range_[1], 0.0) - min(range_[0], 0.0)) / 255


def _wide_enough(range_: Range) -> Range:
    """Return 0...1 for a feature map that was always zero: a scale cannot be zero."""
    return range_ if step(range_) * 255 > _LEAST_WIDTH else (0.0, 1.0)


def _shared(
    operations: Sequence[tflite_graph.Operation], ranges: dict[int, Range], inputs: Sequence[int]
) -> dict[int, Range]:
    """Return the ranges, with one range for all tensors that must have the same scale.

    A concatenation only copies integers, so its inputs and its output need the same scale. In a
    DenseNet this holds for a whole dense block. Pooling keeps the scale, too, so it connects a
    concatenation with the one before it. The network's input keeps its own range.
    """
    group = {index: {index} for index in ranges if index not in inputs}
    for item in operations:
        if item.kind in _ONE_SCALE:
            joined = set().union(*(group[i] for i in (*item.inputs, *item.outputs) if i in group))
            group |= dict.fromkeys(joined, joined)
    return ranges | {
        index: (min(ranges[i][0] for i in others), max(ranges[i][1] for i in others))
        for index, others in group.items()
    }


def _is_feature_map(graph: Any, index: int) -> bool:
    """Return True for a tensor (1, height, width, channels) that is not the network's input."""
    return len(graph.tensors[index].shape) == 4 and index not in graph.inputs


def _min_max(float_file: bytes, samples: np.ndarray) -> dict[int, Range]:
    """Return the least and the largest value of each activation over all images."""
    found: dict[int, Range] = {}
    for values in _activations(float_file, samples):
        for index, array in values.items():
            least, most = found.get(index, (np.inf, -np.inf))
            found[index] = (min(least, float(array.min())), max(most, float(array.max())))
    return found


def _activations(float_file: bytes, samples: np.ndarray) -> Iterator[dict[int, np.ndarray]]:
    """Run the images one by one and yield every activation."""
    litert = require("ai_edge_litert.interpreter", "export")
    model = tflite_graph.read(float_file)
    graph = model.subgraphs[0]
    (entry,) = map(int, graph.inputs)
    made = [index for item in tflite_graph.operations(model) for index in item.outputs]
    # An output keeps its value: nothing is written over it, and XNNPACK does not fuse it away.
    graph.outputs = [i for i in made if tflite_graph.tensor_type(graph.tensors[i]) == "FLOAT32"]
    model.signatureDefs = []  # they have the names of the old outputs
    content = tflite_graph.pack(model)
    interpreter = litert.Interpreter(model_content=content, num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    for image in samples:
        interpreter.set_tensor(entry, image[None])
        interpreter.invoke()
        yield {entry: image, **{index: interpreter.get_tensor(index) for index in graph.outputs}}


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

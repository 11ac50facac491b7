"""Check a model file against the model it was made from, whoever wrote the two.

An export folder of this package has a manifest and recorded answers, which `check` uses. Any other
file has neither. So the caller names the model, and both run on the same images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.export.check import (
    FileCheck,
    advice,
    median_latency,
    shape_problems,
    unmeasured,
    values,
)
from keras_resnet.export.formats.tolerance import FLOAT16, FLOAT32, INT4, INT8, Tolerance
from keras_resnet.export.reference import Reference
from keras_resnet.export.runtimes.base import Runtime
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.export.runtimes.litert import TFLiteRuntime
from keras_resnet.export.runtimes.onnx import OnnxRuntime
from keras_resnet.export.runtimes.openvino import OpenVinoRuntime
from keras_resnet.export.runtimes.saved_model import SavedModelRuntime
from keras_resnet.export.runtimes.trial import open_given
from keras_resnet.images.preprocessing import PREPROCESSING, require_mode

_QUANTIZES = ("QLinearConv", "QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger")


def check_file(
    file: str | Path | Runtime,
    model: Any,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    preprocessing: str = "raw",
    source: str = "the given images",
) -> tuple[FileCheck, Reference]:
    """Compare the outputs of a model file with those of the model it was made from.

    The limits depend on the kind of file: float32 files must be equal up to rounding, quantized
    files must give the same answers; `kind_of` tells the kind.

    Args:
        file: a `.tflite`, `.onnx`, OpenVINO, SavedModel or `.keras` file, opened or by its path.
        model: the model to compare with: a Keras model, or a file like `file`.
        images: RGB 0...255 of the file's size, (n, height, width, channels).
        labels: class numbers (n,), to measure accuracies; None if unknown.
        preprocessing: a mode of `normalised`; both models get the images in this form. "raw" is for
            models that contain their normalisation.
        source: a description of the images.

    Returns:
        The check, and the images with the answers of `model`.

    Raises:
        UserError: a file cannot be read, or the images do not fit.
    """
    opened = _opened(file)
    expected = _opened(model)
    pixels = normalised(images, preprocessing)
    activation = expected.answers().activation
    reference = Reference(pixels, expected.predict(pixels), labels, source, activation)
    kind, tolerance = kind_of(opened)
    problems = shape_problems(opened, reference) or _other_outputs(opened, reference)
    found = unmeasured(Path(opened.name).name, kind, opened, problems)
    if found.problems:
        return found, reference
    latency = median_latency([opened], pixels[:1])[0]
    return values(found, tolerance, opened, reference, latency_ms=latency), reference


def assert_same_answers(
    file: str | Path, model: Any, images: np.ndarray, *, preprocessing: str = "raw"
) -> None:
    """Fail, for a test, if a file does not give the answers of its model; see `check_file`.

    Args:
        file: see `check_file`.
        model: see `check_file`.
        images: RGB 0...255 of the file's size, (n, height, width, channels).
        preprocessing: see `check_file`.

    Raises:
        AssertionError: the file has problems; the message lists them.
        UserError: a file cannot be read, or the images do not fit.
    """
    found, _ = check_file(file, model, images, preprocessing=preprocessing)
    if not found.passed:
        raise AssertionError("\n".join([repr(found), *advice([found.to_dict()])]))


def normalised(images: np.ndarray, mode: str) -> np.ndarray:
    """Return the input of a model for RGB 0...255 images.

    `mode` is a key of `PREPROCESSING`. "caffe" is BGR here, as in `keras.applications`.

    Raises:
        UnknownNameError: an unknown mode.
    """
    require_mode(mode)
    chosen = PREPROCESSING[mode]
    if chosen is None:
        return images
    pixels = ((images - np.array(chosen.mean)) / np.array(chosen.std)).astype("float32")
    return pixels[..., ::-1] if mode == "caffe" else pixels


def kind_of(runtime: Runtime) -> tuple[str, Tolerance]:
    """Return the kind of an opened file, and the limits of its difference from its model."""
    if isinstance(runtime, TFLiteRuntime):
        return _kind_of_tflite(runtime)
    if isinstance(runtime, OnnxRuntime):
        quantized = any(node.op_type in _QUANTIZES for node in runtime.nodes)
        return ("onnx-int8", INT8) if quantized else ("onnx", FLOAT32)
    if isinstance(runtime, OpenVinoRuntime):
        return ("openvino-int8", INT8) if runtime.is_quantized else ("openvino", FLOAT32)
    return ("savedmodel" if isinstance(runtime, SavedModelRuntime) else "keras", FLOAT32)


def _kind_of_tflite(runtime: TFLiteRuntime) -> tuple[str, Tolerance]:
    with_kernel = [item for item in runtime.graph if item.kernel]
    kernels = {item.kernel for item in with_kernel}
    if "INT4" in kernels:
        return "tflite-int4", INT4
    if "INT8" in kernels:
        of_int8 = [item for item in with_kernel if item.kernel == "INT8"]
        return ("tflite-dynamic" if all(x.in_float for x in of_int8) else "tflite-int8"), INT8
    if "DEQUANTIZE" in runtime.operations:
        return "tflite-float16", FLOAT16
    return "tflite-float32", FLOAT32


def _opened(model: Any) -> Runtime:
    if isinstance(model, Runtime):
        return model
    if not isinstance(model, str | Path):
        return KerasRuntime(model)
    return open_given(model)


def _other_outputs(runtime: Runtime, reference: Reference) -> list[str]:
    """Return a problem if one gives logits and the other probabilities."""
    found, expected = runtime.answers().activation, reference.activation
    if found == expected:
        return []
    return [f"the outputs are '{found}', but those of the model are '{expected}'"]

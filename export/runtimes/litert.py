"""Run .tflite files with LiteRT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from keras_resnet.errors import UserError, require
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.base import (
    ENGINES,
    Runtime,
    require_image_shape,
)
from keras_resnet.export.runtimes.locate import has_arena, read_array
from keras_resnet.images.answers import LINEAR, SIGMOID, SOFTMAX
from keras_resnet.lazy import quiet_stderr

# The last operation gives the activation of the outputs; other operations do not tell it.
_ACTIVATIONS = {"SOFTMAX": SOFTMAX, "LOGISTIC": SIGMOID, "FULLY_CONNECTED": LINEAR}


class TFLiteRuntime(Runtime):
    """A .tflite file, or the one in a `micro` folder, in LiteRT. Images run one by one.

    Several threads can share one runtime; they take turns, since an interpreter serves one caller
    at a time.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load the file, to run on `threads` threads.

        Raises:
            UserError: not a TFLite file, Flex ops, or not a classifier of one image.
        """
        interpreter = require(*ENGINES[".tflite"]).Interpreter
        data = read_array(path) if path.is_dir() else path.read_bytes()
        if path.is_dir() and not has_arena(path):
            self.notes = ("arena not measured",)
        try:
            with quiet_stderr():  # it announces its XNNPACK delegate
                self._interpreter = interpreter(model_content=data, num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"LiteRT cannot load {path}: {error}") from error
        inputs, outputs = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(
                f"{path} must have one input and one output; received {len(inputs)} and "
                f"{len(outputs)}."
            )
        self._input, self._output = inputs[0], outputs[0]
        self._turn = Lock()
        require_image_shape(path, self._input["shape"], self._output["shape"])
        signatures = self._interpreter.get_signature_list()
        for signature in list(signatures.values())[:1]:
            (self.input_name,), (self.output_name,) = signature["inputs"], signature["outputs"]
        self.input_shape = tuple(int(size) for size in self._input["shape"][1:])
        self.name, self.outputs = str(path), int(self._output["shape"][-1])
        self.input_dtype = np.dtype(self._input["dtype"]).name
        self.output_dtype = np.dtype(self._output["dtype"]).name
        self.output_step = float(self._output["quantization"][0])
        self.graph = tflite_graph.operations(tflite_graph.read(data))
        self.activation = _ACTIVATIONS.get(tflite_graph.last_operation(self.graph).kind)
        self.operations = _counted(item.kind for item in self.graph)
        self.float_operations = _counted(item.kind for item in self.graph if item.in_float)

    def _run(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate([self.run_one(image[None]) for image in images])

    def run_one(self, image: np.ndarray) -> np.ndarray:
        """Quantize the image with the file's scale, invoke, and dequantize the output."""
        pixels = quantize(image, self._input)
        with self._turn:
            self._interpreter.set_tensor(self._input["index"], pixels)
            self._interpreter.invoke()
            output = self._interpreter.get_tensor(self._output["index"])
        scale, zero_point = self._output["quantization"]
        if scale:
            return ((output.astype("float32") - zero_point) * scale).astype("float32")
        return output.astype("float32")


def quantize(image: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Convert float pixels to the type and scale of the input tensor that `details` describes."""
    scale, zero_point = details["quantization"]
    dtype = details["dtype"]
    if not scale:
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    steps = np.round(image.astype("float32") / scale) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def _counted(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items()))

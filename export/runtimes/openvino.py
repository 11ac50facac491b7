"""Run OpenVINO's .xml files."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from keras_resnet.errors import UserError, require
from keras_resnet.export.runtimes.base import ENGINES, Runtime, require_image_shape
from keras_resnet.images.answers import LINEAR, SIGMOID, SOFTMAX
from keras_resnet.lazy import quiet_stderr

# The last operation gives the activation of the outputs; other operations do not tell it.
_ACTIVATIONS = {"Softmax": SOFTMAX, "SoftMax": SOFTMAX, "Sigmoid": SIGMOID, "MatMul": LINEAR}


class OpenVinoRuntime(Runtime):
    """An OpenVINO model: an .xml file with its .bin file beside it."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Compile the file for the CPU, to run on `threads` threads.

        It computes in float32; OpenVINO's default is bfloat16 on CPUs that support it.

        Raises:
            UserError: not an OpenVINO file, or not a classifier of one image.
        """
        openvino = require(*ENGINES[".xml"])
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            with quiet_stderr():
                model = openvino.Core().read_model(str(path))
                self._compiled = openvino.compile_model(model, "CPU", settings)
        except Exception as error:  # usually a RuntimeError
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise UserError(f"OpenVINO cannot load {path}: {lines[-1][:300]}") from error
        self._turn = Lock()  # a compiled model refuses a second request while it runs one
        inputs, outputs = self._compiled.inputs, self._compiled.outputs
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(
                f"{path} must have one input and one output; received {len(inputs)} and "
                f"{len(outputs)}."
            )
        shape, given = (list(x[0].get_partial_shape()) for x in (inputs, outputs))
        require_image_shape(path, shape, given)
        self.input_name, self.output_name = (min(x[0].get_names()) for x in (inputs, outputs))
        self.input_shape = tuple(None if s.is_dynamic else s.get_length() for s in shape[1:])
        self.name, self.outputs = str(path), given[-1].get_length()
        self.activation = _ACTIVATIONS.get(_last_operation(model))
        self.is_quantized = any(op.get_type_name() == "FakeQuantize" for op in model.get_ops())
        self.input_dtype, self.output_dtype = (
            np.dtype(x[0].get_element_type().to_dtype()).name for x in (inputs, outputs)
        )

    def _run(self, images: np.ndarray) -> np.ndarray:
        with self._turn:
            outputs = self._compiled(images.astype(self.input_dtype))
            return np.array(outputs[0], dtype="float32")


def _last_operation(model: Any) -> str:
    """Return the type of the operation that makes the outputs, before any bias or conversion."""
    node = model.get_results()[0].input_value(0).get_node()
    while node.get_type_name() in ("Add", "Convert"):
        inputs = [value.get_node() for value in node.input_values()]
        inner = [x for x in inputs if x.get_type_name() not in ("Constant", "Convert")]
        if node.get_type_name() == "Convert":
            inner = inputs
        if len(inner) != 1:
            break
        node = inner[0]
    return str(node.get_type_name())

"""TFLite files with readable intermediate tensors, and operations that can run one by one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError, require
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.base import fails_as
from keras_resnet.export.runtimes.litert import TFLiteRuntime, quantize
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.export.runtimes.tflite_graph import Operation
from keras_resnet.files import expanded
from keras_resnet.lazy import quiet_stderr


class Probe:
    """A TFLite classifier that keeps its intermediate results.

    Attributes:
        path: the file.
        operations: the operations of layers, in the order they run.
    """

    def __init__(self, path: str | Path) -> None:
        """Load the file.

        Raises:
            UserError: see `open.open_file`; or the graph contains other graphs.
        """
        self.path = expanded(path)
        runtime = open_file(path)
        if not isinstance(runtime, TFLiteRuntime):
            raise UserError(
                f"{path} is not a .tflite file. Single layers can only be read in .tflite files; "
                "export one: keras-resnet export MODEL --formats tflite-float32"
            )
        self.runtime = runtime
        self.data = self.path.read_bytes()
        if len(tflite_graph.read(self.data).subgraphs) != 1:
            raise UserError(
                f"{path} contains a loop or a condition, so its single layers cannot be read. "
                "Give a file without them."
            )
        self.operations = [item for item in runtime.graph if item.kind not in tflite_graph.BORDERS]
        with fails_as(f"Cannot read the layers of {path}"):
            self._interpreter = _interpreter(self.data)
            self._details = {item["index"]: item for item in self._interpreter.get_tensor_details()}
        self.input = int(self._interpreter.get_input_details()[0]["index"])

    def run(self, image: np.ndarray) -> None:
        """Run one image (height, width, channels)."""
        steps = quantize(image[None], self._details[self.input])
        with fails_as(f"{self.path} cannot be run"):
            self._interpreter.set_tensor(self.input, steps)
            self._interpreter.invoke()

    def value(self, tensor: int) -> np.ndarray:
        """Return a tensor of the last run, or a constant, in float32."""
        stored = self._interpreter.get_tensor(tensor)
        parameters = self._details[tensor]["quantization_parameters"]
        scales, zeros = parameters["scales"], parameters["zero_points"]
        if not scales.size:
            return np.asarray(stored, dtype="float32")
        if scales.size > 1:  # one per channel
            shape = [1] * stored.ndim
            shape[parameters["quantized_dimension"]] = -1
            scales, zeros = scales.reshape(shape), zeros.reshape(shape)
        return ((stored.astype("float32") - zeros) * scales).astype("float32")

    def shape(self, operation: Operation) -> tuple[int, ...]:
        """Return the shape of the operation's output."""
        return tuple(int(size) for size in self._details[operation.outputs[0]]["shape"])

    def grid(self, tensor: int) -> tuple[float, float, float] | None:
        """Return a quantized tensor's least and largest value and its step; None for floats."""
        scale, zero_point = self._details[tensor]["quantization"]
        if not scale:
            return None
        limits = np.iinfo(self._details[tensor]["dtype"])
        return (limits.min - zero_point) * scale, (limits.max - zero_point) * scale, scale


class Primed:
    """A float file whose operations read given tensors instead of earlier results."""

    def __init__(self, data: bytes, tensors: Iterable[int]) -> None:
        """Cut the graph at `tensors`: each becomes an input for the operations that read it."""
        model = tflite_graph.read(data)
        (graph,) = model.subgraphs
        self._copies: dict[int, int] = {}
        for tensor in dict.fromkeys(tensors):
            given = copy.copy(graph.tensors[tensor])
            given.buffer, given.name = 0, b"given/" + given.name
            self._copies[tensor] = len(graph.tensors)
            graph.tensors.append(given)
        for operator in graph.operators:
            operator.inputs = [self._copies.get(int(i), int(i)) for i in operator.inputs]
        computed = {int(i) for operator in graph.operators for i in operator.outputs}
        self._outputs = sorted(computed & set(self._copies))
        graph.inputs, graph.outputs = list(self._copies.values()), self._outputs
        model.signatureDefs = []
        self._interpreter = _interpreter(tflite_graph.pack(model))

    def run(self, given: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Compute every tensor at a cut from the given values of all of them."""
        for tensor, value in given.items():
            self._interpreter.set_tensor(self._copies[tensor], value)
        self._interpreter.invoke()
        return {tensor: self._interpreter.get_tensor(tensor) for tensor in self._outputs}


def _interpreter(data: bytes) -> Any:
    """Open LiteRT on its own kernels, because a delegate hides intermediate results."""
    module = require("ai_edge_litert.interpreter", "export")
    resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with quiet_stderr(), warnings.catch_warnings(action="ignore"):  # "for debugging only"
        interpreter = module.Interpreter(
            model_content=data,
            num_threads=1,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
    return interpreter

"""Run .onnx files with ONNX Runtime.

The format is plain data (protocol buffers). No code is loaded from a file: the engine refuses
operations that it does not have.
"""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError, require
from keras_resnet.export.runtimes.base import ENGINES, Runtime, fails_as, require_image_shape
from keras_resnet.images.answers import LINEAR, SIGMOID, SOFTMAX, Answers
from keras_resnet.lazy import quiet_stderr

# The last operation gives the activation of the outputs; other operations do not tell it.
_ACTIVATIONS = {"Softmax": SOFTMAX, "Sigmoid": SIGMOID, "Gemm": LINEAR, "MatMul": LINEAR}
_BORDERS = ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity")


class OnnxRuntime(Runtime):
    """An .onnx file in ONNX Runtime."""

    def __init__(self, path: Path, threads: int = 1, *, optimize: bool = True) -> None:
        """Load the file, to run on `threads` threads.

        `optimize=False` computes each operation as ONNX defines it, so an int8 file computes in
        float32.

        Raises:
            UserError: not an ONNX file, unknown operations, or not a classifier of one image.
        """
        engine = require(*ENGINES[".onnx"])
        options = engine.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors arrive as exceptions
        if not optimize:
            options.graph_optimization_level = engine.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            with quiet_stderr():  # it looks for GPUs
                self._session = engine.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"], enable_fallback=False
                )  # the fallback prints to stdout
        except Exception as error:  # ONNX Runtime has a type for every kind of fault
            first = str(error).splitlines()[0]
            raise UserError(f"ONNX Runtime cannot load {path}: {first[:300]}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(
                f"{path} must have one input and one output; received {len(inputs)} and "
                f"{len(outputs)}."
            )
        require_image_shape(path, inputs[0].shape, outputs[0].shape)
        self.input_name, self.output_name = inputs[0].name, outputs[0].name
        self.input_shape = tuple(_size(size) for size in inputs[0].shape[1:])
        self.name, self.outputs = str(path), int(outputs[0].shape[-1])
        self.input_dtype, self.output_dtype = _dtype(inputs[0].type), _dtype(outputs[0].type)
        self._path, self._threads = path, threads
        self._one_by_one = inputs[0].shape[0] == 1

    def unoptimized(self) -> OnnxRuntime:
        """Open the same file without ONNX Runtime's optimizations and this CPU's int8 kernels."""
        return OnnxRuntime(self._path, self._threads, optimize=False)

    @cached_property
    def nodes(self) -> list[Any]:
        """The operations of the file's graph."""
        onnx = require("onnx", "onnx")
        with fails_as(f"{self._path} cannot be read"):
            return list(onnx.load(str(self._path), load_external_data=False).graph.node)

    def answers(self) -> Answers:
        """Return the rules for reading the outputs, from the graph if `onnx` is installed."""
        if self.activation is None and find_spec("onnx"):
            made_by = {output: node for node in self.nodes for output in node.output}
            last = made_by.get(self.output_name)
            while last is not None and last.op_type in (*_BORDERS, "Add"):
                known = [name for name in last.input if name in made_by]  # not a bias
                last = made_by.get(known[0]) if len(known) == 1 else None
            self.activation = _ACTIVATIONS.get(last.op_type) if last is not None else None
        return super().answers()

    def _run(self, images: np.ndarray) -> np.ndarray:
        pixels = images.astype(self.input_dtype)
        batches = [image[None] for image in pixels] if self._one_by_one else [pixels]
        outputs = [self._session.run(None, {self.input_name: batch})[0] for batch in batches]
        return np.concatenate(outputs).astype("float32")


def _size(value: Any) -> int | None:
    """Return a dimension as a number; None for a free one, which has a name instead."""
    return value if isinstance(value, int) else None


def _dtype(name: str) -> str:
    """Return NumPy's name for a type like `tensor(float)`."""
    kind = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)

"""ONNX and OpenVINO files behind the face of `runtimes.Runtime`, on the CPU; which engines lack.

Both formats are plain data (protocol buffers; XML and numbers) and no code of a file's own is
loaded: an operation that the engine itself does not have is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.display.console import quiet_stderr
from keras_resnet.errors import MissingExtraError, UserError, missing, require
from keras_resnet.export.runtimes import ENGINES, Runtime, located, require_image_shape


def missing_engine(path: Path) -> MissingExtraError | None:
    """What `open_file` would raise because the file's engine is not installed; None if it is."""
    kind, _ = located(path)
    return missing(*ENGINES[kind]) if kind in ENGINES else None


def left_out(absent: Mapping[str, MissingExtraError | None]) -> list[dict[str, str]]:
    """Which files have to be left out here, and what would have to be installed to open them.

    Args:
        absent: by the file's name, what `missing_engine` says of it.

    Returns:
        A {"file", "reason"} for each.

    Raises:
        UserError: these are all.
    """
    reasons = {name: str(error) for name, error in absent.items() if error is not None}
    if absent and len(reasons) == len(absent):
        raise UserError("No file can be opened here. " + " ".join(dict.fromkeys(reasons.values())))
    return [{"file": name, "reason": reason} for name, reason in reasons.items()]


class OnnxRuntime(Runtime):
    """An .onnx file in ONNX Runtime."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load the file, to run on `threads` threads.

        Raises:
            UserError: not an ONNX file, unknown operations, or not a classifier of one image.
        """
        engine = require(*ENGINES[".onnx"])
        options = engine.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors arrive as exceptions
        try:
            with quiet_stderr():  # it looks for GPUs
                self._session = engine.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:  # a type of its own for every kind of fault
            first = str(error).splitlines()[0]
            raise UserError(f"ONNX Runtime cannot load {path}: {first[:300]}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(f"{path} has not one input and one output.")
        require_image_shape(path, inputs[0].shape, outputs[0].shape)
        self.input_name, self.output_name = inputs[0].name, outputs[0].name
        self.input_shape = tuple(_size(size) for size in inputs[0].shape[1:])
        self.classes = int(outputs[0].shape[-1])
        self.input_dtype, self.output_dtype = _dtype(inputs[0].type), _dtype(outputs[0].type)
        self._path, self._one_by_one = path, inputs[0].shape[0] == 1

    @cached_property
    def nodes(self) -> list[Any]:
        """The operations of the file's graph."""
        model = require("onnx", "onnx").load(str(self._path), load_external_data=False)
        return list(model.graph.node)

    def _run(self, images: np.ndarray) -> np.ndarray:
        pixels = images.astype(self.input_dtype)
        batches = [image[None] for image in pixels] if self._one_by_one else [pixels]
        outputs = [self._session.run(None, {self.input_name: batch})[0] for batch in batches]
        return np.concatenate(outputs).astype("float32")


class OpenVinoRuntime(Runtime):
    """An OpenVINO model: the .xml, beside which its .bin lies."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Compile the file for the CPU, to run on `threads` threads.

        In float32: left to itself OpenVINO computes in bfloat16 where the CPU can.

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
        except Exception as error:  # RuntimeError, mostly
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise UserError(f"OpenVINO cannot load {path}: {lines[-1][:300]}") from error
        inputs, outputs = self._compiled.inputs, self._compiled.outputs
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(f"{path} has not one input and one output.")
        shape, given = (list(x[0].get_partial_shape()) for x in (inputs, outputs))
        require_image_shape(path, shape, given)
        self.input_name, self.output_name = (min(x[0].get_names()) for x in (inputs, outputs))
        self.input_shape = tuple(None if s.is_dynamic else s.get_length() for s in shape[1:])
        self.classes = given[-1].get_length()
        self.input_dtype, self.output_dtype = (
            np.dtype(x[0].get_element_type().to_dtype()).name for x in (inputs, outputs)
        )

    def _run(self, images: np.ndarray) -> np.ndarray:
        outputs = self._compiled(images.astype(self.input_dtype))
        return np.array(outputs[0], dtype="float32")


def _size(value: Any) -> int | None:
    """A dimension; those without a number have a name."""
    return value if isinstance(value, int) else None


def _dtype(name: str) -> str:
    """`tensor(float)` in NumPy's words."""
    kind = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)

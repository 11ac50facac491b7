"""Every kind of model file behind one face: pixels in, the model's outputs out, as float32."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.display.console import quiet_stderr
from keras_resnet.errors import UserError, require
from keras_resnet.export import graphs
from keras_resnet.export.formats import micro, web

SAVED_MODEL = "SavedModel"
_BATCH = 64
_PROGRAM = "saved_model.pb"
# What runs a file besides TensorFlow, by its kind (see `located`): the module and its extra.
ENGINES = {
    ".tflite": ("ai_edge_litert.interpreter", "export"),
    ".onnx": ("onnxruntime", "onnx"),
    ".xml": ("openvino", "openvino"),
}


class Runtime:
    """A model that can be run.

    Attributes:
        input_name, output_name: of the signature.
        input_shape: (height, width, channels); None where the size is free.
        input_dtype, output_dtype: what the file itself takes and gives.
        output_step: the least difference between two outputs that a quantized file can express.
    """

    input_name: str = "images"
    output_name: str = "predictions"
    input_shape: tuple[int | None, ...]
    classes: int
    input_dtype: str = "float32"
    output_dtype: str = "float32"
    output_step: float = 0.0

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Run images (n, height, width, channels) → float32 (n, classes)."""
        self.require_images(images)
        batches = range(0, len(images), _BATCH)
        return np.concatenate([self._run(images[start : start + _BATCH]) for start in batches])

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """`predict`, and a softmax where the model gives no probabilities itself."""
        outputs = self.predict(images)
        if are_probabilities(outputs, self.output_step):
            return outputs
        exponentials = np.exp(outputs - outputs.max(-1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))

    def run_one(self, image: np.ndarray) -> np.ndarray:
        """Run one image (1, height, width, channels), as a device does; this is what is timed."""
        return self._run(image)

    def any_size(self) -> Runtime:
        """The same model for images of any size; itself, if it is.

        Raises:
            UserError: it is a file of one size.
        """
        if self.input_shape[:2] == (None, None):
            return self
        raise UserError(
            f"This file takes images of {self.input_shape[0]}×{self.input_shape[1]} only. "
            "Evaluate the run folder or the .keras file that it was made from."
        )

    def _run(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def require_images(self, images: np.ndarray) -> None:
        """Refuse images that are not (n, height, width, channels) of the file's size.

        Raises:
            UserError: with both sizes.
        """
        expected, received = self.input_shape, images.shape[1:]
        fits = len(received) == 3 and all(
            e is None or e == r for e, r in zip(expected, received, strict=True)
        )
        if not fits or len(images) == 0:
            raise UserError(
                f"The model takes images of (height, width, channels) = {expected}, one or more; "
                f"received a batch of shape {images.shape}."
            )


class KerasRuntime(Runtime):
    """A Keras model in memory."""

    def __init__(self, model: Any) -> None:
        """Compile `model` for inference.

        Raises:
            UserError: it is not a classifier of one image.
        """
        import tensorflow as tf

        self.input_shape, self.classes = classifier_shape(model)
        self._model = model
        images = tf.TensorSpec((None, *model.input_shape[1:]), "float32")  # traced once
        self._infer = tf.function(lambda x: model(x, training=False), input_signature=[images])

    def _run(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._infer(images.astype("float32")), dtype="float32")

    def any_size(self) -> Runtime:
        """The same layers and weights on an input of free size.

        Raises:
            UserError: the layers know the size, as a Dense behind a Flatten does.
        """
        if self.input_shape[:2] == (None, None):
            return self
        import keras

        def free(image: Any) -> Any:
            shape = (None, None, image.shape[-1])
            return keras.Input(shape, dtype=image.dtype, name=image.name)

        try:
            inputs = keras.tree.map_structure(free, self._model.input)
            model = keras.models.clone_model(self._model, input_tensors=inputs)
            model.set_weights(self._model.get_weights())
        except (ValueError, TypeError) as error:
            height, width = self.input_shape[:2]
            raise UserError(
                f"'{self._model.name}' is made for images of {height}×{width} (its classifier is "
                "not behind global pooling), so it cannot be shown whole images of other sizes. "
                "Evaluate it on crops: --crops 10."
            ) from error
        return KerasRuntime(model)


class SavedModelRuntime(Runtime):
    """A SavedModel folder, through its serving_default signature.

    Of one of ours the output that every format has, and images of the model's own size.
    """

    def __init__(self, path: Path) -> None:
        """Load the folder, or the newest version in it; no class of ours or of Keras is needed."""
        import tensorflow as tf

        try:
            # A signature lives as long as what it was loaded with.
            self._loaded = tf.saved_model.load(str(_saved_model(path)))
            self._serve = self._loaded.signatures["serving_default"]
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{path} is not a readable SavedModel with serving_default.") from error
        inputs = self._serve.structured_input_signature[1]
        outputs = self._serve.structured_outputs
        if len(outputs) > 1 and self.output_name in outputs:
            outputs = {self.output_name: outputs[self.output_name]}
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(
                f"{path} has not one input and one output, or one named '{self.output_name}'."
            )
        ((self.input_name, spec),) = inputs.items()
        ((self.output_name, output),) = outputs.items()
        require_image_shape(path, spec.shape, output.shape)
        self.input_shape, self.classes = self._image_shape(spec), int(output.shape[-1])
        self.input_dtype, self.output_dtype = spec.dtype.name, output.dtype.name

    def _image_shape(self, spec: Any) -> tuple[int | None, ...]:
        """What the model itself takes; a signature of ours takes any size and cuts it to that."""
        if answer := getattr(self._loaded, "answer", None):
            spec = answer.concrete_functions[0].structured_input_signature[0][0]
        return tuple(spec.shape[1:])

    def _run(self, images: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        batch = tf.constant(images.astype(self.input_dtype))
        outputs = self._serve(**{self.input_name: batch})[self.output_name]
        return np.asarray(outputs, dtype="float32")


class TFLiteRuntime(Runtime):
    """A .tflite file, or the one in a folder for microcontrollers, in LiteRT: image by image."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load the file, to run on `threads` threads.

        Raises:
            UserError: not a TFLite file, Flex ops, or not a classifier of one image.
        """
        interpreter = require(*ENGINES[".tflite"]).Interpreter
        data = micro.read(path) if path.is_dir() else path.read_bytes()
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
            raise UserError(f"{path} has not one input and one output.")
        self._input, self._output = inputs[0], outputs[0]
        require_image_shape(path, self._input["shape"], self._output["shape"])
        signatures = self._interpreter.get_signature_list()
        for signature in list(signatures.values())[:1]:
            (self.input_name,), (self.output_name,) = signature["inputs"], signature["outputs"]
        self.input_shape = tuple(int(size) for size in self._input["shape"][1:])
        self.classes = int(self._output["shape"][-1])
        self.input_dtype = np.dtype(self._input["dtype"]).name
        self.output_dtype = np.dtype(self._output["dtype"]).name
        self.output_step = float(self._output["quantization"][0])
        self.graph = graphs.operations(graphs.read(data))
        self.operations = _counted(item.kind for item in self.graph)
        self.float_operations = _counted(item.kind for item in self.graph if item.in_float)

    def _run(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate([self.run_one(image[None]) for image in images])

    def run_one(self, image: np.ndarray) -> np.ndarray:
        """Quantize as the file says, invoke, dequantize."""
        self._interpreter.set_tensor(self._input["index"], quantize(image, self._input))
        self._interpreter.invoke()
        output = self._interpreter.get_tensor(self._output["index"])
        scale, zero_point = self._output["quantization"]
        if scale:
            return ((output.astype("float32") - zero_point) * scale).astype("float32")
        return output.astype("float32")


def quantize(image: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Turn float pixels into what the input tensor of these details takes."""
    scale, zero_point = details["quantization"]
    dtype = details["dtype"]
    if not scale:
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    steps = np.round(image.astype("float32") / scale) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def _counted(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items()))


def classifier_shape(model: Any) -> tuple[tuple[int | None, ...], int]:
    """Return a Keras model's image shape (height, width, channels) and number of classes.

    Raises:
        UserError: several inputs or outputs, or no image in and one vector out.
    """
    inputs: Any = getattr(model, "input_shape", None)
    outputs: Any = getattr(model, "output_shape", None)
    one = all(
        isinstance(shape, tuple) and isinstance(shape[-1], int) for shape in (inputs, outputs)
    )
    outputs_by_name = getattr(model, "output", None)
    if isinstance(outputs_by_name, dict) and "predictions" in outputs_by_name:
        raise UserError(
            f"'{model.name}' has the outputs {', '.join(model.output)}; drop the auxiliary ones "
            "first: keras_resnet.inference_model(model)."
        )
    if not one or len(inputs) != 4 or len(outputs) != 2:
        raise UserError(
            "Expected a functional Keras model from one image (batch, height, width, channels) to "
            f"one vector (batch, classes); received {inputs} → {outputs}."
        )
    return inputs[1:], outputs[-1]


def require_image_shape(path: Path, inputs: Any, outputs: Any) -> None:
    """Refuse shapes that are not those of a batch of images and of vectors.

    Raises:
        UserError: with both.
    """
    if len(inputs) != 4 or len(outputs) != 2:
        raise UserError(
            f"{path} does not turn a batch of images into a batch of vectors: "
            f"{list(inputs)} → {list(outputs)}."
        )


def open_file(path: str | Path, threads: int = 1) -> Runtime:
    """Open a `.keras`, `.tflite`, `.onnx` or OpenVINO `.xml` file, or the folder of a SavedModel
    or of an OpenVINO model, or of the formats micro and web.

    `threads` is how many to run on; TensorFlow's number is one for the whole process
    (`tf.config.threading`).

    Raises:
        UserError: no such file, or a kind or content that is none of these.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"No such file or folder: {path}")
    kind, path = located(path)
    openers: dict[str, Callable[[], Runtime]] = {
        SAVED_MODEL: lambda: SavedModelRuntime(path),
        ".keras": lambda: KerasRuntime(load_keras(path)),
        ".tflite": lambda: TFLiteRuntime(path, threads),
        ".onnx": lambda: _engines().OnnxRuntime(path, threads),
        ".xml": lambda: _engines().OpenVinoRuntime(path, threads),
    }
    if kind in openers:
        return openers[kind]()
    raise UserError(
        f"{path} is neither a .keras, .tflite, .onnx or .xml file (OpenVINO) nor the folder of a "
        "SavedModel or of an OpenVINO model."
    )


def located(path: Path) -> tuple[str, Path]:
    """The kind of a model, which is the ending of its file or `SAVED_MODEL`, and what is opened."""
    if (_saved_model(path) / _PROGRAM).is_file():
        return SAVED_MODEL, path
    if (path / micro.ARRAY).is_file():
        return ".tflite", path
    if web.is_page(path):
        path = path / web.MODEL
    if len(inside := list(path.glob("*.xml"))) == 1:
        path = inside[0]
    return path.suffix, path


def _engines() -> Any:
    from keras_resnet.export import engines  # whose classes are made of those above

    return engines


def _saved_model(path: Path) -> Path:
    """The folder of the program: `path`, or the newest of TensorFlow Serving's versions in it."""
    versions = [p for p in path.glob(f"*/{_PROGRAM}") if p.parent.name.isdecimal()]
    if (path / _PROGRAM).is_file() or not versions:
        return path
    return max(versions, key=lambda program: int(program.parent.name)).parent


def load_keras(path: Path) -> Any:
    """Load a `.keras` file; Keras' safe mode refuses files that carry code.

    Raises:
        UserError: no such file, or not a Keras model.
    """
    import keras

    import keras_resnet.layers  # noqa: F401  (registers our BatchNormalization)

    if not path.is_file():
        raise UserError(f"No such file: {path}")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py, json and Keras raise unrelated types from here
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not zipfile.is_zipfile(path):  # of which Keras says: not found
            reason = "it is damaged, cut short or of another kind (it is no zip archive)."
        raise UserError(f"Cannot load {path} as a Keras model: {reason}") from error


def are_probabilities(outputs: np.ndarray, step: float = 0.0) -> bool:
    """Whether every row is a distribution, up to rounding to multiples of `step`."""
    slack = 1e-3 + outputs.shape[-1] * step / 2
    in_range = outputs.min() >= 0 and outputs.max() <= 1 + 1e-3
    return bool(in_range and np.abs(outputs.sum(-1) - 1).max() <= slack)

"""`open_file`: open a model file of any kind, ready to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.base import Runtime, fails_as
from keras_resnet.export.runtimes.keras import KerasRuntime, load_keras
from keras_resnet.export.runtimes.litert import TFLiteRuntime
from keras_resnet.export.runtimes.locate import SAVED_MODEL, located
from keras_resnet.export.runtimes.onnx import OnnxRuntime
from keras_resnet.export.runtimes.openvino import OpenVinoRuntime
from keras_resnet.export.runtimes.saved_model import SavedModelRuntime
from keras_resnet.files import expanded, read_json
from keras_resnet.images.answers import ACTIVATIONS


def open_file(path: str | Path, threads: int = 1) -> Runtime:
    """Open a model file or folder.

    Files: `.keras`, `.tflite`, `.onnx`, or OpenVINO's `.xml`. Folders: a SavedModel, an OpenVINO
    model, or an export of the formats micro and web.

    `threads` is the number of threads to run on. TensorFlow has one setting for the whole process
    instead (`tf.config.threading`).

    Raises:
        UserError: no such file, not one of these kinds, damaged, or a SavedModel with operations
            that are not allowed.
    """
    named = expanded(path)
    if not named.exists():
        raise UserError(f"No such file or folder: {named}")
    kind, path = located(named)
    openers: dict[str, Callable[[], Runtime]] = {
        SAVED_MODEL: lambda: SavedModelRuntime(path),
        ".keras": lambda: KerasRuntime(load_keras(path)),
        ".tflite": lambda: TFLiteRuntime(path, threads),
        ".onnx": lambda: OnnxRuntime(path, threads),
        ".xml": lambda: OpenVinoRuntime(path, threads),
    }
    if kind in openers:
        with fails_as(f"Cannot open {path}"):
            runtime = openers[kind]()
        runtime.activation = runtime.activation or _recorded_activation(named)
        return runtime
    raise UserError(
        f"{path} is not a model file. Give a .keras, .tflite, .onnx or OpenVINO .xml file, or the "
        "folder of a SavedModel or of an OpenVINO model."
    )


def _recorded_activation(path: Path) -> str | None:
    """Return the activation recorded in the manifest.json beside an exported file, or None."""
    try:
        content = read_json(path.parent / "manifest.json")
        is_exported = any(entry["file"] == path.name for entry in content["files"])
        activation = content["output"].get("activation")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # `check` reports a damaged manifest
    return activation if is_exported and activation in ACTIVATIONS else None

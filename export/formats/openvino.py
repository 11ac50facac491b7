"""Keras model → OpenVINO IR."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import keras

from keras_resnet.errors import UserError, require
from keras_resnet.export.formats.onnx import inference_function, quietly
from keras_resnet.export.runtimes.base import INPUT, OUTPUT


def write_openvino(model: keras.Model, folder: Path, name: str) -> None:
    """Write `model` (float32, stock layers) as `folder/NAME.xml` and `.bin`, weights in float32.

    Raises:
        UserError: OpenVINO does not support an operation.
        OSError: the file system takes no more.
    """
    openvino = require("openvino", "openvino")
    function = inference_function(model)  # keep it: a graph has only weak references to variables
    with quietly():
        try:
            converted = openvino.convert_model(function.get_concrete_function())
        except Exception as error:  # OpenVINO raises types of its own
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise UserError(f"OpenVINO cannot convert this model: {lines[-1][:300]}") from error
        converted.inputs[0].get_tensor().set_names({INPUT})
        converted.outputs[0].get_tensor().set_names({OUTPUT})
        folder.mkdir()
        try:
            openvino.save_model(converted, str(folder / f"{name}.xml"), compress_to_fp16=False)
        except RuntimeError as error:
            if "iostream" not in str(error):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error  # it says no more

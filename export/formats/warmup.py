"""Warm-up requests in a SavedModel's `assets.extra`: TensorFlow Serving runs them at start.

The file is a TFRecord of PredictionLog messages (tensorflow_serving/apis/prediction_log.proto). The
few fields are written by hand, so that an export does not need TensorFlow Serving's package. A test
reads them with that package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
# Field numbers: PredictionLog.predict_log and PredictLog.request; then those of PredictRequest, of
# ModelSpec, and of a map's entry.
_PREDICT_LOG, _REQUEST = 6, 1
_MODEL_SPEC, _INPUTS = 1, 2
_NAME, _SIGNATURE_NAME = 1, 3
_KEY, _VALUE = 1, 2


def write(folder: Path, name: str, shape: tuple[int, ...], signatures: dict[str, Any]) -> None:
    """Write one black image for each of `signatures` (concrete functions).

    The image has the size `shape`. A signature of free size gets twice that size, so that the
    warm-up includes resizing.
    """
    path = folder / _FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, function in signatures.items():
            ((spec,), _) = function.structured_input_signature
            file.write(_request(name, signature, spec.name, _black(spec, shape)))


def _black(spec: tf.TensorSpec, shape: tuple[int, ...]) -> Any:
    """Return a batch of one black image, as pixels or as an encoded file."""
    is_free = spec.dtype == tf.string or spec.shape[1] is None
    height, width = (2 * side if is_free else side for side in shape[:2])
    image = np.zeros((height, width, shape[2]), "uint8")
    if spec.dtype == tf.string:
        return tf.make_tensor_proto([tf.io.encode_jpeg(image).numpy()])
    return tf.make_tensor_proto(image[None].astype(spec.dtype.as_numpy_dtype))


def _request(name: str, signature: str, key: str, tensor: Any) -> bytes:
    spec = _field(_NAME, name.encode()) + _field(_SIGNATURE_NAME, signature.encode())
    entry = _field(_KEY, key.encode()) + _field(_VALUE, tensor.SerializeToString())
    request = _field(_MODEL_SPEC, spec) + _field(_INPUTS, entry)
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of a protocol buffer."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes([value])
    return bytes([value & 0x7F | 0x80]) + _varint(value >> 7)

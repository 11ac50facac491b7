"""TensorFlow's errors of writing files, for messages."""

from __future__ import annotations

import tensorflow as tf

# A full disk, a quota, and a folder that is gone or not writable.
WRITE_ERRORS = (
    tf.errors.ResourceExhaustedError,
    tf.errors.OutOfRangeError,  # "File too large"
    tf.errors.UnknownError,
    tf.errors.PermissionDeniedError,
    tf.errors.NotFoundError,
    tf.errors.DataLossError,
)


def why_not_written(error: Exception) -> str:
    """Return the system's reason: TensorFlow's messages begin with the operation, and end so."""
    return str(error).strip().splitlines()[0].rpartition("; ")[2].partition(" [Op:")[0]

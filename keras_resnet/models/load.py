"""Load `.keras` files, within bounds and without running code from them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from keras_resnet.errors import UserError
from keras_resnet.files import require_bounded, require_modest

_WEIGHTS = "model.weights.h5"  # inside a .keras file


def load_keras(path: Path) -> Any:
    """Load a `.keras` file. Keras' safe mode refuses files that contain code.

    Raises:
        UserError: no such file, or not a Keras model.
    """
    import keras

    if not path.is_file():
        raise UserError(f"No such file: {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                require_bounded(archive, path)
                _require_bounded_weights(archive, path)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py, json and Keras raise unrelated types from here
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not zipfile.is_zipfile(path):  # Keras would say: not found
            reason = "it is damaged, cut short or of another kind (not a zip archive)."
        raise UserError(f"Cannot load {path} as a Keras model: {reason}") from error


def _require_bounded_weights(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse weights that declare far more numbers than they store, as HDF5 allows.

    Raises:
        UserError: reading them would fill the memory.
    """
    import h5py

    declared = 0

    def count(_: str, item: Any) -> None:
        nonlocal declared
        declared += item.nbytes if isinstance(item, h5py.Dataset) else 0

    with archive.open(_WEIGHTS) as inner, h5py.File(inner) as file:
        file.visititems(count)
    require_modest(path, declared)

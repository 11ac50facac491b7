"""PyTorch's weight files (`.pth`, `.pt`, `.th`) without PyTorch.

They are pickles, which can run any code. `_Reader` therefore resolves no names but the few that a
state dict consists of, and those to methods of its own: a foreign pickle ends in an error.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from keras_resnet.errors import UserError

_DTYPES = {
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
}
_PICKLES_BEFORE = 3  # the old format begins with a magic number, its version and the machine's


@dataclass(frozen=True)
class _Tensor:
    """A tensor whose numbers have not been read yet: a view of a storage."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # both in elements


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read the state dict that `torch.save` wrote, alone or in a checkpoint.

    Both formats: zip (since PyTorch 1.6) and the one before. Dtypes: float16/32/64, int64.

    Raises:
        UserError: no such file, no state dict, or a pickle with anything else in it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"No such weights file: {path}")
    try:
        with path.open("rb") as file:
            content, storages = (_zip if zipfile.is_zipfile(path) else _old)(file)
        for key in ("state_dict", "model"):  # timm's checkpoints, and torchvision's
            content = content.get(key, content)
        return {name: _array(tensor, storages) for name, tensor in content.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    # What a damaged or foreign pickle raises is anybody's guess.
    except Exception as error:
        raise UserError(f"{path} holds no state dict of PyTorch ({error}).") from error


class _Reader(pickle.Unpickler):
    """An unpickler that knows tensors, parameters and ordered dicts."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")  # of the strings that Python 2 wrote
        self.dtypes: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            **{f"torch.{storage}": dtype for storage, dtype in _DTYPES.items()},
        }
        if f"{module}.{name}" not in known:
            raise UserError(f"it holds '{module}.{name}', which is no part of a state dict.")
        return known[f"{module}.{name}"]

    def persistent_load(self, identifier: tuple[Any, ...]) -> str:
        _kind, dtype, key, *_ = identifier
        self.dtypes[key] = dtype
        return key

    def _tensor(self, storage: str, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
        return _Tensor(storage, offset, shape, strides)

    def _parameter(self, tensor: _Tensor, *_: Any) -> _Tensor:
        return tensor


def _zip(file: BinaryIO) -> tuple[Any, Mapping[str, np.ndarray]]:
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError("it is compressed, as PyTorch's files never are.")
        [root] = [n.removesuffix("data.pkl") for n in archive.namelist() if n.endswith("/data.pkl")]
        with archive.open(f"{root}data.pkl") as pickled:
            reader = _Reader(pickled)  # type: ignore[arg-type]
            content = reader.load()
        return content, {
            key: np.frombuffer(archive.read(f"{root}data/{key}"), dtype)
            for key, dtype in reader.dtypes.items()
        }


def _old(file: BinaryIO) -> tuple[Any, Mapping[str, np.ndarray]]:
    for _ in range(_PICKLES_BEFORE):
        _Reader(file).load()
    reader = _Reader(file)
    content = reader.load()
    storages = {}
    for key in _Reader(file).load():
        count = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(reader.dtypes[key])
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return content, storages


def _array(tensor: _Tensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    """A copy of the view; NumPy refuses one that leaves its storage."""
    storage = storages[tensor.storage]
    if math.prod(tensor.shape) > storage.size:  # a stride of 0 would make a few bytes gigabytes
        raise UserError(f"it holds a tensor of {tensor.shape}, larger than its storage.")
    size = storage.itemsize
    strides = tuple(stride * size for stride in tensor.strides)
    return np.ndarray(tensor.shape, storage.dtype, storage, tensor.offset * size, strides).copy()

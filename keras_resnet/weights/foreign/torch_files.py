"""PyTorch's weight files (`.pth`, `.pt`, `.th`) without PyTorch.

They are pickles, which can run any code. `_Reader` therefore resolves no names but the few that a
state dict consists of, and those to methods of its own: a foreign pickle ends in an error.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
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
_Storages = Mapping[str, np.ndarray]
_MOST_MEMO = 1_000_000  # objects that a pickle refers back to; a state dict has thousands
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
    return _read(Path(path), _array, numbers=True)


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a state dict; the numbers stay unread.

    Raises:
        UserError: as `read_state_dict`.
    """
    return _read(Path(path), lambda tensor, _: tuple(map(int, tensor.shape)), numbers=False)


def _read(path: Path, entry: Callable[[_Tensor, _Storages], Any], numbers: bool) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"No such weights file: {path}")
    try:
        with path.open("rb") as file:
            content, storages = (_zip if zipfile.is_zipfile(path) else _old)(file, numbers)
        for key in ("state_dict", "model"):  # timm's checkpoints, and torchvision's
            content = content.get(key, content)
        return {name: entry(tensor, storages) for name, tensor in content.items()}
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
        self._file = file

    def load_checked(self) -> Any:
        """`load`, after a look at the pickle's own memory: a few bytes can ask for gigabytes."""
        start = self._file.tell()
        for operation, argument, _ in pickletools.genops(self._file):
            place = argument if operation.name.endswith("PUT") else None
            if isinstance(place, int) and place > _MOST_MEMO:
                raise UserError(f"it wants {place:,} places of memory.")
        self._file.seek(start)
        return self.load()

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


def _zip(file: BinaryIO, numbers: bool) -> tuple[Any, _Storages]:
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError("it is compressed, as PyTorch's files never are.")
        [root] = [n.removesuffix("data.pkl") for n in archive.namelist() if n.endswith("/data.pkl")]
        with archive.open(f"{root}data.pkl") as pickled:
            reader = _Reader(pickled)  # type: ignore[arg-type]
            content = reader.load_checked()
        return content, {
            key: np.frombuffer(archive.read(f"{root}data/{key}"), dtype)
            for key, dtype in reader.dtypes.items()
            if numbers
        }


def _old(file: BinaryIO, numbers: bool) -> tuple[Any, _Storages]:
    for _ in range(_PICKLES_BEFORE):
        _Reader(file).load_checked()
    reader = _Reader(file)
    content = reader.load_checked()
    storages = {}
    for key in _Reader(file).load_checked() if numbers else ():
        count = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(reader.dtypes[key])
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return content, storages


def _array(tensor: _Tensor, storages: _Storages) -> np.ndarray:
    """The tensor as a view of its storage; NumPy refuses one that leaves it."""
    storage = storages[tensor.storage]
    if math.prod(tensor.shape) > storage.size:  # a stride of 0 would make a few bytes gigabytes
        raise UserError(f"it holds a tensor of {tensor.shape}, larger than its storage.")
    size = storage.itemsize
    strides = tuple(stride * size for stride in tensor.strides)
    return np.ndarray(tensor.shape, storage.dtype, storage, tensor.offset * size, strides)

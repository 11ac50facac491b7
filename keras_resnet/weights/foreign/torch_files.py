"""PyTorch's weight files (`.pth`, `.pt`, `.th`) without PyTorch.

They are pickles, which can run any code. `_Reader` therefore imports nothing. The few names that a
state dict needs become methods of `_Reader`. All others become objects that do nothing.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import ml_dtypes
import numpy as np

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.files import require_bounded

_DTYPES = {
    "BFloat16Storage": ml_dtypes.bfloat16,
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "BoolStorage": "?",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
}
_Load = Callable[[str], np.ndarray]  # reads a storage by its key
_MOST_SHARED = 4  # tensors that may share a storage, as tied weights do, on average
_FEW = 2**20  # numbers that may always be shared
_MOST_MEMO = 1_000_000  # objects that a pickle may refer back to; a state dict has thousands
_PICKLES_BEFORE = 3  # the old format begins with a magic number, its version and the machine's
_SAVE = 'torch.save({}, "weights.pt")'  # the line of Python that makes a file that we can read


@dataclass(frozen=True)
class _Tensor:
    """A tensor as a view of a storage. Its values have not been read yet."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # both in elements


def read_state_dict(path: str | Path, state_dict: str | None = None) -> dict[str, np.ndarray]:
    """Read a state dict that `torch.save` wrote, alone or anywhere in a checkpoint.

    Both formats work: zip (since PyTorch 1.6) and the older one. Dtypes: float16/32/64, int64, and
    bfloat16, which becomes float32. Other objects in the file are not read.

    Args:
        path: the file.
        state_dict: selects one of several state dicts in a checkpoint, e.g. "model_ema".

    Raises:
        UserError: the file does not exist, has no state dict or several, is a program (TorchScript,
            a whole pickled module), or is a pickle that wants to run something.
    """

    def arrays(tensors: Mapping[str, _Tensor], load: _Load) -> dict[str, np.ndarray]:
        storages = {key: load(key) for key in {tensor.storage for tensor in tensors.values()}}
        asked = sum(math.prod(tensor.shape) for tensor in tensors.values())
        stored = sum(storage.size for storage in storages.values())
        if asked > max(_MOST_SHARED * stored, _FEW):
            raise UserError(
                f"its tensors have {asked:,} numbers in storages of {stored:,}. It is made to fill "
                "the memory."
            )
        return {name: _array(each, storages[each.storage]) for name, each in tensors.items()}

    return _read(Path(path), state_dict, arrays)


def read_shapes(path: str | Path, state_dict: str | None = None) -> dict[str, tuple[int, ...]]:
    """Read the shapes in a state dict, without the values.

    Raises:
        UserError: as for `read_state_dict`.
    """

    def shapes(tensors: Mapping[str, _Tensor], _: _Load) -> dict[str, tuple[int, ...]]:
        return {name: tuple(map(int, tensor.shape)) for name, tensor in tensors.items()}

    return _read(Path(path), state_dict, shapes)


_T = TypeVar("_T")


def _read(
    path: Path, state_dict: str | None, take: Callable[[dict[str, _Tensor], _Load], _T]
) -> _T:
    if not path.is_file():
        raise UserError(f"No such weights file: {path}")
    try:
        with path.open("rb") as file:
            content, load = (_zip if zipfile.is_zipfile(path) else _old)(file)
            return take(_chosen(content, state_dict, path.name), load)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    # A damaged or foreign pickle can raise anything.
    except Exception as error:
        raise UserError(f"{path} holds no state dict of PyTorch ({error}).") from error


# Find the state dict ------------------------------------------------------------------------------


def _chosen(content: Any, state_dict: str | None, file: str) -> dict[str, _Tensor]:
    """Return the tensors of the only state dict, or of the selected one."""
    inside = list(_inside(content))
    found = {place: value for place, value in inside if _is_state_dict(value)}
    if not found:
        _refuse_modules(inside, file)
        raise UserError("it holds no state dict: it has no entries such as conv1.weight.")
    if state_dict is None and len(set(map(id, found.values()))) > 1:
        last = list(found)[-1]
        raise UserError(
            f"it holds several state dicts: {', '.join(found)}. Choose one, e.g. --state-dict "
            f"{last} (in Python: state_dict='{last}')."
        )
    place = next(iter(found)) if state_dict is None else state_dict
    if place not in found:
        raise UnknownNameError("state dict", place, found, "")
    return _tensors(found[place])


def _refuse_modules(inside: list[tuple[str, Any]], file: str) -> None:
    for place, value in inside:
        if isinstance(value, _Inert) and value.is_module:
            keys = "".join(f'["{key}"]' for key in place.split(".") if key)
            loaded = f'torch.load("{file}", weights_only=False){keys}'
            raise UserError(
                f"it holds a whole pickled module ({value.name}), which only the program that made "
                f"it can load. Save its weights there: {_SAVE.format(f'{loaded}.state_dict()')}"
            )


def _is_state_dict(value: Any) -> bool:
    """Return True for a state dict. An optimizer has tensors, but no names such as conv1.weight."""
    return any(name.rpartition(".")[2] == "weight" for name in _tensors(value))


def _tensors(value: Any) -> dict[str, _Tensor]:
    """Return the entries of a dictionary that are tensors."""
    if not isinstance(value, dict):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, _Tensor)}


def _inside(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield everything in nested dictionaries with the keys to it, the outer ones first."""
    waiting, seen = [("", content)], set()
    while waiting:
        place, value = waiting.pop(0)
        yield place, value
        if isinstance(value, dict) and id(value) not in seen:  # it can contain itself
            seen.add(id(value))
            waiting += [(f"{place}.{key}".lstrip("."), each) for key, each in value.items()]


# The pickle ---------------------------------------------------------------------------------------


class _Inert(dict[Any, Any]):
    """An object that a checkpoint holds besides the weights. It does nothing.

    Its class is not imported. It is a dictionary because the object may be one (a subclass of
    OrderedDict) and may hold the weights.
    """

    name = ""  # of the class
    is_module = False  # True for a `torch.nn.Module`

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__()

    def __new__(cls, *arguments: Any, **keywords: Any) -> _Inert:
        """Accept and ignore the arguments of the real class."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Ignore the state, except to see if the object is a module."""
        self.is_module = isinstance(state, dict) and "_modules" in state

    def append(self, item: Any) -> None:
        """Accept and ignore an item, as lists and queues would take it."""

    add = extend = append

    __hash__ = object.__hash__  # type: ignore[assignment]


def _inert(name: str) -> type[_Inert]:
    return type("_Inert", (_Inert,), {"name": name})


# Names of the standard library that become inert objects. The standard library can also run
# programs, so its other names are refused: a file with one is an attack. Other packages are never
# imported.
_HARMLESS = {
    "_codecs": {"encode"},
    "argparse": {"Namespace"},
    "builtins": {
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"),
        *("long", "object", "range", "set", "slice", "str", "tuple", "unicode", "xrange"),
    },
    "collections": {"ChainMap", "Counter", "UserDict", "defaultdict", "deque"},
    "copyreg": {"__newobj__", "_reconstructor"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone", "tzinfo"},
    "decimal": {"Decimal"},
    "enum": {"Enum", "IntEnum"},
    "fractions": {"Fraction"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath"},
    "types": {"SimpleNamespace"},
    "uuid": {"UUID"},
}


class _Reader(pickle.Unpickler):
    """An unpickler that makes tensors, parameters and ordered dicts. Other objects are inert."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")  # for strings that Python 2 wrote
        self.dtypes: dict[str, Any] = {}
        self._file = file

    def load_checked(self) -> Any:
        """Call `load` after a check of the memory it needs: a few bytes can ask for gigabytes."""
        start = self._file.tell()
        for operation, argument, _ in pickletools.genops(self._file):
            place = argument if operation.name.endswith("PUT") else None
            if isinstance(place, int) and place > _MOST_MEMO:
                raise UserError(f"it asks for {place:,} places of memory.")
        self._file.seek(start)
        return self.load()

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch._utils._rebuild_parameter_with_state": self._parameter,
            "torch._tensor._rebuild_from_type_v2": self._of_a_class,
            **{f"torch.{storage}": dtype for storage, dtype in _DTYPES.items()},
        }
        full = f"{module}.{name}"
        if full in known:
            return known[full]
        module = IMPORT_MAPPING.get(module, module)  # Python 2's names, such as __builtin__
        root = module.partition(".")[0]
        if root in sys.stdlib_module_names and name not in _HARMLESS.get(module, ()):
            raise UserError(f"it holds '{full}', which is not part of a state dict.")
        return _inert(full)

    def persistent_load(self, identifier: tuple[Any, ...]) -> Any:
        kind, what, *rest = identifier
        if kind == "module":  # the old format stores the source of a module's class
            return what
        self.dtypes[rest[0]] = what
        return rest[0]

    def _tensor(self, storage: str, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
        return _Tensor(storage, offset, shape, strides)

    def _parameter(self, tensor: _Tensor, *_: Any) -> _Tensor:
        return tensor

    def _of_a_class(self, make: Callable[..., Any], _: Any, arguments: Any, *__: Any) -> Any:
        """Return a tensor of a custom class, or one with attributes."""
        return make(*arguments)


def _zip(file: BinaryIO) -> tuple[Any, _Load]:
    archive = zipfile.ZipFile(file)  # the caller closes it with the file
    require_bounded(archive, Path(file.name))
    root = _root(archive, Path(file.name).name)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise UserError("it is compressed; PyTorch's files never are.")
    with archive.open(f"{root}data.pkl") as pickled:
        reader = _Reader(pickled)  # type: ignore[arg-type]
        content = reader.load_checked()

    def load(key: str) -> np.ndarray:
        return np.frombuffer(archive.read(f"{root}data/{key}"), reader.dtypes[key])

    return content, load


def _root(archive: zipfile.ZipFile, file: str) -> str:
    """Return the folder of the pickle in an archive, or raise the reason why it cannot be read."""
    names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        line = _SAVE.format(f'torch.jit.load("{file}").state_dict()')
        raise UserError(f"it is TorchScript, a program. Save its weights: {line}")
    if any("/models/" in name for name in names):
        line = _SAVE.format(f'torch.export.load("{file}").state_dict')
        raise UserError(f"it is a program of torch.export. Save its weights: {line}")
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise UserError("it holds no state dict: it is an archive, but not one of PyTorch.")
    return roots[0]


def _old(file: BinaryIO) -> tuple[Any, _Load]:
    for _ in range(_PICKLES_BEFORE):
        _Reader(file).load_checked()
    reader = _Reader(file)
    content = reader.load_checked()
    places = {}
    for key in _Reader(file).load_checked():
        count = int.from_bytes(file.read(8), "little")
        places[key] = file.tell(), count
        file.seek(count * np.dtype(reader.dtypes[key]).itemsize, 1)

    def load(key: str) -> np.ndarray:
        place, count = places[key]
        dtype = np.dtype(reader.dtypes[key])
        file.seek(place)
        return np.frombuffer(file.read(count * dtype.itemsize), dtype, count)

    return content, load


def _array(tensor: _Tensor, storage: np.ndarray) -> np.ndarray:
    """Return the tensor as a view of its storage. NumPy refuses a view outside of it."""
    if math.prod(tensor.shape) > storage.size:  # a stride of 0 would make a few bytes gigabytes
        raise UserError(f"it holds a tensor of {tensor.shape}, larger than its storage.")
    size = storage.itemsize
    strides = tuple(stride * size for stride in tensor.strides)
    return as_float32(
        np.ndarray(tensor.shape, storage.dtype, storage, tensor.offset * size, strides)
    )


def as_float32(array: np.ndarray) -> np.ndarray:
    """Convert bfloat16 to float32, which is exact. Return other arrays unchanged."""
    return array.astype("float32") if array.dtype == ml_dtypes.bfloat16 else array

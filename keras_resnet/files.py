"""Write files completely or not at all, name them, and read other people's files within bounds.

A few kilobytes of a compressed file can ask for gigabytes of memory. The sizes that a file declares
are therefore looked at before anything is unpacked.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.errors import UserError

if TYPE_CHECKING:
    import numpy as np

MOST_TEXT = 2**24  # bytes of a JSON, TOML or text file; the manifest of 21,000 classes has 2**20
_MOST_UNPACKED = 2**28  # bytes that any archive may unpack to
_MOST_RATIO = 16  # unpacked bytes for each byte of a larger archive; images and weights reach 4
_LONGEST_PATH, _LONGEST_NAME = 4095, 255  # bytes; the system refuses longer ones anyway
# Errors of a system, or a file system, that cannot exchange two names.
_IMPOSSIBLE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def expanded(path: str | Path) -> Path:
    """Return a path with "~" expanded to the home folder, as in a shell.

    "~NAME" stays if there is no such user, and "~" if there is no home folder.

    Raises:
        UserError: it is no path, is empty, or has a character that no path may have.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"A path must be a string or a Path; received a {type(path).__name__}.")
    text = os.path.expanduser(path)
    if not text:
        raise UserError("A path must not be empty.")
    if "\0" in text:
        raise UserError(f"A path must not contain the character NUL; received '{text}'.")
    try:
        sizes = [len(os.fsencode(part)) for part in (text, *Path(text).parts)]
    except UnicodeEncodeError as error:  # a letter under an ASCII locale
        raise UserError(f"'{text}' cannot be the name of a file under this locale.") from error
    if sizes[0] > _LONGEST_PATH or max(sizes[1:], default=0) > _LONGEST_NAME:
        raise UserError(f"This path is too long for a file: {text[:80]}…")
    return Path(text)


def plain_name(name: str) -> str:
    """Return a name for files, folders and TensorFlow's graphs: letters, digits, ".", "_", "-".

    Accents are removed. Other characters become "-": "résumé (final)" becomes "resume-final".
    """
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._]+", "-", letters).rstrip("-").lstrip("._-") or "model"


def require_file_target(path: Path, option: str = "--out") -> None:
    """Refuse a path where no file can be written. Call it before the work.

    Raises:
        UserError: the path is a folder, its folder does not exist, or that cannot be written to.
    """
    if path.is_dir():
        raise UserError(f"{option} wants a file; {path} is a folder.")
    if not path.parent.is_dir():
        raise UserError(f"No such folder: {path.parent}")
    _require_permission(path.parent, option)


def require_folder_target(path: Path, option: str = "--out") -> None:
    """Refuse a path that is no folder and cannot become one. Call it before the work.

    Raises:
        UserError: the path is a file, is below a file, or is in a folder that cannot be written to.
    """
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"{option} wants a folder; {there} is a file.")
    _require_permission(there, option)


def _require_permission(folder: Path, option: str) -> None:
    if not os.access(folder, os.W_OK):
        raise UserError(f"{option}: there is no permission to write to {folder}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`. After the block succeeds, rename it to `path`."""
    partial = path.with_name(f".partial-{path.name}")  # the suffix must stay: Keras checks it
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders in one step; return False if that is impossible.

    Linux and macOS can do it, on most file systems. No process ever finds one of the names unused.
    """
    if os.name == "nt":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(one), os.fsencode(other)
    if hasattr(library, "renameat2"):  # Linux; the numbers are those of its header files
        here, exchanging = -100, 2
        failed = library.renameat2(here, first, here, second, exchanging)
    elif hasattr(library, "renamex_np"):  # macOS
        swapping = 2
        failed = library.renamex_np(first, second, swapping)
    else:
        return False
    if failed and ctypes.get_errno() not in _IMPOSSIBLE:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(one))
    return not failed


@contextmanager
def locked_folder(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder for this process. The system unlocks it when the process ends, for any reason.

    Yields:
        True if the folder is locked. False if another process holds the lock (with `wait`, this one
        waits for it), if the folder is gone, or if the system has no locks of folders.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield False
        return
    descriptor, is_locked = None, False
    try:
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            is_locked = True
        yield is_locked
    finally:
        if descriptor is not None:
            os.close(descriptor)


def without_common_folder(paths: Sequence[str]) -> tuple[str, list[str]]:
    """Return the folder that all paths share ("" if there is none), and the rest of each path."""
    folders = [Path(path).parent.parts for path in paths]
    same = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        same += 1
    folder = str(Path(*folders[0][:same])) if same else ""
    return folder, [str(Path(*Path(path).parts[same:])) for path in paths]


def short_names(names: Sequence[str]) -> list[str]:
    """Return the shortest unique end of each path, e.g. "run1/model.keras"."""
    parts = {name: Path(name).parts for name in names}

    def end(name: str) -> str:
        for count in range(1, len(parts[name])):
            last = parts[name][-count:]
            if sum(other[-count:] == last for other in parts.values()) == 1:
                return "/".join(last)
        return name

    return [end(name) for name in names]


# Reading within bounds ----------------------------------------------------------------------------


def require_small_text(path: Path) -> None:
    """Refuse a text file that is too large.

    Raises:
        UserError: it has more than `MOST_TEXT` bytes.
    """
    size = path.stat().st_size
    if size > MOST_TEXT:
        raise UserError(f"{path} has {size:,} bytes; at most {MOST_TEXT:,} are read.")


def read_text(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        UserError: it is too large, or not UTF-8.
    """
    require_small_text(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8 ({error}).") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is too large, not JSON, or nested too deeply.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UserError(f"{path} is not valid: it is nested too deeply.") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error


def require_fit(path: Path, content: Any, schema: Mapping[str, Any]) -> None:
    """Refuse the content of a JSON file that does not fit a JSON Schema.

    Unknown fields are allowed, because a later version may have written them.

    Raises:
        UserError: the message names the field.
    """
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(content):
        if error.validator != "additionalProperties":
            place = error.json_path.removeprefix("$").removeprefix(".")
            problem = error.message if len(error.message) < 200 else f"{error.message[:200]}…"
            raise UserError(f"{path} is not valid: {f'{place}: ' if place else ''}{problem}.")


def require_bounded(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a zip archive that declares far more bytes than it has.

    Python's zipfile reads no more of an entry than it declares.

    Raises:
        UserError: the archive would unpack to too much.
    """
    require_modest(path, sum(entry.file_size for entry in archive.infolist()))


def require_modest(path: Path, declared: int) -> None:
    """Refuse a file that declares far more bytes than it has.

    Raises:
        UserError: the message has both numbers.
    """
    size = path.stat().st_size
    if declared > max(_MOST_UNPACKED, _MOST_RATIO * size):
        raise UserError(
            f"{path} has {size:,} bytes and would unpack to {declared:,}. It is damaged or made to "
            "fill the memory."
        )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file (plain arrays, no pickle).

    Raises:
        UserError: the file is missing, damaged, or would unpack to too much.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            require_bounded(archive, path)
            for entry in archive.infolist():
                _require_data(archive, entry)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays}
    except UserError:
        raise
    except Exception as error:  # zlib, zipfile, NumPy and its header parser raise unrelated types
        raise UserError(f"{path} is missing or damaged ({error}).") from error


def _require_data(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Refuse an array that declares more numbers than it has: NumPy would allocate them."""
    from numpy.lib import format as npy

    with archive.open(entry) as file:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
        if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize > entry.file_size:
            raise UserError(f"'{entry.filename}' declares more numbers than it has")

"""Write files completely or not at all, check where they can be written, and name them."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from keras_resnet.errors import UserError

# Errors of a system, or a file system, that cannot exchange two names.
_IMPOSSIBLE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def expanded(path: str | Path) -> Path:
    """Return a path with "~" expanded to the home folder, as in a shell."""
    return Path(path).expanduser()


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

"""Write files completely or not at all, check where they can be written, and name them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keras_resnet.errors import UserError

_LONGEST_PATH, _LONGEST_NAME = 4095, 255  # bytes; the system refuses longer ones anyway


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

"""Writing files so that nobody ever sees half of one, and naming them so that none is mistaken."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keras_resnet.errors import UserError


def expanded(path: str | Path) -> Path:
    """A path that a person gave: "~/x" is in the home folder, as in a shell."""
    return Path(path).expanduser()


def plain_name(name: str) -> str:
    """A name that files, folders and TensorFlow's graphs can have: letters, digits, ".", "_", "-".

    Accents are dropped, and all else becomes "-": "résumé (final)" is "resume-final".
    """
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._]+", "-", letters).rstrip("-").lstrip("._-") or "model"


def require_file_target(path: Path, option: str = "--out") -> None:
    """Refuse a place where no file can be written; to be asked before the work.

    Raises:
        UserError: a folder, or in no folder, or in one that may not be written to.
    """
    if path.is_dir():
        raise UserError(f"{option} wants a file; {path} is a folder.")
    if not path.parent.is_dir():
        raise UserError(f"No such folder: {path.parent}")
    _require_permission(path.parent, option)


def require_folder_target(path: Path, option: str = "--out") -> None:
    """Refuse what is no folder and cannot become one; to be asked before the work.

    Raises:
        UserError: a file, or below one, or in a folder that may not be written to.
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
    """Give a temporary name beside `path` to write to; rename it to `path` if all went well."""
    partial = path.with_name(f".partial-{path.name}")  # the same ending: Keras looks at it
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def without_common_folder(paths: Sequence[str]) -> tuple[str, list[str]]:
    """Return the folder that all paths lie in, "" if there is none, and the rest of each."""
    folders = [Path(path).parent.parts for path in paths]
    same = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        same += 1
    folder = str(Path(*folders[0][:same])) if same else ""
    return folder, [str(Path(*Path(path).parts[same:])) for path in paths]


def short_names(names: Sequence[str]) -> list[str]:
    """Of each path the shortest end that none of the others has, e.g. "run1/model.keras"."""
    parts = {name: Path(name).parts for name in names}

    def end(name: str) -> str:
        for count in range(1, len(parts[name])):
            last = parts[name][-count:]
            if sum(other[-count:] == last for other in parts.values()) == 1:
                return "/".join(last)
        return name

    return [end(name) for name in names]

"""The folder of an export: checked before writing, and moved into place when it is complete."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.export import manifest
from keras_resnet.files import exchange, expanded, locked_folder

_PARTIAL = "-partial-"  # in the names of hidden folders that are not complete
_SCRIPT = Path(__file__).parent / "edge" / "classify.py"


def free(out: str | Path, overwrite: bool) -> Path:
    """Return the absolute path of a folder that an export may write.

    Raises:
        UserError: `out` is empty, a file, or a folder that may not be overwritten.
    """
    if not str(out).strip():
        raise UserError("The output folder's name is empty. Give a folder: --out FOLDER (out=).")
    path = expanded(out).resolve()
    _put_back(path)
    if path.is_file():
        raise UserError(f"{out} is a file. Give a folder to write to: --out FOLDER (out=).")
    if path.exists() and not overwrite and not _is_empty_folder(path):
        raise UserError(
            f"{out} exists. Add --overwrite (Python: overwrite=True), or give another --out FOLDER."
        )
    if path.exists() and not ((path / manifest.MANIFEST).is_file() or _is_empty_folder(path)):
        raise UserError(
            f"{out} is not an export folder, so it will not be overwritten. Choose another folder."
        )
    return path


def add_script(folder: Path, formats: Sequence[str]) -> None:
    """Copy classify.py, which runs a TFLite file without TensorFlow, if there is such a file."""
    if any(kind.startswith("tflite-") for kind in formats):
        shutil.copy(_SCRIPT, folder)


@contextmanager
def replacing(out: str | Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to write to; move it to `out` on success, delete it on failure.

    A process may be killed at any time: a whole export is left, the older or the new one. The next
    export to `out` deletes the hidden folders of killed exports to `out`.

    Raises:
        UserError: see `free`; or the folder cannot be made, or not be moved to `out`.
    """
    path = free(out, overwrite)
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = stack.enter_context(_partial_folder(path))
        except OSError as error:
            raise UserError(f"Cannot write to {path.parent}: {error.strerror}.") from error
        yield partial
        free(out, overwrite)  # another process may have written it meanwhile
        try:
            _move_into_place(partial, path)
        except OSError as error:
            raise UserError(
                f"Cannot write to {path}: {error.strerror}. Give another --out FOLDER (out=)."
            ) from error


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """Make a hidden folder next to `out`, locked while this process works; delete it at the end."""
    with ExitStack() as stack:
        with locked_folder(out.parent, wait=True):  # from making a folder to locking it
            _sweep(out)
            folder = Path(tempfile.mkdtemp(prefix=f".{out.name}{_PARTIAL}", dir=out.parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(locked_folder(folder))
        yield folder


def _sweep(out: Path) -> None:
    """Delete what killed exports to `out` left, and name what those to other folders left."""
    if out.exists():
        shutil.rmtree(_aside(out), ignore_errors=True)
    others = []
    for folder in sorted(out.parent.glob(f".*{_PARTIAL}*")):
        with locked_folder(folder) as is_left:
            if is_left and folder.name.startswith(f".{out.name}{_PARTIAL}"):
                shutil.rmtree(folder, ignore_errors=True)
            elif is_left:
                others.append(folder.name)
    if others:
        print(
            f"warning: a killed export left {', '.join(others)} in {out.parent}. Delete it.",
            file=sys.stderr,
        )


def _move_into_place(new: Path, out: Path) -> None:
    """Rename the folder. An older export gets its hidden name, or is deleted."""
    os.chmod(new, 0o755)  # mkdtemp creates private folders
    if not out.exists():
        os.rename(new, out)
    elif not exchange(new, out):
        _move_in_two_steps(new, out)


def _move_in_two_steps(new: Path, out: Path) -> None:
    """Replace a folder where the system cannot exchange two; see `_put_back`."""
    aside = _aside(out)
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(out, aside)
    try:
        os.rename(new, out)
    except BaseException:
        os.rename(aside, out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(out: Path) -> None:
    """Rename the older export back if a process was killed between the two steps."""
    if not out.exists() and _aside(out).is_dir():
        os.rename(_aside(out), out)


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}-replaced")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())

"""The folder of an export: checked before writing, and moved into place when it is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.export import manifest
from keras_resnet.files import expanded

_SCRIPT = Path(__file__).parent / "edge" / "classify.py"


def free(out: str | Path, overwrite: bool) -> Path:
    """Return the absolute path of a folder that an export may write.

    Raises:
        UserError: `out` is empty, a file, or a folder that may not be overwritten.
    """
    if not str(out).strip():
        raise UserError("The output folder's name is empty. Give a folder: --out FOLDER (out=).")
    path = expanded(out).resolve()
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
    """Yield an empty folder to write to; rename it to `out` on success, delete it on failure.

    Raises:
        UserError: see `free`; or the folder cannot be created.
    """
    path = free(out, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-partial-", dir=path.parent))
    except OSError as error:
        raise UserError(f"Cannot write to {path.parent}: {error.strerror}.") from error
    try:
        yield partial
        _move_into_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move_into_place(partial: Path, out: Path) -> None:
    """Rename the folder. An older export is moved aside first and moved back on failure."""
    os.chmod(partial, 0o755)  # mkdtemp creates private folders
    if not out.exists():
        os.rename(partial, out)
        return
    old = partial.with_name(partial.name + "-old")
    os.rename(out, old)
    try:
        os.rename(partial, out)
    except BaseException:
        os.rename(old, out)
        raise
    shutil.rmtree(old)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())

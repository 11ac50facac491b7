"""Finding out what kind of model a path is, and reading it where it is a folder of ours."""

from __future__ import annotations

import re
from pathlib import Path

from keras_resnet.errors import UserError

SAVED_MODEL = "SavedModel"
_PROGRAM = "saved_model.pb"

# The format micro: the model as a C array.
ARRAY, HEADER = "model_data.cc", "model_data.h"
_NO_ARENA = "kArenaBytes = 0;"
ARRAY_START = "alignas(16) const unsigned char kModel[kModelBytes] = {\n"

# The format web: a page beside its model.
PAGE = Path(__file__).parents[1] / "web"
MODEL, DESCRIPTION = "model.tflite", "model.json"


def located(path: Path) -> tuple[str, Path]:
    """The kind of a model, which is the ending of its file or `SAVED_MODEL`, and what is opened."""
    if (saved_model_folder(path) / _PROGRAM).is_file():
        return SAVED_MODEL, path
    if (path / ARRAY).is_file():
        return ".tflite", path
    if is_page(path):
        path = path / MODEL
    if len(inside := list(path.glob("*.xml"))) == 1:
        path = inside[0]
    return path.suffix, path


def saved_model_folder(path: Path) -> Path:
    """The folder of the program: `path`, or the newest of TensorFlow Serving's versions in it."""
    versions = [p for p in path.glob(f"*/{_PROGRAM}") if p.parent.name.isdecimal()]
    if (path / _PROGRAM).is_file() or not versions:
        return path
    return max(versions, key=lambda program: int(program.parent.name)).parent


def is_page(folder: Path) -> bool:
    """Whether the format web made this folder."""
    return (folder / DESCRIPTION).is_file() and (folder / MODEL).is_file()


def has_arena(folder: Path) -> bool:
    """Whether the header that the format micro made says how much working memory is needed."""
    header = folder / HEADER
    return header.is_file() and _NO_ARENA not in header.read_text(encoding="utf-8")


def read_array(folder: Path) -> bytes:
    """Return the TFLite file in the model_data.cc of a folder that the format micro made.

    Raises:
        UserError: it has none.
    """
    _, start, rest = (folder / ARRAY).read_text(encoding="utf-8").partition(ARRAY_START)
    if not start:
        raise UserError(f"{folder / ARRAY} has no model: it was not written by this package.")
    return bytes.fromhex(re.sub(r"0x|,|\s", "", rest.partition("}")[0]))

"""Find out the kind of model at a path, and read the folders of the micro and web formats."""

from __future__ import annotations

import re
from pathlib import Path

from keras_resnet.errors import UserError

SAVED_MODEL = "SavedModel"
PROGRAM = "saved_model.pb"

# The format micro: the model as a C array.
ARRAY, HEADER = "model_data.cc", "model_data.h"
_NO_ARENA = "kArenaBytes = 0;"
ARRAY_START = "alignas(16) const unsigned char kModel[kModelBytes] = {\n"

# The format web: a page with its model beside it.
PAGE = Path(__file__).parents[1] / "web"
MODEL, DESCRIPTION = "model.tflite", "model.json"


def located(path: Path) -> tuple[str, Path]:
    """Return the kind of a model (its file ending, or `SAVED_MODEL`) and the path to open."""
    if (saved_model_folder(path) / PROGRAM).is_file():
        return SAVED_MODEL, path
    if (path / ARRAY).is_file():
        return ".tflite", path
    if is_page(path):
        path = path / MODEL
    if len(inside := list(path.glob("*.xml"))) == 1:
        path = inside[0]
    return path.suffix, path


def saved_model_folder(path: Path) -> Path:
    """Return the folder with saved_model.pb: `path`, or its newest numbered version folder."""
    versions = [p for p in path.glob(f"*/{PROGRAM}") if p.parent.name.isdecimal()]
    if (path / PROGRAM).is_file() or not versions:
        return path
    return max(versions, key=lambda program: int(program.parent.name)).parent


def is_page(folder: Path) -> bool:
    """Return True if the format web made this folder."""
    return (folder / DESCRIPTION).is_file() and (folder / MODEL).is_file()


def has_arena(folder: Path) -> bool:
    """Return True if the header of a micro folder has the size of the working memory."""
    header = folder / HEADER
    return header.is_file() and _NO_ARENA not in header.read_text(encoding="utf-8")


def read_array(folder: Path) -> bytes:
    """Return the TFLite file in the model_data.cc of a micro folder.

    Raises:
        UserError: there is no model in it.
    """
    _, start, rest = (folder / ARRAY).read_text(encoding="utf-8").partition(ARRAY_START)
    if not start:
        raise UserError(
            f"{folder / ARRAY} has no model: it was not written by this package. Make one with: "
            "keras-resnet export MODEL --formats micro"
        )
    return bytes.fromhex(re.sub(r"0x|,|\s", "", rest.partition("}")[0]))

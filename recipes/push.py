"""Publish an export on the Hugging Face Hub, with its model card."""

from __future__ import annotations

from pathlib import Path

from keras_resnet.arguments import checked
from keras_resnet.errors import UserError, require
from keras_resnet.export import manifest
from keras_resnet.export.reference import REFERENCE
from keras_resnet.files import expanded
from keras_resnet.recipes.runs.folder import is_run
from keras_resnet.recipes.runs.published import MODEL
from keras_resnet.weights.hub import Address, in_words

_CARD = "README.md"
_NOT_UPLOADED = (REFERENCE,)  # it has the images of the check, which may be private


@checked
def push(source: str | Path, address: str, private: bool = False) -> str:
    """Upload the files of an export in one commit, and the Keras model of its run.

    `keras_resnet.from_hub` and the commands load them again. The images of the check are not
    uploaded.

    Args:
        source: a run folder with exports, or an export folder.
        address: hf://USER/NAME, with @BRANCH at its end if needed. A repository that does not
            exist is created.
        private: create the repository as a private one.

    Returns:
        The address of the commit, which pins the files.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        UserError: there is no export, one of its files was changed or failed its check, the address
            is malformed, or the Hub refuses.
    """
    place = Address.parse(address)
    if place.file:
        raise UserError(f"Give the address of a repository: hf://{place.repo}; received {address}.")
    hub = require("huggingface_hub", "hub")
    files = _files(_export_of(expanded(str(source))))
    card = files.pop(_CARD).read_text(encoding="utf-8")
    if MODEL in files:
        card += _loading(place)
    operations = [
        hub.CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())
    ] + [hub.CommitOperationAdd(_CARD, card.encode())]
    with in_words(place):
        hub.create_repo(place.repo, private=private, exist_ok=True)
        commit = hub.HfApi().create_commit(
            place.repo,
            operations,
            commit_message="Upload with keras-resnet push",
            revision=place.revision or None,
        )
    return f"hf://{place.repo}@{commit.oid}"


def _export_of(source: Path) -> Path:
    """Return the export folder of a run, or an export folder itself."""
    return source / "exports" if is_run(source) else source


def _files(exports: Path) -> dict[str, Path]:
    """Return the files to upload, by their names in the repository.

    Raises:
        UserError: the folder is no export, was changed, or has a file that failed its check.
    """
    content = manifest.read(exports)
    manifest.verify_hashes(exports, content)
    if not content["passed"]:
        raise UserError(
            f"Not every file of {exports} passed its check, so nothing is uploaded. See "
            f"{exports / _CARD}, and export again without the formats that failed."
        )
    files = {
        path.relative_to(exports).as_posix(): path
        for path in exports.rglob("*")
        if path.is_file() and path.name not in _NOT_UPLOADED
    }
    model = exports.resolve().parent / MODEL
    return files | ({MODEL: model} if is_run(model.parent) and model.is_file() else {})


def _loading(place: Address) -> str:
    return (
        "\n## Load the Keras model\n\n```python\nimport keras_resnet\n\n"
        f'model = keras_resnet.from_hub("{place.repo}")\n```\n\nIt takes pixels from 0 to 255. '
        'It needs `pip install "keras-resnet-zoo[hub,recipes]"`.\n'
    )

"""Publish an export on the Hugging Face Hub, with its model card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_resnet.arguments import checked
from keras_resnet.errors import UserError, require
from keras_resnet.export import manifest
from keras_resnet.files import expanded, read_text
from keras_resnet.images.labels import LABELS
from keras_resnet.recipes.runs.folder import MODEL, Run, is_run
from keras_resnet.weights.download import is_offline
from keras_resnet.weights.hub import Address, in_words

_CARD = "README.md"
_BESIDE = (LABELS, manifest.MANIFEST, manifest.NUMERICS, manifest.PERFORMANCE, "classify.py")
_NOT_OURS = (".gitattributes",)  # the Hub writes it


@checked
def push(source: str | Path, address: str, private: bool = False) -> str:
    """Upload the files of an export in one commit, and the Keras model of its run.

    The files take the place of those of earlier commits. What the manifest does not list stays
    here, such as the images of the check, which may be private.

    Args:
        source: a run folder with exports, or an export folder.
        address: hf://USER/NAME, with @BRANCH at its end if needed. What does not exist is created.
        private: create the repository as a private one.

    Returns:
        The address of the commit, which pins the files.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        UserError: there is no export, one of its files was changed or failed its check, the address
            is malformed, the Hub cannot be reached or refuses, or the repository is public although
            it should be private.
    """
    place = Address.parse(address)
    if place.file:
        raise UserError(f"Give the address of a repository: hf://{place.repo}; received {address}.")
    if is_offline():
        raise UserError("KERAS_RESNET_OFFLINE is set, so nothing is uploaded.")
    hub = require("huggingface_hub", "hub")
    exports = _export_of(expanded(source))
    files = dict(_files(exports))
    card = read_text(exports / _CARD)
    if MODEL in files:
        card += _loading(place)
    api, revision = hub.HfApi(), place.revision or None
    with in_words(place):
        api.create_repo(place.repo, private=private, exist_ok=True)
        if private and not api.repo_info(place.repo).private:
            raise UserError(f"hf://{place.repo} exists and is public, so nothing is uploaded.")
        if revision:
            api.create_branch(place.repo, branch=revision, exist_ok=True)
        earlier = {*api.list_repo_files(place.repo, revision=revision)}.difference(_NOT_OURS)
        operations: list[Any] = [hub.CommitOperationAdd(_CARD, card.encode())]
        operations += [hub.CommitOperationAdd(name, str(path)) for name, path in files.items()]
        operations += [hub.CommitOperationDelete(x) for x in sorted(earlier - {_CARD, *files})]
        commit = api.create_commit(
            place.repo,
            operations,
            commit_message="Upload with keras-resnet push",
            revision=revision,
        )
    return f"hf://{place.repo}@{commit.oid}"


def _export_of(source: Path) -> Path:
    """Return the export folder of a run, or an export folder itself."""
    return source / "exports" if is_run(source) else source


def _files(exports: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and the path of every file to upload, except the card.

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
    for listed in (exports / name for name in (*manifest.hashes(content), *_BESIDE)):
        for path in sorted(listed.rglob("*")) if listed.is_dir() else [listed]:
            if path.is_file():
                yield path.relative_to(exports).as_posix(), path
    run = Run(exports.resolve().parent)
    if is_run(run.path) and run.model.is_file():
        yield MODEL, run.model


def _loading(place: Address) -> str:
    given = f'"{place.repo}"' + f', revision="{place.revision}"' * bool(place.revision)
    return (
        "\n## Load the Keras model\n\n```python\nimport keras_resnet\n\n"
        f"model = keras_resnet.from_hub({given})\n```\n\nIt takes pixels from 0 to 255. "
        'It needs `pip install "keras-resnet-zoo[hub,recipes]"`.\n'
    )

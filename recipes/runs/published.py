"""Models that `keras-resnet push` uploaded to the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.export import manifest
from keras_resnet.images.labels import LABELS
from keras_resnet.recipes.runs.folder import MODEL
from keras_resnet.weights.download import is_offline
from keras_resnet.weights.hub import Address, download


def fetch(place: Address) -> Path:
    """Download a model, its manifest and its class names.

    Args:
        place: the repository. Without a file it is the Keras model.

    Returns:
        The path of the model in the Hub's cache.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        UserError: keras_resnet did not write the repository, it has no such file, or see
            `hub.download`.
    """
    online = not is_offline()  # offline, a file that is not in the cache may be on the Hub
    described = download(place, manifest.MANIFEST, optional=online)
    if described is None:
        raise UserError(
            f"{place} has no {manifest.MANIFEST}, so keras-resnet push did not write it. Weights "
            f"of timm belong to a network: NAME --weights {place}"
        )
    pinned = replace(place, revision=described.parent.name)  # all files of the same commit
    download(pinned, LABELS, optional=True)
    path = download(pinned, place.file or MODEL, optional=online)
    if path is None:
        listed = [item["file"] for item in manifest.read(described.parent)["files"]]
        single = [name for name in listed if Path(name).suffix]  # formats that are no folders
        raise UserError(
            f"{place} has no file {place.file or MODEL}. It has: {', '.join(single) or 'none'}. "
            f"For a folder, run: hf download {place.repo}"
        )
    return path

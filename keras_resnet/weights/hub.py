"""Weights of the Hugging Face Hub: `weights="hf://timm/resnet50d.ra2_in1k"`.

The Hub's own library downloads them into its cache, which other programs share: `pip install
"keras-resnet-zoo[hub]"`. Its environment variables work here, such as HF_TOKEN for private models,
HF_ENDPOINT for a mirror and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_resnet.errors import UserError, require
from keras_resnet.files import read_json
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.preprocessing import PREPROCESSING
from keras_resnet.text import for_terminal
from keras_resnet.weights.download import is_offline
from keras_resnet.weights.fitting import Note
from keras_resnet.weights.foreign.read import Foreign, read

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?(:(?P<file>.+))?")
_FILES = ("model.safetensors", "pytorch_model.bin")  # the first that the repository has
_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Published(Foreign):
    """Weights of the Hub, with what their repository says about them.

    Attributes:
        note: network, preprocessing and data.
        crop: the crop of the published accuracy.
    """

    note: Note = field(default_factory=Note)
    crop: SingleCrop | None = None


@dataclass(frozen=True)
class Address:
    """A place on the Hub, as in `hf://USER/NAME@REVISION:FILE`.

    Attributes:
        repo: the user or organisation and the name.
        revision: a branch, a tag or a commit; "" for the newest.
        file: the file; "" for the usual names.
    """

    repo: str
    revision: str = ""
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            UserError: it has another form.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise UserError(
                "An address on the Hub must be hf://USER/NAME, with @REVISION or :FILE at its end "
                f"if needed; received {text!r:.200}."
            )
        return cls(**{key: value or "" for key, value in found.groupdict().items()})

    def __str__(self) -> str:
        """Return the address as people write it."""
        at = f"@{self.revision}" * bool(self.revision)
        return f"{SCHEME}{self.repo}{at}{f':{self.file}' * bool(self.file)}"


def fetch(address: str, name: str) -> Published:
    """Download the weights at an address for network `name`, and read them.

    The file's hash is compared with the Hub's before it is opened.

    Args:
        address: see `Address`. A commit pins the weights.
        name: registry name.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        UserError: the address is malformed, the model does not exist, is private or of another
            network, the file is damaged, or it is not in the cache and there is no connection.
    """
    place = Address.parse(address)
    path = _download(place)
    config = _config(place)
    foreign = read(path, name)
    note = Note(name, _preprocessing(place, config), _data(foreign))
    return Published(
        foreign.path, foreign.contents, foreign.family, foreign.weights, note, _crop(config)
    )


def _download(place: Address) -> Path:
    names = (place.file,) if place.file else _FILES
    for file in names[:-1]:
        if (path := download(place, file, optional=True)) is not None:
            return path
    path = download(place, names[-1])
    assert path is not None
    return path


def download(place: Address, file: str, *, optional: bool = False) -> Path | None:
    """Return a file of the repository from the Hub's cache, after downloading it if necessary.

    The file's hash is compared with the Hub's.

    Args:
        place: the repository and the revision.
        file: its path in the repository.
        optional: return None if the repository has no such file.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        UserError: the file, the repository or the revision does not exist or is private, the file
            is damaged, or it is not in the cache and there is no connection.
    """
    hub = require("huggingface_hub", "hub")
    try:
        with in_words(place, file):
            path = Path(
                hub.hf_hub_download(
                    place.repo, file, revision=place.revision or None, local_files_only=is_offline()
                )
            )
    except UserError as error:
        if optional and _is_absent(error.__cause__):
            return None
        raise
    _require_hash(path)
    return path


def _is_absent(error: BaseException | None) -> bool:
    """Return True if the repository has no such file, or the cache has none and we are offline."""
    errors = require("huggingface_hub.errors", "hub")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return is_offline()  # otherwise the next file would wait for the Hub again
    return isinstance(error, errors.EntryNotFoundError)


@contextmanager
def in_words(place: Address, file: str = "") -> Iterator[None]:
    """Turn the errors of the Hub's library into sentences, for a call about `place` and `file`.

    Raises:
        UserError: the call failed.
    """
    errors = require("huggingface_hub.errors", "hub")
    login = "log in with: hf auth login"
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{place} is not in the cache, and the Hub cannot be reached ({_reason(error)})."
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{place} has no file {file}. Name one: {place}:FILE") from error
    except errors.GatedRepoError as error:
        raise UserError(
            f"{place.repo} asks you to accept its terms. Do so at https://huggingface.co/"
            f"{place.repo}, and {login}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"The Hub has no model {place.repo}, or it is private. If it is private, {login}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{place.repo} has no revision {place.revision}.") from error
    except UserError:
        raise
    except Exception as error:  # its library also raises those of the libraries it stands on
        refused = getattr(getattr(error, "response", None), "status_code", None) in (401, 403)
        hint = f" You may need to {login}" * refused
        raise UserError(f"The Hub cannot be used for {place}: {_reason(error)}{hint}") from error


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return for_terminal(lines[0] if lines else type(error).__name__)


def _require_hash(path: Path) -> None:
    """Compare a file of the Hub's cache with its hash, by which the cache names it.

    The hash of a large file is its SHA-256. The hash of a small file is that of git.

    Raises:
        UserError: they differ, or the Hub gave no hash.
    """
    expected = path.resolve().name
    if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", expected):
        raise UserError(f"The Hub gives no hash for {path}, so it is not opened.")
    if len(expected) == 64:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        content = path.read_bytes()
        found = hashlib.sha1(
            b"blob %d\0" % len(content) + content, usedforsecurity=False
        ).hexdigest()
    if found != expected:
        raise UserError(
            f"{path} is damaged: its hash is {found[:8]}…, not {expected[:8]}…. Delete it, and "
            "it is downloaded again."
        )


# What a repository of timm says -------------------------------------------------------------------


def _config(place: Address) -> Mapping[str, Any]:
    """Return the `pretrained_cfg` of timm's config.json.

    Raises:
        UserError: there is none; then the preprocessing is not known.
    """
    path = download(place, "config.json", optional=True)
    content = read_json(path) if path is not None else None
    config = content.get("pretrained_cfg") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        raise UserError(
            f"{place} is no model of timm: it has no config.json with a pretrained_cfg, so its "
            "preprocessing is not known. Download the file, and run: keras-resnet weights import "
            "FILE --as NAME --preprocessing MODE. If keras-resnet push wrote the repository, load "
            f'it with: keras_resnet.from_hub("{place.repo}")'
        )
    return config


def _preprocessing(place: Address, config: Mapping[str, Any]) -> str:
    """Return the mode of `PREPROCESSING` with the mean and deviation of a config.

    Raises:
        UserError: there is no such mode.
    """
    found = [_numbers(config.get(key)) for key in ("mean", "std")]
    for mode, known in PREPROCESSING.items():
        if known is not None and found == [_scaled(known.mean), _scaled(known.std)]:
            return mode
    raise UserError(
        f"{place} normalises by mean {config.get('mean')!r:.80} and std {config.get('std')!r:.80}, "
        f"which is none of: {', '.join(PREPROCESSING)}."
    )


def _numbers(values: Any) -> list[float]:
    """Return numbers of 0...1, rounded as people write them; nothing for what are no numbers."""
    if not isinstance(values, list) or not all(isinstance(x, int | float) for x in values):
        return []
    return [round(x, 3) for x in values]


def _scaled(values: tuple[float, ...]) -> list[float]:
    return [round(x / 255, 3) for x in values]


def _data(foreign: Foreign) -> str | None:
    """Return ImageNet if the file has its number of classes; timm orders them as torchvision."""
    return "imagenet2012" if foreign.contents.classes == _IMAGENET_CLASSES else None


def _crop(config: Mapping[str, Any]) -> SingleCrop | None:
    """Return the crop of the evaluation: timm's test_input_size and test_crop_pct, if given."""
    size = config.get("test_input_size") or config.get("input_size")
    share = config.get("test_crop_pct") or config.get("crop_pct")
    interpolation = config.get("interpolation")
    if not (isinstance(size, list) and len(size) == 3 and isinstance(share, float | int)):
        return None
    if not 0 < share <= 1 or interpolation not in ("bilinear", "bicubic"):
        return None
    return SingleCrop(int(size[1] / share), int(size[1]), interpolation)

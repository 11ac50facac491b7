"""Downloads into the cache: resumed after a break, checked by hash, one process at a time.

Three variables of the environment speak here. `KERAS_RESNET_HOME`: the cache's folder.
`KERAS_RESNET_OFFLINE=1`: no connection is ever opened. `KERAS_RESNET_MIRROR=http://host/path`:
https://download.pytorch.org/x.pth is asked as http://host/path/download.pytorch.org/x.pth.
Proxies and their certificates are what `requests` reads (`HTTPS_PROXY`, `REQUESTS_CA_BUNDLE`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import filelock

from keras_resnet.errors import UserError
from keras_resnet.weights.http import MIRROR, complete, say, shown

HOME, OFFLINE = "KERAS_RESNET_HOME", "KERAS_RESNET_OFFLINE"


def cache_home() -> Path:
    """The cache's folder (it need not exist): $KERAS_RESNET_HOME, XDG's, or ~/.cache/keras_resnet.

    Raises:
        UserError: there is no home directory either, as for some users of containers.
    """
    if home := os.environ.get(HOME):
        return Path(os.path.abspath(os.path.expanduser(home)))
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # the standard: a relative one is invalid and ignored
        return Path(xdg, "keras_resnet")
    try:
        return Path.home() / ".cache" / "keras_resnet"
    except RuntimeError as error:
        raise UserError(f"No home directory for the cache. Set {HOME} to a folder.") from error


def is_offline() -> bool:
    """Whether $KERAS_RESNET_OFFLINE says that no connection may be opened."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no", "off")


def fault(path: Path, digest: str) -> str | None:
    """What is wrong with the file, for a message; None if its hash is the published one.

    Args:
        path: may be absent.
        digest: "md5:" and its 32 hexadecimal digits, or "sha256:" and the first 8 to 64 of a
            SHA-256's.

    Raises:
        UserError: another form of hash.
    """
    expected = digest.lower()
    if not re.fullmatch(r"sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{32}", expected):
        raise UserError(
            f"The hash {digest!r} is neither 'sha256:' and 8 to 64 hexadecimal digits nor "
            "'md5:' and 32 of them."
        )
    algorithm = expected.partition(":")[0]
    try:
        with open(path, "rb") as file:
            received = f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
    except (FileNotFoundError, NotADirectoryError):
        return f"{path} is not there"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if received.startswith(expected):
        return None
    return f"{path} has the wrong hash: expected {expected}, received {received}"


def fetch(url: str, path: Path, digest: str, megabytes: float = 0.0) -> Path:
    """Return `path`, downloaded from `url` unless it is there; its hash is `digest` either way.

    A cached file with another hash is downloaded anew, and that is said on stderr (pooch and Keras
    do so too; torch.hub would use the file as it is): the cache is ours, and a hash that changed
    with an upgrade is no fault of the user's. The old file stays until the new one is complete.

    Args:
        url: http(s); redirects are followed, but not from https to http.
        path: usually below `cache_home()`.
        digest: as for `fault`.
        megabytes: about how large the file is, for messages before the server has said it.

    Raises:
        UserError: offline, refused by the server, unreachable after retries, no room or no
            permission to write, or not the published file.
    """
    problem = fault(path, digest)
    if problem is None:
        return path
    address = _address(url)
    if is_offline():
        size = f"{megabytes:.1f} MB, " if megabytes else ""
        raise UserError(
            f"{problem}, and with {OFFLINE} set nothing is downloaded. Put the file of "
            f"{shown(address)} ({size}{digest}) there by hand, or unset the variable."
        )
    with writing(path.parent, megabytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            problem = fault(path, digest)  # another process may have fetched it meanwhile
            if problem is not None:
                if path.exists():
                    say(f"{problem}. It is downloaded anew.")
                _download(address, path, digest)
    return path


def _address(url: str) -> str:
    """Where the file is asked: `url`, or its place on the mirror."""
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    for address in filter(None, (url, mirror)):
        if not address.startswith(("https://", "http://")):
            given = shown(address)
            raise UserError(f"Only https:// and http:// addresses are fetched, not {given!r}.")
    return f"{mirror}/{url.partition('://')[2]}" if mirror else url


@contextmanager
def writing(folder: Path, megabytes: float = 0.0) -> Iterator[None]:
    """Say what can be done where the cache cannot be written.

    Args:
        folder: in the cache, for the message.
        megabytes: that the file needs; 0 if unknown.

    Raises:
        UserError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        needed = f" The file needs {megabytes:.1f} MB." if megabytes else ""
        raise UserError(
            f"Cannot write to the cache {folder}: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}.{needed} Make room or give "
            f"permission there, or set {HOME} to another folder."
        ) from error


def _locked(path: Path) -> AbstractContextManager[object]:
    """Hold `<path>.lock`, so that two processes do not write one partial file."""
    lock = filelock.FileLock(f"{path}.lock")
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"Waiting for another process that downloads {path.name}.")
        return lock.acquire()


def _download(address: str, path: Path, digest: str) -> None:
    """Receive `<path>.partial`; it gets its name when its hash is right."""
    partial = path.with_name(f"{path.name}.partial")
    if complete(address, partial, path) and fault(partial, digest):
        # The halves may be of two versions, or the older one was torn by a power cut.
        say(f"{path.name}, put together from several answers, has the wrong hash; once more.")
        partial.unlink()
        complete(address, partial, path)
    problem, size = fault(partial, digest), partial.stat().st_size
    if problem is None:
        os.replace(partial, path)
        return
    partial.unlink()
    raise UserError(
        f"{shown(address)} sent another file than the published one: {problem}. It had {size:,} "
        "bytes and was deleted. Is a proxy or mirror in between? A newer keras_resnet may know "
        "the new hash."
    )

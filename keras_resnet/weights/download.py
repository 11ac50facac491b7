"""Downloads into the cache: resumed after a break, checked by hash, one process at a time.

Environment variables:

- `KERAS_RESNET_HOME`: folder of the cache.
- `KERAS_RESNET_OFFLINE=1`: never open a connection.
- `KERAS_RESNET_MIRROR=http://host/path`: download from a mirror.
  https://download.pytorch.org/x.pth becomes http://host/path/download.pytorch.org/x.pth.
- Proxies and their certificates: those of `requests` (`HTTPS_PROXY`, `REQUESTS_CA_BUNDLE`).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import filelock

from keras_resnet.errors import UserError
from keras_resnet.weights.http import MIRROR, complete, say, shown

HOME, OFFLINE = "KERAS_RESNET_HOME", "KERAS_RESNET_OFFLINE"

_ODD = {
    stat.S_IFIFO: "a FIFO",  # to open it waits for another process
    stat.S_IFLNK: "a symbolic link",  # to write to it changes a file elsewhere
    stat.S_IFCHR: "a device",  # to read it may have no end
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def cache_home() -> Path:
    """Return the cache folder: $KERAS_RESNET_HOME, XDG's, or ~/.cache/keras_resnet.

    The folder need not exist.

    Raises:
        UserError: there is no home directory, as for some users of containers.
    """
    if home := os.environ.get(HOME):
        return Path(os.path.abspath(os.path.expanduser(home)))
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # the standard says to ignore a relative path
        return Path(xdg, "keras_resnet")
    try:
        return Path.home() / ".cache" / "keras_resnet"
    except RuntimeError as error:
        raise UserError(f"No home directory for the cache. Set {HOME} to a folder.") from error


def is_offline() -> bool:
    """Return True if $KERAS_RESNET_OFFLINE forbids connections."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no", "off")


def fault(path: Path, digest: str) -> str | None:
    """Return the problem with the file, for a message; None if its hash is the published one.

    Args:
        path: path of the file, which may be absent.
        digest: "md5:" and 32 hexadecimal digits, or "sha256:" and the first 8 to 64 digits.

    Raises:
        UserError: the digest has another form.
    """
    expected = digest.lower()
    if not re.fullmatch(r"sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{32}", expected):
        raise UserError(
            f"A hash must be 'sha256:' and 8 to 64 hexadecimal digits, or 'md5:' and 32; received "
            f"{digest!r}."
        )
    algorithm = expected.partition(":")[0]
    if odd := _odd(path):
        return odd
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


def _odd(path: Path) -> str | None:
    """Return the problem if something is there that is neither a file nor a folder."""
    try:
        kind = _ODD.get(stat.S_IFMT(path.lstat().st_mode))
    except (OSError, ValueError):
        return None
    return f"{path} is {kind}, not a file" if kind else None


def fetch(url: str, path: Path, digest: str, megabytes: float = 0.0) -> Path:
    """Return `path` with the hash `digest`, downloaded from `url` unless it is there.

    A cached file with another hash is downloaded again, with a message on stderr. (pooch and Keras
    do so too; torch.hub would use the file.) The hash may have changed with an upgrade, which is
    not the user's fault. The old file stays until the new one is complete.

    Args:
        url: http(s) address. Redirects are followed, but not from https to http.
        path: path of the file, usually below `cache_home()`.
        digest: expected hash, as for `fault`.
        megabytes: approximate size of the file; 0 if unknown. A server that sends over 1 % more is
            refused.

    Raises:
        UserError: offline; the server refuses or is unreachable after retries; no space or no
            permission to write; the file is not the published one; or the cache has a link, FIFO
            or device in its place.
    """
    for file in path, _partial(path), _lock(path):
        if odd := _odd(file):
            raise UserError(f"{odd}. Delete it, or set {HOME} to another folder.")
    problem = fault(path, digest)
    if problem is None:
        return path
    address = _address(url)
    if is_offline():
        size = f"{megabytes:.1f} MB, " if megabytes else ""
        raise UserError(
            f"{problem}, and {OFFLINE} forbids downloads. Put the file of {shown(address)} "
            f"({size}{digest}) there by hand, or unset the variable."
        )
    with writing(path.parent, megabytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            problem = fault(path, digest)  # another process may have downloaded it meanwhile
            if problem is not None:
                if path.exists():
                    say(f"{problem}. Downloading it again.")
                _download(address, path, digest, _limit(megabytes))
    return path


def _limit(megabytes: float) -> int | None:
    """Return the most bytes that a file of this size can have. Keras rounds sizes to 1 MiB."""
    return round(megabytes * 1.01e6) + 2**19 if megabytes else None


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _address(url: str) -> str:
    """Return the address to download from: `url`, or its place on the mirror."""
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    for address in filter(None, (url, mirror)):
        if not address.startswith(("https://", "http://")):
            given = shown(address)
            raise UserError(f"The address must be https:// or http://; received {given!r}.")
    return f"{mirror}/{url.partition('://')[2]}" if mirror else url


@contextmanager
def writing(folder: Path, megabytes: float = 0.0) -> Iterator[None]:
    """Turn an error of writing to the cache into one that says what to do.

    Args:
        folder: the folder in the cache, for the message.
        megabytes: size of the file; 0 if unknown.

    Raises:
        UserError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        needed = f" The file needs {megabytes:.1f} MB." if megabytes else ""
        raise UserError(
            f"Cannot write to the cache {folder}: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}.{needed} Free some space, give "
            f"permission to write, or set {HOME} to another folder."
        ) from error


def _locked(path: Path) -> AbstractContextManager[object]:
    """Hold `<path>.lock`, so that only one process writes the partial file."""
    lock = filelock.FileLock(_lock(path))
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"Waiting for another process that is downloading {path.name}.")
        return lock.acquire()


def _download(address: str, path: Path, digest: str, limit: int | None) -> None:
    """Receive `<path>.partial` and rename it if its hash is right."""
    partial = _partial(path)
    if complete(address, partial, path, limit) and fault(partial, digest):
        # The parts may be of two versions, or a power cut may have damaged the older one.
        say(f"{path.name}, joined from several downloads, has the wrong hash. Trying once more.")
        partial.unlink()
        complete(address, partial, path, limit)
    problem, size = fault(partial, digest), partial.stat().st_size
    if problem is None:
        os.replace(partial, path)
        return
    partial.unlink()
    raise UserError(
        f"{shown(address)} sent another file than the published one: {problem}. It had {size:,} "
        "bytes and was deleted. Check whether a proxy or mirror is in between. A newer "
        "keras_resnet may have the new hash."
    )

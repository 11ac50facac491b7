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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from keras_resnet.errors import UserError
from keras_resnet.weights.http import HOME, MIRROR, Partial, complete, say, shown, writing

OFFLINE = "KERAS_RESNET_OFFLINE"


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


@dataclass(frozen=True)
class Digest:
    """A published hash: all of an MD5, or the first 8 to 64 hexadecimal digits of a SHA-256."""

    algorithm: str
    digits: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read "sha256:HEX" or "md5:HEX".

        Raises:
            UserError: neither.
        """
        if not re.fullmatch(r"sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{32}", text.lower()):
            raise UserError(
                f"The hash {text!r} is neither 'sha256:' and 8 to 64 hexadecimal digits nor "
                "'md5:' and 32 of them."
            )
        algorithm, _, digits = text.lower().partition(":")
        return cls(algorithm, digits)

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return f"{self.algorithm}:{self.digits}"

    def fault(self, path: Path) -> str | None:
        """What is wrong with the file, for a message; None if its hash is this one."""
        try:
            with open(path, "rb") as file:
                received = hashlib.file_digest(file, self.algorithm).hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            return f"{path} is not there"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        if received.startswith(self.digits):
            return None
        return f"{path} has the wrong hash: expected {self}, received {self.algorithm}:{received}"


def fetch(url: str, path: Path, digest: str, megabytes: float = 0.0) -> Path:
    """Return `path`, downloaded from `url` unless it is there; its hash is `digest` either way.

    A cached file with another hash is downloaded anew, and that is said on stderr (pooch and Keras
    do so too; torch.hub would use the file as it is): the cache is ours, and a hash that changed
    with an upgrade is no fault of the user's. The old file stays until the new one is complete.

    Args:
        url: http(s); redirects are followed, but not from https to http.
        path: usually below `cache_home()`.
        digest: as for `Digest.parse`.
        megabytes: about how large the file is, for messages before the server has said it.

    Raises:
        UserError: offline, refused by the server, unreachable after retries, no room or no
            permission to write, or not the published file.
    """
    expected = Digest.parse(digest)
    fault = expected.fault(path)
    if fault is None:
        return path
    address = _address(url)
    if is_offline():
        size = f"{megabytes:.1f} MB, " if megabytes else ""
        raise UserError(
            f"{fault}, and with {OFFLINE} set nothing is downloaded. Put the file of "
            f"{shown(address)} ({size}{expected}) there by hand, or unset the variable."
        )
    with writing(path.parent, int(megabytes * 1e6)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            fault = expected.fault(path)  # another process may have fetched it meanwhile
            if fault is not None:
                if path.exists():
                    say(f"{fault}. It is downloaded anew.")
                _download(address, path, expected)
    return path


def _address(url: str) -> str:
    """Where the file is asked: `url`, or its place on the mirror."""
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    for address in filter(None, (url, mirror)):
        if not address.startswith(("https://", "http://")):
            raise UserError(f"Only https:// and http:// addresses are fetched, not {address!r}.")
    return f"{mirror}/{url.partition('://')[2]}" if mirror else url


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `<path>.lock`, so that two processes do not write one partial file."""
    lock = filelock.FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"Waiting for another process that downloads {path.name}.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(address: str, path: Path, expected: Digest) -> None:
    partial = Partial(path)
    for again in (False, True):
        complete(address, partial, path)
        fault = expected.fault(partial.path)
        if fault is None:
            partial.move(path)
            return
        glued, size = partial.glued, partial.size()
        partial.discard()
        if again or not glued:
            break
        # The halves may be of two versions, or the older one was torn by a power cut.
        say(f"{path.name}, put together from several answers, has the wrong hash; once more.")
    raise UserError(
        f"{shown(address)} sent another file than the published one: {fault}. It had {size:,} "
        "bytes and was deleted. Is a proxy or mirror in between? A newer keras_resnet may know "
        "the new hash."
    )

"""One file over HTTP: what has arrived is kept, and only the rest is asked for again."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from keras_resnet.display.console import transfer
from keras_resnet.errors import UserError

HOME, MIRROR = "KERAS_RESNET_HOME", "KERAS_RESNET_MIRROR"

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0  # without one byte; a server that is slow but sends may take hours
RETRIES = 4  # in a row without PROGRESS_BYTES more than before
PROGRESS_BYTES = 1 << 20
FIRST_WAIT = 1.0  # seconds, doubled every time; a server's Retry-After goes first
LONGEST_WAIT = 60.0
_CHUNK = 1 << 18


def shown(address: str) -> str:
    """The address without the password that a mirror's may hold."""
    return re.sub(r"//[^/@]*@", "//", address)


def say(text: str) -> None:
    """Write a line to stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def writing(folder: Path, size: int) -> Iterator[None]:
    """Say what can be done where the cache cannot be written; `size` in bytes, 0 if unknown."""
    try:
        yield
    except OSError as error:
        needed = f" The file needs {size / 1e6:.1f} MB." if size else ""
        raise UserError(
            f"Cannot write to the cache {folder}: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}.{needed} Make room or give "
            f"permission there, or set {HOME} to another folder."
        ) from error


# The partial file ---------------------------------------------------------------------------------


class Partial:
    """`<path>.partial`: what has arrived, and beside it which version of the file that is of."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.partial")
        self._version = path.with_name(f"{path.name}.partial.version")
        self.glued = False  # whether more than one answer is in it

    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def headers(self) -> dict[str, str]:
        """Ask for the rest, and for all of it if the server's file is no longer the same."""
        if not self.size():
            return {}
        asked = {"Range": f"bytes={self.size()}-"}
        if self._version.exists():
            version = self._version.read_text("utf-8", "replace")
            if version.isascii() and version.isprintable():  # not torn by a power cut
                asked["If-Range"] = version
        return asked

    def begin(self, response: requests.Response) -> None:
        """Empty it for a whole file. If-Range takes an ETag that is not weak, or else the date."""
        self.discard()
        versions = [response.headers.get("ETag", "W/"), response.headers.get("Last-Modified", "")]
        for version in versions:
            if version and not version.startswith("W/"):
                self._version.write_text(version, "utf-8")
                break

    def discard(self) -> None:
        """Start anew."""
        self.glued = False
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def move(self, path: Path) -> None:
        """Give the complete file its name, at once."""
        os.replace(self.path, path)
        self._version.unlink(missing_ok=True)


# The connection -----------------------------------------------------------------------------------


class _PassingError(Exception):
    """What may be gone at the next try; `wait` is the server's Retry-After in seconds."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class _NoSuchHostError(Exception):
    """The name of the server is not known here: without a network, at once and every time."""


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target and resp.url.startswith("https:"):
            goal = urljoin(resp.url, target)
            if not goal.startswith("https:"):
                raise UserError(
                    f"{shown(resp.url)} redirects from https to {shown(goal)}, which anyone on "
                    "the way can change: not followed."
                )
        return target


def complete(address: str, partial: Partial, path: Path) -> None:
    """Ask `address` until all of the file is in `partial`; `path` is where it will go.

    Raises:
        UserError: refused, given up after retries, or there is no room.
    """
    failures, most = 0, partial.size()
    with _Session() as session:
        while True:
            try:
                return _ask(session, address, partial, path)
            except _NoSuchHostError as failure:
                raise _given_up(address, failure, partial, path) from failure
            except _PassingError as failure:
                if partial.size() - most >= PROGRESS_BYTES:
                    failures, most = 0, partial.size()
                failures += 1
                if failures > RETRIES:
                    tried = _PassingError(f"{failure}; given up after {RETRIES + 1} tries")
                    raise _given_up(address, tried, partial, path) from failure
                wait = FIRST_WAIT * 2 ** (failures - 1) if failure.wait is None else failure.wait
                wait = min(wait, LONGEST_WAIT)
                say(f"{path.name}: {failure}; again in {wait:g} s ({failures} of {RETRIES}).")
                time.sleep(wait)


def _given_up(address: str, failure: Exception, partial: Partial, path: Path) -> UserError:
    kept = "What has arrived is kept: run it again to go on. " if partial.size() else ""
    mirror = (
        f"{MIRROR} is set: is that the right address?"
        if os.environ.get(MIRROR)
        else f"{MIRROR} names a mirror."
    )
    return UserError(
        f"{shown(address)}: {failure}. {kept}Without a connection, put the file at {path} by hand; "
        f"{mirror}"
    )


def _ask(session: requests.Session, address: str, partial: Partial, path: Path) -> None:
    """Make one request for what is missing of the file and receive it."""
    size = partial.size()
    with _get(session, address, partial.headers()) as response:
        status = response.status_code
        if status in (408, 429) or status >= 500:
            raise _PassingError(f"{status} {response.reason}", _retry_after(response))
        found = re.fullmatch(
            r"bytes (\d+|\*)(?:-\d+)?/(\d+|\*)", response.headers.get("Content-Range", "")
        )
        begin, total = found.groups() if found else ("", "")
        if status == 200:
            length = response.headers.get("Content-Length", "")
            partial.begin(response)
            _receive(response, partial, path.name, int(length) if length.isdigit() else None)
        elif status == 206 and size and begin == str(size):
            partial.glued = True
            _receive(response, partial, path.name, int(total) if total.isdigit() else None)
        elif status == 416 and size and total == str(size):
            partial.glued = True  # it was whole already; the hash will tell
        elif status in (206, 416) and size:  # another part, or the server's file is shorter
            partial.discard()
            _ask(session, address, partial, path)
        else:
            _refuse(response, address, path)


def _get(session: requests.Session, address: str, headers: dict[str, str]) -> requests.Response:
    # "identity": lengths and ranges are then in bytes of the file itself.
    headers = {"Accept-Encoding": "identity", **headers}
    timeout = (CONNECT_SECONDS, STALL_SECONDS)
    try:
        return session.get(address, headers=headers, stream=True, timeout=timeout)
    except (requests.ConnectionError, requests.Timeout) as error:
        root = _root(error)
        if isinstance(root, ssl.SSLCertVerificationError):
            raise UserError(
                f"{shown(address)}: {root.verify_message}. Behind a company's proxy, set "
                "REQUESTS_CA_BUNDLE to the file of its certificates."
            ) from error
        if isinstance(root, socket.gaierror) and root.errno == socket.EAI_NONAME:
            raise _NoSuchHostError(_reason(error)) from error
        raise _PassingError(_reason(error)) from error
    except requests.RequestException as error:
        raise UserError(f"{shown(address)} cannot be asked: {shown(str(error))}") from error


def _refuse(response: requests.Response, address: str, path: Path) -> None:
    whys = {401: " It wants a login.", 403: " It gives no access.", 404: " It is not there."}
    why = whys.get(response.status_code, "")
    mirror = f" {MIRROR} is set: does it have the file?" if os.environ.get(MIRROR) else ""
    raise UserError(
        f"{shown(address)}: {response.status_code} {response.reason}.{why}{mirror} A newer "
        f"keras_resnet may know a new address; a file got elsewhere can be put at {path}."
    )


def _retry_after(response: requests.Response) -> float | None:
    with suppress(urllib3.exceptions.InvalidHeader):
        return urllib3.Retry().get_retry_after(response.raw)
    return None


def _root(error: BaseException) -> BaseException:
    """The socket's error inside those of urllib3 and requests: the cause, or the first argument.

    Not `__context__`: at its end may be an error that the caller is handling.
    """
    inner = error.__cause__ or next((a for a in error.args if isinstance(a, BaseException)), None)
    return _root(inner) if inner else error


def _reason(error: BaseException) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return f"not a byte within {STALL_SECONDS:g} s"
    root = _root(error)
    return getattr(root, "strerror", None) or str(root)


def _receive(response: requests.Response, partial: Partial, name: str, total: int | None) -> None:
    """Append the body to `partial`, which will be `total` bytes long."""
    start, folder = partial.size(), partial.path.parent
    with writing(folder, total or 0):
        free = shutil.disk_usage(folder).free
        if total is not None and free < total - start:
            raise OSError(errno.ENOSPC, f"only {free / 1e6:.1f} MB are free")
    size = "" if total is None else f", {total / 1e6:.1f} MB"
    resumed = f", going on at {start / 1e6:.1f}" if start else ""
    say(f"Downloading {name}{size}{resumed}, from {urlsplit(response.url).hostname} to {folder}")
    try:
        with (
            writing(folder, total or 0),
            open(partial.path, "ab") as file,
            transfer(name, total, start) as advance,
        ):
            for chunk in _chunks(response):
                file.write(chunk)
                advance(len(chunk))
    except KeyboardInterrupt:
        say(f"{partial.path} is kept; the next download goes on from there.")
        raise
    if total is not None and partial.size() != total:
        raise _PassingError(f"the connection ended at {partial.size():,} of {total:,} bytes")


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """What has arrived, as it arrives: no byte of a slow server is lost when the line breaks."""
    try:
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise _PassingError(_reason(error)) from error

"""Download one file over HTTP with `requests`: retry temporary failures, resume broken downloads.

We tried pooch and did not use it. It compares whole hashes, but torchvision and timm publish only
the first 8 digits. It prints a mirror's address with its password. It cannot resume.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from keras_resnet.display.bars import transfer
from keras_resnet.errors import UserError

MIRROR = "KERAS_RESNET_MIRROR"

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # until the headers are complete, redirects included
STALL_SECONDS = 30.0  # without one byte
CHUNK_SECONDS = 300.0  # for CHUNK bytes; a server that is a little faster may take hours
RETRIES = 4  # in a row, each without PROGRESS_BYTES more than before
PROGRESS_BYTES = 1 << 20
FIRST_WAIT = 1.0  # seconds, doubled every time; a server's Retry-After has priority
LONGEST_WAIT = 60.0
CHUNK = 1 << 16  # bytes; a broken connection loses less than one chunk

_PASSING = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_HINTS = {
    401: ". It needs a login",
    403: ". Access is denied",
    404: ". The file is not there; a newer keras_resnet may have a new address",
}


def say(text: str) -> None:
    """Write a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """Make text from outside safe for a message: no passwords, no control characters."""
    text = re.sub(r"//[^/\s]*@", "//", text)
    return "".join(character if character.isprintable() else "?" for character in text)


def complete(address: str, partial: Path, path: Path, limit: int | None = None) -> bool:
    """Request `address` until the whole file is in `partial`. `path` is its final place.

    A file of more than `limit` bytes is refused.

    Returns:
        True if the file was joined from several downloads, which may be of two versions.

    Raises:
        UserError: the server refused or sends too much, or the retries are used up.
        OSError: there is no space.
    """
    failures, most = 0, _size(partial)
    with _Session() as session:
        while True:
            try:
                return _request(session, address, partial, path, limit)
            except requests.RequestException as error:
                reason, may_pass = _explain(error)
                if _size(partial) - most >= PROGRESS_BYTES:
                    failures, most = 0, _size(partial)
                failures += 1
                if may_pass and failures > RETRIES:
                    reason += f"; gave up after {RETRIES + 1} tries. Run it again to continue"
                    may_pass = False
                if not may_pass:
                    # Not `from error`: the text of requests may have a password.
                    raise _refusal(address, reason, path) from None
                wait = _wait(error, failures)
                say(f"{path.name}: {reason}; retry in {wait:g} s ({failures} of {RETRIES}).")
                time.sleep(wait)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target:
            resp.close()  # else `requests` reads its body, which may have no end
            _require_safe(resp.url, target)
        return target


def _require_safe(address: str, target: str) -> None:
    """Refuse a redirect from https to http, and to anything but an address."""
    goal, is_address = target, False
    with suppress(ValueError):
        goal = urljoin(address, target)
        parts = urlsplit(goal)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    if not is_address:
        raise UserError(
            f"{shown(address)} redirects to {shown(goal)[:200]!r}, which is not an http address. "
            "Check whether a proxy or mirror is in between."
        )
    if address.startswith("https:") and not goal.startswith("https:"):
        raise UserError(
            f"{shown(address)} redirects from https to {shown(goal)}, where anyone on the way can "
            "change the file. The redirect was not followed."
        )


def _request(
    session: requests.Session, address: str, partial: Path, path: Path, limit: int | None
) -> bool:
    """Receive the rest of the file; return True if `partial` already had the beginning."""
    size = _size(partial)
    # "identity": lengths and ranges then count the bytes of the file itself.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={size}-"} if size else {})
    with _answer(session, address, headers) as response:
        told = response.headers.get("Content-Range", "")
        rest = re.fullmatch(rf"bytes {size}-\d+/(\d{{1,18}})", told)
        if size and response.status_code in (206, 416) and not rest:
            partial.unlink()  # another part, or nothing: the file on the server has changed
            return _request(session, address, partial, path, limit)
        response.raise_for_status()
        if size and response.status_code == 206 and rest:
            _receive(response, partial, path, size, int(rest[1]), limit)
            return True
        if response.status_code != 200:  # such as a redirect without an address
            raise requests.HTTPError(response=response)
        _receive(response, partial, path, 0, response.raw.length_remaining, limit)
        return False


def _answer(session: requests.Session, address: str, headers: dict[str, str]) -> requests.Response:
    """Return the answer once its headers are complete, but wait ANSWER_SECONDS at most.

    The timeouts of `requests` begin anew with every byte, so a thread asks and this one waits.
    """
    answer: Future[requests.Response] = Future()

    def ask() -> None:
        timeout = (CONNECT_SECONDS, STALL_SECONDS)
        try:
            answer.set_result(session.get(address, headers=headers, stream=True, timeout=timeout))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(ANSWER_SECONDS)
    except (requests.RequestException, UserError):
        raise
    except (OSError, ValueError) as error:  # REQUESTS_CA_BUNDLE's file, or a malformed Location
        if not answer.done():
            raise requests.Timeout(f"no answer within {ANSWER_SECONDS:g} s") from None
        raise requests.RequestException(error) from error


def _receive(
    response: requests.Response,
    partial: Path,
    path: Path,
    start: int,
    total: int | None,
    limit: int | None,
) -> None:
    """Append the body to the first `start` bytes of `partial`, up to `total` bytes."""
    _require_size(response, partial, total or 0, limit)
    free = shutil.disk_usage(path.parent).free
    if total is not None and free < total - start:
        raise OSError(errno.ENOSPC, f"only {free / 1e6:.1f} MB are free")
    size = "" if total is None else f", {total / 1e6:.1f} MB"
    resumed = f", continuing at {start / 1e6:.1f}" if start else ""
    host = shown(urlsplit(response.url).hostname or "")
    say(f"Downloading {path.name}{size}{resumed}, from {host} to {path.parent}")
    with (
        open(partial, "ab" if start else "wb") as file,
        transfer(path.name, total, start) as advance,
    ):
        for chunk in _chunks(response):
            _require_size(response, partial, file.tell() + len(chunk), limit or total)
            file.write(chunk)
            advance(len(chunk))
    if total is not None and _size(partial) < total:
        raise requests.ConnectionError(f"received {_size(partial):,} of {total:,} bytes")


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body; end it if a chunk takes too long."""
    chunks = response.iter_content(CHUNK)
    while True:
        watch = threading.Timer(CHUNK_SECONDS, _hang_up, [response])
        watch.daemon = True
        watch.start()
        try:
            chunk = next(chunks, None)
        except ValueError as error:  # a length that is none
            raise requests.exceptions.ChunkedEncodingError(error) from error
        finally:
            watch.cancel()
        if chunk is None:
            return
        yield chunk


def _hang_up(response: requests.Response) -> None:
    with suppress(OSError, ValueError):  # the body ended at the same time
        response.raw.shutdown()


def _require_size(response: requests.Response, partial: Path, size: int, limit: int | None) -> None:
    """Refuse a body that is longer than the published file, and delete its beginning."""
    if limit is None or size <= limit:
        return
    partial.unlink(missing_ok=True)
    raise UserError(
        f"{shown(response.url)} sends more than the published file: {size / 1e6:,.1f} MB or more, "
        f"in place of {limit / 1e6:,.1f}. Nothing was kept. Check whether a proxy or mirror is in "
        "between. A newer keras_resnet may have the new size."
    )


# Errors -------------------------------------------------------------------------------------------


def _wait(error: requests.RequestException, failures: int) -> float:
    """Return the seconds until the next try."""
    asked = None
    if error.response is not None:
        with suppress(urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
            asked = urllib3.Retry().get_retry_after(error.response.raw)
    return min(FIRST_WAIT * 2 ** (failures - 1) if asked is None else asked, LONGEST_WAIT)


def _root(error: BaseException) -> BaseException:
    """Return the socket's error inside those of urllib3 and requests: cause, or first argument.

    Not `__context__`: that chain may end in an error that the caller is handling.
    """
    inner = error.__cause__ or next((a for a in error.args if isinstance(a, BaseException)), None)
    return _root(inner) if inner else error


def _explain(error: requests.RequestException) -> tuple[str, bool]:
    """Return the reason, and True if a retry may help. Text from the server is not shown."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        code = error.response.status_code
        reason = f"{code} {http.client.responses.get(code, '')}".rstrip() + _HINTS.get(code, "")
        return reason, code in (408, 429) or code >= 500
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s", True
    root = _root(error)
    if isinstance(root, TimeoutError):
        return f"no data for {STALL_SECONDS:g} s", True
    if isinstance(root, ssl.SSLCertVerificationError):
        bundle = "set REQUESTS_CA_BUNDLE to the file of its certificates"
        return f"{root.verify_message}. Behind a company's proxy, {bundle}", False
    reason = shown(getattr(root, "strerror", None) or str(root))[:200]
    unknown = isinstance(root, socket.gaierror) and root.errno == socket.EAI_NONAME  # no network
    return reason, isinstance(error, _PASSING) and not unknown


def _refusal(address: str, reason: str, path: Path) -> UserError:
    mirror = "is set: check that it has the file" if os.environ.get(MIRROR) else "can name a mirror"
    return UserError(
        f"{shown(address)}: {reason}. You can put a copy of the file at {path}. {MIRROR} {mirror}."
    )

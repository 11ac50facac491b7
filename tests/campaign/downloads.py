"""Downloads from servers that lie, stall and never end, into caches with odd things in them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import itertools
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from keras_resnet.errors import UserError
from keras_resnet.weights import download, http

NAME = "downloads"
TRIALS, SHARE, SECONDS = 1500, 15, 120.0

CONTENT = random.Random(0).randbytes(60_000)
_DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
_MEGABYTES = len(CONTENT) / 1e6
_LIMIT = 700_000  # bytes: more than any answer may leave in the cache
_SECONDS = 30.0  # for one trial; the waits below make it about 10 at the worst
_QUICK = {
    "ANSWER_SECONDS": 2.0,
    "CHUNK_SECONDS": 2.0,
    "STALL_SECONDS": 1.0,
    "FIRST_WAIT": 0.001,
    "LONGEST_WAIT": 0.002,
    "RETRIES": 2,
}

Answer = Callable[[random.Random, int], Iterator[bytes]]  # of a request from this byte on


def trial(seed: int, folder: Path) -> str | None:
    """Download once; return what went wrong, None if nothing."""
    chance = random.Random(seed)
    path = folder / "cache" / "x.pth"
    path.parent.mkdir(parents=True)
    outside = folder / "outside"
    outside.write_bytes(b"not ours")
    put = chance.choice(_CACHES)
    put(path, outside)
    answers = chance.choices(_ANSWERS, k=chance.randrange(1, 4))
    what = f"{put.__name__}, then {', '.join(answer.__name__ for answer in answers)}"
    said, began = io.StringIO(), time.monotonic()
    with serving(chance, answers) as (url, sent), _quick(), contextlib.redirect_stderr(said):
        problem = _fetched(url, path)
    if problem is None and time.monotonic() - began > _SECONDS:
        problem = f"took {time.monotonic() - began:.0f} s"
    if problem is None and outside.read_bytes() != b"not ours":
        problem = "a file outside of the cache was changed"
    if problem is None and "Traceback" in said.getvalue():
        problem = "a traceback on stderr"
    if problem is None and not all(line.isprintable() for line in said.getvalue().splitlines()):
        problem = "control characters on stderr"
    if problem is None and (most := max(sent, default=0)) > 50 * _LIMIT:
        problem = f"{most:,} bytes were received"
    return None if problem is None else f"{what}: {problem}"


def _fetched(url: str, path: Path) -> str | None:
    try:
        download.fetch(url, path, _DIGEST, _MEGABYTES)
    except UserError as error:
        if len(str(error)) > 1000 or not str(error).isprintable():
            return f"not a message: {str(error)[:200]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    else:
        if path.is_symlink() or path.read_bytes() != CONTENT:
            return "another file was accepted"
    partial = path.with_name("x.pth.partial")
    if partial.is_file() and not partial.is_symlink() and partial.stat().st_size > _LIMIT:
        return f"{partial.stat().st_size:,} bytes were kept"
    return None


@contextlib.contextmanager
def _quick() -> Iterator[None]:
    """Wait less than for real servers, and use nothing of this machine's variables."""
    names = [name for name in os.environ if name.lower().endswith("_proxy")]
    ours = [name for name in os.environ if name.startswith("KERAS_RESNET_")]
    with mock.patch.dict(os.environ), mock.patch.multiple(http, **_QUICK):
        for name in names + ours:
            del os.environ[name]
        yield


# Caches -------------------------------------------------------------------------------------------


def an_empty_cache(path: Path, outside: Path) -> None:
    """Nothing."""


def the_beginning(path: Path, outside: Path) -> None:
    _partial(path).write_bytes(CONTENT[:20_000])


def another_beginning(path: Path, outside: Path) -> None:
    _partial(path).write_bytes(b"x" * 20_000)


def more_than_all(path: Path, outside: Path) -> None:
    _partial(path).write_bytes(CONTENT * 2)


def another_file(path: Path, outside: Path) -> None:
    path.write_bytes(b"another")


def a_folder(path: Path, outside: Path) -> None:
    path.mkdir()


def a_fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def a_fifo_for_the_part(path: Path, outside: Path) -> None:
    os.mkfifo(_partial(path))


def a_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def a_link_for_the_part(path: Path, outside: Path) -> None:
    _partial(path).symlink_to(outside)


def a_link_for_the_lock(path: Path, outside: Path) -> None:
    path.with_name("x.pth.lock").symlink_to(outside)


def a_link_to_a_device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


def a_link_to_itself(path: Path, outside: Path) -> None:
    path.symlink_to(path)


def a_socket(path: Path, outside: Path) -> None:
    """Bind by a short name: the path of a socket is 108 bytes at most."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def _partial(path: Path) -> Path:
    return path.with_name("x.pth.partial")


_CACHES = [an_empty_cache] * 12 + [
    the_beginning,
    the_beginning,
    another_beginning,
    more_than_all,
    another_file,
    a_folder,
    a_fifo,
    a_fifo_for_the_part,
    a_link,
    a_link_for_the_part,
    a_link_for_the_lock,
    a_link_to_a_device,
    a_link_to_itself,
    a_socket,
]


# Answers ------------------------------------------------------------------------------------------


def _head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1", "replace")


def whole(chance: random.Random, start: int) -> Iterator[bytes]:
    yield _head("200 OK", f"Content-Length: {len(CONTENT)}") + CONTENT


def rest(chance: random.Random, start: int) -> Iterator[bytes]:
    told = f"Content-Range: bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    length = f"Content-Length: {len(CONTENT) - start}"
    yield _head("206 Partial Content", told, length) + CONTENT[start:]


def odd_range(chance: random.Random, start: int) -> Iterator[bytes]:
    span = chance.choice([f"{start}-9", "0-0", f"{start}-{'9' * 18}", "a-b", "-1--5", "\xb2-3"])
    total = chance.choice(["*", "0", "9" * 18, "9" * 5000, "-1", str(start)])
    status = chance.choice(["206 Partial Content", "416 No", "200 OK"])
    yield _head(status, f"Content-Range: bytes {span}/{total}") + CONTENT[start:]


def odd_length(chance: random.Random, start: int) -> Iterator[bytes]:
    lengths = ["0", "-1", "1e9", "\xb2", "9" * 20, "9" * 5000, "60001", "59999", "1, 2", ""]
    headers = [f"Content-Length: {length}" for length in chance.choices(lengths, k=2)]
    yield _head("200 OK", *headers[: chance.randrange(3)]) + CONTENT


def a_part(chance: random.Random, start: int) -> Iterator[bytes]:
    yield _head("200 OK", f"Content-Length: {len(CONTENT)}") + CONTENT[: chance.randrange(60_000)]


def endless(chance: random.Random, start: int) -> Iterator[bytes]:
    status = chance.choice(["200 OK", "206 Partial Content", "404 Not Found", "503 Busy"])
    length = chance.choice([[], [f"Content-Length: {10**12}"], ["Content-Length: 600000"]])
    yield _head(status, f"Content-Range: bytes {start}-9/{10**12}", *length)
    yield from itertools.repeat(bytes(65_536))


def endless_redirect(chance: random.Random, start: int) -> Iterator[bytes]:
    kind = chance.choice([[], ["Transfer-Encoding: chunked"]])
    yield _head("302 Found", "Location: /y", *kind)
    yield from itertools.repeat(b"10000\r\n" + bytes(65_536) + b"\r\n")


def redirect(chance: random.Random, start: int) -> Iterator[bytes]:
    targets = [
        "/y", "", "?", "#", "//", "http://", "http://[", "http://[::1", "http://127.0.0.1:1/",
        "http://127.0.0.1:99999/", "http://127.0.0.1:-1/", "http://127.0.0.1:x/", "file:///etc/pa",
        "ftp://127.0.0.1/", "javascript:1", "http://\xff\xfe/", "/\xff\xfe", "http://" + "a" * 70,
        "http://" + ".".join(["a" * 60] * 9), "http://a b/", "/\x00", "http://%zz/", "http:///",
        "http://user:secret@127.0.0.1:1/", "http://\u0130.invalid/", "http://xn--/", "http://.../",
        "http://127.0.0.1:1/\x1b[2J", "data:,x", "https://127.0.0.1:1/", "http:x",
    ]  # fmt: skip
    status = chance.choice([301, 302, 303, 307, 308, 300, 304, 305])
    locations = [
        f"Location: {chance.choice(targets)}" for _ in range(chance.choice([1, 1, 1, 0, 2]))
    ]
    yield _head(f"{status} Moved", *locations, "Content-Length: 0")


def odd_status(chance: random.Random, start: int) -> Iterator[bytes]:
    status = chance.choice(["000", "099", "999", "1000", "-1", "abc", "", "101 Switch", "204 No"])
    status = chance.choice([status, f"{chance.randrange(100, 600)} \x1b[31mred\x9b"])
    after = f"Retry-After: {chance.choice(['-1', '0', '1e9', 'x', '9' * 5000, 'Mon, 01 Jan'])}"
    yield _head(status, after, "Content-Length: 0")


def continues(chance: random.Random, start: int) -> Iterator[bytes]:
    yield from itertools.repeat(_head("100 Continue", "X: y"), chance.choice([1, 50, 10**6]))
    yield from whole(chance, start)


def slow_headers(chance: random.Random, start: int) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-Slow: "
    for _ in range(1000):
        time.sleep(0.2)
        yield b"x"


def slow_body(chance: random.Random, start: int) -> Iterator[bytes]:
    yield _head("200 OK", f"Content-Length: {len(CONTENT)}")
    for byte in CONTENT[:1000]:
        time.sleep(0.2)
        yield bytes([byte])


def many_headers(chance: random.Random, start: int) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    yield from itertools.repeat(b"X-Many: " + b"x" * 1000 + b"\r\n", chance.choice([50, 10**6]))


def a_long_header(chance: random.Random, start: int) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-Long: "
    yield from itertools.repeat(b"x" * 65_536, chance.choice([1, 10**6]))


def chunked(chance: random.Random, start: int) -> Iterator[bytes]:
    yield _head("200 OK", "Transfer-Encoding: chunked")
    size = chance.choice(["ea60", "ea60;a=b", "-1", "zz", "", "f" * 20, "0", "f" * 5000, "ea6"])
    yield size.encode() + b"\r\n" + CONTENT + b"\r\n"
    yield chance.choice([b"0\r\n\r\n", b"", b"0\r\n" + b"X: y\r\n" * 1000, b"-5\r\n", b"\xff\r\n"])


def encoded(chance: random.Random, start: int) -> Iterator[bytes]:
    body = chance.choice([gzip.compress(CONTENT), gzip.compress(bytes(50_000_000)), b"junk" * 99])
    kind = chance.choice(["gzip", "deflate", "br", "zstd", "gzip, gzip", ", ".join(["gzip"] * 99)])
    yield _head("200 OK", f"Content-Encoding: {kind}", f"Content-Length: {len(body)}") + body


def noise(chance: random.Random, start: int) -> Iterator[bytes]:
    yield chance.choice(
        [
            b"",
            b"\x00" * 100,
            b"\x16\x03\x01\x02\x00",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"HTTP/0.9 200 OK\r\n\r\n" + CONTENT,
            b"HTTP/1.1 200 OK\n\n" + CONTENT,
            b"HTTP/1.1 200 OK\r\n: no name\r\nno colon\r\n folded\r\n\r\n" + CONTENT,
            chance.randbytes(5000),
        ]
    )


def silence(chance: random.Random, start: int) -> Iterator[bytes]:
    time.sleep(1.5)
    yield b""


_ANSWERS: list[Answer] = [whole, rest, odd_range, odd_length, a_part, redirect] * 3 + [
    endless,
    endless_redirect,
    odd_status,
    odd_status,
    continues,
    many_headers,
    a_long_header,
    chunked,
    chunked,
    encoded,
    noise,
    noise,
]
_ANSWERS = _ANSWERS * 4 + [slow_headers, slow_body, silence]  # these take seconds


# The server ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(chance: random.Random, answers: list[Answer]) -> Iterator[tuple[str, list[int]]]:
    """Answer the first requests as told and later ones like the last; count the bytes sent."""
    script, sent = itertools.chain(answers, itertools.repeat(answers[-1])), []
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                sent.append(0)
                arguments = (client, next(script), random.Random(chance.random()), sent)
                threading.Thread(target=_answer, args=arguments, daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/x.pth", sent
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # ends `accept`
            thread.join()


def _answer(client: socket.socket, answer: Answer, chance: random.Random, sent: list[int]) -> None:
    place = len(sent) - 1
    with client, contextlib.suppress(OSError):
        client.settimeout(20)
        request = b""
        while b"\r\n\r\n" not in request and len(request) < 1 << 20:
            request += client.recv(65_536) or b"\r\n\r\n"
        start = request.partition(b"Range: bytes=")[2].partition(b"-")[0]
        for piece in answer(chance, int(start or 0)):
            client.sendall(piece)
            sent[place] += len(piece)
        if chance.random() < 0.2:  # a reset in place of an end
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

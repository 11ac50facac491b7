"""A real HTTP server for the tests of downloads: files of a folder, and scripted faults."""

import re
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

_PIECE = 1000  # bytes, of a trickle


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; the next request takes the path's next fault."""

    status: int = 0  # answer this, with no body
    headers: Mapping[str, str | None] = field(default_factory=dict)  # over the usual; None: not
    content: bytes | None = None  # send this in the file's place
    raw: bytes | None = None  # send this in the whole answer's place, and disconnect
    after: int | None = None  # bytes of this answer's body; then disconnect, or ...
    until: threading.Event | None = None  # ... wait for this and go on (never set: a stall)
    pause: float = 0.0  # seconds between pieces of 1000 bytes


@dataclass
class Request:
    """What was asked and answered."""

    path: str
    headers: dict
    status: int = 0
    sent: int = 0  # bytes of the body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        """A client that hangs up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        ours = self.server.ours
        path = urlsplit(self.path).path
        fault = next(ours.faults.get(path, iter(())), Fault())
        self.request_seen = Request(self.path, dict(self.headers))
        ours.requests.append(self.request_seen)
        file = ours.folder / path.lstrip("/")
        if fault.raw is not None:
            self.wfile.write(fault.raw)
            self.close_connection = True
        elif fault.status or not file.is_file():
            self._begin(fault.status or 404, {"Content-Length": "0", **fault.headers})
        else:
            self._file(file.read_bytes() if fault.content is None else fault.content, fault)

    def _file(self, content, fault):
        start, status, headers = self._start(), 200, {}
        if start >= len(content) > 0:
            headers |= {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"}
            return self._begin(416, headers | dict(fault.headers))
        if start:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self._begin(status, headers | {"Content-Length": str(len(body))} | dict(fault.headers))
        return self._body(body, fault)

    def _start(self):
        """Where the client wants to begin."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(asked[1]) if asked and self.server.ours.ranges else 0

    def _begin(self, status, headers):
        self.request_seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def _body(self, body, fault):
        after = len(body) if fault.after is None else fault.after
        self._send(body[:after], fault.pause)
        if fault.until is not None:
            while not (fault.until.wait(0.02) or self.server.ours.closed.is_set()):
                pass
            if fault.until.is_set():
                return self._send(body[after:], fault.pause)
        self.close_connection = self.close_connection or fault.after is not None
        return None

    def _send(self, body, pause):
        step = _PIECE if pause else max(len(body), 1)
        for begin in range(0, len(body), step):
            self.wfile.write(body[begin : begin + step])
            self.request_seen.sent += len(body[begin : begin + step])
            time.sleep(pause)

    def log_message(self, *arguments):
        """Nothing: `requests` has it all."""


class Serving:
    """A running server: `url` has no slash at its end, `requests` lists what was asked so far."""

    def __init__(self, folder, faults, *, ranges, certificate):
        self.folder, self.ranges = Path(folder), ranges
        self.faults = {path: iter(script) for path, script in (faults or {}).items()}
        self.requests: list[Request] = []
        self.closed = threading.Event()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.ours = self
        self.port = self.server.server_address[1]
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)


@contextmanager
def serving(folder, faults=None, *, ranges=True, certificate=None):
    """Serve `folder` until the end of the block.

    `faults` has an iterable of `Fault` for a path ("/x.pth"), one a request. Without `ranges` the
    server always sends all of a file. A `certificate` (a PEM file with its key) makes it https.
    """
    running = Serving(folder, faults, ranges=ranges, certificate=certificate)
    thread = threading.Thread(target=running.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.closed.set()
        running.server.shutdown()
        running.server.server_close()
        thread.join()

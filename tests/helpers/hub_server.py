"""A server that answers as the Hugging Face Hub does when its own library downloads a file."""

import hashlib
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What the Hub calls its refusals; huggingface_hub makes its errors of these words.
REFUSALS = {"gated": (403, "GatedRepo"), "missing": (404, "RepoNotFound")}


@dataclass
class Repository:
    """A model: its files at one commit, or a refusal."""

    files: dict[str, bytes] = field(default_factory=dict)
    commit: str = "1" * 40
    refusal: str = ""
    damaged: bool = False  # another byte is sent than the hash says


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def log_message(self, *_):
        pass

    def _refuse(self, status, word):
        self.send_response(status)
        self.send_header("X-Error-Code", word)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self):
        self.server.asked.append(f"{self.command} {self.path}")
        found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/([^?]+)(\?.*)?", self.path)
        if found is None:
            return self._refuse(404, "EntryNotFound")
        repo, revision, name, _ = found.groups()
        known = self.server.repositories.get(repo, Repository(refusal="missing"))
        if known.refusal:
            return self._refuse(*REFUSALS[known.refusal])
        if revision not in ("main", known.commit):
            return self._refuse(404, "RevisionNotFound")
        if name not in known.files:
            return self._refuse(404, "EntryNotFound")
        content = known.files[name]
        digest = hashlib.sha256(content).hexdigest()
        if known.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        self.send_header("X-Repo-Commit", known.commit)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
        return None


@contextmanager
def hub_server(repositories):
    """Serve {"USER/NAME": Repository}; yield the address and the list of what was asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.repositories, server.asked = repositories, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", server.asked
        server.shutdown()

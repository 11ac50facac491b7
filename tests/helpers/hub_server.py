"""A server that answers as the Hugging Face Hub does when its own library downloads or uploads."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import yaml

# What the Hub calls its refusals; huggingface_hub makes its errors of these words.
REFUSALS = {
    "gated": (403, "GatedRepo"),
    "missing": (404, "RepoNotFound"),
    "private": (401, "RepoNotFound"),
    "full": (507, "InsufficientStorage"),
}


@dataclass
class Repository:
    """A model: its files at the newest commit, those of earlier commits, or a refusal."""

    files: dict[str, bytes] = field(default_factory=dict)
    commit: str = "1" * 40
    refusal: str = ""
    damaged: bool = False  # another byte is sent than the hash says
    private: bool = False
    earlier: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def at(self, revision):
        """The files of a revision; None if there is none."""
        newest = {"main": self.files, self.commit: self.files}
        return (self.earlier | newest).get(revision)

    def add(self, changed, deleted=()):
        """Make a commit."""
        self.earlier[self.commit] = self.files
        self.files = {k: v for k, v in (self.files | changed).items() if k not in deleted}
        listing = json.dumps({name: _hash(content) for name, content in self.files.items()})
        self.commit = hashlib.sha1(listing.encode()).hexdigest()


def _is_large(content):
    """Whether the Hub keeps a file by its SHA-256: it does so for what is no text."""
    return b"\0" in content[:512]


def _hash(content):
    """What the Hub sends as a file's hash: SHA-256, or git's of a text."""
    if _is_large(content):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


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
        if self.path.startswith("/api/"):
            return self._tell_of_a_repository()
        found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/([^?]+)(\?.*)?", self.path)
        if found is None:
            return self._refuse(404, "EntryNotFound")
        repo, revision, name, _ = found.groups()
        known = self.server.repositories.get(repo, Repository(refusal="missing"))
        if known.refusal:
            return self._refuse(*REFUSALS[known.refusal])
        files = known.at(revision)
        if files is None:
            return self._refuse(404, "RevisionNotFound")
        if name not in files:
            return self._refuse(404, "EntryNotFound")
        content = files[name]
        digest = _hash(content)
        if known.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        newest = known.commit if revision == "main" else revision
        self.send_header("X-Repo-Commit", newest)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
        return None

    def _tell_of_a_repository(self):
        pattern = r"/api/models/([\w.-]+/[\w.-]+)(/refs|/(?:revision|tree)/([^/?]+))?(\?.*)?"
        repo, kind, revision, _ = re.fullmatch(pattern, self.path).groups()
        known = self.server.repositories[repo]
        if known.refusal:
            return self._refuse(*REFUSALS[known.refusal])
        if kind == "/refs":
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": known.commit}
            return self._say({"branches": [main], "converts": [], "tags": []})
        if kind is None or "/revision/" in kind:
            return self._say({"id": repo, "sha": known.commit, "private": known.private})
        if known.at(revision) is None:
            return self._refuse(404, "RevisionNotFound")
        files = known.at(revision).items()
        listed = [{"type": "file", "path": k, "size": len(v), "oid": _hash(v)} for k, v in files]
        return self._say(listed)

    # Uploads --------------------------------------------------------------------------------------

    def do_POST(self):
        """Create a repository, check a card, say how to send files, or make a commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"POST {self.path}")
        for pattern, answer in self._POSTS.items():
            if found := re.fullmatch(pattern, self.path.partition("?")[0]):
                return answer(self, body, *found.groups())
        return self._refuse(404, "EntryNotFound")

    def do_PUT(self):
        """Take a large file."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self._say({})

    def _say(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _create(self, body):
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        private = asked.get("visibility") == "private" or asked.get("private", False)
        known = self.server.repositories.get(repo)
        if known is None:
            self.server.repositories[repo] = Repository(private=private)
        elif known.refusal:
            return self._refuse(*REFUSALS[known.refusal])
        place, status = f"http://{self.headers['Host']}/{repo}", 200 if known is None else 409
        return self._say({"url": place}, status)

    def _check_card(self, body):
        front = json.loads(body)["content"].split("---\n")[1]
        try:
            yaml.safe_load(front)
        except yaml.YAMLError as error:
            return self._say({"errors": [{"message": str(error)}]}, 400)
        return self._say({"errors": [], "warnings": []})

    def _how_to_send(self, body, repo, revision):
        known = self.server.repositories[repo].at(revision)
        if known is None:
            return self._refuse(404, "RevisionNotFound")
        answers = []
        for file in json.loads(body)["files"]:
            large = _is_large(base64.b64decode(file["sample"]))
            old = known.get(file["path"])
            answers.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": None if old is None else _hash(old),
                }
            )
        return self._say({"files": answers})

    def _where_to_send(self, body, repo):
        objects = json.loads(body)["objects"]
        place = f"http://{self.headers['Host']}/large"
        for item in objects:
            item["actions"] = {"upload": {"href": f"{place}/{item['oid']}"}}
        return self._say({"transfer": "basic", "objects": objects})

    def _branch(self, body, repo, name):
        return self._refuse(403, "Forbidden")  # this server has main only

    def _commit(self, body, repo, revision):
        changed, deleted = {}, set()
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                changed[value["path"]] = self.server.large[value["oid"]]
            elif line["key"] == "deletedFile":
                deleted.add(value["path"])
        known = self.server.repositories[repo]
        known.add(changed, deleted)
        place = f"http://{self.headers['Host']}/{repo}/commit/{known.commit}"
        return self._say({"commitUrl": place, "commitOid": known.commit})

    _POSTS: ClassVar = {
        r"/api/repos/create": _create,
        r"/api/validate-yaml": _check_card,
        r"/api/models/([\w.-]+/[\w.-]+)/preupload/([^/]+)": _how_to_send,
        r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch": _where_to_send,
        r"/api/models/([\w.-]+/[\w.-]+)/commit/([^/]+)": _commit,
        r"/api/models/([\w.-]+/[\w.-]+)/branch/([^/]+)": _branch,
    }


@contextmanager
def hub_server(repositories):
    """Serve {"USER/NAME": Repository}; yield the address and the list of what was asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.repositories, server.asked, server.large = repositories, [], {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", server.asked
        server.shutdown()

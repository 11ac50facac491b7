"""Downloads against a real server that fails in every way that servers do."""

import collections
import hashlib
import itertools
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from campaign import downloads as hostile
from helpers.weights_server import Fault, serving

from keras_resnet.display import bars
from keras_resnet.errors import UserError
from keras_resnet.weights import download, http

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = CONTENT[::-1]


def sha(content, digits=64):
    return f"sha256:{hashlib.sha256(content).hexdigest()[:digits]}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No waits, and nothing of this machine's variables."""
    for name in ("HOME", "OFFLINE", "MIRROR"):
        monkeypatch.delenv(f"KERAS_RESNET_{name}", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(http, "RETRIES", 2)
    monkeypatch.setattr(http, "CHUNK", 1_000)  # bytes that arrive together are kept together


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "x.pth").write_bytes(CONTENT)
    return folder


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "weights" / "x.pth"


def fetch(server, path, content=CONTENT):
    return download.fetch(f"{server.url}/x.pth", path, sha(content), 0.3)


def partial(path, content=None):
    file = path.with_name("x.pth.partial")
    if content is not None:
        path.parent.mkdir(parents=True)
        file.write_bytes(content)
    return file


def ranges(server):
    return [request.headers.get("Range") for request in server.requests]


# Where, and which hash ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "xdg", "expected"),
    [
        ("/a/b", "/c", "/a/b"),
        ("~/b", "/c", "/home/me/b"),
        ("", "/c", "/c/keras_resnet"),
        ("", "relative", "/home/me/.cache/keras_resnet"),
        ("", "", "/home/me/.cache/keras_resnet"),
    ],
)
def test_the_cache_s_folder(monkeypatch, ours, xdg, expected):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("KERAS_RESNET_HOME", ours)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert download.cache_home() == Path(expected)


def test_no_home_directory(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(UserError, match="Set KERAS_RESNET_HOME to a folder"):
        download.cache_home()


def test_hashes_are_taken_as_they_are_published(folder):
    fault, file = download.fault, folder / "x.pth"
    for digits in 8, 16, 64:
        assert fault(file, sha(CONTENT, digits)) is None
    assert fault(file, f"md5:{hashlib.md5(CONTENT).hexdigest()}") is None
    said = fault(file, sha(OTHER, 8))
    assert f"expected {sha(OTHER, 8)}, received {sha(CONTENT)}" in said
    assert "received md5:" in fault(file, f"md5:{hashlib.md5(OTHER).hexdigest()}")
    assert "y.pth is not there" in fault(folder / "y.pth", sha(CONTENT))
    assert "served cannot be read (Is a directory)" in fault(folder, sha(CONTENT))


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:0676ba6", "md5:0676ba61", "sha1:0676ba61"])
def test_other_hashes_are_refused(text, path):
    with pytest.raises(UserError, match="must be 'sha256:' and 8 to 64"):
        download.fetch("http://127.0.0.1/", path, text)


# What goes well -----------------------------------------------------------------------------------


def test_a_file_is_fetched_once(folder, path, capsys):
    with serving(folder) as server:
        assert fetch(server, path) == path
        assert path.read_bytes() == CONTENT
        said = capsys.readouterr()
        assert said.err == f"Downloading x.pth, 0.3 MB, from 127.0.0.1 to {path.parent}\n"
        assert said.out == ""
        assert fetch(server, path) == path
    assert ranges(server) == [None]
    # Bytes on the line are bytes of the file: lengths, ranges and the hash are of those.
    assert server.requests[0].headers["Accept-Encoding"] == "identity"
    assert capsys.readouterr().err == ""
    # filelock leaves its file: to remove it would let a third process in beside the second.
    assert sorted(os.listdir(path.parent)) == ["x.pth", "x.pth.lock"]


def test_a_damaged_cached_file_is_fetched_anew(folder, path, capsys):
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    with serving(folder) as server:
        fetch(server, path)
    assert path.read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert f"expected {sha(CONTENT)}, received {sha(OTHER)}. Downloading it again" in said


def test_a_damaged_cached_file_stays_if_nothing_better_comes(folder, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    with serving(folder, {"/x.pth": [Fault(status=404)]}) as server, pytest.raises(UserError):
        fetch(server, path)
    assert path.read_bytes() == OTHER


def test_mirrors_are_asked_by_the_whole_address(folder, path, monkeypatch, capsys):
    place = folder / "models" / "download.pytorch.org" / "hub"
    place.mkdir(parents=True)
    (place / "x.pth").write_bytes(CONTENT)
    with serving(folder) as server:
        secret = server.url.replace("//", "//me:secret@")
        monkeypatch.setenv("KERAS_RESNET_MIRROR", f"{secret}/models/")
        download.fetch("https://download.pytorch.org/hub/x.pth", path, sha(CONTENT))
        assert path.read_bytes() == CONTENT
        with pytest.raises(UserError, match=f"expected {sha(OTHER)}, received") as wrong:
            download.fetch("https://download.pytorch.org/hub/x.pth", path, sha(OTHER))
        (place / "x.pth").unlink()
        with pytest.raises(UserError, match="MIRROR is set: check that it has the file"):
            download.fetch(
                "https://download.pytorch.org/hub/x.pth", path.with_name("y"), sha(OTHER)
            )
    paths = {request.path for request in server.requests}
    assert paths == {"/models/download.pytorch.org/hub/x.pth"}
    assert "secret" not in f"{wrong.value}{capsys.readouterr().err}"


def test_proxies_of_the_environment_are_used(folder, path, monkeypatch):
    with serving(folder) as server:
        monkeypatch.setenv("http_proxy", server.url)
        download.fetch("http://weights.invalid/x.pth", path, sha(CONTENT))
    assert [request.path for request in server.requests] == ["http://weights.invalid/x.pth"]


def test_a_slow_server_that_still_sends_is_no_stall(folder, path, monkeypatch):
    monkeypatch.setattr(http, "STALL_SECONDS", 0.4)
    (folder / "x.pth").write_bytes(CONTENT[:20_000])
    with serving(folder, {"/x.pth": [Fault(pause=0.04)]}) as server:  # 0.8 s in all
        fetch(server, path, CONTENT[:20_000])
    assert len(server.requests) == 1


def test_a_server_that_does_not_say_the_length(folder, path, capsys):
    """The hash alone tells whether all has arrived."""
    unsaid = {"Content-Length": None, "Connection": "close"}
    faults = [Fault(headers=unsaid, after=100_000), Fault(headers=unsaid)]
    with serving(folder, {"/x.pth": faults}) as server:
        with pytest.raises(UserError, match="It had 100,000 bytes and was deleted"):
            fetch(server, path)
        fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert "Downloading x.pth, from 127.0.0.1" in capsys.readouterr().err


# Resuming -----------------------------------------------------------------------------------------


def test_after_a_disconnect_only_the_rest_is_asked(folder, path, capsys):
    with serving(folder, {"/x.pth": [Fault(after=100_000)]}) as server:
        fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-"]
    assert [request.status for request in server.requests] == [200, 206]
    assert [request.sent for request in server.requests] == [100_000, 200_000]
    said = capsys.readouterr().err
    assert "retry in 0.01 s (1 of 2)" in said
    assert "0.3 MB, continuing at 0.1, from" in said


def test_a_stall_is_a_timeout_and_resumed(folder, path, monkeypatch, capsys):
    monkeypatch.setattr(http, "STALL_SECONDS", 0.2)
    stall = Fault(after=100_000, until=threading.Event())
    began = time.monotonic()
    with serving(folder, {"/x.pth": [stall]}) as server:
        fetch(server, path)
    assert time.monotonic() - began < 10  # on a busy machine; the default would be 30 s
    assert ranges(server) == [None, "bytes=100000-"]
    assert "no data for 0.2 s; retry" in capsys.readouterr().err


@pytest.mark.parametrize("before", [False, True])
def test_halves_of_two_versions_are_fetched_once_more(folder, path, before, capsys):
    """The file changed on the server between two tries, or since the last call."""
    if before:
        partial(path, OTHER[:100_000])
    with serving(
        folder, {"/x.pth": [] if before else [Fault(content=OTHER, after=100_000)]}
    ) as server:
        fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert ranges(server)[-2:] == ["bytes=100000-", None]
    assert "from several downloads, has the wrong hash. Trying once more" in capsys.readouterr().err


def test_halves_with_the_wrong_hash_are_not_fetched_for_ever(folder, path, capsys):
    """Broken and resumed every time, and never the published file."""
    faults = itertools.cycle([Fault(after=100_000), Fault()])
    with serving(folder, {"/x.pth": faults}) as server, pytest.raises(UserError, match="another"):
        fetch(server, path, OTHER)
    assert len(server.requests) == 4
    assert capsys.readouterr().err.count("once more") == 1


def test_a_server_without_ranges_starts_anew(folder, path):
    with serving(folder, {"/x.pth": [Fault(after=100_000)]}, ranges=False) as server:
        fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert [request.sent for request in server.requests] == [100_000, 300_000]


def test_another_part_than_asked_starts_anew(folder, path):
    partial(path, CONTENT[:100_000])
    other = Fault(headers={"Content-Range": "bytes 50000-299999/300000"})
    with serving(folder, {"/x.pth": [other]}) as server:
        fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=100000-", None]


def test_a_server_that_gives_less_than_was_asked_is_asked_for_the_rest(folder, path):
    partial(path, CONTENT[:100_000])
    part = {"Content-Range": "bytes 100000-199999/300000", "Content-Length": "100000"}
    with serving(folder, {"/x.pth": [Fault(headers=part, after=100_000)]}) as server:
        fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=100000-", "bytes=200000-"]


@pytest.mark.parametrize("there", [CONTENT, CONTENT + b"more"])
def test_nothing_after_the_last_byte(folder, path, there):
    """416: complete but not yet renamed, or longer than the file."""
    partial(path, there)
    with serving(folder) as server:
        fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert [request.status for request in server.requests] == [416, 200]


def test_ctrl_c_leaves_what_the_next_call_resumes(folder, path):
    with serving(folder, {"/x.pth": [Fault(after=100_000, until=threading.Event())]}) as server:
        process = start(server, path)
        wait_for(lambda: partial(path).exists() and partial(path).stat().st_size > 50_000)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode != 0
        kept = partial(path).stat().st_size
        assert not path.exists()
        fetch(server, path)
    assert ranges(server) == [None, f"bytes={kept}-"]
    assert path.read_bytes() == CONTENT


# What goes wrong ----------------------------------------------------------------------------------


def test_another_file_than_the_published_one_is_deleted(folder, path):
    with serving(folder, {"/x.pth": [Fault(content=OTHER)]}) as server:
        with pytest.raises(UserError) as error:
            fetch(server, path)
        assert f"{server.url}/x.pth sent another file" in str(error.value)
    assert f"expected {sha(CONTENT)}, received {sha(OTHER)}" in str(error.value)
    assert len(server.requests) == 1
    assert os.listdir(path.parent) == ["x.pth.lock"]


def test_a_truncated_file_is_given_up_and_kept(folder, path):
    faults = itertools.chain([Fault(after=1_000)], itertools.repeat(Fault(after=0)))
    with serving(folder, {"/x.pth": faults}) as server:
        with pytest.raises(UserError, match=r"gave up after 3 tries\. Run it again") as error:
            fetch(server, path)
        assert ranges(server) == [None, "bytes=1000-", "bytes=1000-"]
    assert "KERAS_RESNET_MIRROR" in str(error.value)
    assert str(path) in str(error.value)
    assert partial(path).read_bytes() == CONTENT[:1_000]
    assert not path.exists()


def test_tries_that_bring_more_of_the_file_are_not_counted(folder, path, monkeypatch):
    monkeypatch.setattr(http, "PROGRESS_BYTES", 50_000)
    with serving(folder, {"/x.pth": [Fault(after=50_000)] * 5}) as server:
        fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 6


def test_a_busy_server_is_asked_again(folder, path, capsys):
    busy = [Fault(status=503), Fault(status=429, headers={"Retry-After": "0"})]
    with serving(folder, {"/x.pth": busy}) as server:
        fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert [request.status for request in server.requests] == [503, 429, 200]
    said = capsys.readouterr().err
    assert "503 Service Unavailable; retry in 0.01 s (1 of 2)" in said
    assert "429 Too Many Requests; retry in 0 s (2 of 2)" in said


def test_waits_double_up_to_a_limit_and_retry_after_is_no_exception(
    folder, path, monkeypatch, capsys
):
    monkeypatch.setattr(http, "RETRIES", 4)
    monkeypatch.setattr(http, "LONGEST_WAIT", 0.03)
    busy = [Fault(status=500, headers={"Retry-After": after}) for after in ("junk", "", "x", "99")]
    with serving(folder, {"/x.pth": busy}) as server:
        fetch(server, path)
    waits = re.findall(r"retry in (\S+) s", capsys.readouterr().err)
    assert waits == ["0.01", "0.02", "0.03", "0.03"]


@pytest.mark.parametrize(
    ("status", "why"), [(404, "is not there"), (403, "Access is denied"), (401, "needs a login")]
)
def test_refusals_are_not_repeated(folder, path, status, why):
    with serving(folder, {"/x.pth": [Fault(status=status)]}) as server:
        message = f"/x.pth: {status} .*{why}.* put a copy of the file at {path}"
        with pytest.raises(UserError, match=message):
            fetch(server, path)
        assert len(server.requests) == 1


def test_nobody_listens(folder, path, capsys):
    with serving(folder) as server:
        pass
    with pytest.raises(UserError, match="Connection refused; gave up after 3 tries"):
        fetch(server, path)
    assert capsys.readouterr().err.count("Connection refused; retry") == 2


def test_the_reason_is_not_an_error_that_the_caller_is_handling(folder, path):
    with serving(folder) as server:
        pass
    try:
        raise KeyError("the caller's")
    except KeyError:
        with pytest.raises(UserError, match="Connection refused"):
            fetch(server, path)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 \x1b[2J\x9bgone\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 \x1b[2J\x9bgone\r\nContent-Length: 0\r\n\r\n",
        b"\x1b[2J\x9bgone\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://\x1b[2J\x9bgone/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: " + b"9" * 5000 + b"\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_a_server_says_cannot_write_to_the_terminal(folder, path, answer, capsys):
    """Nor end in anything but a message."""
    faults = {"/x.pth": [Fault(raw=answer)] * 3}
    with serving(folder, faults) as server, pytest.raises(UserError) as error:
        fetch(server, path)
    said = capsys.readouterr().err
    assert all(line.isprintable() for line in f"{error.value}\n{said}".split("\n"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", ["²", "-1", "9" * 5000])
def test_a_length_that_is_none_is_as_good_as_unsaid(folder, path, length):
    odd = Fault(headers={"Content-Length": length, "Connection": "close"})
    with serving(folder, {"/x.pth": [odd]}) as server:
        fetch(server, path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["2000000", None])
def test_more_than_the_published_size_is_refused(folder, path, length, capsys):
    """One that says so is refused before it is read."""
    more = Fault(
        content=bytes(2_000_000), headers={"Content-Length": length, "Connection": "close"}
    )
    with serving(folder, {"/x.pth": [more]}) as server:
        with pytest.raises(
            UserError, match=r"x\.pth sends more than the published file: [0-9.]+ MB"
        ):
            fetch(server, path)
        assert os.listdir(path.parent) == ["x.pth.lock"]
        assert ("Downloading" in capsys.readouterr().err) == (length is None)
        fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_headers_that_come_slowly_for_ever(path, monkeypatch, capsys):
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.5)
    began = time.monotonic()
    with (
        hostile.serving(random.Random(0), [hostile.slow_headers]) as (url, _),
        pytest.raises(UserError, match=r"no answer within 0\.5 s; gave up after 3 tries"),
    ):
        download.fetch(url, path, sha(CONTENT), 0.3)
    assert time.monotonic() - began < 30  # 1.5 s without other work; the headers take 200 s
    assert capsys.readouterr().err.count("no answer within 0.5 s; retry") == 2


def test_a_body_that_comes_byte_by_byte(path, monkeypatch):
    monkeypatch.setattr(http, "CHUNK_SECONDS", 0.5)
    began = time.monotonic()
    with (
        hostile.serving(random.Random(0), [hostile.slow_body]) as (url, _),
        pytest.raises(UserError, match="gave up after 3 tries"),
    ):
        download.fetch(url, path, sha(CONTENT), 0.3)
    assert time.monotonic() - began < 30  # 1.5 s without other work; a chunk takes 200 s


def test_the_body_of_a_redirect_is_not_read(path):
    answers = [hostile.endless_redirect, hostile.whole]
    with hostile.serving(random.Random(0), answers) as (url, _):
        download.fetch(url, path, sha(hostile.CONTENT))
    assert path.read_bytes() == hostile.CONTENT


@pytest.mark.parametrize(
    ("status", "location", "why"),
    [
        (302, None, "302 Found. You can put a copy of the file at"),
        (300, None, "300 Multiple Choices. You can put a copy of the file at"),
        (204, None, "204 No Content. You can put a copy of the file at"),
        (302, "http://[", r"'http://\[', which is not an http address"),
        (302, "http://127.0.0.1:99999/", "'http://127.0.0.1:99999/', which is not an http address"),
        (302, "javascript:alert(1)", r"'javascript:alert\(1\)', which is not an http address"),
    ],
)
def test_a_bad_redirect_is_a_message(folder, path, status, location, why):
    with serving(folder, {"/x.pth": [Fault(status, {"Location": location})]}) as server:
        with pytest.raises(UserError, match=f"/x.pth.*{why}"):
            fetch(server, path)
        assert len(server.requests) == 1
    assert not path.exists()


@pytest.mark.parametrize("size", [b"-1", b"x", b""])
def test_a_chunk_of_no_size(folder, path, size):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    faults = {"/x.pth": [Fault(raw=chunked + size + b"\r\nxyz\r\n")]}
    with serving(folder, faults) as server:
        fetch(server, path)  # by the second try
    assert path.read_bytes() == CONTENT


def test_redirects_for_ever(folder, path):
    faults = {"/x.pth": itertools.repeat(Fault(302, {"Location": "x.pth"}))}
    with serving(folder, faults) as server, pytest.raises(UserError, match="30 redirects"):
        fetch(server, path)
    assert len(server.requests) == 31


@pytest.mark.parametrize("url", ["ftp://me:secret@host/x.pth", "file:///x.pth", "x.pth"])
def test_only_http(url, path):
    url_shown = url.replace("me:secret@", "")
    with pytest.raises(UserError, match=f"must be https:// or http://; received '{url_shown}'"):
        download.fetch(url, path, sha(CONTENT))


def test_redirects_within_http_are_followed_but_not_elsewhere(folder, path):
    faults = {
        "/x.pth": [Fault(status=302, headers={"Location": "/y.pth"})],
        "/y.pth": [Fault(status=302, headers={"Location": "file:///etc/hosts"}), Fault()],
    }
    (folder / "y.pth").write_bytes(CONTENT)
    with serving(folder, faults) as server:
        with pytest.raises(UserError, match="redirects to 'file:///etc/hosts', which is not an ht"):
            fetch(server, path)
        server.faults["/x.pth"] = iter([Fault(status=302, headers={"Location": "/y.pth"})])
        fetch(server, path)
    assert path.read_bytes() == CONTENT


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the server's certificate")
def test_https_is_checked_and_not_left_for_http(folder, path, tmp_path, monkeypatch):
    pem = tmp_path / "server.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", pem, "-out", tmp_path / "certificate.pem"]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "certificate.pem").read_text())
    with serving(folder) as plain, serving(folder, certificate=pem) as server:
        with pytest.raises(UserError, match=r"self.signed certificate.* REQUESTS_CA_BUNDLE"):
            fetch(server, path)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "absent.pem"))
        with pytest.raises(UserError, match=r"invalid path: .*absent.pem"):
            fetch(server, path)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        away = Fault(status=302, headers={"Location": f"{plain.url}/x.pth"})
        server.faults["/x.pth"] = iter([away])
        with pytest.raises(UserError, match=f"redirects from https to {plain.url}/x.pth, where"):
            fetch(server, path)
        assert plain.requests == []
        fetch(server, path)
    assert path.read_bytes() == CONTENT


# Offline ------------------------------------------------------------------------------------------


def test_offline_opens_no_connection(folder, path, monkeypatch):
    monkeypatch.setenv("KERAS_RESNET_OFFLINE", "1")
    with serving(folder) as server:
        with pytest.raises(UserError) as error:
            fetch(server, path)
        for part in str(path), f"{server.url}/x.pth", "0.3 MB", sha(CONTENT), "KERAS_RESNET_OFFLI":
            assert part in str(error.value)
        assert not path.parent.exists()
        path.parent.mkdir(parents=True)
        path.write_bytes(OTHER)
        with pytest.raises(UserError, match=f"wrong hash: .* received {sha(OTHER)}, and KERAS"):
            fetch(server, path)
        path.write_bytes(CONTENT)
        assert fetch(server, path) == path
        assert server.requests == []
        path.unlink()
        monkeypatch.setenv("KERAS_RESNET_OFFLINE", "0")
        fetch(server, path)


# The disk -----------------------------------------------------------------------------------------


def test_room_is_looked_for_beforehand(folder, path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 0, 250_000))
    with serving(folder) as server, pytest.raises(UserError) as error:
        fetch(server, path)
    for part in str(path.parent), "only 0.2 MB are free", "needs 0.3 MB", "set KERAS_RESNET_HOME":
        assert part in str(error.value)
    assert not partial(path).exists()
    path.parent.rename(path.parent.with_name("before"))
    partial(path, CONTENT[:100_000])  # the rest fits
    with serving(folder) as server:
        fetch(server, path)


def test_a_disk_that_fills_up_on_the_way(folder, path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(folder) as server:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, before[1]))
            with pytest.raises(UserError, match=r"weights: File too large.* 0.3 MB.*RESNET_HOME"):
                fetch(server, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert partial(path).stat().st_size == 120_000
        fetch(server, path)
    assert ranges(server) == [None, "bytes=120000-"]
    assert path.read_bytes() == CONTENT


def test_a_file_in_the_place_of_the_cache(folder, path):
    path.parent.parent.write_text("a file")
    with serving(folder) as server:
        with pytest.raises(UserError) as error:
            fetch(server, path)
        assert server.requests == []
    for part in f"cache {path.parent}: Not a directory", "needs 0.3 MB", "set KERAS_RESNET_HOME":
        assert part in str(error.value)


def test_a_read_only_cache_gives_what_it_has_and_takes_nothing():
    """As another user where root runs the tests, who may write everywhere."""
    cache = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    with serving(cache) as server:
        (cache / "x.pth").write_bytes(CONTENT)
        cache.chmod(0o555)
        user = os.geteuid()
        os.seteuid(user or 65534)
        try:
            assert fetch(server, cache / "x.pth") == cache / "x.pth"
            with pytest.raises(UserError, match=f"cache {cache}: Permission denied") as error:
                download.fetch(f"{server.url}/x.pth", cache / "y.pth", sha(CONTENT))
        finally:
            os.seteuid(user)
            cache.chmod(0o755)
        assert "set KERAS_RESNET_HOME to another folder" in str(error.value)
        assert os.listdir(cache) == ["x.pth"]
        assert server.requests == []
    shutil.rmtree(cache)


@pytest.mark.parametrize("name", ["x.pth", "x.pth.partial", "x.pth.lock"])
@pytest.mark.parametrize("kind", ["a FIFO", "a symbolic link", "a socket"])
def test_what_is_no_file_is_refused_in_the_cache(folder, path, name, kind, monkeypatch):
    outside, odd = folder / "outside", path.with_name(name)
    outside.write_text("not ours")
    path.parent.mkdir(parents=True)
    if kind == "a FIFO":
        os.mkfifo(odd)
    elif kind == "a symbolic link":
        odd.symlink_to(outside)
    else:
        monkeypatch.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(name)
    with serving(folder) as server, pytest.raises(UserError) as error:
        fetch(server, path)
    assert f"{odd} is {kind}, not a file. Delete it, or set KERAS_RESNET_HOME" in str(error.value)
    assert server.requests == []
    assert outside.read_text() == "not ours"
    if odd == path:  # `weights verify` asks this
        assert download.fault(path, sha(CONTENT)) == f"{path} is {kind}, not a file"


def test_devices_are_refused():
    assert download.fault(Path("/dev/zero"), sha(CONTENT)) == "/dev/zero is a device, not a file"


# Two processes ------------------------------------------------------------------------------------

_SCRIPT = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
from keras_resnet.weights import download
assert "keras" not in sys.modules
download.fetch(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
"""


def start(server, path):
    arguments = [f"{server.url}/x.pth", str(path), sha(CONTENT)]
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *arguments], stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_of_two_processes_one_downloads_and_the_other_takes_the_result(folder, path):
    go_on = threading.Event()
    with serving(folder, {"/x.pth": [Fault(after=100_000, until=go_on)]}) as server:
        first = start(server, path)
        wait_for(lambda: server.requests)
        second = start(server, path)
        line = second.stderr.readline()
        assert line == "Waiting for another process that is downloading x.pth.\n"
        go_on.set()
        said = [process.communicate(timeout=20)[1] for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0], said
    assert [request.sent for request in server.requests] == [300_000]
    assert said[1] == ""
    assert path.read_bytes() == CONTENT


def test_the_second_process_goes_on_where_the_first_was_killed(folder, path):
    with serving(folder, {"/x.pth": [Fault(after=100_000, until=threading.Event())]}) as server:
        first = start(server, path)
        wait_for(lambda: partial(path).exists() and partial(path).stat().st_size > 50_000)
        second = start(server, path)
        second.stderr.readline()
        first.kill()
        first.communicate(timeout=20)
        said = second.communicate(timeout=20)[1]
        assert second.returncode == 0, said
    kept = int(ranges(server)[1].removeprefix("bytes=").removesuffix("-"))
    assert 50_000 < kept <= 100_000
    assert [request.sent for request in server.requests] == [100_000, 300_000 - kept]
    assert path.read_bytes() == CONTENT


# Progress -----------------------------------------------------------------------------------------


def test_progress_in_a_log_is_a_line_a_minute(capsys, monkeypatch):
    clock = itertools.chain([0.0], itertools.count(50.0, 50.0))
    monkeypatch.setattr(bars.time, "monotonic", lambda: next(clock))
    with bars.transfer("x.pth", 100_000_000, 40_000_000) as advance:
        for _ in range(4):
            advance(10_000_000)
    with bars.transfer("x.pth", None) as advance:
        advance(10_000_000)
        advance(10_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "x.pth: 60.0 of 100.0 MB, 0.20 MB/s, 3.3 min left",
        "x.pth: 80.0 of 100.0 MB, 0.20 MB/s, 1.7 min left",
        "x.pth: 20.0 MB, 0.20 MB/s",
    ]


def test_progress_on_a_terminal_is_a_bar_with_rate_and_estimate(folder, path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich: stderr is a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with serving(folder, {"/x.pth": [Fault(pause=0.002)]}) as server:
        fetch(server, path)
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"x\.pth ━.*/300\.0 kB .*[kM]?B/s \d:\d\d:\d\d left", said), said


def test_without_a_network_it_fails_at_once(folder, monkeypatch):
    """No server of that name, as without a connection: nothing is tried again."""
    monkeypatch.setattr(http, "FIRST_WAIT", 60)
    began = time.monotonic()
    with pytest.raises(UserError, match="You can put a copy of the file at"):
        download.fetch(
            "http://no-such-host.invalid/x.pth", folder / "cache" / "x.pth", sha(CONTENT)
        )
    assert time.monotonic() - began < 30

"""Where the page's LiteRT.js comes from: a named folder, the cache, npm; and what is refused.

Offline, small files stand in the place of LiteRT.js, and a shell script in that of npm. The real
npm and the real files are asked for by what is marked network.
"""

import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers.litert_js import small_litert_js

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.export import export
from keras_resnet.export.formats import litert_js
from keras_resnet.export.runtimes.locate import PAGE

PACKAGES = " ".join(sorted({file.package for file in litert_js.files()}))
VERSION = PACKAGES.rpartition("@")[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="the script that stands for npm is sh")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of LiteRT.js in an empty cache; no folder is named."""
    monkeypatch.setenv("KERAS_RESNET_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KERAS_RESNET_OFFLINE", raising=False)
    monkeypatch.delenv(litert_js.FOLDER, raising=False)
    return tmp_path / "home" / "litert_js" / VERSION


@pytest.fixture
def small(tmp_path, cache, monkeypatch):
    """An npm install of small files, which is not named; there is no npm."""
    with small_litert_js(tmp_path / "small"):
        monkeypatch.delenv(litert_js.FOLDER)
        monkeypatch.setenv("PATH", str(tmp_path / "programs"))
        yield tmp_path / "small"


def _npm(small, command):
    """Put a script in the place of npm: it writes down its arguments and runs `command`."""
    script = small.parent / "programs" / "npm"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "$@" > {small}/asked\n{command}\n')
    script.chmod(0o755)


def _copy(small):
    """A command that does what npm would do: `npm install … --prefix FOLDER`, the sixth word."""
    return f'test "$4" = --prefix && cp -R {small}/node_modules "$5" && echo {{}} > "$5/x.json"'


def _damage(modules):
    path = modules / "@litertjs" / "core" / "dist" / "index.js"
    path.write_text("another file")
    return path


@pytest.mark.parametrize("named", [".", "node_modules"])
def test_a_named_folder_is_taken(small, tmp_path, monkeypatch, named):
    monkeypatch.setenv(litert_js.FOLDER, str(small / named))
    (tmp_path / "page").mkdir()
    litert_js.copy_to(tmp_path / "page")
    copied = {path.name: path.read_text() for path in (tmp_path / "page").iterdir()}
    assert copied == {x.name: f"in the place of {x.name}" for x in litert_js.files()}


@posix
def test_a_named_folder_with_another_file_is_refused(small, cache, monkeypatch):
    """And neither the cache nor npm takes its place: somebody wants this folder."""
    shutil.copytree(small / "node_modules", cache / "node_modules")
    _npm(small, _copy(small))
    monkeypatch.setenv(litert_js.FOLDER, str(small))
    path = _damage(small / "node_modules")
    with pytest.raises(UserError) as caught:
        litert_js.node_modules()
    said = str(caught.value)
    assert f"{litert_js.FOLDER} is set, and {path} has the wrong hash: expected sha256:" in said
    assert f"delete {small}/node_modules/@litertjs and run" in said
    assert said.endswith(f"npm install --ignore-scripts --no-save --prefix {small} {PACKAGES}")
    assert not (small / "asked").exists()


def test_a_named_folder_without_a_file_is_refused(small, tmp_path, monkeypatch):
    (small / "node_modules" / "@litertjs" / "wasm-utils" / "dist" / "index.js").unlink()
    for named, missing in ((small, "wasm-utils"), (tmp_path / "nowhere", "core")):
        monkeypatch.setenv(litert_js.FOLDER, str(named))
        path = named / "node_modules" / "@litertjs" / missing / "dist" / "index.js"
        with pytest.raises(UserError) as caught:
            litert_js.node_modules()
        assert f"{path} is not there" in str(caught.value)


@pytest.mark.parametrize("offline", ["0", "1"])
def test_the_cache_is_taken_without_npm(small, cache, monkeypatch, offline):
    monkeypatch.setenv("KERAS_RESNET_OFFLINE", offline)
    shutil.copytree(small / "node_modules", cache / "node_modules")
    assert litert_js.node_modules() == cache / "node_modules"


def test_without_npm_the_error_has_the_one_command(small, cache):
    with pytest.raises(UserError) as caught:
        litert_js.node_modules()
    said = str(caught.value)
    assert "is not there, and npm is not on the path. Set KERAS_RESNET_LITERT_JS to" in said
    command = f"npm install --ignore-scripts --no-save --prefix {cache} {PACKAGES}"
    assert said.endswith(f"or run (npm comes with Node.js): {command}")
    assert not cache.exists()


@posix
def test_offline_npm_is_not_asked(small, cache, monkeypatch):
    _npm(small, _copy(small))
    monkeypatch.setenv("KERAS_RESNET_OFFLINE", "1")
    with pytest.raises(
        UserError, match="npm is not used because KERAS_RESNET_OFFLINE is set"
    ) as caught:
        litert_js.node_modules()
    assert f"npm install --ignore-scripts --no-save --prefix {cache}" in str(caught.value)
    assert not (small / "asked").exists()


@posix
def test_what_npm_installs_is_kept_in_the_cache(small, cache, capfd):
    _npm(small, _copy(small))
    assert litert_js.node_modules() == cache / "node_modules"
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"Installing LiteRT.js {VERSION} with npm into {cache}\n")
    words = (small / "asked").read_text().split()
    assert words[:4] == ["install", "--ignore-scripts", "--no-save", "--prefix"]
    assert " ".join(words[5:7]) == PACKAGES
    kept = {path for path in cache.rglob("*") if path.is_file()}
    assert kept == {file.installed(cache / "node_modules") for file in litert_js.files()}
    (small / "asked").unlink()
    litert_js.node_modules()  # and npm is not asked again
    assert not (small / "asked").exists()


@posix
def test_a_damaged_file_of_the_cache_is_installed_anew(small, cache):
    shutil.copytree(small / "node_modules", cache / "node_modules")
    path = _damage(cache / "node_modules")
    _npm(small, _copy(small))
    litert_js.node_modules()
    assert path.read_text() == "in the place of core.js"


@posix
def test_another_file_from_npm_is_refused(small, cache):
    _damage(small / "node_modules")
    _npm(small, _copy(small))
    with pytest.raises(
        UserError, match=r"core/dist/index\.js has the wrong hash: .*It was not used"
    ):
        litert_js.node_modules()
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@posix
def test_what_npm_says_when_it_fails_is_said(small, cache):
    _npm(small, 'echo "npm error code ENOTFOUND" >&2; echo "npm error syscall x" >&2; exit 7')
    with pytest.raises(UserError, match=r"\(exit code 7\): code ENOTFOUND; syscall x\. Without"):
        litert_js.node_modules()
    assert list(cache.iterdir()) == []


@posix
def test_a_cache_that_cannot_be_written_is_said(small, tmp_path):
    (tmp_path / "home").write_text("no folder")
    _npm(small, _copy(small))
    with pytest.raises(UserError, match=r"Cannot write to the cache .*KERAS_RESNET_HOME"):
        litert_js.node_modules()


def test_export_says_it_before_it_converts(small, tmp_path):
    model = keras_resnet.create_model("test_resnet", include_preprocessing=True)
    images = np.zeros((1, *model.input_shape[1:]), "uint8")
    with pytest.raises(UserError, match=r"The format web needs LiteRT\.js"):
        export(model, ["tflite-int8", "web"], out=tmp_path / "out", calibration=images)
    assert not (tmp_path / "out").exists()


def test_the_notice_and_the_guide_name_the_versions():
    notice = (litert_js.SOURCES.parent / "NOTICE").read_text()
    for package in PACKAGES.split():
        assert " ".join(package.rsplit("@", 1)) in notice
    guide = PAGE.parent / "README.md"
    assert f"LiteRT.js {VERSION}" in guide.read_text(encoding="utf-8")


@pytest.mark.network
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on the path")
def test_npm_installs_the_published_files(cache, monkeypatch):
    modules = litert_js.node_modules()
    kept = {path for path in cache.rglob("*") if path.is_file()}
    assert kept == {file.installed(modules) for file in litert_js.files()}
    monkeypatch.setenv("KERAS_RESNET_OFFLINE", "1")
    assert litert_js.node_modules() == modules


@pytest.mark.network
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on the path")
@pytest.mark.parametrize("before", ["nothing", "a damaged file"])
def test_the_command_of_the_error_mends_it(cache, monkeypatch, before):
    if before == "a damaged file":
        _damage(litert_js.node_modules())
    monkeypatch.setenv("KERAS_RESNET_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        litert_js.node_modules()
    said = str(caught.value)
    if before == "a damaged file":
        folder = said.partition("or delete ")[2].partition(" and run")[0]
        assert folder == str(cache / "node_modules" / "@litertjs")
        shutil.rmtree(folder)
    program, *words = shlex.split(said.rpartition("(npm comes with Node.js): ")[2])
    subprocess.run([shutil.which(program), *words], check=True, env=os.environ)
    assert litert_js.node_modules() == cache / "node_modules"

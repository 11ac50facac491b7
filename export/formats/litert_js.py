"""LiteRT.js, the browser runtime of the format `web`: found, checked by hash, installed with npm.

A page needs six files of two npm packages. `web/litert/SOURCES` lists them with exact versions and
hashes; a file with another hash is never used. They come from the first of these that applies:

1. the folder that `KERAS_RESNET_LITERT_JS` names: a `node_modules`, or a folder that has one;
2. the cache, `litert_js/<version>` in the folder of `keras_resnet.weights.download.cache_home`;
3. `npm`, where it is on the path and `KERAS_RESNET_OFFLINE` is not set. No script of a package
   runs, and only the six files go into the cache.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.locate import PAGE
from keras_resnet.weights.download import OFFLINE, cache_home, fault, is_offline, writing
from keras_resnet.weights.http import say

FOLDER = "KERAS_RESNET_LITERT_JS"
SOURCES = PAGE / "litert" / "SOURCES"

_NPM_ERROR_LINES = 4  # code, system call, and which request failed; a stack trace follows


@dataclass(frozen=True)
class File:
    """One row of `SOURCES`.

    Attributes:
        name: the file's name in the page's folder `litert`.
        package: the npm package with its exact version, e.g. "@litertjs/core@2.5.3".
        path: where the file lies in the package.
        sha256: all 64 hexadecimal digits.
    """

    name: str
    package: str
    path: str
    sha256: str

    def installed(self, modules: Path) -> Path:
        """Where `npm install` puts the file below the folder `modules` (a `node_modules`)."""
        return modules / self.package.rpartition("@")[0] / self.path


def files() -> list[File]:
    """Read the table of files."""
    lines = SOURCES.read_text(encoding="utf-8").splitlines()
    return [File(*line.split()) for line in lines if not line.startswith("#")]


def copy_to(folder: Path) -> None:
    """Copy the files into the existing `folder`, under the names that the page uses.

    Raises:
        UserError: see `node_modules`.
    """
    modules = node_modules()
    for file in files():
        shutil.copyfile(file.installed(modules), folder / file.name)


def node_modules() -> Path:
    """Return a `node_modules` folder in which every file has the right hash; see the module.

    Raises:
        UserError: the named folder, or npm's answer, lacks a file or has another one; or the files
            are not in the cache and npm cannot be asked. The message has the command to run.
    """
    named = os.environ.get(FOLDER)
    folder = Path(named).expanduser().absolute() if named else _cache()
    modules = folder if folder.name == "node_modules" else folder / "node_modules"
    problem = _fault(modules)
    if problem is None:
        return modules
    if named:
        raise _not_here(f"{FOLDER} is set, and {problem}", modules)
    if is_offline():
        raise _not_here(f"{problem}, and with {OFFLINE} set npm is not asked", modules)
    npm = shutil.which("npm")
    if npm is None:
        raise _not_here(f"{problem}, and npm is not on the path", modules)
    _fill(modules, npm)
    return modules


def install(npm: str, packages: Iterable[str], folder: Path) -> None:
    """Let the program `npm` install packages into `folder`/node_modules, without their scripts.

    Args:
        npm: the program's path.
        packages: names with exact versions, e.g. "@litertjs/core@2.5.3".
        folder: an existing folder.

    Raises:
        UserError: npm failed, for instance without a network.
    """
    quiet = ["--no-audit", "--no-fund", "--fetch-retries=1"]  # its two retries take 70 s offline
    command = [npm, *_arguments(packages, folder), *quiet]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=folder)
    if result.returncode:
        lines = [line.removeprefix("npm error ") for line in result.stderr.splitlines()]
        raise UserError(
            f"npm could not install LiteRT.js (exit code {result.returncode}): "
            f"{'; '.join(lines[:_NPM_ERROR_LINES])}. Without a connection, copy a node_modules "
            f"folder that has {' and '.join(packages)} from another machine and set {FOLDER} to it."
        )


def _cache() -> Path:
    return cache_home() / "litert_js" / _version()


def _packages() -> list[str]:
    return sorted({file.package for file in files()})


def _version() -> str:
    """The version of the main package, which has the runtime."""
    return _packages()[0].rpartition("@")[2]


def _arguments(packages: Iterable[str], folder: Path) -> list[str]:
    return ["install", "--ignore-scripts", "--no-save", "--prefix", str(folder), *packages]


def _fault(modules: Path) -> str | None:
    """What is wrong with the first file that is not right; None if all are."""
    problems = (fault(file.installed(modules), f"sha256:{file.sha256}") for file in files())
    return next((problem for problem in problems if problem), None)


def _not_here(problem: str, modules: Path) -> UserError:
    command = shlex.join(["npm", *_arguments(_packages(), modules.parent)])
    damaged = modules / "@litertjs"  # npm does not look into packages that are there
    first = f"delete {damaged} and run" if damaged.exists() else "run"
    return UserError(
        f"The format web needs LiteRT.js {_version()}: {problem}. Set {FOLDER} to a folder that "
        f"has it, or {first} (npm comes with Node.js): {command}"
    )


def _fill(modules: Path, npm: str) -> None:
    """Install with npm beside `modules`, check, and move each file to its place at once."""
    cache = modules.parent
    say(f"Installing LiteRT.js {_version()} with npm into {cache}")
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="npm-", dir=cache) as scratch:
            install(npm, _packages(), Path(scratch))
            fresh = Path(scratch, "node_modules")
            if problem := _fault(fresh):
                raise UserError(
                    f"npm installed another LiteRT.js than the tested one: {problem}. It was not "
                    "used. Is a proxy or another registry in between?"
                )
            for file in files():
                file.installed(modules).parent.mkdir(parents=True, exist_ok=True)
                os.replace(file.installed(fresh), file.installed(modules))

"""Find LiteRT.js, the browser runtime of the format `web`, check its hashes, install it with npm.

A page needs six files from two npm packages. `web/litert/SOURCES` lists them with exact versions
and hashes; a file with another hash is never used. They come from the first source that applies:

1. the folder in `KERAS_RESNET_LITERT_JS`: a `node_modules`, or a folder that contains one;
2. the cache: `litert_js/<version>` in the folder of `keras_resnet.weights.download.cache_home`;
3. `npm`, if it is on the path and `KERAS_RESNET_OFFLINE` is not set. No package script runs, and
   only the six files go into the cache.
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

_NPM_ERROR_LINES = 4  # code, system call and failed request; a stack trace follows


@dataclass(frozen=True)
class File:
    """One row of `SOURCES`.

    Attributes:
        name: the file's name in the page's folder `litert`.
        package: the npm package with its exact version, e.g. "@litertjs/core@2.5.3".
        path: the file's path in the package.
        sha256: all 64 hexadecimal digits.
    """

    name: str
    package: str
    path: str
    sha256: str

    def installed(self, modules: Path) -> Path:
        """Return the path that `npm install` gives the file below `modules` (a `node_modules`)."""
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
    """Return a `node_modules` folder in which every file has the right hash.

    The module's docstring lists the sources that are searched.

    Raises:
        UserError: a file is missing or has another hash, or the files are not in the cache and npm
            cannot be used. The message has the command to run.
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
        raise _not_here(f"{problem}, and npm is not used because {OFFLINE} is set", modules)
    npm = shutil.which("npm")
    if npm is None:
        raise _not_here(f"{problem}, and npm is not on the path", modules)
    _fill(modules, npm)
    return modules


def install(npm: str, packages: Iterable[str], folder: Path) -> None:
    """Install packages into `folder`/node_modules with npm, without running their scripts.

    Args:
        npm: the path of the program npm.
        packages: names with exact versions, e.g. "@litertjs/core@2.5.3".
        folder: an existing folder.

    Raises:
        UserError: npm failed, for instance without a network.
    """
    quiet = ["--no-audit", "--no-fund", "--fetch-retries=1"]  # npm's two retries take 70 s offline
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
    """Return the version of the main package, which contains the runtime."""
    return _packages()[0].rpartition("@")[2]


def _arguments(packages: Iterable[str], folder: Path) -> list[str]:
    return ["install", "--ignore-scripts", "--no-save", "--prefix", str(folder), *packages]


def _fault(modules: Path) -> str | None:
    """Return the problem of the first wrong file; None if all files are right."""
    problems = (fault(file.installed(modules), f"sha256:{file.sha256}") for file in files())
    return next((problem for problem in problems if problem), None)


def _not_here(problem: str, modules: Path) -> UserError:
    command = shlex.join(["npm", *_arguments(_packages(), modules.parent)])
    damaged = modules / "@litertjs"  # npm does not check packages that are already there
    first = f"delete {damaged} and run" if damaged.exists() else "run"
    return UserError(
        f"The format web needs LiteRT.js {_version()}: {problem}. Set {FOLDER} to a folder that "
        f"has it, or {first} (npm comes with Node.js): {command}"
    )


def _fill(modules: Path, npm: str) -> None:
    """Install with npm in a temporary folder, check the hashes, and move the files to `modules`."""
    cache = modules.parent
    say(f"Installing LiteRT.js {_version()} with npm into {cache}")
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="npm-", dir=cache) as scratch:
            install(npm, _packages(), Path(scratch))
            fresh = Path(scratch, "node_modules")
            if problem := _fault(fresh):
                raise UserError(
                    f"npm installed a LiteRT.js that differs from the tested one: {problem}. It "
                    "was not used. Check whether a proxy or another registry is in between."
                )
            for file in files():
                file.installed(modules).parent.mkdir(parents=True, exist_ok=True)
                os.replace(file.installed(fresh), file.installed(modules))

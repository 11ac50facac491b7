"""Import names of a package when they are first used (PEP 562), and hide TensorFlow's messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # TensorFlow reads it once, during its import


def lazy_names(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for the package `package`.

    Args:
        package: its dotted name.
        names: maps each public name to its module and the name there, "package.module:name", or to
            a module, "package.module".
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module, _, attribute = names[name].partition(":")
        found = quiet_import(module)
        return getattr(found, attribute) if attribute else found

    return find, lambda: sorted(names)


def quiet_import(module: str) -> Any:
    """Import `module`. Hide TensorFlow's output on stderr if this is its first import.

    TensorFlow's libraries write several lines while they are loaded, before they read
    `TF_CPP_MIN_LOG_LEVEL`, and one more when they first look for devices. Notebooks show these
    lines in red. If the user has set `TF_CPP_MIN_LOG_LEVEL` to 0 or 1, nothing is hidden.
    """
    if "tensorflow" in sys.modules or os.environ.get(LOG_LEVEL) in ("0", "1"):
        return import_module(module)
    with quiet_stderr():
        found = import_module(module)
        if tensorflow := sys.modules.get("tensorflow"):
            tensorflow.config.list_physical_devices()
    return found


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hide the output of C++ libraries on stderr.

    TensorFlow, its converter and LiteRT ignore every Python setting for it. Their errors still
    arrive as exceptions.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # a process without stderr, such as a service
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)

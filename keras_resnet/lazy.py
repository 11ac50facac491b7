"""Names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for the package `package`.

    Args:
        package: its dotted name.
        names: for each public name its module and the name there, "package.module:name", or a
            module itself, "package.module".
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module, _, attribute = names[name].partition(":")
        found = import_module(module)
        return getattr(found, attribute) if attribute else found

    return find, lambda: sorted(names)

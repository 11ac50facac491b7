"""The user's word that a model comes from a maker whom they trust: `--trust`.

Only SavedModels need it. They are programs, and TensorFlow runs their operations; see SECURITY.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TRUSTED = ContextVar("trusted", default=False)


@contextmanager
def trusting(trusted: bool = True) -> Iterator[None]:
    """Open SavedModels with any operations in the `with` block."""
    before = _TRUSTED.set(trusted)
    try:
        yield
    finally:
        _TRUSTED.reset(before)


def is_trusted() -> bool:
    """Return True inside `trusting()`."""
    return _TRUSTED.get()

"""Writing files so that nobody ever sees half of one, and naming them so that none is mistaken."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; rename it to `path` if all went well."""
    partial = path.with_name(f".partial-{path.name}")  # the same ending: Keras looks at it
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def short_names(names: Sequence[str]) -> list[str]:
    """Of each path the shortest end that none of the others has, e.g. "run1/model.keras"."""
    parts = {name: Path(name).parts for name in names}

    def end(name: str) -> str:
        for count in range(1, len(parts[name])):
            last = parts[name][-count:]
            if sum(other[-count:] == last for other in parts.values()) == 1:
                return "/".join(last)
        return name

    return [end(name) for name in names]

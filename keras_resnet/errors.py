"""Errors for people: what was expected, what was received, the nearest valid name, what to do."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import linecache
import traceback
import typing
import warnings
from collections.abc import Iterable
from types import ModuleType
from typing import Any

DISTRIBUTION = "keras-resnet-zoo"
_LIKENESS = 0.55  # of a name that may be meant; "all" is 0.545 like "saliency"


class UserError(ValueError):
    """Something the caller can mend. The command line prints it without a traceback, exit 2."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of its traceback: the lines of the cell, the message.

        IPython calls this method of an exception if there is one. `%tb` calls it too; for the whole
        traceback, call `traceback.print_exception(sys.last_value)`.
        """
        frames = traceback.walk_tb(self.__traceback__)
        cell = [(f, line) for f, line in frames if f.f_globals.get("__name__") == "__main__"]
        lines = [
            f"line {number}: {linecache.getline(frame.f_code.co_filename, number).strip()}"
            for frame, number in cell
        ]
        return [*lines, f"{type(self).__name__}: {self}"]


class UnknownNameError(UserError):
    """A name that is in no table; the message has the nearest one and where to see them all."""

    def __init__(
        self, kind: str, received: object, valid: Iterable[str], see: str, *, meant: str = ""
    ) -> None:
        """`meant` is for what the name stands near that its letters do not tell."""
        names = sorted(valid)
        readings = {_as_read(name): name for name in reversed(names)}
        read = _as_read(meant or str(received))
        close = difflib.get_close_matches(read, readings, n=1, cutoff=_LIKENESS)
        hint = f" Did you mean '{readings[close[0]]}'?" if close else ""
        listing = f"Known: {', '.join(names)}." if len(names) <= 12 else f"There are {len(names)}."
        super().__init__(f"Unknown {kind} '{received}'.{hint} {listing} {see}".rstrip())


def _as_read(name: str) -> str:
    """A name as the eye takes it: resnet5O is resnet50."""
    return name.lower().translate(str.maketrans("oil", "011"))


class ZooWarning(UserWarning):
    """What this package warns of. The command line prints it as one line, without a path."""


class UntrainedWarning(ZooWarning):
    """A network was built with random weights though there are trained ones."""


class PixelRangeWarning(ZooWarning):
    """Numbers that should be RGB 0...255 are something else, such as normalised images."""


def warn(message: str, category: type[Warning] = ZooWarning) -> None:
    """Warn at the line that called this package, wherever in the package this is found out."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("keras_resnet."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


class MissingExtraError(UserError):
    """An optional dependency is absent; the message has the command that installs it."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"This needs the package '{module}', which is not installed. "
            f'Run: pip install "{DISTRIBUTION}[{extra}]" (in a checkout: pip install ".[{extra}]")'
        )


def require_choices(instance: Any) -> None:
    """Refuse a field of a dataclass whose value is none of its annotation's `Literal`.

    Raises:
        UnknownNameError: with the nearest one.
    """
    for name, hint in typing.get_type_hints(type(instance)).items():
        value = getattr(instance, name)
        if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
            raise UnknownNameError(name, value, typing.get_args(hint), "")


def missing(module: str, extra: str) -> MissingExtraError | None:
    """What `require` would raise; its package is looked for and not imported."""
    root = module.partition(".")[0]
    return None if importlib.util.find_spec(root) else MissingExtraError(root, extra)


def require_tensorflow(what: str) -> None:
    """Refuse Keras' other backends; `what` begins the sentence.

    Raises:
        UserError: Keras computes in JAX, PyTorch or OpenVINO.
    """
    backend = importlib.import_module("keras").config.backend()
    if backend != "tensorflow":
        raise UserError(
            f"{what} needs Keras' TensorFlow backend; this process has '{backend}'. Set "
            "KERAS_BACKEND=tensorflow before Python starts. A model saved as .keras loads there."
        )


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, e.g. `require("tensorflow_datasets", "recipes")`.

    Raises:
        MissingExtraError: the package (not something inside it) is missing.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name != root:
            raise
        raise MissingExtraError(root, extra) from error

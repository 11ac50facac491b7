"""Errors for people: the problem, what was received, the nearest valid name, and what to do."""

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

from keras_resnet.text import for_terminal

DISTRIBUTION = "keras-resnet-zoo"
_LIKENESS = 0.55  # for a suggested name; "all" is 0.545 like "saliency"


class UserError(ValueError):
    """An error that the user can fix. The command line prints it without a traceback, exit 2.

    Its message is one line: names from files and servers in it cannot move the cursor or begin
    another line.
    """

    def __init__(self, message: str) -> None:
        """Keep the message as `text.for_terminal` shows it."""
        super().__init__(for_terminal(message))

    def _render_traceback_(self) -> list[str]:
        """Return the text for IPython in place of its traceback: the cell's lines and the message.

        IPython calls this method of an exception if there is one. `%tb` calls it too. For the whole
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
    """An unknown name. The message has the nearest known name and the command that lists all."""

    def __init__(
        self,
        kind: str,
        received: object,
        valid: Iterable[str],
        see: str,
        *,
        meant: str = "",
        prefix: str = "",
    ) -> None:
        """Make the message.

        Args:
            kind: what the name is for.
            received: the unknown name.
            valid: the known names. All are listed if they are few or if `see` is empty.
            see: a command or a place that lists the known names.
            meant: suggest the name nearest to this one instead of `received`.
            prefix: the section of the names, with its dot. It is shown in front of them.
        """
        names = sorted(valid)
        hint = suggestion(meant or str(received), names, prefix)
        listing = f" Known: {', '.join(names)}." if len(names) <= 12 or not see else ""
        super().__init__(f"Unknown {kind} '{prefix}{received}'.{hint}{listing} {see}".rstrip())


def suggestion(received: str, valid: Iterable[str], prefix: str = "") -> str:
    """Return " Did you mean 'NAME'?" with the nearest of the names, or "" if none is near."""
    readings = {_as_read(name): name for name in sorted(valid, reverse=True)}
    close = difflib.get_close_matches(_as_read(received), readings, n=1, cutoff=_LIKENESS)
    return f" Did you mean '{prefix}{readings[close[0]]}'?" if close else ""


def _as_read(name: str) -> str:
    """Replace letters and digits that look alike: resnet5O becomes resnet50."""
    return name.lower().translate(str.maketrans("oil", "011"))


class ZooWarning(UserWarning):
    """A warning of this package. The command line prints it as one line, without a path."""


class UntrainedWarning(ZooWarning):
    """A network was built with random weights although trained weights exist."""


class PixelRangeWarning(ZooWarning):
    """Pixels are not RGB 0...255 as expected, but for example already normalised."""


def warn(message: str, category: type[Warning] = ZooWarning) -> None:
    """Warn at the line that called this package, however deep inside it the warning is raised."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("keras_resnet."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


class MissingExtraError(UserError):
    """An optional dependency is missing. The message has the command that installs it."""

    def __init__(self, module: str, extra: str) -> None:
        self.command = f'pip install -e ".[{extra}]"'
        super().__init__(
            f"This needs the package '{module}', which is not installed. "
            f"Run in the checkout: {self.command} "
            f'(elsewhere: pip install "{DISTRIBUTION}[{extra}]")'
        )


def require_choices(instance: Any) -> None:
    """Refuse a dataclass field whose value is not one of its annotation's `Literal` values.

    Raises:
        UnknownNameError: the message has the nearest value.
    """
    for name, hint in typing.get_type_hints(type(instance)).items():
        value = getattr(instance, name)
        if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
            raise UnknownNameError(name, value, typing.get_args(hint), "")


def missing(module: str, extra: str) -> MissingExtraError | None:
    """Return the error that `require` would raise, or None. The package is not imported."""
    root = module.partition(".")[0]
    return None if importlib.util.find_spec(root) else MissingExtraError(root, extra)


def require_tensorflow(what: str) -> None:
    """Refuse Keras' other backends. `what` is the beginning of the message.

    Raises:
        UserError: Keras uses JAX, PyTorch or OpenVINO.
    """
    backend = importlib.import_module("keras").config.backend()
    if backend != "tensorflow":
        raise UserError(
            f"{what} needs Keras' TensorFlow backend, but this process uses '{backend}'. Set "
            "KERAS_BACKEND=tensorflow before Python starts. A model saved as .keras loads there."
        )


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, e.g. `require("tensorflow_datasets", "recipes")`.

    Raises:
        MissingExtraError: the package itself is missing (not something that it imports).
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name != root:
            raise
        raise MissingExtraError(root, extra) from error

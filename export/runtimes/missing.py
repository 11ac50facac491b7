"""Engines that are not installed, and the files that cannot be opened without them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keras_resnet.errors import MissingExtraError, UserError, missing
from keras_resnet.export.runtimes.base import ENGINES
from keras_resnet.export.runtimes.locate import located


def missing_engine(path: Path) -> MissingExtraError | None:
    """Return the error for a file whose engine is not installed; None if the file can be opened."""
    kind, _ = located(path)
    return missing(*ENGINES[kind]) if kind in ENGINES else None


def left_out_files(absent: Mapping[str, MissingExtraError | None]) -> list[dict[str, str]]:
    """List the files that cannot be opened, each with the package to install.

    Args:
        absent: {file name: the result of `missing_engine`}.

    Returns:
        A {"file", "reason"} for each.

    Raises:
        UserError: no file can be opened.
    """
    reasons = {name: str(error) for name, error in absent.items() if error is not None}
    if absent and len(reasons) == len(absent):
        raise UserError("No file can be opened here. " + " ".join(dict.fromkeys(reasons.values())))
    return [{"file": name, "reason": reason} for name, reason in reasons.items()]

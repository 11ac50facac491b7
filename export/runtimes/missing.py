"""Engines that are not installed here, and the files they leave unopened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keras_resnet.errors import MissingExtraError, UserError, missing
from keras_resnet.export.runtimes.base import ENGINES
from keras_resnet.export.runtimes.locate import located


def missing_engine(path: Path) -> MissingExtraError | None:
    """What `open_file` would raise because the file's engine is not installed; None if it is."""
    kind, _ = located(path)
    return missing(*ENGINES[kind]) if kind in ENGINES else None


def left_out_files(absent: Mapping[str, MissingExtraError | None]) -> list[dict[str, str]]:
    """Which files have to be left out here, and what would have to be installed to open them.

    Args:
        absent: by the file's name, what `missing_engine` says of it.

    Returns:
        A {"file", "reason"} for each.

    Raises:
        UserError: these are all.
    """
    reasons = {name: str(error) for name, error in absent.items() if error is not None}
    if absent and len(reasons) == len(absent):
        raise UserError("No file can be opened here. " + " ".join(dict.fromkeys(reasons.values())))
    return [{"file": name, "reason": reason} for name, reason in reasons.items()]

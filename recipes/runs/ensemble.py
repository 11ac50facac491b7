"""Several trained models into one file that averages their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from keras_resnet.errors import UserError
from keras_resnet.files import replacing, require_file_target
from keras_resnet.images.labels import LABELS
from keras_resnet.layers import to_stock
from keras_resnet.models.ensemble import ensemble
from keras_resnet.recipes.runs import sources


def write(references: Sequence[str], out: Path) -> keras.Model:
    """Write the ensemble of `references` (run folders, .keras files) to `out`, and return it.

    The file has stock Keras layers, as a run's model. The class names go beside it (labels.txt),
    where `evaluate`, `export` and `predict` look for them.

    Raises:
        UserError: `out` cannot be written or would lie beside other labels, the members' labels
            differ, or a member does not fit (the message names it).
    """
    if out.suffix != ".keras":
        raise UserError(f"--out is the .keras file to write; received {out}.")
    if out.exists():
        raise UserError(f"{out} exists; choose another --out.")
    require_file_target(out)
    members = [sources.find(reference) for reference in references]
    labels = _common_labels(members, references)
    path = out.parent / LABELS
    text = None if labels is None else "\n".join(labels) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{path} has the class names of another model; choose another folder.")
    model = to_stock(ensemble([member.keras_model() for member in members]))
    with replacing(out) as partial:
        model.save(partial)
    if text is not None:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return model


def _common_labels(
    members: Sequence[sources.Source], references: Sequence[str]
) -> tuple[str, ...] | None:
    """The class names that all members have; those without any go by the others."""
    known = [(r, m.labels) for r, m in zip(references, members, strict=True) if m.labels]
    for reference, labels in known[1:]:
        first, expected = known[0]
        if labels != expected:
            raise UserError(
                f"The classes of {reference} ({len(labels)}: {', '.join(labels[:3])}, …) are not "
                f"those of {first} ({len(expected)}: {', '.join(expected[:3])}, …)."
            )
    return known[0][1] if known else None

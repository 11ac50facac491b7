"""Combine several trained models into one file that averages their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from keras_resnet.errors import UserError
from keras_resnet.files import expanded, replacing, require_file_target
from keras_resnet.images.labels import LABELS, read_labels
from keras_resnet.layers import to_stock
from keras_resnet.models.ensemble import ensemble
from keras_resnet.recipes.runs import sources


def write(references: Sequence[str], out: Path) -> keras.Model:
    """Write the ensemble of `references` (run folders, .keras files) to `out`, and return it.

    The file has stock Keras layers, like a run's model. The class names go into labels.txt beside
    it, where `evaluate`, `export` and `predict` look for them.

    Raises:
        UserError: `out` cannot be written, its folder has other labels, the members' labels differ,
            or a member does not fit (the message has its name).
    """
    out = expanded(out)
    if out.suffix != ".keras":
        raise UserError(f"--out must be a .keras file; received {out}.")
    if out.exists():
        raise UserError(f"{out} exists. Choose another --out.")
    require_file_target(out)
    members = [sources.find(reference, keras=True) for reference in references]
    labels = _common_labels(members, references)
    path = out.parent / LABELS
    text = None if labels is None else "\n".join(labels) + "\n"
    if path.exists() and read_labels(out.parent) != labels:
        raise UserError(
            f"{path} has the class names of another model. Choose another folder: --out FILE.keras"
        )
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
    """Return the class names that all members share; members without names are ignored."""
    known = [(r, m.labels) for r, m in zip(references, members, strict=True) if m.labels]
    for reference, labels in known[1:]:
        first, expected = known[0]
        if labels != expected:
            raise UserError(
                f"All models must have the same classes; {reference} has {len(labels)} "
                f"({', '.join(labels[:3])}, …), and {first} has {len(expected)} "
                f"({', '.join(expected[:3])}, …). Leave one of them out."
            )
    return known[0][1] if known else None

"""The layer names of other libraries in ours, as tables.

A row is a regular expression for one of their names, and our layer's name with the expression's
groups in it; a family is a tuple of rows. A new network is a new tuple.
"""

from __future__ import annotations

import re

# A group whose name ends in a digit counts from that digit in theirs, and from 1 in ours.
Row = tuple[str, str]


def translate(name: str, rows: tuple[Row, ...]) -> str | None:
    """Translate e.g. layer2.0.conv1 → stage2_block1_conv1; None where no row has the name."""
    for pattern, template in rows:
        if match := re.fullmatch(pattern, name):
            return template.format(**{k: _from_1(k, text) for k, text in match.groupdict().items()})
    return None


def _from_1(group: str, text: str) -> str:
    return str(int(text) - int(group[-1]) + 1) if group[-1].isdigit() else text

"""Translate layer names of other libraries to ours, by tables.

A row has a regular expression for one of their names, and our layer's name with the groups of the
expression. A family is a tuple of rows. A new network needs a new tuple.
"""

from __future__ import annotations

import re

# A group whose name ends in a digit counts from that digit in their names and from 1 in ours.
Row = tuple[str, str]


def translate(name: str, rows: tuple[Row, ...]) -> str | None:
    """Translate e.g. layer2.0.conv1 → stage2_block1_conv1. Return None if no row matches."""
    for pattern, template in rows:
        if match := re.fullmatch(pattern, name):
            return template.format(**{k: _from_1(k, text) for k, text in match.groupdict().items()})
    return None


def _from_1(group: str, text: str) -> str:
    return str(int(text) - int(group[-1]) + 1) if group[-1].isdigit() else text

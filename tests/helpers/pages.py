"""The pages of the documentation, and the commands that they show."""

import re
import shlex

from helpers import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("*/README.md")),
    ROOT / "export/web/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def commands(body):
    """The command lines of a block: no comments, continued lines joined, nothing redirected."""
    for line in re.sub(r"\\\n", " ", body).splitlines():
        words = shlex.split(line, comments=True)
        words = words[: words.index(">")] if ">" in words else words
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables before a command
            words.pop(0)
        yield from ([words] if words else [])

"""Text from files, servers and people, made safe to show: on a terminal, in HTML, in JSON."""

from __future__ import annotations

import html
import io
import json
import re
import unicodedata
from typing import Any

# Controls, invisible marks that turn or hide text, line and paragraph separators, and surrogates
# (which stand for the bytes of a file's name that are no UTF-8).
_UNSAFE = ("Cc", "Cf", "Zl", "Zp", "Cs")
_JOINERS = "\u200c\u200d"  # Cf, but part of words in Persian and Hindi, and of emoji
_UNDECODED = "\ufffd"


def for_terminal(text: object) -> str:
    """Return a text as one line that a terminal prints and does not obey.

    Line breaks, terminal escapes and other invisible characters become visible ("\\x1b", "\\n").
    Bytes that could not be decoded become the replacement character.
    """
    return "".join(char if char.isprintable() else _visible(char) for char in str(text))


def lines_for_terminal(text: str) -> str:
    """Return a text of several lines as `for_terminal` returns one; tabs stay, too."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else _visible(char) for char in text
    )


def is_safe(text: str) -> bool:
    """Return True if `for_terminal` changes nothing in a text."""
    return for_terminal(text) == text


def _visible(char: str) -> str:
    kind = unicodedata.category(char)
    if kind not in _UNSAFE or char in _JOINERS:
        return char
    if kind == "Cs":
        return _UNDECODED
    return char.encode("unicode_escape").decode("ascii")


def for_html(text: object) -> str:
    """Return a text for an HTML page; its lines stay lines."""
    return html.escape(lines_for_terminal(str(text)))


def for_markdown(text: object) -> str:
    """Return a text for a Markdown page: one line, without tags, code, links or emphasis."""
    shown = for_html(for_terminal(text))
    return re.sub(r"[\[\]`|\\*_]", lambda found: f"&#{ord(found[0])};", shown)


def code_for_markdown(text: object) -> str:
    """Return a text as code on a Markdown page: `TEXT`."""
    return "`" + for_terminal(text).replace("`", "'") + "`"


def json_for(content: Any, encoding: str) -> str:
    """Return JSON in which every character is visible and can be written in `encoding`.

    Other characters are escaped, as JSON has it ("\\u001b"), so that nothing is lost.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False)

    def kept(char: str) -> bool:
        if not (char.isprintable() or char == "\n"):
            return False
        try:
            char.encode(encoding)
        except UnicodeEncodeError:
            return False
        return True

    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(char if kept(char) else json.dumps(char)[1:-1] for char in text)


class Terminal(io.TextIOWrapper):
    """A stream to which anything can be printed.

    Its text passes through `lines_for_terminal`. A character that the encoding does not have
    becomes a question mark.
    """

    def __init__(self, raw: Any, encoding: str, line_buffering: bool = False) -> None:
        """Write to the binary file `raw`."""
        super().__init__(raw, encoding, "replace", line_buffering=line_buffering)

    def write(self, text: str) -> int:
        """Write a text."""
        super().write(lines_for_terminal(text))
        return len(text)


def drawable(stream: Any) -> Any:
    """Return a stream to the same terminal that takes terminal codes, for progress bars."""
    if not (isinstance(stream, Terminal) and stream.isatty()):
        return stream
    how: Any = {"encoding": stream.encoding, "errors": "replace", "closefd": False}
    return open(stream.fileno(), "w", 1, **how)

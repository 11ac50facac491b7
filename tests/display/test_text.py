"""Text from files, servers and people is shown safely; the streams of a command take any text."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT

from keras_resnet import text
from keras_resnet.display.console import table_text
from keras_resnet.errors import UserError


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("héron 猫 👩\u200d🔬 a\u3000b", "héron 猫 👩\u200d🔬 a\u3000b"),
        ("\x1b[31m\x07", "\\x1b[31m\\x07"),
        ("a\nerror: b\r\t", "a\\nerror: b\\r\\t"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        (os.fsdecode(b"caf\xe9"), "caf\ufffd"),
        (3, "3"),
    ],
)
def test_a_terminal_gets_one_line_that_it_does_not_obey(given, shown):
    assert text.for_terminal(given) == shown
    assert text.is_safe(str(given)) == (str(given) == shown)
    assert str(UserError(str(given))) == shown
    assert shown in table_text("", ("name",), [[str(given)]])


def test_lines_and_tabs_of_a_page_stay():
    assert text.lines_for_terminal("a\tb\n\x1bc\n") == "a\tb\n\\x1bc\n"


def test_html_and_markdown_get_no_tags():
    name = '<b>"a"</b>\n| [x](y) `z`'
    assert text.for_html(name) == "&lt;b&gt;&quot;a&quot;&lt;/b&gt;\n| [x](y) `z`"
    shown = '&lt;b&gt;"a"&lt;/b&gt;&#92;n &#124; &#91;x&#93;(y) &#96;z&#96;'
    assert text.for_markdown('<b>"a"</b>\n | [x](y) `z`') == shown
    assert text.code_for_markdown("a`<b>\n") == "`a'<b>\\n`"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", '"é█\\udce9\\u001b\\u009b\\u007f😀"'),
        ("latin-1", '"é\\u2588\\udce9\\u001b\\u009b\\u007f\\ud83d\\ude00"'),
        ("ascii", '"\\u00e9\\u2588\\udce9\\u001b\\u009b\\u007f\\ud83d\\ude00"'),
    ],
)
def test_json_escapes_what_cannot_be_shown_and_loses_nothing(encoding, shown):
    given = "é█\udce9\x1b\x9b\x7f😀"
    written = text.json_for(given, encoding)
    assert written == shown
    assert json.loads(written) == json.loads(json.dumps(given))


PRINTS = r"""
import os, sys
from keras_resnet.display.console import own_streams, print_json
own_streams()
assert os.open(os.devnull, os.O_RDONLY) > 2
print("\xe9\u2588\udce9\x1b")
print_json({"x": "\xe9"})
print("\xe9\x1b", file=sys.stderr)
sys.stdout.flush()
"""


@pytest.mark.parametrize("closed", ["", ">&-", "<&- >&- 2>&-", "2>&-"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252"])
def test_any_stream_takes_any_text(encoding, closed):
    if closed and encoding != "ascii":
        pytest.skip("one encoding is enough")
    result = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, PRINTS],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"},
    )
    assert result.returncode == 0, result.stderr
    if not closed:
        first = {"utf-8": "é█\ufffd", "ascii": "???"}.get(encoding, "é??")
        assert result.stdout.decode(encoding).splitlines()[0] == first + "\\x1b"
        assert result.stderr.decode(encoding).strip() == ("?" if encoding == "ascii" else "é") + (
            "\\x1b"
        )


def _calls(folder, names):
    """(place, call) of every call of a function with such a name."""
    for path in {*(ROOT / folder).rglob("*.py")} - {*(ROOT / "export" / "edge").rglob("*.py")}:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = getattr(node, "func", None)
            if getattr(called, "attr", getattr(called, "id", "")) in names and "edge" not in str(
                path
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node)


@pytest.mark.parametrize("folder", ["keras_resnet", "export", "recipes"])
def test_every_text_file_is_opened_with_its_encoding(folder):
    """Otherwise it depends on the locale."""
    # files.read_text, called by its name alone, reads UTF-8.
    of_bytes = re.compile(r"'[rwxa]?b'|^(os|Image|archive)\.open|\*\*how|^read_text\(")
    names = ("open", "read_text", "write_text", "fdopen")
    calls = [call for call in _calls(folder, names) if not of_bytes.search(call[1])]
    assert [call for call in calls if "encoding=" not in call[1]] == []

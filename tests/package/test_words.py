"""Docstrings are plain English: they begin with a verb or a noun."""

import ast
import re

import pytest
from helpers import ROOT

# A docstring that begins with one of these has no verb, or hides it.
NOT_FIRST = re.compile(r"(What|Whether|Which|How|Of|If|None|By|Whose|Its|Theirs|As)\b")


def _docstrings(tree):
    """Yield (line, text) of every docstring in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


@pytest.mark.parametrize("folder", ["keras_resnet", "export", "recipes", "benchmarks"])
def test_docstrings_begin_with_a_verb_or_a_noun(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    wrong = []
    for file in files:
        for line, text in _docstrings(ast.parse(file.read_text(encoding="utf-8"))):
            if NOT_FIRST.match(text):
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {text.splitlines()[0]}")
    assert not wrong, "\n".join(["These docstrings begin with the wrong word:", *wrong])

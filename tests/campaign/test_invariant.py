"""The judge of the campaign sees what is wrong."""

import sys
import time

import pytest

from campaign import invariant
from keras_resnet.cli.parser import VERBS


@pytest.mark.parametrize(
    ("code", "out", "err", "said"),
    [
        (0, "fine\n", "", None),
        (2, "", "error: no such file\n", None),
        (1, "", "epoch   1/2 · loss 1\n" * 9, None),  # progress
        (2, "", "", "exit 2 without a word on stderr"),
        (70, "", "error: a bug\n", "exit 70: error: a bug"),
        (-11, "", "", "exit -11: "),
        (2, "", "a\nb\nc\nd\n", "exit 2, 4 lines on stderr: a | b | c | d"),
        (0, "\x1b[31m", "", r"exit 0, prints the control character '\x1b'"),
        (
            1,
            "",
            "Traceback (most recent call last):\n  File x\nKeyError: 'y'\nlast\n",
            "exit 1, Traceback (most recent call last): KeyError: 'y'",
        ),
    ],
)
def test_what_breaks_the_promise_is_named(code, out, err, said):
    assert invariant.judge(code, out, err) == said


def test_a_call_is_judged_like_a_process(monkeypatch, tmp_path):
    assert invariant.call(["predict", "x", "nothing.jpg"], cwd=tmp_path) is None
    assert invariant.call(["list", "--help"]) is None

    def has(run):
        changed = VERBS["list"].__class__(**{**vars(VERBS["list"]), "run": run})
        monkeypatch.setitem(VERBS, "list", changed)
        return invariant.call(["list"], seconds=0.5, megabytes=100)

    def falls(_):
        raise RuntimeError("out of luck")

    assert "RuntimeError: out of luck" in has(falls)
    assert has(lambda _: time.sleep(5)) == "still running after 0.5 s"
    if sys.platform == "linux":
        assert "MB of memory, more than 100" in has(lambda _: len(b"x" * 300_000_000) * 0)


def test_a_process_is_judged(tmp_path):
    assert invariant.run(["weights", "list"], cwd=tmp_path) is None
    assert invariant.run(["weights", "list"], seconds=0.01) == "still running after 0.01 s"
    assert "MB of memory, more than 1" in invariant.run(["weights", "list"], megabytes=1)

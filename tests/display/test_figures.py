"""Charts: the letters they can show, names that matplotlib would read as something else, files."""

import sys
import warnings
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from helpers import run_python
from helpers.figures import assert_texts_apart
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image

from keras_resnet.display import figures
from keras_resnet.errors import MissingExtraError, UserError

LETTERS = "éßøåñçğłžœжЖяЩїΩ"
NAMES = ["Straße", "smørrebrød", "Жук", "$x_1$ costs $5", "$\\frac{$", "a\\$b", "_hidden", "<b>&"]
# Characters that no font has, and a file name that is no UTF-8.
ODD = ["😀 \ue000 名", "caf\udce9.jpg"]


def chart(names, title="title"):
    values = list(range(len(names), 0, -1))
    columns = [
        figures.Column("ms", values, "{:.2f}".format),
        figures.Column("bytes", [10 * v for v in values], figures.binary),
    ]
    return figures.bars(title, names, columns)


def texts(path):
    tag = "{http://www.w3.org/2000/svg}text"
    return ["".join(item.itertext()) for item in ElementTree.parse(path).getroot().iter(tag)]


def test_the_font_has_the_letters_of_europe():
    font = FT2Font(font_manager.findfont(font_manager.FontProperties()))
    assert [letter for letter in LETTERS if not font.get_char_index(ord(letter))] == []


def test_letters_are_drawn_and_not_boxes(tmp_path):
    """A box would be the same for every letter of a script."""
    drawn = set()
    for letter in LETTERS:
        figures.save(chart([letter]), tmp_path / "a.png")
        drawn.add((tmp_path / "a.png").read_bytes())
    assert len(drawn) == len(LETTERS)


def test_names_show_as_they_are(tmp_path):
    for name in NAMES:
        figures.save(chart([name], title=f"{name} and {name}"), tmp_path / "a.png")
    figures.save(chart(NAMES, title=NAMES[3]), tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    assert shown[: len(NAMES)] == NAMES
    assert shown[-1] == NAMES[3]


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf"])
def test_what_no_font_has_is_drawn_all_the_same(ending, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(chart(ODD), tmp_path / f"a{ending}")
    if ending == ".svg":
        assert texts(tmp_path / "a.svg")[:2] == ["😀 \ue000 名", "caf?.jpg"]


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("name", ["a", "a class of a very long name, " * 4])
def test_no_text_meets_another_or_the_edge(count, name, tmp_path):
    drawn = chart([f"{name} {index}" for index in range(count)], title="a long title " * 20)
    assert_texts_apart(drawn)
    figures.save(drawn, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        grey = np.asarray(picture.convert("L"))
    edges = grey[0], grey[-1], grey[:, 0], grey[:, -1]
    assert all((edge == 255).all() for edge in edges)


def test_bars_are_as_long_as_their_values():
    """Also the longest below 1; a zero has no figure."""
    drawn = figures.bars("", ["a", "b", "c"], [figures.Column("", [0.2, 0.1, 0], str)])
    (panel,) = drawn.axes
    (bars,) = panel.containers
    lengths = [bar.get_width() for bar in bars]
    assert lengths == [0.2, 0.1, 0]
    assert 0.6 < lengths[0] / panel.get_xlim()[1] < 0.75
    assert [text.get_text() for text in panel.texts] == ["0.2", "0.1", ""]


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf"])
def test_the_same_figures_make_the_same_file_whatever_the_caller_set(ending, tmp_path):
    first, second = tmp_path / f"a{ending}", tmp_path / f"b{ending.upper()}"
    figures.save(chart(NAMES), first)
    theirs = {"axes.facecolor": "black", "text.color": "red", "font.size": 30, "svg.hashsalt": "x"}
    with matplotlib.rc_context({**theirs, "axes.grid": False, "savefig.dpi": 10}):
        before = dict(matplotlib.rcParams)
        figures.save(chart(NAMES), second)
        assert dict(matplotlib.rcParams) == before
    assert first.read_bytes() == second.read_bytes()


def test_the_fonts_are_the_users(tmp_path):
    with matplotlib.rc_context({"font.family": ["DejaVu Sans", "DejaVu Serif"]}):
        figures.save(chart(["a"]), tmp_path / "a.svg")
    assert "font-family: 'DejaVu Sans', 'DejaVu Serif'" in (tmp_path / "a.svg").read_text()


def test_a_figure_that_fails_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "a.png"
    figures.save(chart(["a"]), path)
    written = path.read_bytes()
    broken = chart(["a"])
    broken.text(0, 0, "$\\frac{$")  # without `literal`
    with pytest.raises(ValueError, match="frac"):
        figures.save(broken, path)
    assert path.read_bytes() == written
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    for path, message in (
        ("a.jpg", r"\.svg, \.png or \.pdf; received '\.jpg'"),
        ("svg", r"\.svg, \.png or \.pdf; received 'svg'"),
        ("none/a.svg", "No such folder"),
        (tmp_path, "received"),
    ):
        with pytest.raises(UserError, match=message):
            figures.require_writable(tmp_path / path)
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(UserError, match="--picture wants a file"):
        figures.require_writable(tmp_path / "folder.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"'matplotlib'.*\[report\]"):
        figures.require_writable(tmp_path / "a.svg")


def test_without_matplotlib_only_the_picture_is_refused(tmp_path):
    code = """
import sys
sys.modules["matplotlib"] = None
from keras_resnet.cli.main import main
assert main(["profile", "test_resnet"]) == 0
assert main(["profile", "test_resnet", "--picture", sys.argv[1]]) == 2
"""
    ran = run_python(code, tmp_path / "a.svg")
    assert 'pip install "keras-resnet-zoo[report]"' in ran.stderr
    assert not list(tmp_path.iterdir())


def test_counts_are_written_short():
    assert [figures.decimal(x) for x in (0, 999, 1000, 271_098, 3_857_973_248)] == [
        *("0", "999", "1.00 k", "271 k", "3.86 G")
    ]
    assert [figures.binary(x) for x in (40, 1536, 1 << 20)] == ["40 B", "1.50 KiB", "1.00 MiB"]

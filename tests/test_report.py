"""The report's numbers by hand, its page, and runs and exports side by side."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from keras_resnet.cli import main
from keras_resnet.errors import UserError
from keras_resnet.recipes import compare, exporting, outcomes, report, runs, sources

# Four classes, eight answers: two wrong, the surer one in the last place.
LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3])
GUESSES = np.array([0, 1, 1, 1, 2, 2, 3, 1])
CONFIDENCES = np.array([0.91, 0.55, 0.91, 0.91, 0.91, 0.55, 1.0, 0.99])
ANSWERS = outcomes.Outcomes(LABELS, GUESSES, CONFIDENCES, 4)


def test_confusions_by_hand():
    assert ANSWERS.accuracy == 6 / 8
    counts = ANSWERS.confusion()
    assert counts.sum() == 8
    assert counts.diagonal().tolist() == [1, 2, 2, 1]
    assert (counts[0, 1], counts[3, 1]) == (1, 1)
    assert ANSWERS.confused(5) == [(0, 1, 1), (3, 1, 1)]
    assert ANSWERS.worst(5).tolist() == [7, 1]
    assert ANSWERS.worst(1).tolist() == [7]


def test_the_calibration_error_by_hand():
    """Bins of 1/15: 0.55 falls into bin 8, 0.91 into 13, 0.99 and 1.0 into the last."""
    measured = ANSWERS.reliability()
    assert measured.counts.tolist() == [0] * 8 + [2] + [0] * 4 + [4, 2]
    assert measured.accuracy[[8, 13, 14]].tolist() == [0.5, 1.0, 0.5]
    expected = (2 * 0.05 + 4 * 0.09 + 2 * (0.995 - 0.5)) / 8
    assert measured.error == pytest.approx(expected)


def test_a_perfectly_sure_and_right_model_has_no_error():
    perfect = outcomes.Outcomes(LABELS, LABELS, np.ones(8), 4)
    assert perfect.reliability().error == 0
    assert perfect.confused(3) == []
    assert not len(perfect.worst(3))


# The page ----------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """What a page refers to, and whether its elements are closed."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.mismatched = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        names = ("src", "href", "xlink:href")
        self.links += [value for name, value in attributes if name in names]

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            self.mismatched.append(tag)


@pytest.fixture(scope="module")
def exported(tiny_run, digits):
    out = tiny_run.path / "exports"
    exporting.export_source(
        sources.find(tiny_run.path), digits, ("tflite-float32", "tflite-int8"), out
    )
    return out


@pytest.fixture(scope="module")
def page(tiny_run, exported, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "page.html"
    assert main(["report", str(tiny_run.path), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def test_the_page_needs_nothing_beside_it(page):
    parsed = _Page(page)
    assert not parsed.open
    assert not parsed.mismatched
    assert all(link.startswith(("data:image/png", "#")) for link in parsed.links)
    assert not re.search(r"@import|url\((?!#)", page)
    assert not re.search(r"\$[a-z_]+", page)  # every part of the template was filled


def test_the_page_says_what_the_run_and_its_exports_say(page, tiny_run, exported, digits):
    summary = tiny_run.summary()
    assert f"<b>{summary['test']['accuracy']:.2%}</b>" in page
    for item in json.loads((exported / "manifest.json").read_text())["files"]:
        assert f"<td>{item['file']}</td><td>{item['bytes']:,}</td>" in page
    wrong = round((1 - summary["test"]["accuracy"]) * len(digits.test))
    assert page.count("<figure>") == min(wrong, 12)
    assert "Expected calibration error" in page
    assert 'name = "digits"' in page.replace("&quot;", '"')
    assert page.count("<svg") >= 4


def test_what_has_a_markup_in_its_name_is_escaped():
    table = report._table(("<b>",), [("a & b",)])
    assert "&lt;b&gt;" in table
    assert "a &amp; b" in table


def test_an_unfinished_run_is_refused(tiny_run, tmp_path):
    (tmp_path / "config.toml").write_text((tiny_run.path / "config.toml").read_text())
    with pytest.raises(UserError, match="is not finished"):
        report.write(runs.find(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_all_of_it(page, tmp_path, width):
    """At a phone's and a desk's width nothing sticks out of the page, and no request is made."""
    path = tmp_path / "page.html"
    probe = "<p id=probe></p><script>document.getElementById('probe').textContent = "
    probe += "[document.documentElement.scrollWidth, performance.getEntriesByType('resource')"
    probe += ".filter(e => !e.name.startsWith('data:')).length].join()</script></body>"
    # The window of a headless browser is no narrower than 500 pixels, so a frame is.
    path.write_text(page.replace("</body>", probe), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<iframe src=page.html width={width} height=800></iframe><p id=out></p><script>"
        "onload = () => { const d = document.querySelector('iframe').contentDocument;"
        "document.getElementById('out').textContent = d.getElementById('probe').textContent }"
        "</script>"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--allow-file-access-from-files"]
    shown = subprocess.run(
        [*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=120
    ).stdout
    wide, requests = map(int, re.search(r'id="out">(\d+),(\d+)<', shown).groups())
    assert wide <= width
    assert requests == 0


# Side by side ------------------------------------------------------------------------------------


def test_the_frontier_has_what_nothing_beats():
    points = [(2, 90), (1, 80), (3, 89), (4, 95), (2, 85), (1, 79)]
    assert compare.frontier(points) == [(1, 80), (2, 90), (4, 95)]


def test_runs_exports_and_files_are_compared(tiny_run, exported, tmp_path, capsys):
    picture = tmp_path / "frontier.svg"
    given = [str(tiny_run.path), str(exported), str(exported / "resnet8-int8.tflite")]
    assert main(["compare", *given, "--picture", str(picture), "--json"]) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)["models"]
    assert len(rows) == 4
    assert rows[0]["accuracy"] == tiny_run.summary()["test"]["accuracy"]
    assert rows[0]["parameters"] == rows[1]["parameters"] == 78_666
    assert rows[1]["multiply_adds"] == rows[0]["multiply_adds"] > 1_000_000
    assert rows[2] == rows[3] | {"name": rows[2]["name"]}
    assert rows[3]["bytes"] == (exported / "resnet8-int8.tflite").stat().st_size
    assert "<svg" in picture.read_text()


def test_figures_that_do_not_compare_are_warned_of():
    row = compare.Row("a", 0.9, "these", 1, 1, 1, 1, 1.0, "here")
    other = compare.Row("b", 0.9, "those", 1, 1, 1, 1, 1.0, "there")
    assert compare.warnings([row, row]) == []
    assert len(compare.warnings([row, other])) == 2


def test_what_has_no_record_is_refused(tmp_path, exported):
    (tmp_path / "model.tflite").write_bytes(b"")
    with pytest.raises(UserError, match="nothing is recorded"):
        compare.rows([tmp_path / "model.tflite"])
    (exported / "other.tflite").write_bytes(b"")
    with pytest.raises(UserError, match=r"does not list 'other\.tflite'"):
        compare.rows([exported / "other.tflite"])
    (exported / "other.tflite").unlink()
    row = compare.Row("a", 0.9, "these", 1, 1, 1, 1)
    with pytest.raises(UserError, match=r"\.svg, \.png"):
        compare.draw([row], tmp_path / "frontier.xyz")

"""The report's numbers by hand, its page, and runs and exports side by side."""

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import chromium
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.display import notebook
from keras_resnet.errors import UserError
from keras_resnet.files import short_names
from keras_resnet.recipes import load_dataset
from keras_resnet.recipes.export import export_source
from keras_resnet.recipes.runs import compare, outcomes, report, report_figures, sources
from keras_resnet.recipes.runs.folder import Run, find_run

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


def test_the_scores_of_a_class_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 5, 300), rng.integers(0, 4, 300)  # 4 is never predicted
    labels[labels == 3] = 0  # and 3 never true
    answers = outcomes.Outcomes(labels, guesses, np.ones(300), 6)  # of 5 there is nothing
    found = answers.per_class()
    expected = precision_recall_fscore_support(labels, guesses, labels=range(6), zero_division=0)
    for ours, theirs in zip((found.precision, found.recall, found.f1), expected[:3], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)  # the same quotients of integers
    assert found.n.tolist() == expected[3].tolist()
    assert (found.precision[4], found.recall[3], found.f1[5]) == (0, 0, 0)


def test_examples_are_of_their_class():
    assert ANSWERS.examples(1, 5).tolist() == [2, 3]
    assert ANSWERS.examples(1, 1).tolist() == [2]
    absent = outcomes.Outcomes(LABELS, GUESSES, CONFIDENCES, 5)
    assert absent.examples(4, 3).tolist() == []


def test_an_axis_has_whole_epochs_and_percent():
    rows = [
        {"epoch": epoch, "loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1} for epoch in (1, 2, 3)
    ]
    loss = report_figures.curves(rows).partition("</svg>")[0]
    ticks = re.findall(r">([\d.]+)</text>", loss)
    assert ticks[:3] == ["1", "2", "3"]
    drawn = report_figures.reliability(ANSWERS.reliability())
    for text in ("confidence (%)", "accuracy (%)", "perfect calibration", "100"):
        assert f">{text}</text>" in drawn
    drawn = report_figures.confusion(ANSWERS.confusion(), "abcd")
    assert ">true</text>" in drawn
    assert ">predicted</text>" in drawn


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
    export_source(sources.find(tiny_run.path), digits, ("tflite-float32", "tflite-int8"), out)
    return out


@pytest.fixture(scope="module")
def page(tiny_run, exported, tmp_path_factory):
    out, printed = tmp_path_factory.mktemp("report") / "page.html", io.StringIO()
    with redirect_stdout(printed):
        assert main(["report", str(tiny_run.path), "--out", str(out), "--json"]) == 0
    assert json.loads(printed.getvalue()) == {"report": str(out)}
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
    assert f"<b>{summary['training_seconds'] / 60:.1f} min</b>" in page
    for item in json.loads((exported / "manifest.json").read_text())["files"]:
        assert re.search(rf">{item['file']}</td><td [^>]*>{item['bytes']:,}</td>", page)
    wrong = min(round((1 - summary["test"]["accuracy"]) * len(digits.test)), 12)
    assert wrong > 0
    assert page.count("<figure>") == page.count("<figcaption>") == wrong
    examples = 6 * len(digits.class_names)
    assert page.count('<img alt=""') == 2 * wrong + examples  # each mistake with its heat map
    assert "evidence for the predicted class (Grad-CAM" in page
    assert len(re.findall(r"<figcaption>\d \(true\) → \d \d+ %</figcaption>", page)) == wrong
    headings = re.findall("<h2>(.*)</h2>", page)
    assert {"Confusion matrix", "Scores of each class", "Calibration"} <= set(headings)
    assert "Expected calibration error" in page
    assert "<b>0</b><span>of them in the training data</span>" in page
    assert 'name = "digits"' in page.replace("&quot;", '"')
    assert page.count("<svg") == 5  # loss, error, confusion, calibration, cost
    cost = page.partition("Cost of each layer")[2].partition("Config, results and")[0]
    assert "multiply-adds" in cost
    assert "stage3_block1_conv2" in cost


def test_the_page_says_if_the_summary_has_another_accuracy(capsys):
    same = {"accuracy": 6 / 8, "n": 8}
    assert report._test_accuracy(ANSWERS, same) == {"test accuracy, 8 images": "75.00%"}
    assert capsys.readouterr().err == ""
    assert report._test_accuracy(ANSWERS, {"accuracy": 0.5, "n": 6}) == {
        "test accuracy, 8 images": "75.00%",
        "test accuracy, 6 images, at the time of training": "50.00%",
    }
    assert "summary's test accuracy is 50.00% on 6 images" in capsys.readouterr().err


def test_the_page_says_why_it_has_no_heat_maps(capsys):
    """Of an ensemble no layer is on every path."""
    shape = {"input_shape": (32, 32, 3), "classes": 10}
    members = [keras_resnet.create_model(name, **shape) for name in ("test_resnet", "test_vgg")]
    images = np.zeros((2, 32, 32, 3), "uint8")
    maps, note = report._heat_maps(keras_resnet.ensemble(members), images, np.array([0, 1]))
    assert maps is None
    assert "has no map on every path" in note
    assert note in capsys.readouterr().err


def test_the_page_does_not_say_where_the_files_lie(page, tiny_run):
    assert str(tiny_run.path.parent) not in page
    told = 'name = "/home/me/photos"\n{"data": "/home/me/photos", "model": "a/b"}'
    assert report._without_places(told) == 'name = "photos"\n{"data": "photos", "model": "a/b"}'


def test_the_image_of_a_mistake_is_the_one_that_was_evaluated(tmp_path):
    """Where a file before it cannot be decoded, the places of the files are others."""
    for number in range(4):
        for label in "train/a", "train/b", "test/a", "test/b":
            (tmp_path / label).mkdir(parents=True, exist_ok=True)
            colour = (60 * number, 0, 255 * label.endswith("b"))
            Image.new("RGB", (16, 16), colour).save(tmp_path / label / f"{number}.png")
    (tmp_path / "test/a/1.png").write_text("no image")
    split = load_dataset(str(tmp_path), image_size=16).test
    images = report._images(split, np.arange(len(split)))
    assert [image[0, 0].tolist() for image in images[:4]] == [
        [0, 0, 0],
        [120, 0, 0],
        [180, 0, 0],
        [0, 0, 255],
    ]
    assert report._images(split, np.array([3]))[0][0, 0].tolist() == [0, 0, 255]


def test_what_has_a_markup_in_its_name_is_escaped():
    table = notebook.html_table(("<b>",), [("a & b",)])
    assert "&lt;b&gt;" in table
    assert "a &amp; b" in table


def test_an_unfinished_run_is_refused(tiny_run, tmp_path):
    (tmp_path / "config.toml").write_text((tiny_run.path / "config.toml").read_text())
    with pytest.raises(UserError, match="is not finished"):
        report.write(find_run(tmp_path))


@pytest.mark.parametrize("verb", ["report", "compare"])
def test_a_record_without_its_model_or_summary_says_which(verb, tiny_run, tmp_path, capsys):
    def said():
        assert main([verb, str(tmp_path)]) == 2
        return capsys.readouterr().err

    for name in "config.toml", "summary.json":
        shutil.copy(tiny_run.path / name, tmp_path)
    assert "is finished, but has no model.keras. Restore it" in said()
    (tmp_path / "checkpoints").mkdir()
    assert f"Make it again: keras-resnet train --resume {tmp_path}\n" in said()
    (tmp_path / "summary.json").rename(tmp_path / "model.keras")
    assert "has no summary.json. Restore it" in said()


def test_a_run_without_a_log_has_no_curves(tmp_path):
    assert report._curves(Run(tmp_path)) == "<p>log.csv is missing or has no epoch.</p>"
    (tmp_path / "log.csv").write_text("epoch,accuracy,loss\n")
    assert "has no epoch" in report._curves(Run(tmp_path))


def test_the_target_is_looked_at_before_the_work(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "configured_dataset", None)  # the work
    monkeypatch.setattr(compare, "rows", None)
    run, gone = str(tiny_run.path), str(tmp_path / "none" / "x.svg")
    for arguments, message in (
        (["report", run, "--out", gone], f"No such folder: {tmp_path / 'none'}\n"),
        (["report", run, "--out", str(tmp_path)], f"--out wants a file; {tmp_path} is a folder"),
        (["compare", run, "--picture", gone], f"No such folder: {tmp_path / 'none'}\n"),
        (["compare", run, "--picture", "x.doc"], "written as .svg, .png or .pdf"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_all_of_it(page, tmp_path, width):
    """At a phone's and a desk's width nothing sticks out of the page, and no request is made."""
    path, shot = tmp_path / "page.html", tmp_path / f"{width}.png"
    path.write_text(page, encoding="utf-8")
    with chromium.page(tmp_path / "profile") as browser:
        browser.resize(width, 800, touch=width < 500)
        browser.goto(path.as_uri())
        browser.wait("body > p:last-child", "Written by keras_resnet")
        cut = browser.run(
            "[...document.querySelectorAll('.scroll')]"
            ".filter(part => part.scrollWidth > part.clientWidth + 1).map(part => part.innerText)"
        )
        size = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        wide, high = browser.run(size)
        browser.resize(width, high, touch=width < 500)
        browser.screenshot(shot)
    assert wide <= width  # a scroll bar may take some of it
    assert cut == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [path.as_uri()]
    assert browser.console == []
    with Image.open(shot) as picture:
        grey = np.asarray(picture.convert("L"))
    assert grey.shape == (high, width)
    # Each of ten bands from top to bottom has text or figures; the palest of them had 1.5 % of ink.
    ink = [(band < 200).mean() for band in np.array_split(grey, 10)]
    assert min(ink) > 0.005, ink


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
    measured = json.loads((exported / "manifest.json").read_text())
    assert rows[0]["latency_ms"] == measured["check"]["keras_latency_ms"]
    assert rows[0]["machine"] == measured["machine"]
    drawn = picture.read_text()
    for text in ("1  model.keras", "3  resnet8-int8.tflite", "bytes", "ms, one image"):
        assert f">{text}</text>" in drawn, text
    assert "no time for" not in printed.err


def test_a_file_that_failed_its_check_is_marked(tiny_run, exported, tmp_path, capsys):
    failed = tmp_path / "run" / "exports"
    shutil.copytree(exported, failed)
    content = json.loads((failed / "manifest.json").read_text())
    content["files"][1] |= {"passed": False, "problems": ["top-1 agreement 12 %"]}
    for entry in content["files"]:
        del entry["notes"]  # which earlier manifests lack
    (failed / "manifest.json").write_text(json.dumps(content))
    picture = tmp_path / "frontier.svg"
    given = [str(tiny_run.path), str(failed), "--picture", str(picture)]
    assert main(["compare", *given]) == 0
    printed = capsys.readouterr()
    problem = "resnet8-int8.tflite FAILED its check: top-1 agreement 12 %"
    assert f"warning: {failed}/{problem}\n" in printed.err
    lines = printed.out.splitlines()
    cells = [re.split(r"  +", line.strip())[1:4] for line in lines if "resnet8-" in line]
    agreements = [f"{entry['agreement']:.2%}" for entry in content["files"]]
    assert [cell[1:] for cell in cells] == [
        [agreements[0], "passed"],
        [agreements[1], "FAILED"],
    ]
    assert re.search(r"model\.keras +[\d.]+% +– +– ", printed.out)  # others are checked against it
    assert ">3  resnet8-int8.tflite, FAILED its check</text>" in picture.read_text()
    page = report._exports(Run(failed.parent))
    assert page.count(">FAILED</td>") == page.count(problem) == 1


def test_what_failed_beats_nothing(tmp_path):
    """Where nothing is sound there is no frontier, and still a picture."""
    good = compare.Row("a", 0.8, "these", 1, 1, 9, 1, passed=True)
    bad = compare.Row("b", 0.9, "these", 1, 1, 5, 1, passed=False)
    assert compare._sound_frontier({good: (9, 80), bad: (5, 90)}) == [(9, 80)]
    assert compare._sound_frontier({bad: (5, 90)}) == []
    compare.draw([bad], tmp_path / "frontier.svg")
    assert "b, FAILED its check" in (tmp_path / "frontier.svg").read_text()


def test_a_picture_tells_runs_apart_and_leaves_out_a_panel_without_times(tmp_path, capsys):
    names = ["runs/a/model.keras", "runs/b/model.keras", "runs/b/exports/x.tflite"]
    shown = ["a/model.keras", "b/model.keras", "x.tflite"]
    assert short_names(names) == shown
    assert short_names([*names, names[0]])[3] == "a/model.keras"  # given twice
    rows = [compare.Row(name, 0.9, "these", 1, 1, 1 + i, 1) for i, name in enumerate(names)]
    compare.draw(rows, tmp_path / "frontier.svg")
    drawn = (tmp_path / "frontier.svg").read_text()
    numbered = [f"{number}  {text}" for number, text in enumerate(shown, 1)]
    assert all(f">{text}</text>" in drawn for text in (*numbered, "bytes"))
    assert "ms, one image" not in drawn
    assert (
        f"no time for {', '.join(shown)}. To measure it: keras-resnet export"
        in capsys.readouterr().err
    )


def test_figures_that_do_not_compare_are_warned_of():
    row = compare.Row("a", 0.9, "these", 1, 1, 1, 1, 1.0, "here")
    other = compare.Row("b", 0.9, "those", 1, 1, 1, 1, 1.0, "there")
    assert compare.warnings([row, row]) == []
    assert len(compare.warnings([row, other])) == 2


def test_what_has_no_record_is_refused(tmp_path, exported):
    (tmp_path / "model.tflite").write_bytes(b"")
    with pytest.raises(UserError, match="so it has no records"):
        compare.rows([tmp_path / "model.tflite"])
    (exported / "other.tflite").write_bytes(b"")
    with pytest.raises(UserError, match=r"does not list 'other\.tflite'"):
        compare.rows([exported / "other.tflite"])
    (exported / "other.tflite").unlink()
    row = compare.Row("a", 0.9, "these", 1, 1, 1, 1)
    with pytest.raises(UserError, match=r"\.svg, \.png"):
        compare.draw([row], tmp_path / "frontier.xyz")

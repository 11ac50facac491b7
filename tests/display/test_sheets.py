"""Heat maps over images, the contact sheet, and the verb that writes it."""

import itertools
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_resnet
from keras_resnet.analysis import explain
from keras_resnet.cli import explain_sheet
from keras_resnet.cli.explain import METHODS as HELP_METHODS
from keras_resnet.cli.explain_sheet import MAXIMIZATION
from keras_resnet.cli.main import main
from keras_resnet.display import sheets
from keras_resnet.errors import UserError
from keras_resnet.images.labels import class_names


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3)).astype("uint8")).save(
            tmp_path / f"{name}.png"
        )
    return [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_colours_grow_lighter_from_black():
    ramp = sheets.colours(np.linspace(0, 1, 101))
    assert ramp.shape == (101, 3)
    assert ramp[0].max() <= 4
    assert ramp[-1].tolist() == [252, 255, 164]
    luminance = ramp @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()  # so that it reads in grey, too
    np.testing.assert_array_equal(sheets.colours(np.array([-1.0, 2.0])), ramp[[0, -1]])


def test_an_overlay_is_the_grey_image_where_it_is_cold():
    image = np.array([[[10, 20, 60], [90, 90, 90]]], dtype="uint8")
    laid = keras_resnet.overlay(image, np.array([[0.0, 1.0]]), strength=0.5)
    assert laid[0, 0].tolist() == [30, 30, 30]
    assert laid[0, 1].tolist() == [171, 172, 127]  # halfway from 90 to the hottest colour
    grey = keras_resnet.overlay(image[..., :1], np.zeros((1, 2)))
    assert grey.shape == (1, 2, 3)
    with pytest.raises(UserError, match=r"received \(1, 2, 3\) and \(2, 1\)"):
        keras_resnet.overlay(image, np.zeros((2, 1)))


def test_single_hot_pixels_do_not_hide_a_pixel_map():
    values = np.full((20, 20), 0.1)
    values[0, 0] = 1
    shown = sheets.pixel_map(values)
    np.testing.assert_array_equal(shown[5, 5], sheets.colours(np.array(1.0)))
    assert sheets.pixel_map(np.zeros((4, 4))).max() <= 4


def test_stretching_spreads_a_pale_image():
    pale = np.linspace(100, 130, 300).reshape(10, 10, 3)
    spread = sheets.stretched(pale)
    assert (spread.min(), spread.max()) == (0, 255)
    assert sheets.stretched(np.full((2, 2, 3), 7)).max() == 0


def test_a_sheet_has_its_pictures_where_they_belong():
    image, red = np.zeros((32, 32, 3), "uint8"), np.full((32, 32, 3), (255, 0, 0), "uint8")
    rows = [
        sheets.Row("black", image, {"red": red}, [("one", 0.9), ("x" * 99, 0.1)], "one"),
        sheets.Row("grey", np.full((64, 32, 1), 128, "uint8"), {}),
    ]
    sheet = np.asarray(keras_resnet.contact_sheet(rows, "heading"))
    side, gap, margin, line = sheets._SIDE, sheets._GAP, sheets._MARGIN, sheets._LINE
    top, left = margin + 3 * line, margin + side + gap  # below heading, title and names
    assert (sheet[top : top + side, margin : margin + side] == 0).all()
    assert (sheet[top : top + side, left : left + side] == (255, 0, 0)).all()
    second = sheet[top + side + 3 * line :, margin : margin + side][:side]
    assert (second[:, side // 4 + 1 : 3 * side // 4 - 1] == 128).all()  # upright, in the middle
    assert (second[:, : side // 4 - 1] == 255).all()
    answers = sheet[top : top + side, left + side + gap :]
    assert (answers == (61, 111, 180)).all(-1).sum() > 1000  # the long bar, in its colour
    assert (sheet[:, -margin + 4 :] == 255).all()  # no text runs off the sheet
    with pytest.raises(UserError, match="at least one row"):
        keras_resnet.contact_sheet([])


def test_a_sheet_shows_every_letter_and_no_formula():
    image = np.zeros((8, 8, 3), "uint8")

    def sheet(text):
        return np.asarray(sheets.contact_sheet([sheets.Row(text, image, {}, [(text, 0.5)])], text))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = [sheet(letter) for letter in "éßøåжЖЩΩ"]
        sheet("$\\frac{$ costs $5, \ue000 😀 caf\udce9 " * 9)
    for one, other in itertools.combinations(drawn, 2):  # boxes would be the same
        assert (one != other).any()


def test_a_title_has_the_true_class_if_it_is_known():
    assert sheets.title("church", 0.708, "tench") == "tench (true) → church 71 %"
    assert sheets.title("church", 0.708) == "church 71 %"


@pytest.mark.parametrize(
    ("path", "number", "title"),
    [
        ("photos/ship/a.png", 1, "ship (true) → cat 71 %  (a.png)"),
        ("photos/a.png", 1, "cat 71 %  (a.png)"),
        ("photos/a.png", 0, "cat 71 %, explained: dog  (a.png)"),
    ],
)
def test_a_row_is_titled_by_the_answer_and_the_folder(path, number, title):
    scores = np.array([0.2, 0.708, 0.092])
    case = explain_sheet._Case(path, np.zeros((8, 8, 3), "uint8"), scores, number)
    assert explain_sheet._row(case, ("dog", "cat", "ship"), {}).title == title


def test_the_folders_of_imagenet_are_ids():
    names = class_names("imagenet2012")
    assert explain_sheet._true(Path("val/n01440764/1.jpg"), names) == "tench"
    assert explain_sheet._true(Path("val/other/1.jpg"), names) is None


# keras-resnet explain -----------------------------------------------------------------------------


def test_the_methods_of_the_help_are_the_methods():
    known = (*explain.METHODS, MAXIMIZATION)
    assert tuple(HELP_METHODS.split(", ")) == known


def test_explain_writes_a_sheet_and_the_maps(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    model = ["explain", "resnet8", "--weights", "cifar10", *pictures, "--out", str(out)]
    assert main([*model, "--methods", "gradcam,saliency", "--classes", "cat,8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in result["rows"]] == [p for p in pictures for _ in range(2)]
    assert [row["explained"] for row in result["rows"]] == ["cat", "ship", "cat", "ship"]
    sheet = Image.open(result["sheet"])
    assert sheet.height == sheets._MARGIN * 2 + sheets._LINE + 4 * (sheets._SIDE + 3 * sheets._LINE)
    with np.load(result["maps"]) as maps:
        assert set(maps) == {"images", "classes", "gradcam", "saliency"}
        assert maps["gradcam"].shape == (4, 32, 32)
        network = keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)
        np.testing.assert_allclose(  # the sums of a batch of four and of two may differ in order
            keras_resnet.explain(network, maps["images"][:2], classes=[3, 8])["gradcam"],
            maps["gradcam"][:2],
            atol=1e-4,
        )
    assert main([*model, "--methods", "layercam"]) == 0
    shown = capsys.readouterr().out
    assert str(out / "sheet.png") in shown
    assert shown.count("%") == 2


def test_explain_goes_on_after_a_bad_image_as_predict_does(pictures, tmp_path, capfd):
    (tmp_path / "bad.jpg").write_text("no")
    given = [str(tmp_path / "bad.jpg"), pictures[0], "missing.png"]
    options = ["--weights", "cifar10", "--methods", "gradcam", "--out", str(tmp_path / "out")]
    assert main(["explain", "resnet8", *given, *options, "--json"]) == 2
    printed = capfd.readouterr()
    result = json.loads(printed.out)
    assert [row["image"] for row in result["rows"]] == [pictures[0], given[0], "missing.png"]
    assert ["error" in row for row in result["rows"]] == [False, True, True]
    assert printed.err.count("error: ") == 2
    assert "error: No such image: missing.png\n" in printed.err
    with np.load(result["maps"]) as maps:
        assert maps["gradcam"].shape == (1, 32, 32)


def test_matplotlib_is_asked_for_before_the_work(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["explain", "resnet8", pictures[0]]) == 2  # it has no weights, the next error
    assert 'pip install "keras-resnet-zoo[explain]"' in capsys.readouterr().err


UNUSED = ["resnet8", "a.png", "--weights", "cifar10", "--layer", "stem", "--methods"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet8", "a.png"], "'resnet8' alone is an untrained network"),
        (["resnet8", "nowhere.png"], "No such image: nowhere.png"),
        (["resnet8", "a.png", "--methods", "gradcm"], "Did you mean 'gradcam'"),
        (["resnet8", "a.png", "--methods", ","], "needs one or more"),
        (["resnet8", "a.png", "--methods", "all"], "Unknown method 'all'. Known: gradcam"),
        (["resnet8", "a.png", "--methods", "gradcam guided"], "by commas, e.g. gradcam,guided"),
        (["resnet8", "a.png", "--noise", "-1"], "a number from 0 to 1; received '-1'"),
        (["resnet8", "a.png", "--noise", "nan"], "a number from 0 to 1; received 'nan'"),
        (["resnet8", "a.png", "--out", "a.png"], "--out wants a folder; a.png is a file"),
        (["resnet8", "a.png", "--out", "a.png/maps"], "--out wants a folder; a.png is a file"),
        ([".", "a.png"], ". is not a run folder (it has no config.toml)"),
        ([".", "a.png"], "To see the runs in a folder: keras-resnet runs ."),
        (["resnet8", "a.png", "--weights", "cifar10", "--classes", "cta"], "Did you mean 'cat'"),
        (["resnet8", "a.png", "--weights", "cifar10", "--classes", "10"], "from 0 to 9"),
        (["resnet8", "a.png", "--weights", "cifar10", "--classes", ", "], "--classes needs one or"),
        (["resnet8", "a.png", "--weights", "cifar10", "--layer", "stem"], "Unknown layer 'stem'"),
        ([*UNUSED, "saliency"], "Unknown layer 'stem'"),
        ([*UNUSED, "maximization"], "Unknown layer 'stem'"),
        (["resnet8", ".", "--weights", "cifar10"], ". is a folder; give the images in it"),
    ],
)
def test_errors_are_one_line_and_2(arguments, message, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "explanations").exists()


def test_a_model_without_class_names_takes_numbers(pictures, tmp_path, capsys):
    model, out = tmp_path / "bare.keras", tmp_path / "out"
    keras_resnet.ResNet8(include_preprocessing=True).save(model)
    command = ["explain", str(model), pictures[0], "--methods", "saliency", "--out", str(out)]
    assert main([*command, "--classes", "cat"]) == 2
    said = capsys.readouterr().err
    assert "'bare' has no class names (no labels.txt beside it)" in said
    assert "--classes takes a number from 0 to 9; received 'cat'" in said
    assert main([*command, "--classes", "3"]) == 0
    assert "class 3" in capsys.readouterr().out

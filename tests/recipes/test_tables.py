"""Labels from a CSV file: what is read, and what is refused with a line of the file."""

import codecs
import os

import numpy as np
import pytest
from PIL import Image

from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.recipes import load_dataset
from keras_resnet.recipes.data.tables import read_table

NAMES = [f"{place:02}.png" for place in range(40)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Forty images, of which some are in a folder below."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    rng = np.random.default_rng(0)
    for name in (*NAMES, "more/a.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype("uint8")).save(folder / name)
    return folder


@pytest.fixture
def table(photos):
    """A function that writes a CSV file among the images."""
    path = photos / "labels.csv"

    def write(*lines, encoding="utf-8"):
        path.write_bytes("\n".join(lines).encode(encoding))
        return path

    yield write
    path.unlink(missing_ok=True)


def _rows(*labels):
    """A row for each image, with these labels in turn."""
    return [f"{name},{labels[place % len(labels)]}" for place, name in enumerate(NAMES)]


def _read(path):
    """Return {file: label} and the class names, over all splits."""
    found = read_table(path)
    parts = [part for part in found[:3] if part is not None]
    return {
        os.path.basename(name): label
        for part in parts
        for name, label in zip(part.paths, part.labels.tolist(), strict=True)
    }, found.class_names


# What is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("file,labels", ("cat;dog", "dog", "")),
        ("file,labels", ("cat|dog", "dog", "")),
        ("fname,tags", ("cat dog", "dog", "")),
        ("file,labels", ('"dog, cat"', "dog", "")),
        ("image,Labels", (" dog ;cat;", " dog", "")),
        ("file,cat,dog", ("1,1", "0,1", "0,0")),
        ("file,cat,dog", ("True,1.0", "False,true", "0.0,0")),
    ],
)
def test_several_labels_are_rows_of_0_and_1(table, capsys, header, cells):
    labels, names = _read(table(header, *_rows(*cells)))
    assert names == ("cat", "dog")
    assert [labels[name] for name in NAMES[:3]] == [[1, 1], [0, 1], [0, 0]]
    assert len(labels) == 40
    said = capsys.readouterr().err
    assert "40 images with any number of 2 labels" in said
    assert "1.0 an image, 13 without a label" in said  # (14 · 2 + 13) / 40


def test_a_separator_may_leave_spaces_in_names(table):
    assert _read(table("file,labels", *_rows("traffic  light|cat", "cat")))[1] == (
        "cat",
        "traffic light",
    )


@pytest.mark.parametrize(
    "encoded",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace(",", ";").replace("|", ",").encode(),  # a German spreadsheet
        lambda text: text.replace(",", "\t").encode(),
        lambda text: (text.replace("\n", ",,\n") + "\n,,,\n\n").encode(),  # empty cells
    ],
)
def test_files_of_spreadsheets_are_read(photos, table, encoded):
    plain = "\n".join(["file,labels", *_rows("Hündin|cat", "cat", "")])
    expected = _read(table(plain))
    (photos / "labels.csv").write_bytes(encoded(plain))
    assert _read(photos / "labels.csv") == expected
    assert expected[1] == ("Hündin", "cat")


def test_one_label_for_each_image_is_one_class(table, capsys):
    path = table("file,label", *_rows("golden retriever", "cat"))
    labels, names = _read(path)
    assert names == ("cat", "golden retriever")
    assert [labels[name] for name in NAMES] == [1, 0] * 20
    said = capsys.readouterr().err
    assert "one of 2 labels for each of 40 images (for any number of labels an image" in said


def test_labels_of_which_all_images_have_one_are_taken_as_their_column_says(table, capsys):
    labels, _ = _read(table("file,labels", *_rows("cat", "dog")))
    assert [labels[name] for name in NAMES] == [[1, 0], [0, 1]] * 20
    assert "one for every image: to choose one of them, call the column 'label'" in (
        capsys.readouterr().err
    )


def test_other_columns_are_ignored_and_named(table, capsys):
    rows = [f"{name},0,{'cat' if place % 2 else 'dog'}" for place, name in enumerate(NAMES)]
    read_table(table("file,valid,labels", *rows))
    assert "Ignoring the columns valid" in capsys.readouterr().err


def test_files_are_named_from_the_folder_on(photos, table):
    rows = [*_rows("cat", "dog"), "./more/../more/a.png,cat", f"{photos}/more/../00.png,dog"]
    labels, _ = _read(table("file,label", *rows[1:]))
    assert labels["a.png"] == 0
    assert labels["00.png"] == 1


# Splits -------------------------------------------------------------------------------------------


def _with_splits(column, *values):
    rows = _rows("cat|dog", "dog", "")
    return [
        f"file,labels,{column}",
        *(f"{row},{values[place % len(values)]}" for place, row in enumerate(rows)),
    ]


@pytest.mark.parametrize(
    ("column", "values", "sizes"),
    [
        ("split", ("train", "train", "val", "test"), (20, 10, 10)),
        ("Split", ("Train", "train", "valid", "validation"), (20, None, 20)),
        ("split", ("train", "train", "test", "test"), (20, None, 20)),
        ("is_valid", ("False", "True"), (20, None, 20)),  # fast.ai's pascal_2007
    ],
)
def test_a_column_gives_the_splits(table, column, values, sizes):
    found = read_table(table(*_with_splits(column, *values)))
    parts = (found.train, found.validation, found.test)
    assert tuple(None if part is None else len(part) for part in parts) == sizes
    assert found.train.labels.shape == (20, 2)


def test_a_fifth_is_drawn_by_content_and_a_share_held_out(photos, table):
    rows = _rows("cat|dog", "dog", "")
    size = {"image_size": 32, "validation_share": 0.25}
    data = load_dataset(str(table("file,labels", *rows)), **size)
    again = load_dataset(str(table("file,labels", *rows[::-1])), **size)
    for part in ("train", "validation", "test"):
        first, other = (set(getattr(x, part).identities) for x in (data, again))
        assert first == other
    assert data.multi_label
    assert data.train.labels.dtype == "uint8"
    none = load_dataset(str(table("file,labels", *rows)), image_size=32).validation
    assert none.labels.shape == (0, 2)
    train, held = len(data.train), len(data.validation)
    assert held == round(0.25 * (train + held))
    assert train + held + len(data.test) == 40


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["file,labels", "00.png,cat", "nix.png,dog", "nox.png,dog"],
            "(2 such rows). The first column must name the images from this folder on.",
        ),
        (["file,labels", "00.png,cat", "more,dog"], "line 3: there is no file 'more'"),
        (["file,labels", "00.png,cat", "./00.png,dog"], "line 3: './00.png' is also in line 2"),
        (["file,labels", "00.png,cat", "../00.png,dog"], "line 3: '../00.png' is not inside"),
        (["file,labels", "00.png,cat", "/etc/passwd,dog"], "'/etc/passwd' is not inside"),
        (["00.png,cat", "01.png,dog"], "has no header: its first line names the image '00.png'"),
        (["file", "00.png"], "has no labels, only file. Add a column 'labels'"),
        (["file,split", "00.png,train"], "has no labels, only file, split"),
        (["file,labels", "00.png,", "01.png,"], "no image has a label (column labels)"),
        (["file,cat,dog", "00.png,0,0"], "no image has a label (column cat, dog)"),
        (["file,labels", "00.png,cat", "01.png,"], "two or more labels; received one, 'cat'"),
        (["file,label", "00.png,cat", "01.png,cat"], "two or more labels; received one, 'cat'"),
        (["file,cat,dog", "00.png,1,0", "01.png,1,0"], "two or more labels; received one, 'cat'"),
        (["file,label", "00.png,cat", "01.png,"], "line 3: no label. The column 'label' has one"),
        (["file,label", "00.png,cat;dog", "01.png,dog"], "line 2: several labels, 'cat;dog'"),
        (["file,cat,dog", "00.png,1,2"], "line 2: column 'dog': expected 0 or 1; received '2'"),
        (["file,Tag,dog", "00.png,cat,0"], "'cat'. Without a column 'labels' or 'label', every"),
        (["file,labels", "00.png,cat,dog"], "line 2: 3 cells, but the header has 2 (file, labels)"),
        (["file,labels", "00.png,cat", "01.png"], "line 3: 1 cells, but the header has 2"),
        (["file,labels,labels", "00.png,cat,dog"], "has two columns 'labels'"),
        (["file,,labels", "00.png,cat,dog"], "has a column without a name"),
        (["file,labels"], "names no images. The first line is, for example: file,labels"),
        ([""], "names no images"),
        (
            ["file,labels,split", "00.png,cat;dog,tset"],
            "line 2: column 'split': Unknown split 'tset'. Did you mean 'test'?",
        ),
        (["file,labels,split", "00.png,cat;dog,"], "line 2: column 'split': Unknown split ''"),
        (
            ["file,labels,split", "00.png,cat,train", "01.png,dog,train"],
            "others, but all images are in train. Remove the column",
        ),
        (
            ["file,labels,split", "00.png,cat,val", "01.png,dog,test"],
            "must have training images and others, but all images are in val and test",
        ),
    ],
)
def test_wrong_files_are_refused(table, lines, message):
    path = table(*lines)
    with pytest.raises(UserError) as raised:
        read_table(path)
    said = str(raised.value)
    assert message in said
    assert str(path) in said


def test_the_command_prints_one_line_and_writes_nothing(table, tmp_path, capsys):
    path, out = table("file,labels", "00.png,cat", "nix.png,dog"), tmp_path / "run"
    assert main(["train", "debug/tiny", "--data", str(path), "--out", str(out)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {path}, line 3: there is no file 'nix.png' in {path.parent} (1 such rows). The "
        "first column must name the images from this folder on."
    ]
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,labels\n00.png,café".encode("latin-1"), "is not UTF-8 .* Save it as 'CSV UTF-8'"),
        ("file,labels\n00.png,cat".encode("utf-16"), "is not UTF-8"),
        (b'file,labels\n"00.png,' + b"x" * 200_000, "is not a CSV file: field larger than"),
    ],
)
def test_other_files_are_refused(photos, table, content, message):
    path = table("")
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_dataset(str(path))


def test_a_missing_file_and_a_folder_that_has_one(photos, table):
    with pytest.raises(UserError, match=r"Cannot read .*nix\.csv: No such file"):
        load_dataset(str(photos / "nix.csv"))
    (photos / "more" / "a.png").rename(photos / "a.png")
    (photos / "more").rmdir()
    path = table("file,label", "00.png,cat")
    try:
        with pytest.raises(UserError, match=f"have no labels.* give it: --data {path}"):
            load_dataset(str(photos))
    finally:
        (photos / "more").mkdir()
        (photos / "a.png").rename(photos / "more" / "a.png")


def test_a_label_without_training_images_is_said(table, capsys):
    lines = ["file,labels,split", "00.png,cat,train", "01.png,cat;dog,test"]
    read_table(table(*lines))
    assert "warning" in (said := capsys.readouterr().err)
    assert "no training image has the label dog" in said

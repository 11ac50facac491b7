"""Names and values that one does not hope for, given to the command."""

import json
import os
import subprocess
import sys

import pytest
from campaign import invariant, material

from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.images.labels import read_labels, require_class_names
from keras_resnet.images.listing import list_images

LATIN = os.fsdecode(b"caf\xe9\x1b[31m.png")  # from a zip file of another system


@pytest.fixture
def folder(tmp_path, monkeypatch):
    material.run_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_that_is_not_utf8_is_classified_and_shown(folder, capsys):
    material.picture(folder / LATIN, format="PNG")
    assert main(["predict", "run", LATIN]) == 0
    assert capsys.readouterr().out.startswith("caf\ufffd\\x1b[31m.png  ")
    assert main(["predict", "run", LATIN, "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.encode("utf-8")
    assert json.loads(printed)["predictions"][0]["image"] == LATIN
    for name in "a.csv", "a.jsonl":
        assert main(["predict", "run", LATIN, "--out", name]) == 0
        assert b"caf" in (folder / name).read_bytes()


def test_files_whose_names_are_not_utf8_are_trained_on(folder):
    classes = material.class_folders(folder / "photos", images=10)
    for path in list(classes.rglob("*.png")):
        path.rename(path.with_name(os.fsdecode(b"\xe9" + path.name.encode())))
    line = "train debug/tiny --data photos --epochs 1 --out new --set data.image_size=32"
    more = "--set train.batch_size=4 --set data.validation=2"
    assert invariant.call([*line.split(), *more.split()]) is None
    assert (folder / "new" / "model.keras").is_file()


@pytest.mark.parametrize("name", ["c\u2028t", "c\nt", "c\x1b[31mt", os.fsdecode(b"c\xe9t")])
def test_a_class_that_labels_txt_cannot_hold_is_refused_before_training(name, folder, capsys):
    material.class_folders(folder / "photos", (name, "dog"))
    assert main(["train", "debug/tiny", "--data", "photos", "--out", "new"]) == 2
    error = capsys.readouterr().err
    assert "error: A class name must be a single line in labels.txt" in error
    assert f"Rename the folder in {folder / 'photos'}." in error
    assert not (folder / "new").exists()


def test_a_labels_txt_that_is_not_utf8_is_named_with_its_line(folder, capsys):
    (folder / "run" / "labels.txt").write_bytes(b"a\nb\nh\xe9ron\n")
    material.picture(folder / "cat.png")
    assert main(["predict", "run", "cat.png"]) == 2
    assert "run/labels.txt is not in UTF-8 (invalid" in (error := capsys.readouterr().err)
    assert "in line 3). Save it as UTF-8" in error


def test_labels_are_read_back_as_they_were_written(tmp_path):
    for text, names in (
        ("a\nb\n", ("a", "b")),
        ("a\r\nb", ("a", "b")),
        ("\n\n", ("", "")),
        ("", ()),
    ):
        (tmp_path / "labels.txt").write_bytes(text.encode())
        assert read_labels(tmp_path) == names
    require_class_names(["Siamese cat, Siamese", "héron", "👩\u200d🔬", ""])
    with pytest.raises(UserError, match=r"received 'a\\nb'\. Rename the class\."):
        require_class_names(["x", "a\nb"])


def test_a_link_that_leads_to_itself_is_no_folder(tmp_path):
    picture = material.picture(tmp_path / "a.png")
    (tmp_path / "b").symlink_to(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "up").symlink_to(tmp_path)
    assert list_images(tmp_path).images == [str(picture)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["train", "--resume", ""], "--resume needs a value; received ''."),
        (["train", ""], "config needs a value; received ''."),
        (["train", "debug/tiny", "--data", " "], "--data needs a value; received ' '."),
        (["train", "debug/tiny", "--find-lr", ""], "--find-lr needs a value; received ''."),
        (["explain", "run", "x.png", "--out=--"], "--out needs a value; received '--'."),
        (["train", "debug/tiny", "--set=--"], "--set needs a value; received '--'."),
        (["predict", "run", "a\0b"], "images must not contain the character NUL; received 'a"),
        (["train", "debug/tiny", "--set", "data.name="], "data.name is empty. Give a dataset's"),
        (["train", "debug/tiny", "--out", "run/new"], "run/new is inside the run "),
        (["data-service", "--port", "99999999"], "--port must be from 1 to 65534; received"),
        (["compare", "run", "--picture", "x.gif"], "must be written as .svg, .png or .pdf"),
        (["predict", "~nosuchuser/x", "run"], "No such file or folder: ~nosuchuser/x"),
    ],
)
def test_odd_values_are_refused_in_words(line, said, folder, capsys):
    assert main(line) == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("line", [["evaluate", "run", "--data", "nothing"], ["tran"]])
def test_a_full_stderr_leaves_the_exit_code(line, folder):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "keras_resnet", *line]
        ended = subprocess.run(command, stderr=full, stdout=subprocess.DEVNULL, check=False)
    assert ended.returncode == 2


@pytest.mark.parametrize(
    "text",
    [
        b"model = 'resnet8'\nx = " + b"[" * 5000,
        b"x = " + b"9" * 5000,
        b"x = '\xff'",
        b"\0",
    ],
)
def test_a_file_that_is_no_config_is_refused(text, tmp_path, capsys):
    (tmp_path / "mine.toml").write_bytes(text)
    assert main(["train", str(tmp_path / "mine.toml")]) == 2
    assert "mine.toml is not valid TOML: " in capsys.readouterr().err

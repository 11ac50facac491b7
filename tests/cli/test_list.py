"""`keras-resnet list` and `list_models(table=True)`: networks are chosen by their numbers."""

import csv
import json
import subprocess
import sys

import pytest

import keras_resnet
from keras_resnet.analysis import networks
from keras_resnet.cli.main import main


def _listed(capsys, *arguments):
    assert main(["list", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["models"]


def test_the_limits_hold_and_the_order_is_the_one_asked_for(capsys):
    limits = ["--max-params", "12M", "--max-macs", "2.1G", "--weights", "imagenet"]
    rows = _listed(capsys, *limits, "--min-top1", "70", "--sort", "top1")
    assert [row["name"] for row in rows] == ["resnet18d", "resnet18"]
    assert rows[0]["top1"] > rows[1]["top1"] >= 70
    everything = _listed(capsys)
    assert [row["name"] for row in everything] == keras_resnet.list_models()
    for key, field in (("parameters", "trainable"), ("multiply-adds", "multiply_adds")):
        values = [row[field] for row in _listed(capsys, "--sort", key)]
        assert values == sorted(values)
    assert {row["family"] for row in _listed(capsys, "--family", "densenet")} == {"densenet"}


def test_the_best_weights_are_those_of_the_catalog(capsys):
    (row,) = _listed(capsys, "resnet50v1_5")
    rated = [
        (entry.published.top1, entry.tag)
        for entry in keras_resnet.registry.architecture("resnet50v1_5").weights()
        if entry.published
    ]
    assert len(rated) > 2
    assert (row["top1"], row["weights"]) == max(rated)


def test_the_table_names_the_machine_of_the_milliseconds(capsys):
    assert main(["list", "resnet8"]) == 0
    text = capsys.readouterr().out
    assert "int8 ms" in text
    assert "one thread, on AMD EPYC (Linux)" in text
    assert main(["list", "resnet50"]) == 0
    assert "int8 ms" not in capsys.readouterr().out  # nothing is recorded for it


def test_nothing_that_fits_is_an_error_with_the_limits(capsys):
    assert main(["list", "--max-params", "10", "--weights", "imagenet"]) == 2
    assert "matches '*' with --max-params 10.0 --weights imagenet" in capsys.readouterr().err
    for number in ("5X", "-1", "nan", "", "M"):
        assert main(["list", f"--max-params={number}"]) == 2
        assert "must be a number above 0" in capsys.readouterr().err


def test_csv_and_picture(tmp_path, capsys):
    table, picture = tmp_path / "all.csv", tmp_path / "all.svg"
    assert main(["list", "*resnet*", "--csv", str(table), "--picture", str(picture)]) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == keras_resnet.list_models("*resnet*")
    drawn = picture.read_text()
    assert "top-1 accuracy" in drawn
    assert "imagenet: published" in drawn
    assert "cifar10: measured" in drawn
    assert main(["list", "plain*", "--picture", str(picture)]) == 2
    assert "no accuracy to plot" in capsys.readouterr().err


def test_python_has_the_same_table():
    table = keras_resnet.list_models("resnet8", table=True)
    assert str(table).splitlines()[1].startswith("resnet8")
    assert "78,186" in table._repr_html_()
    assert keras_resnet.list_models("*", pretrained=True) == [
        row.name for row in keras_resnet.list_models(pretrained=True, table=True)
    ]


@pytest.mark.parametrize("name", ["ResNet-50", "resnet_50", "INCEPTIONV3", "resnet50.a1_in1k"])
def test_every_spelling_that_the_registry_takes_is_known(name):
    networks.require_known(name)


def test_a_misspelt_name_does_not_wait_for_tensorflow():
    """The import of TensorFlow alone takes seconds; without it, nothing here does."""
    program = (
        "import sys; from keras_resnet.cli.main import main; "
        "codes = [main(['list']), main(['show', 'resnt50'])]; "
        "print(codes, 'tensorflow' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[0, 2] False"
    assert "Did you mean 'resnet50'?" in done.stderr

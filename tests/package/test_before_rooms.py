"""Files that were written before the modules moved into rooms load, and answer as they did.

tests/golden/before_rooms/README.md says what they are and has the program that wrote them.
"""

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from helpers import GOLDEN, run_python

import keras_resnet
import keras_resnet.export
from keras_resnet.export import check, manifest
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.recipes import compare, evaluate, load_config, report, sources, train

FOLDER = GOLDEN / "before_rooms"
with np.load(FOLDER / "answers.npz") as arrays:
    ANSWERS = dict(arrays)
IMAGES = ANSWERS.pop("images")
FILES = [name for name in ANSWERS if not name.endswith(", resumed")]
# Of the largest answer. Other CPUs sum in another order: with oneDNN off, or held to AVX2, the
# difference was 4e-7. The int8 file answers in steps of 1/256, and a rounding may take the other.
FLOAT, INT8 = 1e-5, 6e-3


def _assert_answers(outputs, name, tolerance):
    expected = ANSWERS[name]
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", FILES)
def test_a_file_answers_as_it_did(name):
    outputs = open_file(FOLDER / name).predict(IMAGES)
    _assert_answers(outputs, name, INT8 if "int8" in name else FLOAT)


LAYERS_SCRIPT = """
import sys
import keras
import keras_resnet
ours = (keras_resnet.BatchNormalization, keras_resnet.Conv2D,
        keras_resnet.LocalResponseNormalization)
for path in sys.argv[1:]:
    layers = keras.models.load_model(path).layers
    print(*sorted({type(layer).__name__ for layer in layers if isinstance(layer, ours)}))
"""


def test_keras_loads_our_layers_after_a_plain_import():
    """In a process of its own: here others have imported all there is."""
    paths = (FOLDER / "test_resnetv2.keras", FOLDER / "test_alexnet.keras")
    assert run_python(LAYERS_SCRIPT, *paths).stdout.splitlines() == [
        "BatchNormalization Conv2D",
        "Conv2D LocalResponseNormalization",
    ]


def test_weights_fill_the_network_that_they_say_they_are_of():
    path = FOLDER / "test_resnet.weights.h5"
    model = keras_resnet.create_model("test_resnet", weights=path, include_preprocessing=True)
    _assert_answers(KerasRuntime(model).predict(IMAGES), "run/model.keras", FLOAT)
    with pytest.raises(keras_resnet.UserError, match="are for 'test_resnet', not for"):
        keras_resnet.create_model("test_resnetv2", weights=path)


@pytest.mark.parametrize("name", ["run", "qat_run"])
def test_a_run_is_evaluated_and_reported(name, digits, tmp_path):
    source = sources.find(str(FOLDER / name))
    recorded = source.run.summary()["test"]
    measured = evaluate.measure(source.runtime(), digits.test)
    # An image of the 360 may lie between two classes; the loss has the rounding of the answers.
    assert measured["accuracy"] == pytest.approx(recorded["accuracy"], abs=1 / 360)
    assert measured["loss"] == pytest.approx(recorded["loss"], rel=1e-4)
    assert measured["protocol"] == recorded["protocol"]
    # In the files 0, and -1 for none: epochs were counted from 0.
    assert source.run.summary()["best_epoch"] == {"run": 1, "qat_run": None}[name]
    assert [row["epoch"] for row in source.run.rows()] == ["1"]
    page = report.write(source.run, tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"{measured['accuracy']:.2%}" in page


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        # Eight steps were left, in which another CPU's rounding grows: 2e-7 with oneDNN off.
        ("interrupted_run", 1e-3),
        # Here it takes a kernel's rounding to 8 bits over a step now and then: 0.02 of 0.9.
        pytest.param("interrupted_qat_run", 0.1, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_goes_on_to_where_it_would_have_come(name, tolerance, tmp_path, capfd):
    shutil.copytree(FOLDER / name, tmp_path / name)
    run = train.resume(tmp_path / name)
    assert "cannot read the checkpoint" not in capfd.readouterr().err
    assert [(row["epoch"], float(row["step"])) for row in run.rows()] == [("1", 13), ("2", 26)]
    assert run.log.read_text().startswith("epoch,accuracy,")
    assert "\n1," in run.log.read_text()  # rewritten, not only read so
    summary = run.summary()
    assert summary["best_epoch"] in (1, 2)
    assert summary["training_seconds"] == float(run.rows()[-1]["training_seconds"])
    outputs = open_file(run.model).predict(IMAGES)
    _assert_answers(outputs, f"{name}, resumed", tolerance)


def test_the_config_of_a_run_is_one_of_today():
    config = load_config(FOLDER / "interrupted_qat_run" / "config.toml")
    assert (config.model, config.compress.technique) == ("test_resnet", "qat")
    assert config.train.checkpoint_minutes == 0.0


def test_an_export_folder_passes_its_check():
    checks = check.check_folder(FOLDER / "exports")
    assert [item.format for item in checks] == ["savedmodel", "tflite-float32", "tflite-int8"]
    assert [item.problems for item in checks] == [(), (), ()]


def test_a_manifest_is_one_of_the_schema():
    path = Path(keras_resnet.export.__file__).with_name("manifest.schema.json")
    jsonschema.validate(manifest.read(FOLDER / "exports"), json.loads(path.read_text("utf-8")))


def test_a_run_and_an_export_stand_side_by_side():
    rows = compare.rows([FOLDER / "run", FOLDER / "exports"])
    names = ["saved_model", "test_resnet-float32.tflite", "test_resnet-int8.tflite"]
    assert [Path(row.name).name for row in rows[1:]] == names
    recorded = sources.find(str(FOLDER / "run")).run.summary()
    assert rows[0].accuracy == recorded["test"]["accuracy"]
    assert {row.parameters for row in rows} == {recorded["parameters"]}

"""Every function that takes a path of a person takes ~/x; names of models become names of files."""

import keras
import numpy as np
import pytest
from helpers import foreign_files
from helpers.models import small_model
from PIL import Image
from safetensors.numpy import save_file

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.display import sheets
from keras_resnet.errors import UserError
from keras_resnet.export import check, export
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.files import plain_name
from keras_resnet.importing.files import import_file
from keras_resnet.recipes import load_config, load_dataset
from keras_resnet.recipes.runs import compare, ensemble, folder, sources

RESNET = "ResNet, ResNeXt, Wide ResNet or SE-ResNet"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder that is not the working directory, where nothing may be written."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert list((tmp_path / "here").iterdir()) == []


@pytest.fixture
def photos(home):
    """Two classes of images."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 9, 8, 3)).astype("uint8")
    for index, image in enumerate(pixels):
        path = home / "photos" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return home / "photos"


def test_images_and_data(home, photos):
    model = small_model()
    assert keras_resnet.load_images(["~/photos/a/0.png"], model).shape == (1, 8, 8, 3)
    dataset = load_dataset("~/photos")
    assert dataset.class_names == ("a", "b")
    assert dataset.name == str(photos)
    sheets.save(Image.new("RGB", (2, 2)), "~/sheet.png")
    keras_resnet.profile(keras_resnet.ResNet8()).to_csv("~/profile.csv")
    assert {"sheet.png", "profile.csv"} < {path.name for path in home.iterdir()}


def test_weights_and_models(home):
    model = keras_resnet.create_model("test_resnet", classifier_activation=None)
    entries = foreign_files.like_peer(model, "resnet18", RESNET)
    save_file(entries, home / "net.safetensors")
    report = import_file("~/net.safetensors", "test_resnet", "~/net.weights.h5", parity=False)
    assert report.path == home / "net.weights.h5"
    keras_resnet.create_model("test_resnet", weights="~/net.weights.h5")
    model.save(home / "net.keras")
    assert sources.find("~/net.keras").keras_model().name == "test_resnet"
    with pytest.raises(UserError, match=r"No such file or folder: .*home/none\.keras"):
        sources.find("~/none.keras")
    command = ["weights", "import", "~/net.safetensors", "--as=test_resnet", "--out=~/b.weights.h5"]
    assert main(command) == 0
    assert (home / "b.weights.h5").is_file()


def test_exports(home, photos):
    out = "~/exports"
    report = export(small_model(), ["tflite-int8"], out=out, calibration="~/photos", verbose=False)
    assert report.folder == home / "exports"
    [file] = report.folder.glob("*.tflite")
    assert check.check_folder(out)[0].passed
    assert open_file(f"~/exports/{file.name}").classes == 4
    (home / "exports" / "labels.txt").write_text("a\nb\nc\nd\n")
    assert keras_resnet.decode_predictions(np.eye(4), out)[0][0].name == "a"
    assert [row.name for row in compare.rows([out])] == [str(file)]


def test_runs_and_configs(home, tiny_run, tmp_path):
    config = load_config("debug/tiny")
    made = folder.create_run(folder.new_folder("~/runs/mine", "name"), config)
    assert made.path == home / "runs" / "mine"
    assert folder.is_run("~/runs/mine")
    assert folder.find_run("~/runs/mine").config == config
    assert [row["run"] for row in folder.list_runs("~/runs")] == [str(made.path)]
    (home / "mine.toml").write_text((made.path / "config.toml").read_text())
    assert load_config("~/mine.toml") == config
    ensemble.write([str(tiny_run.path)] * 2, "~/both.keras")
    assert (home / "both.keras").is_file()


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("resnet8.v2_a-b", "resnet8.v2_a-b"),
        ("my model", "my-model"),
        ("résumé (final)", "resume-final"),
        ("timm/resnet18", "timm-resnet18"),
        ("../../etc", "etc"),
        ("_private", "private"),
        ("模型", "model"),
    ],
)
def test_names_of_files(name, plain):
    assert plain_name(name) == plain


@pytest.mark.parametrize("kind", ["savedmodel", "tflite-float32", "onnx", "openvino"])
def test_a_model_of_any_name_is_exported(kind, tmp_path):
    model = small_model()
    model.name = "résumé (final)"
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("uint8")
    for name, shown in ((None, model.name), ("a/b", "a/b")):
        out = tmp_path / f"out{shown[0]}"
        try:
            report = export(model, [kind], out=out, check_images=images, name=name, verbose=False)
        except UserError as error:
            pytest.skip(f"needs {kind}'s packages: {error}")
        assert report.passed
        assert report.manifest["model"] == shown  # for people
        [entry] = report.manifest["files"]
        assert (out / entry["file"]).exists()
    assert model.name == "résumé (final)"  # a copy has the plain name
    assert isinstance(model, keras.Model)

"""`keras-resnet weights ...`, and the other verbs with weights by tag."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.weights_server import serving
from PIL import Image

import keras_resnet
from keras_resnet import registry
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.images.labels import class_names
from keras_resnet.recipes import load_dataset
from keras_resnet.recipes.data import datasets
from keras_resnet.weights import catalog
from keras_resnet.weights.cache import cached_path
from keras_resnet.weights.fitting import Note

PUBLISHED = "resnet50", "imagenet/keras"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no server but what a test starts."""
    monkeypatch.setenv("KERAS_RESNET_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_RESNET_OFFLINE", "1")
    return tmp_path / "cache"


def output(capsys, *arguments, code=0):
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_list_has_every_entry_and_says_what_is_published(cache, capsys):
    listed = output(capsys, "weights", "list")["weights"]
    assert [(row["model"], row["tag"]) for row in listed] == [
        (entry.model, entry.tag) for entry in catalog.entries()
    ]
    assert {row["model"] for row in listed if row["here"]} == {
        entry.model for entry in catalog.entries() if not entry.url
    }
    assert main(["weights", "list", "resnet50*"]) == 0
    shown = capsys.readouterr().out
    assert "as published for all others" in shown
    assert "resnet50v1_5" in shown
    assert "vgg16" not in shown
    assert main(["weights", "list", "resnet5O"]) == 2
    assert "No network with weights matches" in capsys.readouterr().err


def test_info_has_licence_protocol_and_where_it_would_be(cache, capsys):
    assert main(["weights", "info", "resnet50v1_5", "--weights", "imagenet/torchvision_v2"]) == 0
    shown = capsys.readouterr().out
    for part in ("BSD-3-Clause", "shorter side 232, central crop of 224", "v1.5", str(cache)):
        assert part in shown
    assert main(["weights", "info", "resnet50", "--weights", "imagenet/torchvision_v2"]) == 2
    assert "use resnet50v1_5" in capsys.readouterr().err


def test_fetch_offline_says_what_to_put_where(cache, capsys):
    assert main(["weights", "fetch", "resnet50"]) == 2
    said = capsys.readouterr().err
    entry = catalog.find(*PUBLISHED)
    assert entry.url in said
    assert str(cached_path(entry)) in said


def test_fetch_and_verify(cache, capsys, tmp_path, monkeypatch):
    """Of a mirror with the true addresses; the bytes are not the published ones, nor the hash."""
    entry = catalog.find(*PUBLISHED)
    content = np.random.default_rng(0).bytes(100_000)
    mirrored = tmp_path / "mirror" / entry.url.partition("://")[2]
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(content)
    entry = replace(entry, hash="sha256:" + hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(catalog, "entries", lambda: (entry,))
    monkeypatch.delenv("KERAS_RESNET_OFFLINE")
    with serving(tmp_path / "mirror") as server:
        monkeypatch.setenv("KERAS_RESNET_MIRROR", server.url)
        assert main(["weights", "fetch", "resnet50"]) == 0
        path = cached_path(entry)
        assert capsys.readouterr().out.strip() == str(path)
        assert path.read_bytes() == content
        assert main(["weights", "fetch", "resnet50"]) == 0
        assert len(server.requests) == 1  # the second time from the cache
    capsys.readouterr()
    assert output(capsys, "weights", "verify")["verified"] == [
        {"weights": str(entry), "problem": None}
    ]
    path.write_bytes(content[:-1])
    [row] = output(capsys, "weights", "verify", code=1)["verified"]
    assert "wrong hash" in row["problem"]
    assert "keras-resnet weights fetch resnet50 --weights imagenet/keras" in row["problem"]


def test_show_has_the_tags(capsys):
    assert output(capsys, "show", "resnet20")["weights"] == ["cifar10"]


def test_looking_needs_no_tensorflow():
    """Which takes seconds to import."""
    for arguments in (["list"], ["info", "resnet50"], ["verify"]):
        result = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "keras_resnet", "weights", *arguments],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0
        assert "tensorflow" not in result.stderr


def test_a_mistyped_name(capsys):
    assert main(["weights", "info", "resnet5O"]) == 2
    assert "Did you mean 'resnet50'" in capsys.readouterr().err


def test_a_mistyped_action(capsys):
    assert main(["weights", "lst"]) == 2
    assert "lst" in capsys.readouterr().err


# Other verbs --------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        pixels = rng.integers(0, 256, (40, 50, 3)).astype("uint8")
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_predict_by_tag_names_the_classes(cache, pictures, capsys):
    result = output(capsys, "predict", "resnet20", "--weights", "cifar10", str(pictures / "0.png"))
    labels = {row["label"] for row in result["predictions"][0]["top"]}
    assert labels < set(class_names("cifar10"))


def test_predict_of_a_name_alone_lists_its_weights(pictures, capsys):
    assert main(["predict", "resnet20", str(pictures / "0.png")]) == 2
    said = capsys.readouterr().err
    assert "untrained" in said
    assert "one of: cifar10" in said


def test_export_by_tag_calibrated_on_a_folder(cache, pictures, capsys, tmp_path, monkeypatch):
    """Where the data of the weights are not."""

    def absent(name, *_, **__):
        raise UserError(f"{name} is not here.")

    monkeypatch.setattr(datasets, "load_dataset", absent)
    arguments = ("export", "resnet20", "--weights", "cifar10", "--formats", "tflite-int8")
    assert main([*arguments, "--out", str(tmp_path / "none")]) == 2
    assert "cifar10 is not here. Or give --calibration" in capsys.readouterr().err
    manifest = output(
        capsys, *arguments, "--calibration", str(pictures), "--out", str(tmp_path / "out")
    )
    assert manifest["calibration_images"] == 4
    assert manifest["check"]["images"] == "the calibration images"
    assert manifest["labels"][3] == "cat"
    assert (tmp_path / "out" / "resnet20-int8.tflite").is_file()


@pytest.mark.slow
def test_export_and_evaluate_by_tag_on_the_data_of_the_weights(cache, capsys, tmp_path):
    try:
        load_dataset("cifar10")
    except UserError as error:
        pytest.skip(f"needs cifar10: {error}")
    arguments = ("export", "resnet20", "--weights", "cifar10", "--formats", "tflite-int8")
    manifest = output(capsys, *arguments, "--check-images", "100", "--out", str(tmp_path / "out"))
    assert manifest["check"]["images"] == "from the 10,000 test images of cifar10"
    assert manifest["check"]["keras_accuracy"] > 0.8  # of 100 images, by a network of above 91 %


def test_an_imported_file_names_the_classes_and_the_data(cache, pictures, capsys, tmp_path):
    path = tmp_path / "mine.weights.h5"
    keras_resnet.ResNet8().save_weights(path)
    Note("resnet8", "raw", "cifar10").write(path)
    picture = str(pictures / "0.png")
    result = output(capsys, "predict", "resnet8", "--weights", str(path), picture)
    assert result["predictions"][0]["top"][0]["label"] in class_names("cifar10")
    assert main(["predict", str(path), picture]) == 2
    assert f"Give: resnet8 --weights {path}" in capsys.readouterr().err


@pytest.mark.slow
def test_what_needs_no_model_is_refused_before_one_is_built(pictures, capsys, monkeypatch):
    monkeypatch.setattr(registry, "create_model", lambda *_, **__: pytest.fail("was built"))
    export = ["export", "resnet20", "--weights", "cifar10", "--calibration"]
    for arguments, message in (
        ([*export, str(pictures), "--formats", "int8"], "Did you mean 'tflite-int8'"),
        ([*export, str(pictures / "none")], "No such folder"),
        ([*export, str(pictures), "--out", str(pictures)], "exists"),
        (["predict", "resnet20", "--weights", "cifar10", "catt.jpg"], "No such image: catt.jpg"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err

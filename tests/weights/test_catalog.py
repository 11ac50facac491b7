"""The catalog of published weights: its rows against Keras, the networks and the class names."""

import inspect
import re
import tomllib
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from golden import complexity
from keras.src.applications import resnet

import keras_resnet
from keras_resnet import registry
from keras_resnet.images.labels import class_names
from keras_resnet.images.preprocessing import PREPROCESSING

PATH = Path(keras_resnet.__file__).parent / "weights" / "catalog.toml"
ROWS = [
    row
    for row in tomllib.loads(PATH.read_text())["weights"]
    if row["source"] != "keras_resnet"  # our own have no address
]
TYPES = {
    **dict.fromkeys(("model", "tag", "source", "peer", "url", "hash", "license"), str),
    **dict.fromkeys(("variant", "preprocessing", "data"), str),
    "default": bool,
    "megabytes": float,
    "evaluation": dict,
}
COUNTED = complexity.load()
LICENSES = {"MIT", "CC-BY-4.0", "BSD-3-Clause", "Apache-2.0"}
by_source = {
    source: [row for row in ROWS if row["source"] == source]
    for source in ("Keras Applications", "torchvision", "timm")
}


def name(row):
    return f"{row['model']}-{row['tag']}"


def test_all_sources_are_there():
    assert all(by_source.values())
    assert sum(map(len, by_source.values())) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_a_row_is_well_formed(row):
    published = row.get("published")
    assert {key: type(value) for key, value in row.items() if key != "published"} == TYPES
    assert row["model"] in registry.list_models()
    assert re.fullmatch(r"imagenet/(keras|torchvision_v\d|timm_\w+)", row["tag"])
    assert row["url"].startswith("https://")
    assert row["license"] in LICENSES
    assert row["preprocessing"] in PREPROCESSING
    assert set(row["evaluation"]) == {"size", "resize", "interpolation"}
    assert row["evaluation"]["interpolation"] in ("bilinear", "bicubic")
    # A crop of less than 0.87 of the shorter side, or a larger one than the image, is a mistake.
    assert 0.87 <= row["evaluation"]["size"] / row["evaluation"]["resize"] <= 1
    if published is not None:
        assert set(published) == {"top1", "top5", "source"}
        assert 50 < published["top1"] < published["top5"] < 100


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_the_networks_own_facts_fit(row):
    network = keras_resnet.SPECS[row["model"]]
    assert len(class_names(row["data"])) == network.classes
    assert row["evaluation"]["size"] >= network.input_size
    if row["default"]:
        assert row["preprocessing"] == network.preprocessing


def test_a_tag_is_there_once_and_a_model_has_one_default():
    assert max(Counter(map(name, ROWS)).values()) == 1
    assert max(Counter(row["url"] for row in ROWS).values()) == 1
    defaults = Counter(row["model"] for row in ROWS if row["default"])
    assert defaults == dict.fromkeys({row["model"] for row in ROWS}, 1)


@pytest.mark.parametrize("row", by_source["torchvision"] + by_source["timm"], ids=name)
def test_torch_files_carry_their_hash(row):
    prefix = row["hash"].removeprefix("sha256:")
    assert re.fullmatch(r"[0-9a-f]{8,64}", prefix)
    assert row["url"].endswith(f"-{prefix}.pth")


@pytest.mark.parametrize("row", by_source["Keras Applications"], ids=name)
def test_keras_hashes_are_those_of_the_installed_keras(row):
    model, file = row["model"], row["url"].rpartition("/")[2]
    assert file == f"{model}_weights_tf_dim_ordering_tf_kernels.h5"
    if model in resnet.WEIGHTS_HASHES:
        md5, url = resnet.WEIGHTS_HASHES[model][0], resnet.BASE_WEIGHTS_PATH + file
    else:
        module = model if "densenet" not in model else "densenet"
        source = inspect.getsource(import_module(f"keras.src.applications.{module}"))
        # The first hash behind the file's name; the one without the top has a name of its own.
        md5 = source.split(f'"{file}"')[-1].partition('file_hash="')[2][:32]
        url = row["url"]
        assert url.startswith("https://storage.googleapis.com/tensorflow/keras-applications/")
    assert (row["hash"], row["url"]) == (f"md5:{md5}", url)


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_sizes_are_those_of_the_networks(row):
    ratio = row["megabytes"] * 2**20 / COUNTED[row["model"]]["parameters"]
    if row["model"] == "googlenet_bn":  # the file holds the auxiliary classifiers, 6.4 M parameters
        assert ratio == pytest.approx(7.85, abs=0.05)
    elif row["model"] == "inception_v3_torch":  # also, 3.3 M
        assert ratio == pytest.approx(4.56, abs=0.05)
    elif row["model"].startswith("wide_resnet") and row["tag"] == "imagenet/torchvision_v1":
        assert ratio == pytest.approx(2, rel=0.01)  # float16
    else:  # float32; the h5 format costs up to 7 % where layers are many and narrow (DenseNet)
        assert 3.97 < ratio < 4.3

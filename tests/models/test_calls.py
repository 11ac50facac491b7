"""Calls do what the caller means: names, weights that are there, dtypes, a word on random ones."""

import warnings

import keras
import numpy as np
import pytest
from helpers import run_python

import keras_resnet
from keras_resnet import UntrainedWarning, registry
from keras_resnet.cli.main import main
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.models import build
from keras_resnet.weights import catalog

# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("ResNet50", "resnet50"),
        ("resnet-50", "resnet50"),
        ("ResNet50V2", "resnet50v2"),
        ("InceptionV3", "inception_v3"),
        ("InceptionResNetV2", "inception_resnet_v2"),
        ("DenseNet121", "densenet121"),
        ("VGG16", "vgg16"),
        ("ResNet50V1_5", "resnet50v1_5"),
        ("ResNet50-v1.5", "resnet50v1_5"),
        ("ResNeXt50_32x4d", "resnext50_32x4d"),
        ("ResNet50_C", "resnet50_c"),  # option C shortcuts
        ("ResNet50C", "resnet50c"),  # the deep stem
    ],
)
def test_names_are_found_however_they_are_written(written, name):
    assert registry.find(written).name == name


def test_every_function_and_every_name_finds_its_network():
    for name in keras_resnet.list_models():
        row = registry.architecture(name)
        assert registry.find(name) is registry.find(name.upper()) is row
        assert row.function is None or registry.find(row.function) is row


def test_a_name_of_two_networks_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50c'"):
        registry.find("resnet-50-c")


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "timm/resnet50.a1_in1k"])
def test_timms_names_of_weights_have_a_call(name):
    with pytest.raises(UserError, match=r'"resnet50v1_5", weights="imagenet/timm_a1"'):
        keras_resnet.create_model(name)


def test_the_command_finds_them_too(capsys):
    assert main(["show", "ResNet8"]) == 0
    assert "weights        cifar10" in capsys.readouterr().out


# Weights -----------------------------------------------------------------------------------------


def test_list_weights_has_what_the_catalog_has():
    found = keras_resnet.list_weights()
    assert sum(map(len, found.values())) == len(catalog.entries())
    assert list(found) == keras_resnet.list_models(pretrained=True)
    assert found["resnet20"] == ["cifar10"]
    assert keras_resnet.list_weights("ResNet50") == {"resnet50": ["imagenet/keras"]}
    for name, tags in found.items():
        assert catalog.find(name, tags[0].partition("/")[0]).tag == tags[0]


def test_list_models_can_leave_out_what_has_no_weights():
    names = keras_resnet.list_models("ResNet20*", pretrained=True)
    assert names == ["resnet20", "resnet200d"]
    assert "resnet20_b" in keras_resnet.list_models("resnet20*")


@pytest.fixture
def fresh(monkeypatch):
    """As in a process in which nothing was said."""
    monkeypatch.setattr(build, "_SAID", [])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UntrainedWarning)
        yield


@pytest.mark.usefixtures("fresh")
def test_random_weights_are_said_once_and_what_there_is():
    with pytest.warns(UntrainedWarning, match=r'use weights="cifar10"\.') as said:
        keras_resnet.ResNet8()
    assert [entry.filename for entry in said] == [__file__]
    keras_resnet.ResNet20()  # once


@pytest.mark.usefixtures("fresh")
def test_create_model_says_it_at_its_caller():
    with pytest.warns(UntrainedWarning, match='"imagenet/timm_a1".*has all 16') as said:
        keras_resnet.create_model("resnet50v1_5", include_top=False, input_shape=(32, 32, 3))
    assert [entry.filename for entry in said] == [__file__]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    "call",
    [
        lambda: keras_resnet.ResNet8(weights=None),
        lambda: keras_resnet.ResNet8(True, None),
        lambda: keras_resnet.create_model("resnet8", weights=None),
        lambda: keras_resnet.create_model("resnet8", weights="cifar10"),
        lambda: keras_resnet.create_model("test_resnet"),  # of which there are none
        lambda: keras_resnet.profile("resnet8"),
        lambda: registry.describe("resnet8"),
        lambda: keras_resnet.build(keras_resnet.SPECS["resnet8"]),
    ],
)
def test_nothing_is_said_where_it_is_meant(call):
    call()


@pytest.mark.usefixtures("fresh")
def test_a_recipe_says_nothing(tmp_path):
    words = "train debug/tiny --set model=resnet8 --set train.epochs=1 --out"
    assert main([*words.split(), str(tmp_path / "run")]) == 0


def test_in_a_shell_it_is_one_line():
    code = "import keras_resnet\nkeras_resnet.ResNet8()\nkeras_resnet.ResNet20()"
    lines = run_python(code).stderr.splitlines()
    (said,) = [line for line in lines if "UntrainedWarning" in line]
    assert said.startswith("<string>:2: UntrainedWarning: 'resnet8' was built with random")


# Dtypes ------------------------------------------------------------------------------------------


def test_a_dtype_policy_is_this_networks_only(images, tmp_path):
    model = keras_resnet.ResNet8(weights="cifar10", dtype="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert model.get_layer("stem_conv").kernel.dtype == "float32"
    assert model.get_layer("head").compute_dtype == "float32"
    plain = keras_resnet.ResNet8(weights="cifar10")
    assert plain.get_layer("stem_conv").compute_dtype == "float32"
    x = images[:8].astype("float32")
    # Eight bits of mantissa in a dozen layers, in probabilities.
    np.testing.assert_allclose(model(x), plain(x), atol=0.1)
    assert not np.array_equal(model(x), plain(x))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.get_layer("stem_conv").compute_dtype == "bfloat16"


def test_a_policy_of_the_process_can_be_overruled():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras_resnet.ResNet8(weights=None, dtype=keras.DTypePolicy("float32"))
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("stem_conv").compute_dtype == "float32"


@pytest.mark.parametrize("dtype", ["bf16", "16"])
def test_another_dtype_is_refused_and_leaves_no_trace(dtype):
    with pytest.raises(UserError, match="dtype must be a Keras dtype policy, such as 'mixed_bf"):
        keras_resnet.ResNet8(weights=None, dtype=dtype)
    assert keras.config.dtype_policy().name == "float32"

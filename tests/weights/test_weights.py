"""`weights=`: files and tags into networks that are not quite those they were trained in."""

from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.images.preprocessing import PREPROCESSING, has_preprocessing
from keras_resnet.recipes import load_dataset
from keras_resnet.recipes.evaluate import measure_model
from keras_resnet.weights import catalog, download, loading
from keras_resnet.weights.fitting import Note

OURS = [entry for entry in catalog.entries() if not entry.url]


def first(model):
    return next(x for x in model.layers if isinstance(x, keras.layers.Conv2D))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, resnet20):
    path = tmp_path_factory.mktemp("weights") / "resnet20.weights.h5"
    resnet20.save_weights(path)
    return path


# Other heads, other images -----------------------------------------------------------------------


def test_the_same_network_is_the_same(saved, resnet20, images, capsys):
    loaded = keras_resnet.ResNet20(weights=saved, include_preprocessing=True)
    np.testing.assert_array_equal(loaded(images), resnet20(images))
    assert capsys.readouterr().err == ""


def test_other_classes_keep_all_but_the_head_and_say_so(saved, resnet20, capsys):
    loaded = keras_resnet.ResNet20(weights=str(saved), classes=3)
    for layer in resnet20.layers:
        if layer.weights and layer.name != "head":
            for a, b in zip(layer.weights, loaded.get_layer(layer.name).weights, strict=True):
                np.testing.assert_array_equal(a, b)
    said = capsys.readouterr().err
    assert "'head' is new and untrained" in said
    assert "have 10 classes and this model has 3" in said


def test_without_the_top_and_as_a_pyramid(saved, resnet20, images):
    x = keras_resnet.preprocess(images, "resnet20")
    expected = keras.Model(resnet20.input, resnet20.get_layer("head_pool").output)(images)
    body = keras_resnet.ResNet20(weights=saved, include_top=False, pooling="avg")
    # Float32 means, summed in another order.
    np.testing.assert_allclose(body(x), expected, rtol=1e-5)
    pyramid = keras_resnet.ResNet20(weights=saved, features=True)(x)
    np.testing.assert_allclose(np.mean(pyramid["stage3"], (1, 2)), expected, rtol=1e-5)


def test_a_grey_image_answers_as_its_three_equal_channels(saved, images, capsys):
    """The kernels are summed, so nothing is lost; float32 sums in another order."""
    rgb = keras_resnet.ResNet20(weights=saved, classifier_activation=None)
    grey = keras_resnet.ResNet20(weights=saved, classifier_activation=None, input_shape=(32, 32, 1))
    pixels = images[..., :1] / np.float32(255)
    expected = rgb(np.repeat(pixels, 3, axis=-1)).numpy()
    np.testing.assert_allclose(grey(pixels), expected, atol=1e-5 * np.abs(expected).max())
    assert "'stem_conv' was adapted from RGB to 1 channel(s)" in capsys.readouterr().err


def test_more_channels_repeat_the_three_scaled(saved, resnet20):
    model = keras_resnet.ResNet20(weights=saved, input_shape=(32, 32, 5))
    rgb, five = first(resnet20).kernel.numpy(), first(model).kernel.numpy()
    np.testing.assert_allclose(five, rgb[:, :, [0, 1, 2, 0, 1]] * 3 / 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet32", "have nothing for 'stage1_block4_conv1'"),
        ("resnet8", "no layer '|have nothing for|do not fit"),
        ("resnetv2_20", "no layer '|have nothing for|do not fit"),
        ("wrn16_4", "no layer '|have nothing for|do not fit"),
    ],
)
def test_another_network_is_refused(saved, name, message):
    with pytest.raises(UserError, match=message):
        keras_resnet.create_model(name, weights=saved)


def test_files_that_are_no_weights(tmp_path):
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(
        UserError, match=r"broken\.weights\.h5 is damaged, or is no weights file of Keras"
    ):
        keras_resnet.ResNet20(weights=broken)
    with pytest.raises(UserError, match="No such weights file"):
        keras_resnet.ResNet20(weights=str(tmp_path / "absent.weights.h5"))
    with pytest.raises(UserError, match="is a folder"):
        keras_resnet.ResNet20(weights=tmp_path)
    with pytest.raises(UserError, match="received True"):
        keras_resnet.ResNet20(weights=True)
    with pytest.raises(UserError, match=r"weights import theirs\.pth --as resnet20"):
        keras_resnet.ResNet20(weights="theirs.pth")


def test_the_file_knows_its_classes(tmp_path, capsys):
    path = tmp_path / "three.weights.h5"
    keras_resnet.ResNet8(classes=3).save_weights(path)
    assert keras_resnet.ResNet8(weights=path).output_shape == (None, 3)
    assert capsys.readouterr().err == ""


def test_a_file_without_the_top_leaves_a_new_head(tmp_path, capsys):
    path = tmp_path / "body.weights.h5"
    keras_resnet.ResNet8(include_top=False).save_weights(path)
    assert keras_resnet.ResNet8(weights=path).output_shape == (None, 10)
    assert "'head' is new and untrained" in capsys.readouterr().err


def test_layers_before_the_network_are_left_alone(saved, resnet20):
    inputs = keras.layers.Input((32, 32, 1))
    coloured = keras.layers.Conv2D(3, 1, name="colours")(inputs)
    model = keras_resnet.ResNet20(weights=saved, input_tensor=coloured)
    assert model.input_shape == (None, 32, 32, 1)
    for name in ("stem_conv", "head"):
        np.testing.assert_array_equal(model.get_layer(name).kernel, resnet20.get_layer(name).kernel)


def test_auxiliary_classifiers_that_a_file_lacks_are_new(tmp_path, capsys):
    path = tmp_path / "plain.weights.h5"
    keras_resnet.create_model("test_googlenet").save_weights(path)
    model = keras_resnet.create_model("test_googlenet", weights=path, auxiliary=True)
    assert set(model.output) == {"predictions", "aux1", "aux2"}
    assert "'aux1_head' is new and untrained" in capsys.readouterr().err


def test_hdf5_can_neither_reach_elsewhere_nor_promise_more_than_it_has(saved, tmp_path):
    path = tmp_path / "linked.weights.h5"
    for name, put in {
        "link": lambda group: group.__setitem__("1", h5py.ExternalLink(str(saved), "/layers")),
        "size": lambda group: group.create_dataset("1", (10**6, 10**6), "f4"),
    }.items():
        path.write_bytes(saved.read_bytes())
        with h5py.File(path, "r+") as file:
            group = file["layers/dense/vars"]
            del group["1"]
            put(group)
        with pytest.raises(UserError, match=r"linked\.weights\.h5 is damaged"):
            keras_resnet.ResNet20(weights=path)
        assert name


# What the weights were trained with ---------------------------------------------------------------


@pytest.mark.parametrize("trained_with", [m for m in PREPROCESSING if m != "cifar"])
def test_the_weights_preprocessing_is_what_preprocess_gives(saved, images, trained_with, tmp_path):
    """Inside or outside the model, the layers see (x - mean) / std of the weights' own kind."""
    path = tmp_path / "other.weights.h5"
    path.write_bytes(saved.read_bytes())
    Note(preprocessing=trained_with).write(path)
    arguments = {"weights": path, "classifier_activation": None}
    inside = keras_resnet.ResNet20(**arguments, include_preprocessing=True)
    outside = keras_resnet.ResNet20(**arguments)
    assert has_preprocessing(inside) == (trained_with != "raw")
    assert not has_preprocessing(outside)
    kind = PREPROCESSING[trained_with]
    pixels = images.astype("float32")
    if kind is not None:
        pixels = (pixels - np.float32(kind.mean)) / np.float32(kind.std)
    plain = keras_resnet.ResNet20(weights=saved, classifier_activation=None)
    expected = plain(pixels).numpy()
    # Two rescalings in float32 instead of one, on pixels of up to 255.
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(inside(images), expected, atol=tolerance)
    np.testing.assert_allclose(
        outside(keras_resnet.preprocess(images, outside)), expected, atol=tolerance
    )


def test_a_file_that_says_its_network_is_not_taken_for_one_of_the_same_arrays(saved, tmp_path):
    path = tmp_path / "said.weights.h5"
    path.write_bytes(saved.read_bytes())
    keras_resnet.create_model("plain20", weights=path)  # Keras' file does not say
    Note("resnet20", "cifar").write(path)
    keras_resnet.ResNet20(weights=path, name="mine")
    with pytest.raises(UserError, match="are for 'resnet20', not for 'plain20'"):
        keras_resnet.create_model("plain20", weights=path)


def test_options_that_make_another_network_are_refused_with_known_weights():
    with pytest.raises(UserError, match=r"in its registered form\. Remove stride_unit"):
        keras_resnet.ResNet20(weights="cifar10", stride_unit="last")
    keras_resnet.ResNet20(weights="cifar10", dropout=0.2, stochastic_depth=0.1)


def test_an_entry_of_another_network_is_refused():
    with pytest.raises(UserError, match="are for 'resnet20', not for 'plain20'"):
        keras_resnet.create_model("plain20", weights=catalog.find("resnet20", "cifar10"))


def test_another_preprocessing_than_the_weights_is_refused(saved, tmp_path):
    path = tmp_path / "other.weights.h5"
    path.write_bytes(saved.read_bytes())
    Note(preprocessing="tf").write(path)
    with pytest.raises(UserError, match="were trained with preprocessing 'tf'"):
        keras_resnet.ResNet20(weights=path, include_preprocessing=True, preprocessing="torch")


def test_the_difference_survives_saving(saved, images, tmp_path):
    path = tmp_path / "other.weights.h5"
    path.write_bytes(saved.read_bytes())
    Note(preprocessing="torch").write(path)
    model = keras_resnet.ResNet20(weights=path)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = keras_resnet.preprocess(images, loaded)
    np.testing.assert_array_equal(loaded(x), model(x))
    member = keras_resnet.ensemble([model, keras_resnet.ResNet20(weights=path)])
    assert not has_preprocessing(member)
    np.testing.assert_allclose(member(x), model(x), atol=1e-6)
    model.save_weights(tmp_path / "lost.weights.h5")
    with pytest.raises(UserError, match="Save the whole model"):
        keras_resnet.ResNet20(weights=tmp_path / "lost.weights.h5")


# Tags ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tag", "message"),
    [
        ("resnet50", "imagenet/torchvision_v2", "are v1.5 weights: use resnet50v1_5"),
        ("resnet101", "imagenet/torchvision_v1", "are v1.5 weights: use resnet101v1_5"),
        ("resnet50v1_5", "imagenet/keras", "are v1 weights: use resnet50"),
        ("inception_v3", "imagenet/torchvision_v1", "use inception_v3_torch"),
        ("googlenet", "imagenet/torchvision_v1", "use googlenet_bn"),
        ("resnet50", "imagenet/torchvision", "are v1.5 weights: use resnet50v1_5"),
        ("resnet50v1_5", "IMAGENET1K_V2", "Did you mean 'imagenet/torchvision_v2'"),
        ("resnet50", "torchvision_v2", "Did you mean 'imagenet/torchvision_v2'"),
        ("resnet200d", "cifar10", "'resnet200d' has no weights 'cifar10'. It has: imagenet/"),
        ("resnet50", "imagenet/kears", "Did you mean 'imagenet/keras'"),
        ("resnet18_a", "imagenet", "The catalog has no weights for 'resnet18_a'"),
        ("resnet50", "cifar10", "'resnet50' has no weights 'cifar10'. It has: "),
    ],
)
def test_a_tag_of_another_network_names_the_right_one(name, tag, message):
    with pytest.raises(UserError, match=message):
        keras_resnet.create_model(name, weights=tag)


def test_default_tags():
    assert catalog.find("resnet50", "imagenet").tag == "imagenet/keras"
    assert catalog.find("resnet50v1_5", "imagenet").source in ("torchvision", "timm")
    for name in keras_resnet.list_models():
        for entry in catalog.of_model(name):
            assert catalog.find(name, entry.tag) == entry


def test_a_users_name_changes_nothing():
    model = keras_resnet.ResNet20(weights="cifar10", name="backbone")
    assert model.name == "backbone"


# Our own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", OURS, ids=str)
def test_ours_are_there_offline_and_whole(entry, monkeypatch, tmp_path):
    monkeypatch.setenv(download.OFFLINE, "1")
    monkeypatch.setenv("KERAS_RESNET_HOME", str(tmp_path))
    assert len(entry.hash) == len("sha256:") + 64
    model = keras_resnet.create_model(entry.model, weights=entry.tag)
    assert model.output_shape == (None, 10)
    assert not list(tmp_path.iterdir())


def test_ours_are_checked_before_they_are_read(monkeypatch, tmp_path):
    entry = catalog.find("resnet20", "cifar10")
    content = bytearray((catalog.TRAINED / entry.file).read_bytes())
    content[-1] ^= 1
    (tmp_path / entry.file).write_bytes(content)
    monkeypatch.setattr(catalog, "TRAINED", tmp_path)
    with pytest.raises(UserError, match="wrong hash"):
        keras_resnet.ResNet20(weights="cifar10")


SMALL = {"resnet8"}


@pytest.mark.parametrize(
    "entry",
    [e if e.model in SMALL else pytest.param(e, marks=pytest.mark.slow) for e in OURS],
    ids=str,
)
def test_ours_are_as_accurate_as_the_catalog_says(entry):
    try:
        dataset = load_dataset(entry.data)
    except UserError as error:
        pytest.skip(f"needs {entry.data}: {error}")
    model = keras_resnet.create_model(entry.model, weights=entry, include_preprocessing=True)
    right = round(measure_model(model, dataset.test)["accuracy"] * len(dataset.test))
    # To the digit where it was measured; another processor adds in another order, which can
    # decide an image or two whose best classes are equal to the sixth digit.
    assert abs(right - round(entry.published.top1 * len(dataset.test) / 100)) <= 2


def test_weights_of_an_entry_with_another_preprocessing(images):
    """The catalog's word is used as a file's note is."""
    entry = replace(catalog.find("resnet20", "cifar10"), preprocessing="torch")
    assert loading.about(entry).preprocessing == "torch"
    model = keras_resnet.ResNet20(weights=entry, include_preprocessing=True)
    scale = np.asarray(model.get_layer("rescaling").scale)
    np.testing.assert_allclose(scale * PREPROCESSING["torch"].std, 1, rtol=1e-6)

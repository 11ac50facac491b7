"""`weights="imagenet"` from the address to the logits, off a local server with the true addresses.

The published bytes are not to be had here. The files have the true names and layouts (the names and
shapes of torchvision's and timm's own state dicts, a real `torch.save`, Keras' own writer of h5)
and other numbers, so the catalog is given their hashes.
"""

import hashlib
import lzma
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import foreign_files
from helpers.foreign_files import golden_logits
from helpers.weights_server import Fault, serving
from peers.filling import images, state
from safetensors.numpy import save_file

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.images.preprocessing import PREPROCESSING, Preprocessing
from keras_resnet.models.resnet.spec import ResNetSpec
from keras_resnet.weights import cache, catalog, http, loading

RAW = Preprocessing((0.0,) * 3, (1.0,) * 3)
TORCH = [entry for entry in catalog.entries() if entry.source in ("torchvision", "timm")]
KERAS = [entry for entry in catalog.entries() if entry.source == "Keras Applications"]
# One file of each network is enough: the others are read in the same way.
FIRST = list({entry.model: entry for entry in reversed(TORCH)}.values())


@pytest.fixture
def published(tmp_path, monkeypatch):
    """`published(entry, write)`: put a file where the mirror has that of `entry`."""
    monkeypatch.setenv("KERAS_RESNET_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)

    def publish(entry, write):
        path = tmp_path / "mirror" / entry.url.partition("://")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        served = replace(entry, hash=digest)
        monkeypatch.setattr(catalog, "entries", lambda: (served,))
        return served

    publish.folder = tmp_path / "mirror"
    return publish


@pytest.fixture
def server(published, monkeypatch):
    with serving(published.folder) as server:
        monkeypatch.setenv("KERAS_RESNET_MIRROR", server.url)
        yield server


@pytest.mark.parametrize(
    ("variable", "folder", "entries"),
    [("KERAS_HOME", "models", KERAS), ("TORCH_HOME", "hub/checkpoints", TORCH)],
)
def test_what_keras_or_torch_have_downloaded_is_not_fetched_again(
    published, server, tmp_path, monkeypatch, variable, folder, entries
):
    entry = published(entries[0], lambda path: path.write_bytes(b"the published bytes"))
    theirs = tmp_path / "theirs" / folder / entry.file
    theirs.parent.mkdir(parents=True)
    monkeypatch.setenv(variable, str(tmp_path / "theirs"))
    theirs.write_bytes(b"the published bytes")
    assert cache.fetch(entry) == theirs
    assert server.requests == []
    theirs.write_bytes(b"other bytes, under the same name")
    assert cache.fetch(entry) == cache.cached_path(entry)
    assert len(server.requests) == 1


def resnet18(path):
    packed = foreign_files.GOLDEN / "torch_files" / "resnet18.pth.xz"
    path.write_bytes(lzma.decompress(packed.read_bytes()))


def difference(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def test_torchvisions_resnet18(published, server, capsys):
    entry = published(catalog.find("resnet18", "imagenet/torchvision_v1"), resnet18)
    with np.load(foreign_files.GOLDEN / "torch_files" / "resnet18_logits.npz") as file:
        size, logits = int(file["size"]), file["logits"]
    arguments = {"classifier_activation": None, "input_shape": (size, size, 3)}
    model = keras_resnet.ResNet18(weights=entry.tag, **arguments)
    # As in test_parity.py: float32 against float64.
    assert difference(model(images(size)), logits) <= 1e-5
    capsys.readouterr()
    ten = keras_resnet.ResNet18(weights=entry.tag, classes=10, **arguments)
    assert len(server.requests) == 1  # the second time from the cache
    assert "'head' is new and untrained" in capsys.readouterr().err
    np.testing.assert_array_equal(
        ten.get_layer("stage4_block2_conv2").kernel, model.get_layer("stage4_block2_conv2").kernel
    )


VARIANTS = {
    "other classes": {"classes": 10},
    "without the top": {"include_top": False, "pooling": "avg"},
    "a pyramid": {"features": True},
    "grey": {"input_shape": (64, 64, 1)},
    "on a tensor": {},
}


@pytest.mark.parametrize(
    "entry",
    [
        "resnet18 imagenet/torchvision_v1",
        pytest.param("resnet50 imagenet/keras", marks=pytest.mark.slow),
    ],
)
def test_no_other_network_is_built_than_the_one_that_was_asked_for(
    entry, published, server, monkeypatch, capsys
):
    """The arrays of the file go into it, whatever its head and its images are."""
    name, tag = entry.split()
    theirs = foreign_files.randomize(keras.applications.ResNet50(weights=None, classes=5))
    write = {"resnet18": resnet18, "resnet50": lambda p: foreign_files.legacy_file(p, theirs)}[name]
    published(catalog.find(name, tag), write)
    whole = keras_resnet.create_model(name, weights=tag)
    built = []
    trunk = ResNetSpec.trunk
    monkeypatch.setattr(ResNetSpec, "trunk", lambda *given: built.append(1) or trunk(*given))
    monkeypatch.setattr(keras.applications, "ResNet50", lambda **_: pytest.fail("was built"))
    for variant, arguments in VARIANTS.items():
        before = len(built)
        if variant == "on a tensor":
            inputs = keras.layers.Input((64, 64, 4))
            arguments = {"input_tensor": keras.layers.Conv2D(3, 1, name="mine")(inputs)}
        model = keras_resnet.create_model(name, weights=tag, **arguments)
        assert len(built) == before + 1, variant
        for layer in [x for x in model.layers if x.weights and x.name not in ("head", "mine")]:
            if variant == "grey" and layer.name == "stem_conv":
                continue
            others = whole.get_layer(layer.name).get_weights()
            for mine, expected in zip(layer.get_weights(), others, strict=True):
                np.testing.assert_array_equal(mine, expected, f"{variant}, {layer.name}")
    assert "'stem_conv' was adapted from RGB to 1 channel(s)" in capsys.readouterr().err


def test_nothing_is_read_of_a_file_with_another_hash(published, server, monkeypatch):
    entry = published(catalog.find("resnet18", "imagenet/torchvision_v1"), resnet18)
    wrong = replace(entry, hash="sha256:" + "0" * 64)
    monkeypatch.setattr(loading, "read", lambda *_: pytest.fail("was read"))
    with pytest.raises(UserError, match="another file than the published one"):
        keras_resnet.ResNet18(weights=wrong)
    assert not cache.cached_path(wrong).exists()


def test_an_answer_of_a_proxy_is_refused(published, server):
    """A login page, as hotels and companies send: its hash is another."""
    entry = published(catalog.find("resnet18", "imagenet/torchvision_v1"), resnet18)
    page = b"<html>Please log in</html>"
    with (
        serving(
            published.folder, {f"/{entry.url.partition('://')[2]}": [Fault(content=page)] * 9}
        ) as other,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("KERAS_RESNET_MIRROR", other.url)
        with pytest.raises(UserError, match="Check whether a proxy or mirror"):
            keras_resnet.ResNet18(weights=entry)


@pytest.mark.slow
@pytest.mark.parametrize("entry", FIRST, ids=str)
def test_every_network_of_torchvision_and_timm(entry, published, server):
    """The whole way gives the peer's logits, whatever preprocessing the weights were trained with.

    `images` are what the weights' layers see; what the model takes is what `preprocess` makes of
    the pixels that these were.
    """
    about, logits = golden_logits(entry.model)
    contents = state(about["shapes"], about["gain"])
    entry = published(entry, lambda path: save_file(contents, path))
    size = about["size"]
    model = keras_resnet.create_model(
        entry.model,
        weights=entry.tag,
        input_shape=(size, size, 3),
        classes=about["classes"],
        classifier_activation=None,
    )
    kind = PREPROCESSING[entry.preprocessing] or RAW
    pixels = images(size) * np.float32(kind.std) + np.float32(kind.mean)
    given = keras_resnet.preprocess(pixels, model)
    # Of the rounding of pixels up to 255 and back, besides that of test_parity.py.
    assert difference(model(given, training=False), logits["predictions"]) <= 3e-5
    assert len(server.requests) == 1


@pytest.mark.slow
@pytest.mark.parametrize("entry", KERAS, ids=str)
def test_every_network_of_keras_applications(entry, published, server):
    keras.utils.set_random_seed(0)
    theirs = getattr(keras.applications, entry.peer)(weights=None, classifier_activation=None)
    foreign_files.randomize(theirs)
    entry = published(entry, lambda path: foreign_files.legacy_file(path, theirs))
    model = keras_resnet.create_model(entry.model, weights="imagenet", classifier_activation=None)
    size = model.input_shape[1]
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("float32")
    module = {"caffe": "resnet", "tf": "resnet_v2", "torch": "densenet"}[entry.preprocessing]
    given = getattr(keras.applications, module).preprocess_input(pixels.copy())
    expected = np.asarray(theirs(given, training=False))
    ours = model(keras_resnet.preprocess(pixels, model), training=False)
    assert difference(ours, expected) <= 3e-5  # float32 over up to 200 layers, from pixels
    assert len(server.requests) == 1

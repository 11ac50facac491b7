"""Other people's weight files: read by what they are, refused where they are of another network."""

import lzma
import os
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import foreign_files
from peers.filling import images
from safetensors.numpy import load_file, save_file

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.base import classifier_shape
from keras_resnet.weights.fitting import fit
from keras_resnet.weights.foreign.forms import FORMS
from keras_resnet.weights.foreign.read import Contents, _torch_header, contents, read
from keras_resnet.weights.foreign.torch_files import read_shapes, read_state_dict

RESNET = "ResNet, ResNeXt, Wide ResNet or SE-ResNet"
GOOGLENET = "torchvision's GoogLeNet"
PEERS = sorted(path.stem for path in (foreign_files.GOLDEN / "parity").glob("*.npz"))


def fill(model, path, name):
    fit(read(path, name).arrays(model), model, f"the weights in {path}")


def logits_model(name, **arguments):
    return keras_resnet.create_model(name, classifier_activation=None, **arguments)


# PyTorch ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet18_pth(tmp_path_factory):
    """A checkpoint of torchvision's, 1000 classes, written by torch.save."""
    path = tmp_path_factory.mktemp("torch") / "resnet18.pth"
    packed = foreign_files.GOLDEN / "torch_files" / "resnet18.pth.xz"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


@pytest.fixture(scope="module")
def tiny():
    return logits_model("test_resnet")


@pytest.fixture
def tiny_file(tiny, tmp_path):
    """The tiny ResNet under PyTorch's names."""
    save_file(foreign_files.like_peer(tiny, "resnet18", RESNET), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_a_checkpoint_of_torchvision_gives_its_logits(resnet18_pth):
    assert contents(resnet18_pth, "resnet18") == Contents(1000, False, "PyTorch")
    with np.load(foreign_files.GOLDEN / "torch_files" / "resnet18_logits.npz") as file:
        size, logits = int(file["size"]), file["logits"]
    model = logits_model("resnet18", input_shape=(size, size, 3))
    fill(model, resnet18_pth, "resnet18")
    ours = np.asarray(model(images(size), training=False))
    # As in test_parity.py: float32 against float64.
    assert np.abs(ours - logits).max() / np.abs(logits).max() <= 1e-5


@pytest.mark.parametrize("file", ["state_dict.pth", "old_checkpoint.th"])
def test_shapes_are_those_of_the_arrays(file):
    path = foreign_files.GOLDEN / "torch_files" / file
    arrays = read_state_dict(path)
    assert read_shapes(path) == {name: array.shape for name, array in arrays.items()}


def test_safetensors_under_any_name(tiny, tiny_file):
    entries = load_file(tiny_file)
    other = tiny_file.rename(tiny_file.with_name("weights.bin"))
    assert contents(other, "test_resnet") == Contents(10, False, "PyTorch")
    fill(tiny, other, "test_resnet")
    kernel = entries["layer2.0.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(tiny.get_layer("stage2_block1_conv1").kernel, kernel)


def test_no_two_networks_of_a_library_look_the_same():
    known = [(form.library, form.family, form.numbers) for form in FORMS]
    assert len(set(known)) == len(known)
    assert set(PEERS) < {form.model for form in FORMS if form.library == "PyTorch"}


@pytest.mark.parametrize(
    "name", [n if "50" in n else pytest.param(n, marks=pytest.mark.slow) for n in PEERS]
)
def test_every_peer_is_known_by_its_names_and_shapes(name):
    header = _torch_header(Path(name), foreign_files.shapes(name)[0])
    assert [form.model for form in header.forms] == [name]
    assert header.contents.classes == 16


@pytest.mark.parametrize(
    ("file", "name", "message"),
    [
        ("resnet50v1_5", "resnet50", r"these are v1\.5 weights, use resnet50v1_5 .*is v1: stride"),
        ("resnetv2_50", "resnet50v2", r"these are v2 weights, use resnetv2_50 .*is Keras v2:"),
        ("resnet50d", "resnet50c", r"these are ResNet-D weights, use resnet50d .*is ResNet-C:"),
        ("resnet50c", "resnet50d", r"these are ResNet-C weights, use resnet50c .*is ResNet-D:"),
        ("googlenet_bn", "googlenet", r"use googlenet_bn \(BN, 3×3 for 5×5"),
        ("inception_v3_torch", "inception_v3", r"use inception_v3_torch .*is Keras Applications'"),
        ("seresnet18", "resnet18", r"the file fits: seresnet18\. 'resnet18' is another network"),
        ("resnet18", "plain18", r"the file fits: resnet18\."),
        ("resnet18", "resnet5O", "Did you mean"),
    ],
)
def test_another_network_is_refused_with_the_right_name(file, name, message, tmp_path):
    path = foreign_files.empty_file(tmp_path / "file.safetensors", file)
    assert contents(path, file).classes == 16
    with pytest.raises(UserError, match=message):
        contents(path, name)


def test_what_fits_another_network_is_not_copied(tiny, tmp_path):
    path = foreign_files.empty_file(tmp_path / "file.safetensors", "resnet18")
    before = tiny.get_weights()
    with pytest.raises(UserError, match="the file fits: resnet18"):
        fill(tiny, path, "test_resnet")
    for old, new in zip(before, tiny.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_auxiliary_classifiers_are_seen(tmp_path):
    path = foreign_files.empty_file(tmp_path / "full.safetensors", "googlenet_bn")
    assert contents(path, "googlenet_bn") == Contents(16, True, "PyTorch")
    path = foreign_files.empty_file(tmp_path / "small.safetensors", "googlenet_bn", without=["aux"])
    assert contents(path, "googlenet_bn") == Contents(16, False, "PyTorch")


def test_the_file_is_fitted_to_the_network(tiny_file, tmp_path, capsys):
    fill(logits_model("test_resnet", classes=7), tiny_file, "test_resnet")
    assert "have 10 classes and this model has 7" in capsys.readouterr().err
    full = logits_model("test_googlenet", auxiliary=True)
    entries = foreign_files.like_peer(full, "googlenet_bn", GOOGLENET)
    path = tmp_path / "googlenet.safetensors"
    save_file({k: v for k, v in entries.items() if not k.startswith("aux")}, path)
    fill(full, path, "test_googlenet")
    assert "'aux1_head' is new and untrained" in capsys.readouterr().err


def test_the_dense_layers_of_a_chain_know_the_image_size(tmp_path):
    """PyTorch flattens a map in another order than Keras; at another size nothing fits."""
    theirs = logits_model("test_alexnet")
    names = {"stage1_conv1": "features.0", "stage2_conv1": "features.3"}
    names |= {"head_dense1": "classifier.1", "head": "classifier.6"}
    entries = {}
    rng = np.random.default_rng(0)
    for layer in [layer for layer in theirs.layers if layer.weights]:
        kernel, bias = (rng.normal(size=w.shape).astype("float32") for w in layer.weights)
        axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        entries[f"{names[layer.name]}.weight"] = np.ascontiguousarray(kernel.transpose(axes))
        entries[f"{names[layer.name]}.bias"] = bias
    save_file(entries, tmp_path / "alexnet.safetensors")
    fill(theirs, tmp_path / "alexnet.safetensors", "test_alexnet")
    height, width, channels = theirs.get_layer("head_flatten").input.shape[1:]
    expected = entries["classifier.1.weight"].reshape(-1, channels, height, width)
    found = np.asarray(theirs.get_layer("head_dense1").kernel).T
    np.testing.assert_array_equal(
        found.reshape(-1, height, width, channels).transpose(0, 3, 1, 2), expected
    )
    for size in (40, 64):
        other = logits_model("test_alexnet", input_shape=(size, size, 3))
        with pytest.raises(UserError, match="dense layers need the image size"):
            fill(other, tmp_path / "alexnet.safetensors", "test_alexnet")
    body = logits_model("test_alexnet", input_shape=(64, 64, 3), include_top=False)
    fill(body, tmp_path / "alexnet.safetensors", "test_alexnet")


def test_layers_must_correspond(tiny, tiny_file, tmp_path):
    entries = load_file(tiny_file)
    for gone, message in [
        ("layer1.0.conv1.weight", "have nothing for 'stage1_block1_conv1'"),
        ("fc.bias", "has no classifier"),
    ]:
        path = tmp_path / "less.safetensors"
        save_file({k: v for k, v in entries.items() if k != gone}, path)
        with pytest.raises(UserError, match=message):
            fill(tiny, path, "test_resnet")
    save_file({"blocks.0.attn.qkv.weight": np.zeros((3, 3), "float32")}, path)
    with pytest.raises(UserError, match=r"has entries such as blocks\.0.*which no network"):
        contents(path, "test_resnet")


# No weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Not found</html>", "an HTML or XML page"),
        (b"\n  <html>", "an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run 'git lfs pull'"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"TFL3 and more", r"begins with b'TFL3 and mor'\. It must be a PyTorch file"),
        (b"\x80\x02cos\nsystem\nq\x00X\x0a\x00\x00\x00touch evil\x85R.", "'os.system', which is"),
        (b"cos\nsystem\n(S'touch evil'\ntR.", "It must be a PyTorch file"),
        (b"PK\x05\x06" + bytes(18), "holds no state dict"),  # an empty zip
    ],
)
def test_what_is_no_weights_is_said(start, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18.pth").write_bytes(start)
    with pytest.raises(UserError, match=message):
        contents(tmp_path / "resnet18.pth", "resnet18")
    assert os.listdir(tmp_path) == ["resnet18.pth"]


def test_a_pickle_cannot_ask_for_gigabytes(tmp_path):
    """Nine bytes that make Python's unpickler reserve 2**31 places."""
    path = tmp_path / "greedy.pth"
    path.write_bytes(b"\x80\x02N" + b"r" + (2**31 - 1).to_bytes(4, "little") + b".")
    with pytest.raises(UserError, match="asks for 2,147,483,647 places of memory"):
        read_state_dict(path)


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="No such weights file"):
        contents(tmp_path / "none.pth", "resnet18")
    with pytest.raises(UserError, match="is a folder; give a weights file"):
        contents(tmp_path, "resnet18")
    with pytest.raises(UserError, match="is a device or a pipe"):  # without an end
        contents(Path("/dev/zero"), "resnet18")


@pytest.mark.parametrize("kind", ["pth", "safetensors", "h5", "weights.h5", "keras"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_truncated_files_are_damaged(kind, share, tiny, resnet18_pth, tiny_file, tmp_path):
    path = tmp_path / f"whole.{kind}"
    if kind == "pth":
        path, name = resnet18_pth, "resnet18"
    else:
        name = "test_resnet"
        if kind == "safetensors":
            path = tiny_file
        elif kind == "h5":
            foreign_files.legacy_file(path, tiny)
        else:
            (tiny.save_weights if kind == "weights.h5" else tiny.save)(path)
    data = path.read_bytes()
    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=f"cut.{kind}"):
        fill(tiny, cut, name)


# Keras --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet8():
    return foreign_files.randomize(logits_model("resnet8"))


@pytest.mark.parametrize("whole", [True, False])
def test_mlperf_tiny_is_read_in_its_order(whole, resnet8, tmp_path):
    """Its file is a whole model in the layout of Keras 2; the names of the layers do not count."""
    path = foreign_files.legacy_file(tmp_path / "pretrainedResnet.h5", resnet8, whole)
    assert contents(path, "resnet8") == Contents(10, False, "MLPerf Tiny")
    target = logits_model("resnet8")
    fill(target, path, "resnet8")
    for theirs, ours in zip(resnet8.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="the file fits: resnet8"):
        contents(path, "resnet20")


def test_keras_before_3_6_wrote_no_names(tmp_path):
    """Then the network of Keras Applications, built once, tells which layer is which."""
    theirs = foreign_files.randomize(keras.applications.ResNet50(weights=None, classes=5))
    paths = [tmp_path / name for name in ("new.weights.h5", "old.weights.h5")]
    for path in paths:
        theirs.save_weights(path)
    with h5py.File(paths[1], "r+") as file:
        for group in file["layers"].values():
            if "vars" in group:
                group["vars"].attrs.pop("name")
    new, old = (read(path, "resnet50").weights for path in paths)
    assert new.keys() == old.keys()
    for name, arrays in new.items():
        for mine, expected in zip(old[name], arrays, strict=True):
            np.testing.assert_array_equal(mine, expected)


def _renamed(path, new_name):
    """Give the layers of a file in the order of Keras 1 and 2 other names."""
    with h5py.File(path, "r+") as file:
        names = [str(name) for name in file.attrs["layer_names"]]
        renamed = [new_name(name) for name in names]
        for number, name in enumerate(names):
            file.move(name, f"moved{number}")
        for number, name in enumerate(renamed):
            file.move(f"moved{number}", name)
        file.attrs["layer_names"] = renamed
    return path


def test_published_files_have_names_of_their_time(tmp_path, monkeypatch):
    """ResNet's "probs" for "predictions", DenseNet's "conv1/conv"; or they say nothing to us."""
    theirs = foreign_files.randomize(keras.applications.ResNet50(weights=None, classes=5))
    new = foreign_files.legacy_file(tmp_path / "new.h5", theirs)
    old = _renamed(
        shutil.copyfile(new, tmp_path / "old.h5"),
        lambda name: {"predictions": "probs"}.get(name, name.replace("_", "/", 1)),
    )
    other = _renamed(shutil.copyfile(new, tmp_path / "other.h5"), lambda name: f"my_{name}")
    weights = {path: read(path, "resnet50") for path in (new, other)}  # builds theirs for `other`
    monkeypatch.setattr(keras.applications, "ResNet50", lambda **_: pytest.fail("was built"))
    weights[old] = read(old, "resnet50")
    ours = logits_model("resnet50", classes=5, input_shape=(32, 32, 3))
    expected = weights[new].arrays(ours)
    for path in (old, other):
        found = weights[path].arrays(ours)
        assert found.keys() == expected.keys()
        for name, arrays in expected.items():
            for mine, right in zip(found[name], arrays, strict=True):
                np.testing.assert_array_equal(mine, right)


def test_keras_files_of_something_else_are_refused(tiny, resnet8, tmp_path):
    path = foreign_files.legacy_file(tmp_path / "tiny.h5", tiny)
    with pytest.raises(UserError, match=r"It must be a whole keras\.applications\.ResNet50 with"):
        contents(path, "resnet50")
    with pytest.raises(UserError, match="a whole model of Keras Applications or MLPerf Tiny"):
        contents(path, "test_resnet")
    own = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(5)])
    own.save(tmp_path / "own.h5")
    own.save_weights(tmp_path / "own.weights.h5")
    whole = r'own.h5"\), and then export\(model, …\)'
    for name, message in (("own.h5", whole), ("own.weights.h5", r"model\.load_weights\(")):
        with pytest.raises(UserError, match=message):
            contents(tmp_path / name, "resnet50")
    loaded = keras.models.load_model(tmp_path / "own.h5")  # as the message says
    assert classifier_shape(loaded) == ((8, 8, 3), 5)  # so export takes it
    headless = keras.Model(resnet8.input, resnet8.get_layer("head").input)
    path = foreign_files.legacy_file(tmp_path / "headless.h5", headless)
    with pytest.raises(UserError, match="has no classifier at its end"):
        contents(path, "resnet8")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = [1.0]
    with pytest.raises(UserError, match="holds no layers of a Keras model"):
        contents(tmp_path / "other.h5", "resnet50")


def test_our_own_files_need_no_import(tiny, tmp_path):
    tiny.save_weights(tmp_path / "tiny.weights.h5")
    tiny.save(tmp_path / "tiny.keras")
    for file in ("tiny.weights.h5", "tiny.keras"):
        with pytest.raises(UserError, match=r"of keras_resnet. It needs no import"):
            contents(tmp_path / file, "test_resnet")


def test_hdf5_cannot_reach_into_other_files(resnet8, tmp_path):
    path = foreign_files.legacy_file(tmp_path / "whole.h5", resnet8)
    shutil.copy(path, tmp_path / "secret.h5")
    with h5py.File(path, "r+") as file:
        [kernel, _] = file["head"].attrs["weight_names"]
        del file["head"][kernel]
        file["head"][kernel] = h5py.ExternalLink(str(tmp_path / "secret.h5"), f"/head/{kernel}")
    with pytest.raises(UserError, match="is in another file"):
        contents(path, "resnet8")


# The table ----------------------------------------------------------------------------------------

KERAS = [form for form in FORMS if form.library == "Keras Applications"]


def test_the_numbers_of_resnet20_and_resnet8():
    for name in ("resnet20", "resnet8"):
        assert _numbers(keras_resnet.create_model(name), "head") == _counted(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"])
def test_the_numbers_of_the_cifar_networks(name):
    assert _numbers(keras_resnet.create_model(name), "head") == _counted(name)


@pytest.mark.slow
@pytest.mark.parametrize("form", KERAS, ids=lambda form: form.model)
def test_the_numbers_of_keras_applications(form):
    theirs = getattr(keras.applications, form.family)(weights=None, classes=16)
    assert _numbers(theirs, "predictions") == form.numbers


def _numbers(model, head):
    return model.count_params() - model.get_layer(head).count_params()


def _counted(name):
    [form] = [form for form in FORMS if form.model == name]
    return form.numbers


# Trained weights of others ------------------------------------------------------------------------


def reference(file):
    folder = os.environ.get("KERAS_RESNET_REFERENCE")
    if not folder:
        pytest.skip("KERAS_RESNET_REFERENCE names no folder of trained weights")
    return Path(folder) / file


@pytest.mark.slow
def test_mlperf_tinys_own_file():
    path = reference("mlperf_tiny/pretrainedResnet.h5")
    ours, theirs = logits_model("resnet8"), logits_model("resnet8")
    fill(ours, path, "resnet8")
    # Its layers have numbers for names, and stand in the order of ours.
    theirs.set_weights(keras.models.load_model(path, compile=False).get_weights())
    for new, old in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.slow
def test_public_cifar_weights_are_option_a():
    path = reference("akamaster_cifar10/resnet20-12fca82f.th")
    assert contents(path, "resnet20") == Contents(10, False, "PyTorch")
    for name in ("resnet20_b", "plain20", "resnet32"):
        with pytest.raises(UserError, match="the file fits: resnet20"):
            contents(path, name)

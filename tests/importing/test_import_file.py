"""A foreign file becomes a file of ours, and the network it is from says the same."""

import hashlib
import importlib.util
import json
import re

import keras
import numpy as np
import pytest
from helpers import foreign_files
from safetensors.numpy import save_file

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.images.preprocessing import preprocess
from keras_resnet.importing import files, parity
from keras_resnet.importing.files import import_file, import_run
from keras_resnet.importing.parity import catalog_peers, patched_images
from keras_resnet.recipes.runs import sources
from keras_resnet.weights.foreign.torch_weights import from_torch

RESNET = "ResNet, ResNeXt, Wide ResNet or SE-ResNet"
GOOGLENET = "torchvision's GoogLeNet"


def logits_model(name, **arguments):
    return keras_resnet.create_model(name, classifier_activation=None, **arguments)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The tiny ResNet for 7 classes under PyTorch's names, and the model; no peer is known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parity, "catalog_peers", lambda name: [])
    model = logits_model("test_resnet", classes=7)
    entries = foreign_files.like_peer(model, "resnet18", RESNET)
    save_file(entries, "tiny.safetensors")
    from_torch(entries, model)
    return model


def test_the_new_file_is_loaded_as_any_of_ours(tiny, tmp_path):
    report = import_file("tiny.safetensors", "test_resnet")
    new = tmp_path / "test_resnet.weights.h5"
    assert report.sha256 == hashlib.sha256(new.read_bytes()).hexdigest()
    assert (report.classes, report.parameters) == (7, tiny.count_params())
    assert report.library == "PyTorch"
    read = logits_model("test_resnet", classes=7, weights=str(report.path))
    for old, fresh in zip(tiny.get_weights(), read.get_weights(), strict=True):
        np.testing.assert_array_equal(old, fresh)
    assert json.loads(json.dumps(report.to_dict()))["parity"]["difference"] is None
    text = str(report)
    assert "(assumed; change it with --preprocessing MODE)" in text
    assert "parity  not run: neither torchvision nor timm has a network" in text
    assert text.endswith('create_model("test_resnet", weights="test_resnet.weights.h5", classes=7)')


def test_nothing_is_overwritten_unless_told(tiny, tmp_path):
    import_file("tiny.safetensors", "test_resnet", "a.weights.h5", parity=False)
    before = (tmp_path / "a.weights.h5").read_bytes()
    for out, message in [
        ("a.weights.h5", "exists"),
        ("a.h5", "must end in .weights.h5"),
        ("none/a.weights.h5", "No such folder"),
    ]:
        with pytest.raises(UserError, match=message):
            import_file("tiny.safetensors", "test_resnet", out)
    assert (tmp_path / "a.weights.h5").read_bytes() == before
    again = import_file(
        "tiny.safetensors", "test_resnet", "a.weights.h5", parity=False, overwrite=True
    )
    assert again.parity.note == "not requested"


def test_the_peer_decides(tiny, tmp_path, monkeypatch):
    """Ours with the same weights as the peer: what it says, and one that says otherwise."""
    images = preprocess(patched_images(32), "test_resnet")
    logits = np.asarray(tiny(images, training=False))
    # Rounding aside, which is below 1e-6 of the largest logit here.
    for factor, passes in [(1, True), (1 + 3e-4, False)]:
        wrong = {"PyTorch": lambda *_, f=factor: ("a peer", f * logits)}
        monkeypatch.setattr(parity, "_RUN", wrong)
        if passes:
            report = import_file("tiny.safetensors", "test_resnet", "right.weights.h5")
            assert report.parity.peer == "a peer"
            assert report.parity.difference < 1e-6
        else:
            with pytest.raises(UserError, match=r"differ from a peer by 3\.0e-04 .* Nothing was"):
                import_file("tiny.safetensors", "test_resnet", "wrong.weights.h5")
    assert not list(tmp_path.glob("*wrong*"))
    nan = {"PyTorch": lambda *_: ("a peer", logits * np.nan)}
    monkeypatch.setattr(parity, "_RUN", nan)
    with pytest.raises(UserError, match="differ"):
        import_file("tiny.safetensors", "test_resnet", "wrong.weights.h5")


def test_the_catalog_knows_the_peers_and_their_preprocessing():
    assert ("torchvision", "resnet18") in catalog_peers("resnet18")
    assert ("timm", "resnet50d") in catalog_peers("resnet50d")
    # Of one network from two sources; where nobody publishes any, it is the network's own.
    assert files._preprocessing("vgg16", "PyTorch") == ("torch", False)
    assert files._preprocessing("vgg16", "Keras Applications") == ("caffe", False)
    assert files._preprocessing("resnet20", "PyTorch") == ("torch", True)
    assert files._preprocessing("resnet8", "MLPerf Tiny") == ("raw", False)


def test_the_new_file_says_what_it_was_trained_with(tiny):
    import_file("tiny.safetensors", "test_resnet", "a.weights.h5", preprocessing="tf")
    model = keras_resnet.create_model(
        "test_resnet", classes=7, weights="a.weights.h5", include_preprocessing=True
    )
    np.testing.assert_allclose(model.get_layer("rescaling").scale, 1 / 127.5)
    with pytest.raises(UserError, match=r"'cifar10' has 10 classes, .* 7"):
        import_file("tiny.safetensors", "test_resnet", "c.weights.h5", data="cifar10")
    with pytest.raises(UserError, match="Did you mean 'torch'"):
        import_file("tiny.safetensors", "test_resnet", "b.weights.h5", preprocessing="troch")


def test_a_network_that_is_in_no_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = logits_model("test_resnet", depths=(2, 2), classes=7)
    entries = foreign_files.like_peer(model, "resnet18", RESNET)
    save_file(entries, "net.safetensors")
    from_torch(entries, model)
    command = ["weights", "import", "net.safetensors", "--as", "test_resnet"]
    assert main(command) == 2
    assert "'test_resnet' has no place for 'layer1.1.bn1.bias'" in capsys.readouterr().err
    assert main([*command, "--set", "depths=[2,2]"]) == 0
    shown = capsys.readouterr().out
    assert "no library has 'test_resnet' with depths=(2, 2)" in shown
    assert shown.strip().endswith('weights="test_resnet.weights.h5", classes=7, depths=(2, 2))')
    file = "test_resnet.weights.h5"
    read = logits_model("test_resnet", weights=file, depths=[2, 2], dropout=0.1)
    for old, new in zip(model.get_weights(), read.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for options in ({}, {"depths": (1, 2)}, {"depths": (2, 2), "stem_width": 8}):
        with pytest.raises(UserError, match=r"with other options\. Use depths=\(2, 2\)"):
            logits_model("test_resnet", weights=file, **options)
    by_name = sources.find("test_resnet", file).keras_model()  # as the command's verbs do
    assert len(by_name.weights) == len(model.weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["depths"], r"received 'depths'. Example: --set depths=\[6,6,6\]"),
        (["dephts=[2,2]"], "Did you mean 'depths'"),
        (["depths=2"], "'depths' must be a tuple"),
    ],
)
def test_options_that_are_none_are_refused(options, message, tiny, capsys):
    sets = [word for option in options for word in ("--set", option)]
    assert main(["weights", "import", "tiny.safetensors", "--as", "test_resnet", *sets]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_run_becomes_a_file_that_gives_its_answers(tiny_run, tmp_path, images):
    name = tiny_run.config.model
    report = import_run(tiny_run.path, name, tmp_path / "run.weights.h5")
    assert report.parity.difference <= 1e-6  # one has fused BN, the other stock layers
    ours = keras_resnet.create_model(name, weights=report.path, include_preprocessing=True)
    theirs = keras.models.load_model(tiny_run.model)
    np.testing.assert_allclose(ours(images), theirs(images), atol=1e-5)
    with pytest.raises(UserError, match=r"are not for|have nothing for"):
        import_run(tiny_run.path, "resnet20", tmp_path / "other.weights.h5")
    with pytest.raises(UserError, match="no finished run"):
        import_run(tmp_path, name, tmp_path / "none.weights.h5")


def test_a_peer_that_cannot_run_is_no_obstacle(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "catalog_peers", lambda name: [("torchvision", "resnet18")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report = import_file("tiny.safetensors", "test_resnet", "a.weights.h5")
    assert str(report.parity) == "not run: this needs pip install torchvision"
    # Either there is none, or its resnet18 takes other weights.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    report = import_file("tiny.safetensors", "test_resnet", "b.weights.h5")
    assert str(report.parity).startswith("not run: torchvision could not run its resnet18 (")


def test_auxiliary_classifiers_are_left_behind(tmp_path):
    full = logits_model("test_googlenet", auxiliary=True)
    entries = foreign_files.like_peer(full, "googlenet_bn", GOOGLENET)
    save_file(entries, tmp_path / "full.safetensors")
    out = tmp_path / "googlenet.weights.h5"
    report = import_file(tmp_path / "full.safetensors", "test_googlenet", out, parity=False)
    plain = logits_model("test_googlenet", weights=str(out))
    assert report.parameters == plain.count_params() < full.count_params()
    from_torch(entries, full)
    for layer in [layer for layer in plain.layers if layer.weights]:
        for mine, theirs in zip(
            layer.get_weights(), full.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)


# Keras Applications -------------------------------------------------------------------------------

# float32 on both sides, in another order: 1e-6 was seen. One BGR channel for another gives 1e-2.
KERAS_TOLERANCE = 1e-5


def test_keras_applications_resnet50(tmp_path):
    theirs = foreign_files.randomize(keras.applications.ResNet50(weights=None, classes=5))
    path = foreign_files.legacy_file(tmp_path / "resnet50_weights_tf_dim_ordering.h5", theirs)
    report = import_file(path, "resnet50", tmp_path / "ours.weights.h5")
    assert (report.library, report.classes) == ("Keras Applications", 5)
    assert report.parity.peer == "keras.applications' ResNet50"
    assert report.parity.difference <= KERAS_TOLERANCE
    for name, mine in [("resnet50v1_5", "is v1.5: stride in the 3×3"), ("resnet50v2", "Keras v2")]:
        with pytest.raises(UserError, match=f"these are v1 weights, use resnet50 .*{mine}"):
            import_file(path, name, tmp_path / "wrong.weights.h5")
    assert not (tmp_path / "wrong.weights.h5").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("resnet50v2", "ResNet50V2"),
        ("densenet121", "DenseNet121"),
        ("vgg16", "VGG16"),
        ("inception_v3", "InceptionV3"),
        ("inception_resnet_v2", "InceptionResNetV2"),
    ],
)
def test_keras_applications(name, theirs, tmp_path):
    model = foreign_files.randomize(getattr(keras.applications, theirs)(weights=None, classes=5))
    path = foreign_files.legacy_file(tmp_path / "theirs.h5", model)
    report = import_file(path, name, tmp_path / "ours.weights.h5")
    assert report.parity.difference <= KERAS_TOLERANCE
    if name == "resnet50v2":
        with pytest.raises(UserError, match="these are Keras v2 weights, use resnet50v2"):
            import_file(path, "resnetv2_50")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["theirs.h5", "theirs.weights.h5", "theirs.keras", "renamed"])
@pytest.mark.parametrize(("name", "theirs"), [("resnet50", "ResNet50"), ("vgg16", "VGG16")])
def test_files_of_keras_3(name, theirs, file, tmp_path):
    """A whole model in either format, and the weights alone."""
    model = foreign_files.randomize(getattr(keras.applications, theirs)(weights=None, classes=5))
    written = "old.weights.h5" if file == "renamed" else file
    (model.save_weights if ".weights" in written else model.save)(tmp_path / written)
    (tmp_path / written).rename(tmp_path / file)
    report = import_file(tmp_path / file, name, tmp_path / "ours.weights.h5")
    assert report.classes == 5
    assert report.parity.difference <= KERAS_TOLERANCE


# PyTorch, where it is installed -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "library", "peer"),
    [
        ("resnet50v1_5", "torchvision", "resnet50"),
        ("googlenet_bn", "torchvision", "googlenet"),
        ("inception_v3_torch", "torchvision", "inception_v3"),
        ("densenet121", "torchvision", "densenet121"),
        ("vgg11", "torchvision", "vgg11"),
        ("resnet50d", "timm", "resnet50d.ra2_in1k"),
        ("seresnet50", "timm", "seresnet50.ra2_in1k"),
        ("resnetv2_50", "timm", "resnetv2_50.a1h_in1k"),
        ("inception_resnet_v2", "timm", "inception_resnet_v2.tf_in1k"),
    ],
)
def test_torch_peers(name, library, peer, tmp_path, monkeypatch):
    if not all(map(importlib.util.find_spec, ("torch", library))):
        pytest.skip(f"torch and {library} are not installed here")
    monkeypatch.setattr(parity, "catalog_peers", lambda _: [(library, peer)])
    path = foreign_files.peer_file(tmp_path / "peer.safetensors", name)
    report = import_file(path, name, tmp_path / "ours.weights.h5")
    assert report.parity.peer == f"{library}'s {peer}"
    # float32 on both sides: 1e-6 was seen, and 3e-6 where dense layers sum 25,088 numbers.
    assert report.parity.difference <= 1e-5

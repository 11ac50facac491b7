"""Our networks against torchvision's and timm's, through the weight converter.

The peers ran once, in an environment of their own (tests/peers/peers.py); here are their logits.
"""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from golden import complexity
from helpers import GOLDEN, cifar10_or_skip
from helpers.foreign_files import golden_logits
from peers.filling import images, sample, state

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.images.preprocessing import PREPROCESSING
from keras_resnet.weights.foreign.torch_files import read_state_dict
from keras_resnet.weights.foreign.torch_names import FAMILIES, rename
from keras_resnet.weights.foreign.torch_weights import from_torch

NAMES = sorted(path.stem for path in (GOLDEN / "parity").glob("*.npz"))
# Besides ResNet-18, on which the other tests stand.
QUICK = {"resnet18d", "resnetv2_18", "seresnext50_32x4d", "alexnet", "googlenet_bn", "densenet121"}

# Theirs is float64, ours float32: rounding over up to 200 layers, for which the peers' own float32
# gives 1.3e-6 of the largest logit and ours 1e-6 (3e-6 where dense layers sum 25,088 numbers). One
# gamma of one channel of ResNet-18's last stage, changed by 1 %, gives 4e-5.
TOLERANCE = 1e-5


def built(name, about, **arguments):
    shape = (about["size"], about["size"], 3)
    arguments = {"classes": about["classes"], "classifier_activation": None, **arguments}
    return keras_resnet.create_model(name, input_shape=shape, **arguments)


def weights(about):
    return state(about["shapes"], about["gain"])


def differences(model, about, theirs):
    """Largest difference of each classifier's logits, relative to the largest logit."""
    ours = model(images(about["size"]), training=False)
    if not isinstance(ours, dict):
        ours = {"predictions": ours}
    assert set(ours) == set(theirs)
    return [
        np.abs(np.asarray(ours[name]) - logits).max() / np.abs(logits).max()
        for name, logits in theirs.items()
    ]


def names():
    known = [name for name in NAMES if name in keras_resnet.list_models()]
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in known]


@pytest.mark.slow
def test_every_golden_file_is_of_a_network():
    assert set(NAMES) <= set(keras_resnet.list_models())


def test_the_page_counts_the_peers():
    page = (GOLDEN.parents[1] / "docs" / "networks.md").read_text(encoding="utf-8")
    assert f"({len(NAMES)} networks of torchvision and timm:" in " ".join(page.split())


def test_parameters_and_multiply_adds_are_the_peers():
    """Counted on their networks; auxiliary classifiers left out on both sides."""
    record = complexity.load()
    theirs = {name: golden_logits(name)[0] for name in NAMES if name in record}
    assert len(theirs) > 30
    for name, about in theirs.items():
        ours = (record[name]["trainable"], record[name]["multiply_adds"])
        assert ours == (about["parameters"], about["multiply_adds"]), name


@pytest.mark.parametrize("name", names())
def test_logits_equal_the_peer(name):
    about, theirs = golden_logits(name)
    model = built(name, about, **({"auxiliary": True} if len(theirs) > 1 else {}))
    from_torch(weights(about), model)
    assert max(differences(model, about, theirs)) <= TOLERANCE
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    # The logits do not tell 1e-5 from Keras Applications' 1.001e-5, and some networks are of both.
    assert sorted({norm.epsilon for norm in norms}) == pytest.approx(about["bn_epsilon"], rel=2e-3)


# Strides left out -------------------------------------------------------------------------------

DILATED = sorted(path.stem for path in (GOLDEN / "parity" / "dilated").glob("*.npz"))
# The two that differ from the others in what they do there: an average pool, pre-activation.
QUICK_DILATED = {("resnet18d", 8), ("resnetv2_18", 8)}


def dilated():
    cases = [(name, stride) for name in DILATED for stride in (8, 16, 32)]
    return [c if c in QUICK_DILATED else pytest.param(*c, marks=pytest.mark.slow) for c in cases]


@pytest.mark.parametrize(("name", "stride"), dilated())
def test_output_strides_and_pyramids_equal_the_peer(name, stride):
    """timm's `output_stride` (torchvision's `replace_stride_with_dilation`) and `features_only`.

    One set of weights for all: strides and dilations have none.
    """
    about, _ = golden_logits(name)
    _, theirs = golden_logits(f"dilated/{name}")
    x = images(about["size"])
    model = built(name, about, output_stride=stride)
    pyramid = built(name, about, output_stride=stride, features=True)
    for network in (model, pyramid):
        from_torch(weights(about), network)
    ours = {"logits": np.asarray(model(x, training=False))}
    maps = pyramid(x, training=False)
    ours |= {stage: sample(np.asarray(value)) for stage, value in maps.items()}
    expected = {key.split()[1]: theirs[key] for key in theirs if key.startswith(f"{stride} ")}
    assert set(ours) == set(expected)
    for key, value in ours.items():
        difference = np.abs(value - expected[key]).max() / np.abs(expected[key]).max()
        assert difference <= TOLERANCE, (key, difference)


@pytest.fixture(scope="module")
def resnet18():
    about, _ = golden_logits("resnet18")
    model = built("resnet18", about)
    from_torch(weights(about), model)
    return model


def test_the_comparison_finds_one_wrong_channel(resnet18):
    """A channel of the last stage, scaled by 1 % more than theirs."""
    about, theirs = golden_logits("resnet18")
    assert max(differences(resnet18, about, theirs)) <= TOLERANCE
    gamma = resnet18.get_layer("stage4_block2_bn1").gamma
    right = np.array(gamma)
    gamma.assign(np.where(np.arange(right.size) == 0, 1.01, 1) * right)
    [found] = differences(resnet18, about, theirs)
    gamma.assign(right)
    assert found > TOLERANCE


@pytest.mark.slow
def test_the_comparison_finds_a_stride_in_the_wrong_place():
    """ResNet-50 v1 takes the weights of v1.5 and differs in nothing but where it strides."""
    about, theirs = golden_logits("resnet50v1_5")
    model = built("resnet50", about)
    from_torch(weights(about), model)
    assert differences(model, about, theirs)[0] > 100 * TOLERANCE


def test_nothing_is_copied_unless_all_fits(resnet18):
    before = resnet18.get_weights()
    entries = {name: value + 1 for name, value in weights(golden_logits("resnet18")[0]).items()}
    for wrong, message in [
        ({**entries, "layer5.0.conv1.weight": 0}, "no place for 'layer5.0.conv1.weight' .it would"),
        ({**entries, "extra.weight": 0}, "no place for 'extra.weight'"),
        (
            {k: v for k, v in entries.items() if k != "bn1.running_var"},
            "no 'running_var' for 'stem_bn'",
        ),
        (
            {k: v for k, v in entries.items() if not k.startswith("layer4.1.bn2")},
            "have nothing for 'stage4_block2_bn2'",
        ),
        (
            {**entries, "layer4.1.bn2.bias": np.zeros(256)},
            "do not fit 'stage4_block2_bn2' of 'resnet18'",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            from_torch(wrong, resnet18)
    for old, new in zip(before, resnet18.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_names_of_torchvisions_older_files():
    """torchvision's densenet121-a639ec97.pth and its like write `norm.1` for today's `norm1`."""
    rows = FAMILIES["torchvision's DenseNet"]
    for norm in ("norm1", "norm.1"):
        name = f"features.denseblock1.denselayer2.{norm}.bias"
        assert rename(name, rows) == "stage1_block2_bn1.bias"


@pytest.mark.parametrize("file", ["state_dict.pth", "old_checkpoint.th"])
def test_torch_files_are_read_without_torch(file):
    read = read_state_dict(GOLDEN / "torch_files" / file)
    matrix = np.arange(6, dtype="float32").reshape(2, 3)
    expected = {
        "weight": matrix,
        "transposed": matrix.T[1:],
        "half": np.array([0.5, -2], "float16"),
        "double": np.array(0.1),
        "num_batches_tracked": np.array(7),
    }
    assert list(read) == list(expected)
    for name, value in expected.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


def test_torch_files_that_need_code_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"whole pickled module \(torch.nn.modules.linear.Linear"):
        read_state_dict(GOLDEN / "torch_files" / "whole_model.pth")
    (tmp_path / "evil.pth").write_bytes(b"cos\nsystem\n(S'touch evil'\ntR.")
    with pytest.raises(UserError, match=r"'os.system', which is not part"):
        read_state_dict(tmp_path / "evil.pth")
    (tmp_path / "cut.th").write_bytes(
        (GOLDEN / "torch_files" / "old_checkpoint.th").read_bytes()[:-9]
    )
    with pytest.raises(UserError, match=r"cut\.th holds no state dict"):
        read_state_dict(tmp_path / "cut.th")
    with pytest.raises(UserError, match="No such weights file"):
        read_state_dict(tmp_path / "none.pth")


# Trained weights ----------------------------------------------------------------------------------


def reference(relative):
    """A file of other people's trained weights; they are not part of the project."""
    folder = os.environ.get("KERAS_RESNET_REFERENCE")
    if not folder:
        pytest.skip("set KERAS_RESNET_REFERENCE to the folder with akamaster_cifar10, mlperf_tiny")
    path = Path(folder) / relative
    if not path.is_file():
        pytest.skip(f"KERAS_RESNET_REFERENCE has no {relative}")
    return path


@pytest.fixture(scope="module")
def cifar10():
    return cifar10_or_skip().test


def hits(model, inputs, labels):
    return int((model.predict(inputs, batch_size=500, verbose=0).argmax(-1) == labels).sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "file", "expected"),
    [(20, "resnet20-12fca82f.th", 9173), (32, "resnet32-d509ac18.th", 9263)],
)
def test_public_cifar_weights_keep_their_accuracy(depth, file, expected, cifar10):
    """Option A networks of github.com/akamaster/pytorch_resnet_cifar10, as measured in PyTorch.

    Within 2 of 10,000: an image on the boundary may fall on either side by rounding.
    """
    model = keras_resnet.create_model(f"resnet{depth}", classifier_activation=None)
    from_torch(read_state_dict(reference(f"akamaster_cifar10/{file}")), model)
    normalise = PREPROCESSING["torch"].layer(3)  # ImageNet's mean and deviation, not CIFAR's
    found = hits(model, np.asarray(normalise(cifar10.images)), cifar10.labels)
    assert abs(found - expected) <= 2


@pytest.mark.slow
def test_mlperf_tiny_keeps_its_accuracy(cifar10):
    """87.21 % in float on the 10,000 test images; within 2 for the same reason."""
    theirs = keras.models.load_model(reference("mlperf_tiny/pretrainedResnet.h5"), compile=False)
    model = keras_resnet.create_model("resnet8")
    model.set_weights(theirs.get_weights())  # its layers have numbers, in the order of ours
    assert abs(hits(model, cifar10.images.astype("float32"), cifar10.labels) - 8721) <= 2
    few = cifar10.images[:16].astype("float32")
    # 1e-6: probabilities of the same float32 operations in the same order, but for the fused BN.
    np.testing.assert_allclose(model(few), theirs.predict(few, verbose=0), atol=1e-6)

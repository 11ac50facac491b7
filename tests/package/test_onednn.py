"""oneDNN is on where it is faster, and who is too late is told."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, run_python

from keras_resnet import onednn
from keras_resnet.cli.main import main
from keras_resnet.recipes.training import devices

CPUS = ROOT / "tests" / "golden" / "cpuinfo"
AVX2 = (CPUS / "zen2_epyc_7302p.txt").read_text()


@pytest.mark.parametrize(
    ("cpu", "always", "training"),
    [
        ("zen2_epyc_7302p", False, True),  # AVX2
        ("skylake_xeon_8175m", True, True),  # AVX512 without VNNI
        ("zen4_epyc", False, False),  # TensorFlow turns it on
        ("aarch64_cobalt_100", False, False),
    ],
)
def test_real_processors(cpu, always, training):
    text = (CPUS / f"{cpu}.txt").read_text()
    assert onednn.is_faster(text, training=False) is always
    assert onednn.is_faster(text, training=True) is training


@pytest.mark.parametrize(
    "text", ["", "flags\t\t:", "flags\t\t: sse4_2 avx", "flags\t\t: avx2 avx_vnni"]
)
def test_no_other_system_or_processor_is_touched(text):
    """Windows and macOS have no such text; old x86 was not measured; Alder Lake has it on."""
    assert not onednn.is_faster(text, training=True)


@pytest.fixture
def unset(monkeypatch):
    """As where the user has set nothing, and TensorFlow is not imported yet."""
    monkeypatch.setenv(onednn.VARIABLE, "")  # so that it is put back in the end
    monkeypatch.delenv(onednn.VARIABLE)
    monkeypatch.delitem(sys.modules, "tensorflow")


def test_children_inherit_it(unset):
    onednn.turn_on(AVX2, training=True)
    child = [sys.executable, "-c", f"import os; print(os.environ['{onednn.VARIABLE}'])"]
    assert subprocess.run(child, capture_output=True, text=True).stdout == "1\n"


def test_it_stays_off_where_single_images_would_be_slow(unset):
    onednn.turn_on(AVX2, training=False)
    assert onednn.VARIABLE not in os.environ


def test_what_the_user_set_stays(unset, monkeypatch):
    monkeypatch.setenv(onednn.VARIABLE, "0")
    onednn.turn_on(AVX2, training=True)
    assert os.environ[onednn.VARIABLE] == "0"
    assert onednn.why_off(AVX2) == " (TF_ENABLE_ONEDNN_OPTS=0)"


def test_who_imported_tensorflow_first_is_told(unset, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", tf)
    onednn.turn_on(AVX2, training=True)
    assert onednn.VARIABLE not in os.environ
    assert "TensorFlow was imported first: set TF_ENABLE_ONEDNN_OPTS=1" in onednn.why_off(AVX2)
    assert onednn.why_off((CPUS / "aarch64_cobalt_100.txt").read_text()) == ""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from keras_resnet.cli.main import main; main(['list'])", "None"),
        ("from keras_resnet.cli.main import main; main(['train', '--list'])", "1"),
        ("from keras_resnet.cli.main import main; main(['qat', 'nothing'])", "1"),
        ("import keras_resnet.recipes", "1"),
    ],
)
def test_what_trains_turns_it_on_with_avx2(code, expected):
    as_if = (
        "import os\n"
        "from keras_resnet import onednn\n"
        f"os.environ.pop('{onednn.VARIABLE}', None)\n"  # what pytest's process or the import set
        f"onednn.read_cpuinfo = lambda: {AVX2!r}\n"
    )
    asked = f"\nprint(os.environ.get('{onednn.VARIABLE}'))"
    assert run_python(as_if + code + asked).stdout.split()[-1] == expected


@pytest.mark.skipif(
    "avx2" not in onednn.read_cpuinfo(), reason="TensorFlow has oneDNN on x86; it is not used here"
)
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, "oneDNN kernels"),  # by TensorFlow's own default or by ours
        ("1", "oneDNN kernels"),
        ("0", "Eigen kernels (TF_ENABLE_ONEDNN_OPTS=0)"),
    ],
)
@pytest.mark.slow
def test_the_kernels_that_run_are_named(setting, expected):
    given = f"import os\nos.environ.pop('{onednn.VARIABLE}', None)\n"
    given += "" if setting is None else f"os.environ['{onednn.VARIABLE}'] = '{setting}'\n"
    named = "from keras_resnet.recipes.training import devices\nprint(devices.kernels())"
    assert run_python(given + named).stdout.strip() == expected


def test_training_says_which_kernels_run(capsys, tmp_path):
    assert main(["train", "debug/tiny", "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    assert f", 1 device(s), {devices.kernels()}\n" in capsys.readouterr().err


GRADIENTS = """
import sys
import keras_resnet, keras, numpy as np, tensorflow as tf
keras.utils.set_random_seed(0)
model = keras_resnet.ResNet20(classifier_activation=None)
rng = np.random.default_rng(0)
images, labels = rng.normal(size=(32, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 32)
with tf.GradientTape() as tape:
    logits = model(images, training=True)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
np.savez(sys.argv[1], *[logits.numpy(), *[g.numpy() for g in gradients]])
"""


@pytest.mark.slow
def test_results_are_eigens_to_float_tolerance(tmp_path):
    """ResNet-20's logits and gradients, in oneDNN's AVX2 kernels, which turning it on brings in."""
    files = [tmp_path / "on.npz", tmp_path / "off.npz"]
    for file, setting in zip(files, "10", strict=True):
        run_python(GRADIENTS, file, env={onednn.VARIABLE: setting, "ONEDNN_MAX_CPU_ISA": "AVX2"})
    on, off = (list(np.load(file).values()) for file in files)
    assert len(on) == len(off) == 60  # logits, 19 kernels, 38 of BN, 2 of the classifier
    logits, *gradients = (
        np.abs(a - b).max() / np.abs(b).max() for a, b in zip(on, off, strict=True)
    )
    assert logits < 1e-5  # the order of float32 sums in 20 layers; 1.6e-6 was seen
    # The same up to the classifier's end, 8e-6. Of the 6 million ReLUs one has an input so near to
    # 0 that its sign is rounding, and its gradient is passed on or not: 1.5e-2 in all layers below.
    assert max(gradients) < 5e-2
    assert min(gradients) < 1e-5

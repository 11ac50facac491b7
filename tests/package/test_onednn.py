"""oneDNN is on where it is faster, and who is too late is told."""

import os
import sys

import pytest
from helpers import ROOT, run_python

from keras_resnet import onednn
from keras_resnet.cli.main import main
from keras_resnet.recipes.training import devices

CPUS = ROOT / "tests" / "golden" / "cpuinfo"
AVX2 = (CPUS / "zen2_epyc_7302p.txt").read_text()


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ("zen2_epyc_7302p", True),  # AVX2
        ("skylake_xeon_8175m", True),  # AVX512 without VNNI
        ("zen4_epyc", False),  # TensorFlow turns it on
        ("aarch64_cobalt_100", False),
    ],
)
def test_real_processors(cpu, expected):
    assert onednn.is_left_off((CPUS / f"{cpu}.txt").read_text()) is expected


@pytest.mark.parametrize(
    "text", ["", "flags\t\t:", "flags\t\t: sse4_2 avx", "flags\t\t: avx2 avx_vnni"]
)
def test_no_other_system_or_processor_is_touched(text):
    """Windows and macOS have no such text; old x86 was not measured; Alder Lake has it on."""
    assert not onednn.is_left_off(text)


START = """
import os, subprocess, sys
os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)
"""
AS_IF_AVX2 = f"""
from keras_resnet import onednn
os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)  # that of the import, where this CPU is such a one
onednn.turn_on({AVX2!r})
"""
CHILD = [sys.executable, "-c", f"import os; print(os.environ['{onednn.VARIABLE}'])"]


def test_it_is_turned_on_before_tensorflow_and_children_inherit_it():
    child = f"print(subprocess.run({CHILD}, capture_output=True, text=True).stdout)"
    result = run_python(START + AS_IF_AVX2 + child)
    assert (result.stdout.strip(), result.stderr) == ("1", "")


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setenv(onednn.VARIABLE, "0")
    onednn.turn_on(AVX2)
    assert os.environ[onednn.VARIABLE] == "0"


def test_an_import_after_tensorflow_says_what_is_lost():
    result = run_python(
        START + "import tensorflow\n" + AS_IF_AVX2 + "assert onednn.VARIABLE not in os.environ"
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("keras_resnet: ")]
    assert "TensorFlow was imported first and runs without oneDNN" in lines[-1]
    assert "Set TF_ENABLE_ONEDNN_OPTS=1 before Python starts" in lines[-1]


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
def test_the_kernels_that_run_are_named(setting, expected):
    given = "" if setting is None else f"os.environ['{onednn.VARIABLE}'] = '{setting}'\n"
    named = "from keras_resnet.recipes.training import devices\nprint(devices.kernels())"
    assert run_python(START + given + named).stdout.strip() == expected


def test_training_says_which_kernels_run(capsys, tmp_path):
    assert main(["train", "debug/tiny", "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    assert f", 1 device(s), {devices.kernels()}\n" in capsys.readouterr().err

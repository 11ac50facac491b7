"""Files answer on an emulated ARM processor as they do here: benchmarks/aarch64.py."""

import importlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, cifar10_or_skip

from keras_resnet.cli.main import main

FORMATS = "tflite-float32,tflite-dynamic,tflite-int8,tflite-int4"


@pytest.fixture
def aarch64(monkeypatch):
    """The program as a module, as if it were run from its folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("aarch64")
    del sys.modules["aarch64"]


@pytest.mark.parametrize(
    ("kind", "found", "passes"),
    [
        ("tflite-int8", np.array([[9, 200]], "uint8"), True),  # a step
        ("tflite-int8", np.array([[8, 200]], "uint8"), False),
        ("tflite-float32", np.array([[0.1, 0.9]], "float32") + np.float32(5e-6), True),
        ("tflite-float32", np.array([[0.1, 0.9]], "float32") + np.float32(5e-5), False),
        ("tflite-dynamic", np.array([[0.51, 0.49]], "float32"), False),
    ],
)
def test_an_answer_may_differ_by_rounding_only(aarch64, kind, found, passes):
    expected = np.array([[10, 200]] if found.dtype == "uint8" else [[0.1, 0.9]], found.dtype)
    assert aarch64.difference(kind, expected, found)["passed"] == passes


def test_another_class_is_a_failure_within_the_bound(aarch64):
    expected, found = np.array([[99, 100]], "uint8"), np.array([[100, 99]], "uint8")
    assert not aarch64.difference("tflite-int8", expected, found)["passed"]


@pytest.mark.network
def test_every_kind_of_tflite_file_answers_as_here(aarch64, tmp_path):
    """On both processors, and classify.py too; Debian's and PyPI's files are downloaded."""
    cifar10_or_skip()
    if not (shutil.which(aarch64.QEMU) and shutil.which("apt-get")):
        pytest.skip(f"needs Debian with {aarch64.QEMU} (package qemu-user-static)")
    exports, record = tmp_path / "exports", tmp_path / "record.json"
    words = ["--weights", "cifar10", "--formats", FORMATS, "--out", str(exports)]
    assert main(["export", "resnet8", *words]) == 0
    program = [sys.executable, ROOT / "benchmarks" / "aarch64.py", exports, "--data", "cifar10"]
    limits = ["--images", "10", "--root", tmp_path / "root", "--json", record]
    subprocess.run([*map(str, [*program, *limits])], check=True)
    rows = json.loads(record.read_text())["rows"]
    assert len(rows) == len(FORMATS.split(",")) * len(aarch64.CORES)

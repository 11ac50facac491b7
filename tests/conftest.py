"""What the tests share. They run offline, on the CPU, in any checkout."""

import importlib.util
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms
from helpers.litert_js import small_litert_js

import keras_resnet
import keras_resnet.export
from keras_resnet.errors import UserError
from keras_resnet.export.formats import litert_js
from keras_resnet.recipes import load_dataset


def pytest_terminal_summary(terminalreporter):
    """Print the table of the campaign, which a process of xdist has run."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in report.user_properties:
            if name == "campaign":
                terminalreporter.write_line(text)


@pytest.fixture(name="small_litert_js")
def _small_litert_js(tmp_path_factory):
    with small_litert_js(tmp_path_factory.mktemp("litert_js")):
        yield


@pytest.fixture(scope="session")
def litert_js_or_skip():
    """The real LiteRT.js, for pages that a browser runs; npm installs it the first time."""
    try:
        return litert_js.node_modules()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def classify():
    """export/edge/classify.py, which stands alone, as a module."""
    path = Path(keras_resnet.export.__file__).parent / "edge" / "classify.py"
    spec = importlib.util.spec_from_file_location("classify", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits", validation=180)


@pytest.fixture(scope="session")
def images():
    """Random RGB pixels, 32×32."""
    return np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype("uint8")


@pytest.fixture(scope="session")
def resnet20():
    """ResNet-20 with its preprocessing inside and BN statistics that are not the initial ones."""
    keras.utils.set_random_seed(0)
    return randomize_batch_norms(keras_resnet.ResNet20(include_preprocessing=True))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A finished run of a few epochs on the digits, good enough to tell most of them apart."""
    from keras_resnet.recipes import load_config, train

    loaded = load_config("debug/tiny", {"train.epochs": 8})
    return train.run(loaded, tmp_path_factory.mktemp("runs") / "tiny")

"""What the tests share. They run offline, on the CPU, in any checkout."""

import importlib.util
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms

import keras_resnet
import keras_resnet.export
from keras_resnet.recipes import load_dataset


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

"""What the tests share. They run offline, on the CPU, in any checkout."""

import hashlib
import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

import keras_resnet
import keras_resnet.export
from keras_resnet.errors import UserError
from keras_resnet.export.formats import litert_js
from keras_resnet.recipes import load_dataset


def randomize_batch_norms(model, seed=0):
    """Give every BN statistics of a trained network; the initial ones hide mistakes."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape[0]
            gamma, variance = rng.uniform(0.5, 1.5, (2, size))
            beta, mean = rng.normal(0, 0.2, (2, size))
            layer.set_weights([gamma, beta, mean, variance])
    return model


def run_python(code, *arguments, check=True, cwd=None, env=None, timeout=300):
    """Run a script in a process of its own, where devices and imports start anew."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=timeout,
    )
    if check:
        assert result.returncode == 0, result.stderr[-3000:]
    return result


def cifar10_or_skip():
    """CIFAR-10, which tests do not download."""
    try:
        return load_dataset("cifar10")
    except UserError as error:
        pytest.skip(f"CIFAR-10 is not prepared here: {error}")


@contextmanager
def small_litert_js(folder):
    """Put files of a few bytes, and their hashes, in the place of LiteRT.js: it is not downloaded.

    `folder` is made; the files are in its node_modules.
    """
    rows = []
    for file in litert_js.files():
        path = file.installed(folder / "node_modules")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"in the place of {file.name}", encoding="utf-8")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(f"{file.name} {file.package} {file.path} {digest}\n")
    (folder / "SOURCES").write_text("".join(rows), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litert_js, "SOURCES", folder / "SOURCES")
        patch.setenv(litert_js.FOLDER, str(folder))
        yield


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

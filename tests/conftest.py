"""What the tests share. They run offline, on the CPU, in any checkout."""

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import keras_resnet
import keras_resnet.export
from keras_resnet.errors import UserError
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


def assert_texts_apart(figure):
    """No text of a matplotlib figure covers another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    boxes = [text.get_window_extent() for text in shown]
    for (one, a), (other, b) in itertools.combinations(zip(shown, boxes, strict=True), 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        # Boxes have room for ascenders and descenders: two points of it may be shared.
        assert across <= 0 or down <= 2, (one.get_text(), other.get_text())


def cifar10_or_skip():
    """CIFAR-10, which tests do not download."""
    try:
        return load_dataset("cifar10")
    except UserError as error:
        pytest.skip(f"CIFAR-10 is not prepared here: {error}")


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

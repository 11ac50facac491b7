"""What tests of several rooms share."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet.errors import UserError
from keras_resnet.recipes import load_dataset

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"


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


def first_by_default(values):
    """Parameters of a test that runs with the first by default; with the others it is slow."""
    first, *others = values
    return [first, *(pytest.param(value, marks=pytest.mark.slow) for value in others)]


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

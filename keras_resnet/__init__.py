"""Residual networks for Keras 3: build, train, export, and check every file against its model."""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# In a checkout the folder keras_resnet/ shadows an installed package, while export/ and recipes/
# lie beside it: with the checkout's root on the path `keras_resnet.export` resolves there too.
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.isfile(os.path.join(_ROOT, "pyproject.toml")) and os.path.isdir(
    os.path.join(_ROOT, "recipes", "configs")
):
    __path__.append(_ROOT)


def _is_command() -> bool:
    """Whether this process is `keras-resnet ...` or `python -m keras_resnet ...`."""
    program = os.path.basename(sys.argv[0] if sys.argv else "")
    if program == "-m":  # Python is still looking for the module it was asked to run
        asked = sys.orig_argv[sys.orig_argv.index("-m") + 1 :]
        return asked[:1] == ["keras_resnet"]
    return program.split(".")[0] == "keras-resnet"


# `keras.models.load_model` finds our layer only once it is registered, so a plain import brings
# everything. The command waits with it, so that `--help` and a mistyped option do not first spend
# seconds on loading TensorFlow.
if TYPE_CHECKING or not _is_command():
    from keras_resnet._public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Import `keras_resnet.export`, `recipes` and `insight` when they are first used."""
    if name in ("export", "recipes"):
        return import_module(f"keras_resnet.{name}")
    if name == "insight":
        return import_module("keras_resnet.analysis.insight")
    raise AttributeError(f"module 'keras_resnet' has no attribute '{name}'")

"""Residual networks for Keras 3: build, train, export, and check every file against its model.

The import is light: it loads neither Keras nor TensorFlow. So `keras-resnet --help`, a mistyped
option, or a process that only times a `.tflite` file does not have to wait for them. The public
names (`_public.py`) and the submodules are imported when they are first used.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The folders export/ and recipes/ are next to keras_resnet/; only an install puts them inside it.
if find_spec("keras_resnet.export") is None:
    raise ImportError(
        f"keras_resnet was imported from a checkout that is not installed: {__path__[0]}. Run "
        "`pip install -e .` in the checkout. To use an installed keras_resnet instead, start "
        "Python in another folder."
    )

import wrapt

from keras_resnet import onednn

# TensorFlow reads this once, during its import. 2 shows errors only. A user's own value stays.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
onednn.turn_on(onednn.read_cpuinfo(), training=False)

if TYPE_CHECKING:
    from keras_resnet._public import *  # noqa: F403
    from keras_resnet.analysis import insight as insight
    from keras_resnet.images import labels as labels


# `keras.models.load_model` needs our layers to be registered, so they are imported with Keras.
@wrapt.when_imported("keras")
def _register_layers(_: Any) -> None:
    import_module("keras_resnet.layers")


# Public submodules that are in a subfolder.
_ELSEWHERE = {
    "insight": "keras_resnet.analysis.insight",
    "labels": "keras_resnet.images.labels",
}


def __getattr__(name: str) -> Any:
    """Import a submodule, or all of the public names, when it is first used."""
    if name == "__all__" or not name.startswith("_"):
        from keras_resnet.lazy import quiet_import

        module = _ELSEWHERE.get(name, f"keras_resnet.{name}")
        if find_spec(module):
            return quiet_import(module)
        public = quiet_import("keras_resnet._public")
        if name in (*public.__all__, "__all__"):
            return getattr(public, name)
    raise AttributeError(f"module 'keras_resnet' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*__getattr__("__all__"), *_ELSEWHERE, "applications", "export", "recipes"])

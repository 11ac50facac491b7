"""Every network by name."""

from __future__ import annotations

import fnmatch
import importlib
from dataclasses import dataclass
from typing import Any, Protocol

import keras

from keras_resnet.errors import UnknownNameError


class Builder(Protocol):
    """A public builder such as `keras_resnet.ResNet50`."""

    __name__: str

    def __call__(
        self,
        include_top: bool = True,
        weights: Any = None,
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: str | None = "softmax",
        name: str | None = None,
        include_preprocessing: bool = False,
        features: bool = False,
        **options: Any,
    ) -> keras.Model:
        """Build the network; the arguments are those of `keras_resnet.build`."""


@dataclass(frozen=True)
class Architecture:
    """What is known of a network without building it."""

    name: str
    builder: Builder
    summary: str
    source: str  # arXiv id and section or table
    preprocessing: str
    input_size: int
    min_size: int
    classes: int


_ARCHITECTURES: dict[str, Architecture] = {}


def register(architecture: Architecture) -> None:
    """Add a network to the table; a name is taken once."""
    if architecture.name in _ARCHITECTURES:
        raise ValueError(f"The model name '{architecture.name}' is registered twice.")
    _ARCHITECTURES[architecture.name] = architecture


def architecture(name: str) -> Architecture:
    """Look up a registry name.

    Raises:
        UnknownNameError: no such network (the message has the nearest name).
    """
    known = _filled()
    if name not in known:
        see = "Run 'keras-resnet list' to see all."
        raise UnknownNameError("model", name, known, see)
    return known[name]


def _filled() -> dict[str, Architecture]:
    """The table. The networks' modules fill it; they are imported when it is first read."""
    importlib.import_module("keras_resnet._public")
    return _ARCHITECTURES


def list_models(pattern: str = "*") -> list[str]:
    """Return the registry names that match a shell pattern, e.g. `"resnetv2_*"`."""
    return [name for name in _filled() if fnmatch.fnmatch(name, pattern)]


def create_model(name: str, /, **arguments: Any) -> keras.Model:
    """Build a network by registry name; `arguments` are those of `keras_resnet.build`.

    Args:
        name: one of `list_models`.
        arguments: of `keras_resnet.build`, all but `network`.

    Returns:
        A model from (batch, height, width, channels) to (batch, classes); without the top, or with
        auxiliary classifiers, see `keras_resnet.build`.

    Raises:
        UnknownNameError: no such network.
        UserError: see `keras_resnet.build`.
    """
    return architecture(name).builder(**arguments)


def describe(name: str) -> dict[str, Any]:
    """Build a network and return what `keras-resnet show` says of it.

    Raises:
        UnknownNameError: no such network.
    """
    entry = architecture(name)
    model = create_model(name)
    trainable = sum(variable.value.shape.num_elements() for variable in model.trainable_variables)
    return {
        "name": name,
        "function": f"keras_resnet.{entry.builder.__name__}",
        "summary": entry.summary,
        "source": entry.source,
        "input": [entry.input_size, entry.input_size, 3],
        "classes": entry.classes,
        "preprocessing": entry.preprocessing,
        "parameters_trainable": trainable,
        "parameters_total": model.count_params(),
    }

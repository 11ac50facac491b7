"""Every network by name."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_resnet.errors import UnknownNameError

if TYPE_CHECKING:
    import keras

    from keras_resnet.models.network import Network


@dataclass(frozen=True)
class Architecture:
    """A row of the table: what is known of a network without building it.

    Attributes:
        name: its registry name.
        network: what `keras_resnet.build` takes; it knows its image size, classes, preprocessing.
        builder: builds it; takes the arguments of `keras_resnet.build`, all but `network`.
        summary: what it is, in a few words.
        source: arXiv id, and section or table.
        function: the name under which `keras_resnet` has `builder`; None: `create_model` only.
    """

    name: str
    network: Network
    builder: Callable[..., keras.Model]
    summary: str
    source: str
    function: str | None


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
    network = entry.network
    model = create_model(name)
    trainable = sum(variable.value.shape.num_elements() for variable in model.trainable_variables)
    return {
        "name": name,
        "function": entry.function and f"keras_resnet.{entry.function}",
        "summary": entry.summary,
        "source": entry.source,
        "input": [network.input_size, network.input_size, 3],
        "classes": network.classes,
        "preprocessing": network.preprocessing,
        "parameters_trainable": trainable,
        "parameters_total": model.count_params(),
    }

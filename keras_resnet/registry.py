"""The registry of all networks by name."""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_resnet.arguments import checked
from keras_resnet.errors import UnknownNameError, UserError

if TYPE_CHECKING:
    import keras

    from keras_resnet.models.network import Network
    from keras_resnet.weights.catalog import Entry


@dataclass(frozen=True)
class Architecture:
    """A network in the registry: the facts that are known without building it.

    Attributes:
        name: registry name.
        network: the network for `keras_resnet.build`, with its image size, classes, preprocessing.
        builder: the function that builds it, with the arguments of `keras_resnet.build` except
            `network`.
        summary: short description.
        source: arXiv id, and section or table.
        function: the builder's name in `keras_resnet`; None if only `create_model` builds it.
        weights: returns its weights in the catalog, the default first.
    """

    name: str
    network: Network
    builder: Callable[..., keras.Model]
    summary: str
    source: str
    function: str | None
    weights: Callable[[], tuple[Entry, ...]]


_ARCHITECTURES: dict[str, Architecture] = {}


def register(architecture: Architecture) -> None:
    """Add a network to the registry. Every name can be used once."""
    if architecture.name in _ARCHITECTURES:
        raise ValueError(f"The model name '{architecture.name}' is registered twice.")
    _ARCHITECTURES[architecture.name] = architecture


def architecture(name: str) -> Architecture:
    """Look up a registry name.

    Raises:
        UnknownNameError: there is no such network (the message has the nearest name).
    """
    known = _filled()
    if name not in known:
        see = "Run 'keras-resnet list' to see all."
        raise UnknownNameError("model", name, known, see)
    return known[name]


def find(name: str) -> Architecture:
    """Look up a network by a name as people write it: "ResNet50", "ResNet-50", "InceptionV3".

    Raises:
        UnknownNameError: there is no such network, or two networks fit.
        UserError: `name` is timm's name for some weights. The message has the call for them.
    """
    known = _filled()
    lower = name.lower()
    spelled = [known_name for known_name in known if squeezed(known_name) == squeezed(lower)]
    if lower not in known and len(spelled) == 1:
        return known[spelled[0]]
    for entry in (entry for row in known.values() for entry in row.weights()):
        if "." in name and entry.peer == name.rpartition("/")[2]:
            raise UserError(
                f"'{name}' is the name of a weights file of {entry.source}. Use "
                f'create_model("{entry.model}", weights="{entry.tag}").'
            )
    return architecture(lower if lower in known else name)


def squeezed(name: str) -> str:
    """Return a name without the characters that people write differently."""
    return re.sub(r"[-_. ]", "", name.lower())


def _filled() -> dict[str, Architecture]:
    """Return the registry. Importing the networks' modules fills it, on the first call."""
    importlib.import_module("keras_resnet._public")
    return _ARCHITECTURES


@checked
def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Return the registry names that match a shell pattern.

    Args:
        pattern: e.g. `"resnetv2_*"`. Upper and lower case are equal.
        pretrained: True returns only networks that have weights in the catalog.
    """
    return [
        name
        for name, row in _filled().items()
        if fnmatch.fnmatchcase(name, pattern.lower()) and (not pretrained or row.weights())
    ]


@checked
def list_weights(pattern: str = "*") -> dict[str, list[str]]:
    """Return the catalog's weights for each network: the tags that `weights=` accepts.

    Args:
        pattern: shell pattern for the networks' names, as in `list_models`.

    Returns:
        The tags by registry name. The first tag of a network is its default; the part before the
        slash, such as `"imagenet"`, means the default too. `keras-resnet weights list` shows the
        accuracies.
    """
    names = list_models(pattern, pretrained=True)
    return {name: [entry.tag for entry in _filled()[name].weights()] for name in names}


@checked
def create_model(name: str, /, **arguments: Any) -> keras.Model:
    """Build a network by name.

    Args:
        name: a name from `list_models`. Case, hyphens and underscores do not matter: "ResNet50" and
            "resnet-50" mean "resnet50".
        arguments: the arguments of `keras_resnet.build` except `network`.

    Returns:
        A model from (batch, height, width, channels) to (batch, classes). For models without the
        top, or with auxiliary classifiers, see `keras_resnet.build`.

    Raises:
        UnknownNameError: there is no such network.
        UserError: see `keras_resnet.build`.
    """
    return find(name).builder(**arguments)


def describe(name: str) -> dict[str, Any]:
    """Build a network and return the facts that `keras-resnet show` prints.

    Raises:
        UnknownNameError: there is no such network.
    """
    entry = find(name)
    network = entry.network
    model = entry.builder(weights=None)
    trainable = sum(variable.value.shape.num_elements() for variable in model.trainable_variables)
    return {
        "name": entry.name,
        "function": entry.function and f"keras_resnet.{entry.function}",
        "summary": entry.summary,
        "source": entry.source,
        "input": [network.input_size, network.input_size, 3],
        "classes": network.classes,
        "preprocessing": network.preprocessing,
        "parameters_trainable": trainable,
        "parameters_total": model.count_params(),
    }

"""Every network by name."""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_resnet.errors import UnknownNameError, UserError

if TYPE_CHECKING:
    import keras

    from keras_resnet.models.network import Network
    from keras_resnet.weights.catalog import Entry


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
        weights: gives the catalog's weights of it, the default first.
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


def find(name: str) -> Architecture:
    """Look up a network by its name as people write it: "ResNet50", "ResNet-50", "InceptionV3".

    Raises:
        UnknownNameError: no such network, or two of that spelling.
        UserError: the name of a file of timm's weights; the message has the call for it.
    """
    known = _filled()
    lower = name.lower()
    spelled = [known_name for known_name in known if _squeezed(known_name) == _squeezed(lower)]
    if lower not in known and len(spelled) == 1:
        return known[spelled[0]]
    for entry in (entry for row in known.values() for entry in row.weights()):
        if "." in name and entry.peer == name.rpartition("/")[2]:
            raise UserError(
                f"'{name}' is what {entry.source} calls some weights. Write "
                f'create_model("{entry.model}", weights="{entry.tag}").'
            )
    return architecture(lower if lower in known else name)


def _squeezed(name: str) -> str:
    """A name without what people spell differently."""
    return re.sub(r"[-_. ]", "", name.lower())


def _filled() -> dict[str, Architecture]:
    """The table. The networks' modules fill it; they are imported when it is first read."""
    importlib.import_module("keras_resnet._public")
    return _ARCHITECTURES


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Return the registry names that match a shell pattern.

    Args:
        pattern: e.g. `"resnetv2_*"`; its case does not matter.
        pretrained: leave out the networks for which the catalog has no weights.
    """
    return [
        name
        for name, row in _filled().items()
        if fnmatch.fnmatchcase(name, pattern.lower()) and (not pretrained or row.weights())
    ]


def list_weights(pattern: str = "*") -> dict[str, list[str]]:
    """Return what `weights=` takes beside files: the tags of every network that has some.

    Args:
        pattern: of the networks' names, as in `list_models`.

    Returns:
        The tags by registry name. The first tag of a network is its default, which the part before
        the slash means, too: `"imagenet"`. `keras-resnet weights list` shows the accuracies.
    """
    names = list_models(pattern, pretrained=True)
    return {name: [entry.tag for entry in _filled()[name].weights()] for name in names}


def create_model(name: str, /, **arguments: Any) -> keras.Model:
    """Build a network by name; `arguments` are those of `keras_resnet.build`.

    Args:
        name: one of `list_models`. Its case, hyphens and underscores do not matter: "ResNet50" and
            "resnet-50" are "resnet50".
        arguments: of `keras_resnet.build`, all but `network`.

    Returns:
        A model from (batch, height, width, channels) to (batch, classes); without the top, or with
        auxiliary classifiers, see `keras_resnet.build`.

    Raises:
        UnknownNameError: no such network.
        UserError: see `keras_resnet.build`.
    """
    return find(name).builder(**arguments)


def describe(name: str) -> dict[str, Any]:
    """Build a network and return what `keras-resnet show` says of it.

    Raises:
        UnknownNameError: no such network.
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

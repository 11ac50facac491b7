"""Every public name says in its docstring what it takes, what it raises and, a network, its source.

Shapes and units are words; that they are there is read, not tested.
"""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from keras_resnet import registry

ROOT = Path(__file__).parents[1]
MODULES = (
    "keras_resnet._public",
    "keras_resnet.export",
    "keras_resnet.recipes",
    "keras_resnet.insight",
)
RAISES_NOTHING = {"list_models", "pixel_map"}


def _public():
    for module in map(import_module, MODULES):
        names = getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]
        for name in names:
            member = getattr(module, name)
            own = getattr(member, "__module__", "").startswith("keras_resnet")
            if own and (inspect.isfunction(member) or inspect.isclass(member)):
                yield pytest.param(member, id=f"{module.__name__.split('.')[-1]}.{name}")


@pytest.mark.parametrize("member", _public())
def test_a_public_name_explains_itself(member):
    text = inspect.getdoc(member)
    assert text
    if inspect.isfunction(member):
        unsaid = [
            x for x in inspect.signature(member).parameters if not re.search(rf"\b{x}\b", text)
        ]
        assert not unsaid
        assert "Raises:" in text or member.__name__ in RAISES_NOTHING


@pytest.mark.parametrize("name", registry.list_models())
def test_a_network_names_its_source(name):
    network = registry.architecture(name)
    assert network.source in inspect.getdoc(network.builder)


def test_the_documentation_has_every_public_name():
    """The builders stand in its table of models."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md")]
    shown = set(re.findall(r"^::: (\S+)", "\n".join(pages), re.MULTILINE))
    builders = {registry.architecture(name).builder for name in registry.list_models()}
    for (member,) in (param.values for param in _public()):
        if member not in builders:
            assert {member.__module__, f"{member.__module__}.{member.__name__}"} & shown, member

"""Every public name has a docstring: what it takes or holds, arrays in which shape; a network's has
its source."""

import dataclasses
import inspect
import re
from importlib import import_module
from pkgutil import resolve_name

import pytest
from helpers import ROOT

from keras_resnet import registry
from keras_resnet.recipes.configs.schema import Config

MODULES = (
    "keras_resnet._public",
    "keras_resnet.export",
    "keras_resnet.recipes",
    "keras_resnet.analysis.insight",
)
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
SHOWN = re.compile(r"^::: (\S+)(?:\n    options:\n      members: \[(.*)\])?$", re.MULTILINE)
# The site makes a table of the comments beside its keys (docs/pages.py).
TABLED = {Config}
LAYERS_ONLY = {f"keras_resnet.models.resnet.{name}" for name in ("blocks", "shortcuts", "stems")}


def _public():
    """What is imported from the packages, and what the API pages show of their modules."""
    members = {}
    for module in map(import_module, MODULES):
        names = getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]
        members |= {f"{module.__name__}.{name}": getattr(module, name) for name in names}
    for page in PAGES:
        for name, listed in SHOWN.findall(page.read_text(encoding="utf-8")):
            members |= _shown(name, listed)
    for name, member in members.items():
        own = getattr(member, "__module__", "").startswith("keras_resnet")
        if own and (inspect.isfunction(member) or inspect.isclass(member)):
            yield pytest.param(member, id=name.removeprefix("keras_resnet."))


def _shown(name, listed):
    """Return {name: object} for a line of a page, which names an object or a module's members."""
    module = resolve_name(name)
    if not inspect.ismodule(module):
        return {name: module}
    names = listed.split(", ") if listed else [n for n in vars(module) if n[0] != "_"]
    members = {f"{name}.{n}": getattr(module, n) for n in names}
    return {
        path: member
        for path, member in members.items()
        if listed or getattr(member, "__module__", "") == module.__name__
    }


@pytest.mark.parametrize("member", _public())
def test_a_public_name_explains_itself(member):
    text = inspect.getdoc(member)
    assert text
    if inspect.isfunction(member):
        # What all functions of such a module take, its own docstring says.
        said = text + inspect.getdoc(import_module(member.__module__)) * _only_makes_layers(member)
        unsaid = [
            x for x in inspect.signature(member).parameters if not re.search(rf"\b{x}\b", said)
        ]
        assert not unsaid


def _of_arrays():
    for param in _public():
        (member,) = param.values
        has_arguments = inspect.isfunction(member) or dataclasses.is_dataclass(member)
        takes = str(inspect.signature(member)) if has_arguments else ""
        if re.search(r"ndarray|Tensor\b", takes):
            yield param


@pytest.mark.parametrize("member", _of_arrays())
def test_arrays_have_their_shapes(member):
    """As `(n, height, width, channels)`, in its own words or in those of its module."""
    said = inspect.getdoc(member) + inspect.getdoc(import_module(member.__module__))
    assert re.search(r"\(\w+(\(\w+\))?, \w[^()]*\)", said)


def _dataclasses():
    for param in _public():
        (member,) = param.values
        if dataclasses.is_dataclass(member) and member not in TABLED:
            yield param


@pytest.mark.parametrize("kind", _dataclasses())
def test_every_field_is_explained(kind):
    """By the class that declares it, which the others name: a comment is on no page."""
    fields = {field.name for field in dataclasses.fields(kind)}
    assert _attributes(kind) <= fields | set(vars(kind))
    for name in fields:
        declaring = [base for base in kind.__mro__ if name in inspect.get_annotations(base)]
        explaining = [base for base in declaring if name in _attributes(base)]
        assert explaining, name
        assert kind in explaining or explaining[0].__name__ in kind.__doc__, name


def _attributes(kind):
    """What the docstring of a class names below `Attributes:`."""
    _, _, below = inspect.cleandoc(kind.__doc__).partition("\nAttributes:\n")
    section = re.match(r"(?: .*\n|\n)*", f"{below}\n")[0]
    return set(re.findall(r"^    (\w+): ", section, re.MULTILINE))


def _only_makes_layers(member):
    return member.__module__ in LAYERS_ONLY


@pytest.mark.parametrize("name", registry.list_models())
def test_a_network_names_its_source(name):
    network = registry.architecture(name)
    assert network.source in inspect.getdoc(network.builder)


def test_the_documentation_has_every_public_name():
    """The builders stand in its table of models."""
    lines = [line for page in PAGES for line in SHOWN.findall(page.read_text(encoding="utf-8"))]
    shown = [member for name, listed in lines for member in _shown(name, listed).values()]
    builders = {registry.architecture(name).builder for name in registry.list_models()}
    for param in _public():
        (member,) = param.values
        assert member in builders or member in shown, member

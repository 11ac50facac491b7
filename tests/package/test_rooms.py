"""The rooms of the code: small folders, no circles, and faces that load nothing unasked.

tests/docs/test_design.py holds every import to the arrow that docs/design.md shows.
"""

import ast
import json

import pytest
from helpers import ROOT, run_python

TOPS = ("keras_resnet", "export", "recipes", "tests")
MOST_ENTRIES = 20
# Data, not code: a config for each recorded number, and what tests compare with.
DATA = ("recipes/configs", "tests/golden")


def _folders():
    for top in TOPS:
        for folder in (ROOT / top, *(ROOT / top).rglob("*/")):
            name = folder.relative_to(ROOT).as_posix()
            if "__pycache__" not in name and not name.startswith(DATA):
                yield name


@pytest.mark.parametrize("folder", _folders())
def test_a_folder_can_be_read_at_a_look(folder):
    hidden = ("__pycache__", "py.typed")  # the latter is an empty mark for type checkers
    entries = [path for path in (ROOT / folder).iterdir() if path.name not in hidden]
    assert len(entries) <= MOST_ENTRIES, sorted(path.name for path in entries)


def _modules():
    """{dotted name: path} of every module that is installed."""
    for top in TOPS[:3]:
        prefix = "" if top == "keras_resnet" else "keras_resnet."
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if "edge" not in parts:  # a program of its own
                yield prefix + ".".join(parts).removesuffix(".__init__"), path


def _imported_at_load(path, known):
    """The modules of ours that importing this one imports: not in functions, not for types only."""
    waiting = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from {name if name in known else node.module for name in names} & known
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & known
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            waiting += [*node.body, *node.orelse]
        elif isinstance(node, ast.Try | ast.With):
            waiting += node.body


def test_no_module_imports_itself_through_others():
    modules = dict(_modules())
    imports = {name: set(_imported_at_load(path, set(modules))) for name, path in modules.items()}
    done = set()

    def visit(name, trail):
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in sorted(imports[name]):
                visit(other, [*trail, name])
            done.add(name)

    for name in sorted(imports):
        visit(name, [])


LOADED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps([name for name in sys.modules if name.split(".")[0] in
    ("keras_resnet", "tensorflow", "keras", "tensorflow_datasets", "matplotlib")]))
"""


def _loaded(module):
    """What a fresh process has in memory after importing `module`."""
    return set(json.loads(run_python(LOADED, module).stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("module", "rooms"),
    [
        ("keras_resnet", {"onednn"}),
        ("keras_resnet.export", {"onednn", "export", "lazy"}),
        ("keras_resnet.export.runtimes", {"onednn", "export", "lazy"}),
        ("keras_resnet.recipes", {"onednn", "recipes", "lazy", "errors"}),
        ("keras_resnet.recipes.configs", {"onednn", "recipes", "lazy", "errors"}),
        (
            "keras_resnet.recipes.configs.schema",
            {"onednn", "recipes", "lazy", "errors", "files", "text"},
        ),
        (
            "keras_resnet.export.runtimes.litert",
            {"onednn", "export", "lazy", "errors", "display", "files", "images", "text"},
        ),
    ],
)
def test_a_face_loads_nothing_that_was_not_asked_for(module, rooms):
    loaded = _loaded(module)
    assert not {name.split(".")[0] for name in loaded} - {"keras_resnet"}
    ours = {name.split(".")[1] for name in loaded if "." in name}
    assert ours <= rooms
    above = module.split(".")
    siblings = {name for name in loaded if name.split(".")[:2] == above[:2]}
    asked = {".".join(above[:n]) for n in range(1, len(above) + 1)}
    if module.endswith(("runtimes", "configs", "export", "recipes")):
        assert siblings <= asked

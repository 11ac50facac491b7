"""docs/design.md: its ResNet-18 by hand is ours, its arrow holds, calls pass the files it lists."""

import ast
import re
import sys

import keras
import numpy as np
import pytest
from helpers import ROOT, randomize_batch_norms

import keras_resnet
from keras_resnet.cli.main import main

PAGE = ROOT / "docs" / "design.md"
LINES = 60  # the page promises no more


def _code(part):
    """The one Python block of the page with `part` in it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if part in block]
    return code


def _run(code):
    names = {}
    exec(code, names)
    return names


@pytest.fixture(scope="module")
def by_hand():
    return _run(_code("def resnet18("))["resnet18"]()


@pytest.fixture(scope="module")
def ours():
    keras.utils.set_random_seed(0)
    return randomize_batch_norms(keras_resnet.ResNet18())


def test_resnet18_by_hand_is_short_and_needs_keras_only():
    code = _code("def resnet18(")
    assert len(code.splitlines()) <= LINES
    assert re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE) == ["keras", "keras"]


def test_resnet18_by_hand_has_our_names_and_shapes_in_order(by_hand, ours):
    assert [layer.name for layer in by_hand.layers] == [layer.name for layer in ours.layers]
    assert _shapes(by_hand) == _shapes(ours)


def test_resnet18_by_hand_is_built_like_ours_in_stock_layers(by_hand, ours):
    """Initialisers, strides, padding, BN's constants, and which layer follows which."""
    assert by_hand.get_config() == keras_resnet.to_stock(ours).get_config()


def test_resnet18_by_hand_answers_as_ours_with_the_same_weights(by_hand, ours):
    by_hand.set_weights(ours.get_weights())
    images = np.random.default_rng(0).normal(size=(4, 224, 224, 3)).astype("float32")
    expected, answers = _logits(ours, images), _logits(by_hand, images)
    # Our BN is TensorFlow's fused kernel, which rounds otherwise than Keras' separate operations:
    # float32's 6e-8 in each of 20 layers; 5e-7 was seen.
    assert np.abs(answers - expected).max() <= 1e-5 * np.abs(expected).max()


def test_resnet18_d_is_two_fields_of_the_spec():
    model = _run(_code("option_d"))["model"]
    assert model.get_config() == keras_resnet.ResNet18D().get_config()


def _shapes(model):
    return [(weight.path, tuple(weight.shape)) for weight in model.weights]


def _logits(model, images):
    return np.array(keras.Model(model.input, model.get_layer("head").output)(images))


# The arrow ----------------------------------------------------------------------------------------


def _rooms():
    """The place of each room in the page's arrow; the single files share one."""
    arrow = re.search(r"```\n(text ←.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    places = [[name.strip() for name in group.split(",")] for group in arrow.split("←")]
    return {name: place for place, group in enumerate(places) for name in group}


def _room(module, rooms):
    """The room of "keras_resnet.images.read"; None for the modules that gather all names."""
    _, name, *_ = *module.split("."), ""
    if name in ("", "__init__", "__main__", "_public", "__version__"):
        return None
    single = (ROOT / "keras_resnet" / f"{name}.py").is_file()
    return "single files" if single and name not in rooms else name


def _imports_of(path):
    """What a file imports, by dotted name; not to run as a program or for type checkers only."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and re.search("__main__|TYPE_CHECKING", ast.unparse(node.test)):
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.ImportFrom):
                yield from (f"{inner.module}.{alias.name}" for alias in inner.names)
            elif isinstance(inner, ast.Import):
                yield from (alias.name for alias in inner.names)


def test_no_import_goes_against_the_arrow():
    rooms = _rooms()
    for folder in ("keras_resnet", "export", "recipes"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            source = _room(".".join(("keras_resnet", *parts[folder == "keras_resnet" :])), rooms)
            for target in _imports_of(path) if source else ():
                room = _room(target, rooms) if target.startswith("keras_resnet.") else None
                assert room in (None, source) or rooms[room] < rooms[source], (path, target)


def _rooms_of_recipes():
    page = PAGE.read_text(encoding="utf-8")
    return re.search(r"```\n(configs ←.*?)\n```", page)[1].split(" ← ")


def _imports_at_load(path):
    """What a file imports when it is imported itself."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_import_goes_against_the_order_inside_recipes():
    order, recipes = _rooms_of_recipes(), ROOT / "recipes"
    assert {folder.parent.name for folder in recipes.glob("*/__init__.py")} < set(order)

    def room(*parts):
        return order.index(parts[0] if parts[0] in order else "programs")

    for path in recipes.rglob("*.py"):
        source = room(*path.relative_to(recipes).parts)
        for target in _imports_at_load(path):
            if target.startswith("keras_resnet.recipes."):
                assert room(*target.split(".")[2:]) <= source, (path, target)


# Three trips --------------------------------------------------------------------------------------


def _listed(trip):
    """The modules whose files the numbered list of a trip links to."""
    section = re.search(rf"### {trip}\n(.*?)\n##", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    items = "".join(re.findall(r"^(?:\d+\.|  ) .*\n", section + "\n", re.MULTILINE))
    paths = re.findall(r"\]\(\.\./(.*?)\.py\)", items)
    assert paths, f"no links under '{trip}'"
    return ["keras_resnet." + p.removeprefix("keras_resnet/").replace("/", ".") for p in paths]


def _entered(call):
    """The modules of ours that `call` enters a function of."""
    modules = set()

    def note(frame, event, argument):
        name, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        ours = name.startswith("keras_resnet.") and not file.startswith("<")  # no dataclass' own
        if event == "call" and ours and name not in modules and not _imports(frame):
            modules.add(name)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return modules


def _imports(frame):
    """Whether a module of ours is being imported: what it calls then is no part of the trip."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name == "<module>" and name.startswith("keras_resnet."):
            return True
        frame = frame.f_back
    return False


def _command(*words):
    assert main([*map(str, words)]) == 0


def test_building_passes_the_files_that_are_listed():
    listed = _listed("Build a network with weights")
    listed.remove("keras_resnet.models.resnet.cifar")  # its row made the function at the import
    assert set(listed) <= _entered(lambda: keras_resnet.ResNet20(weights="cifar10"))


@pytest.mark.slow
def test_training_passes_the_files_that_are_listed(tmp_path):
    listed = _listed("Train to a run")
    assert set(listed) <= _entered(
        lambda: _command("train", "debug/tiny", "--out", tmp_path / "run")
    )


@pytest.mark.slow
def test_exporting_passes_the_files_that_are_listed(tiny_run, tmp_path):
    listed = _listed("Export to a manifest")
    words = "export", tiny_run.path, "--formats", "tflite-float32", "--out", tmp_path / "exports"
    assert set(listed) <= _entered(lambda: _command(*words))

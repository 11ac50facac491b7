"""Private names of Keras and TensorFlow stand in one file, and an error says when one is gone."""

import ast
import re
import sys
import tomllib

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, run_python
from packaging.requirements import Requirement

from keras_resnet import keras_compat
from keras_resnet.errors import UserError

COMPAT = ROOT / "keras_resnet" / "keras_compat.py"
FOLDERS = ("keras_resnet", "export", "recipes", "benchmarks")
SOURCES = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py") if p != COMPAT]
MODULE = re.compile(
    r"(keras|tf_keras)\.src\b|tensorflow\.(python|core|lite\.python)\b"
    r"|tensorflow_model_optimization\.python\b"
)
NAME = re.compile(r"_[A-Za-z]\w*|__internal__")
BY_TEXT = {"getattr", "hasattr", "setattr", "delattr", "attrgetter"}
# Of argparse, which has no public way to go through a parser's options; the others are documented.
PYTHONS_OWN = {"_actions", "_option_string_actions", "_SubParsersAction", "_exit", "_thread"}

# No private name elsewhere -----------------------------------------------------------------------


def _defined(tree):
    """The names that a source gives to functions, classes, variables and attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls"):
            yield from [node.attr] if isinstance(node.ctx, ast.Store) else []


def _used(tree):
    """(line, name) of attributes, as `x.name` or `getattr(x, "name")`, and of private modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in BY_TEXT:
            yield from ((node.lineno, x.value) for x in node.args if isinstance(x, ast.Constant))
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Constant):  # of import_module and the like
            yield node.lineno, str(node.value) if MODULE.match(str(node.value)) else ""


def _strangers(tree, ours):
    """What a source uses that is private and that nothing of ours defines."""
    for line, name in _used(tree):
        private = NAME.fullmatch(str(name)) and name not in ours and name not in PYTHONS_OWN
        if private or MODULE.match(str(name)):
            yield f"{line}: {name}"


@pytest.fixture(scope="module")
def ours():
    """All names that we define, without those that `keras_compat` has from elsewhere."""
    theirs = {
        part
        for node in ast.walk(ast.parse(COMPAT.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for part in node.value.split(".")
    }
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    return {name for tree in trees for name in _defined(tree)} - theirs


def test_no_other_file_uses_a_private_name(ours):
    found = [
        f"{path.relative_to(ROOT)}:{stranger}"
        for path in SOURCES
        for stranger in _strangers(ast.parse(path.read_text(encoding="utf-8")), ours)
    ]
    assert not found, "put a function for each into keras_compat.py"


@pytest.mark.parametrize(
    "source",
    [
        "tensor._keras_history.operation",
        "self._get_variable_index(variable)",
        "self._trainable_weights = []",
        "getattr(layer, '_weight_vars', ())",
        "operator.attrgetter('_nodes')",
        "tf.__internal__.tracking",
        "import keras.src.ops",
        "from keras.src import ops",
        "from tensorflow.python.util import _pywrap_util_port",
        "import_module('tensorflow.python.eager')",
    ],
)
def test_the_reader_finds(source, ours):
    assert list(_strangers(ast.parse(source), ours))


def test_the_reader_lets_pass(ours):
    tree = ast.parse("run._summary; tf.raw_ops.Conv2D; x.__class__; tf.data.experimental.service")
    assert not list(_strangers(tree, ours | {"_summary"}))


# The bounds --------------------------------------------------------------------------------------


def _requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in map(Requirement, group):
            yield requirement.name, requirement.specifier


@pytest.mark.parametrize("package", keras_compat.SEEN)
def test_pyproject_ends_with_the_series_that_was_seen(package):
    (bounds,) = [specifier for name, specifier in _requirements() if name == package]
    major, minor, _ = map(int, keras_compat.SEEN[package].split("."))
    assert bounds.contains(keras_compat.SEEN[package])
    assert bounds.contains(f"{major}.{minor}.99")
    assert not bounds.contains(f"{major}.{minor + 1}.0")
    assert not bounds.contains(f"{major}.{minor + 1}.0rc0", prereleases=True)


# A name that is gone -----------------------------------------------------------------------------


def _tensor():
    return keras.Input((4,))


def _model():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(2)(inputs))


def _optimizer():
    optimizer = keras.optimizers.SGD()
    optimizer.build([keras.Variable([0.0])])
    return optimizer


# What has the name, the name, and the function that looks for it.
LOST = [
    (_tensor, "_keras_history", keras_compat.producer),
    (keras.layers.ReLU, "_inbound_nodes", keras_compat.calls_of),
    (keras.layers.ReLU, "_outbound_nodes", keras_compat.readers),
    (_model, "_nodes_by_depth", lambda model: list(keras_compat.calls_in(model))),
    (_model, "_flatten_layers", keras_compat.all_layers),
    (
        _model,
        "_run_through_graph",
        lambda model: keras_compat.run_through(model, _tensor(), lambda x: x, lambda f, x: f(x)),
    ),
    (
        lambda: sys.modules["keras.src.ops.nn"],
        "Softmax",
        lambda _: keras_compat.operations("Softmax"),
    ),
    (_optimizer, "_all_reduce_sum_gradients", keras_compat.skip_gradient_sum),
    (_optimizer, "_get_variable_index", lambda x: keras_compat.variable_index(x, x.variables[0])),
    (
        lambda: sys.modules["tensorflow.python.util._pywrap_util_port"],
        "IsMklEnabled",
        lambda _: keras_compat.uses_onednn(),
    ),
    (
        lambda: sys.modules["tensorflow.core.protobuf.saved_model_pb2"],
        "SavedModel",
        lambda _: keras_compat.saved_model(b""),
    ),
]


def _delete(monkeypatch, owner, name):
    """Take a name from an object or the class that has it."""
    while name in vars(owner):
        monkeypatch.delattr(owner, name)
    for cls in type(owner).__mro__:
        if name in vars(cls):
            monkeypatch.delattr(cls, name)


def _pretend(monkeypatch, module):
    """Let a module be two series newer than the one that was seen; return its version."""
    major, minor, _ = keras_compat.SEEN[module.__name__].split(".")
    newer = f"{major}.{int(minor) + 2}.0"
    monkeypatch.setattr(module, "__version__", newer)
    return newer


@pytest.mark.parametrize(("make", "name", "use"), LOST, ids=[name for _, name, _ in LOST])
def test_a_name_that_is_gone_is_said_with_the_version(make, name, use, monkeypatch):
    owner = make()
    of_tensorflow = ("IsMklEnabled", "SavedModel")
    module = tf if name in of_tensorflow else keras
    seen = keras_compat.SEEN[module.__name__]
    newer = _pretend(monkeypatch, module)
    _delete(monkeypatch, owner, name)
    with pytest.raises(UserError) as raised:
        use(owner)
    assert str(raised.value).startswith(f"keras_resnet needs `{name}")
    assert f"of {module.__name__}, seen in {seen}; you have {newer}" in str(raised.value)
    series = seen.rpartition(".")[0]
    assert str(raised.value).endswith(f'Run: pip install "{module.__name__}=={series}.*"')


def test_a_module_that_is_gone_is_said_too(monkeypatch):
    _pretend(monkeypatch, tf)
    monkeypatch.setitem(sys.modules, "tensorflow.core.protobuf.saved_model_pb2", None)
    with pytest.raises(keras_compat.IncompatibleVersionError, match="needs `SavedModel` of"):
        keras_compat.saved_model(b"")


def test_in_the_version_that_was_seen_a_wrong_object_is_no_wrong_version(monkeypatch):
    monkeypatch.setattr(keras, "__version__", keras_compat.SEEN["keras"])
    with pytest.raises(AttributeError, match="_keras_history"):
        keras_compat.producer(np.zeros(1))


@pytest.mark.slow  # its imports take a process of their own
def test_names_of_tensorflow_model_optimization(tmp_path):
    script = """
import tensorflow_model_optimization as tfmot
import tf_keras
from keras_resnet import keras_compat

model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(4,))])
model = tfmot.quantization.keras.quantize_model(model)
wrapper = model.layers[-1]
((weight, variables),) = keras_compat.quantized_weights(wrapper)
print(weight.name, sorted(variables))
trained = len(wrapper.trainable_weights)
keras_compat.freeze_weight(wrapper, weight)
assert len(wrapper.trainable_weights) == trained - 1
assert any(weight is other for other in wrapper.non_trainable_weights)
model.save_weights("all.weights.h5")
model.load_weights("all.weights.h5")  # it found the weight a second time
assert len(wrapper.trainable_weights) == trained - 1

for package, use, name in [
    (tfmot, keras_compat.quantized_weights, "_weight_vars"),
    (tf_keras, lambda x: keras_compat.freeze_weight(x, weight), "_trainable_weights"),
]:
    package.__version__ = "99.0.0"
    delattr(wrapper, name)
    try:
        use(wrapper)
    except keras_compat.IncompatibleVersionError as error:
        print(error)
"""
    lines = run_python(script, cwd=tmp_path).stdout.splitlines()
    assert lines[-3:] == [
        "dense/kernel:0 ['max_var', 'min_var']",
        "keras_resnet needs `_weight_vars` of tensorflow-model-optimization, seen in 0.8.1; you "
        "have 99.0.0, which does not have it. "
        'Run: pip install "tensorflow-model-optimization==0.8.*"',
        "keras_resnet needs `_trainable_weights` of tf-keras, seen in 2.21.0; you have 99.0.0, "
        'which does not have it. Run: pip install "tf-keras==2.21.*"',
    ]


# What they give ----------------------------------------------------------------------------------


def test_the_calls_of_a_layer_that_is_called_twice():
    inputs, shared, add = keras.Input((4,)), keras.layers.Dense(4), keras.layers.Add()
    once = shared(inputs)
    twice = shared(once)
    model = keras.Model(inputs, add([once, twice]))
    assert [call.operation for call in keras_compat.calls_in(model)][1:] == [shared, shared, add]
    assert [call.inputs for call in keras_compat.calls_of(shared)] == [[inputs], [once]]
    assert keras_compat.calls_of(add)[0].args == ([once, twice],)
    assert keras_compat.readers(shared) == [shared, add, add]
    assert keras_compat.producer(twice) is shared
    (entry,) = keras_compat.calls_of(keras_compat.producer(inputs))
    assert (entry.inputs, entry.outputs) == ([], [inputs])

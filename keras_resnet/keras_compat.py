"""The private names of Keras, TensorFlow and tensorflow-model-optimization that this package uses.

Each function does one thing that the public interface cannot do. No other code uses a private name:
`tests/package/test_keras_compat.py` checks the sources. The names exist in the versions in `SEEN`,
and pyproject.toml allows no newer series. To allow one, run the tests with it, then change both.

Some names look private but are documented, so the code uses them directly: `tf.raw_ops`; names that
TensorFlow and LiteRT call experimental, which may change but not within a series; and TFLite's
schema (`ai_edge_litert.schema_py_generated`), which only gets new fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple

from keras_resnet.errors import UserError

# By the package's name for pip; its module has underscores instead.
SEEN = {
    "keras": "3.15.1",
    "tensorflow": "2.21.0",
    "tf-keras": "2.21.0",
    "tensorflow-model-optimization": "0.8.1",
}


class IncompatibleVersionError(UserError):
    """The installed version of a package lacks a private name. The message names one that works."""

    def __init__(self, name: str, package: str, installed: str) -> None:
        super().__init__(
            f"keras_resnet needs `{name}` of {package}, seen in {SEEN[package]}; you have "
            f"{installed}, which does not have it. "
            f'Run: pip install "{package}=={_series(SEEN[package])}.*"'
        )


def _series(version: str) -> str:
    """Return the first two numbers of a version: "3.15" for "3.15.1"."""
    return ".".join(version.split(".")[:2])


def _private(package: str, owner: Any, name: str) -> Any:
    """Return `owner.name`, a private name of `package`.

    Args:
        package: a key of `SEEN`.
        owner: an object, or the name of the module to import.
        name: name of the attribute; with dots, of an attribute of an attribute.

    Raises:
        IncompatibleVersionError: the installed version of `package` does not have it.
    """
    try:
        return attrgetter(name)(import_module(owner) if isinstance(owner, str) else owner)
    except (AttributeError, ImportError) as error:
        installed = str(import_module(package.replace("-", "_")).__version__)
        if _series(installed) == _series(SEEN[package]):
            raise  # this version has the name, so `owner` is wrong: a bug of ours
        raise IncompatibleVersionError(name, package, installed) from error


# Keras: the graph of a functional model ----------------------------------------------------------
# A model's layers and operations are public. For an operation that was called once, its input and
# output are too. The list of calls and the connections between them are not.


class Call(NamedTuple):
    """One call of a layer or operation in a functional model.

    Attributes:
        operation: the layer or operation that was called.
        inputs: the Keras tensors that it got, in the order of its arguments; none for an input.
        outputs: the Keras tensors that it returned.
        args: its positional arguments, unchanged.
        kwargs: its keyword arguments.
    """

    operation: Any
    inputs: list[Any]
    outputs: list[Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _call(node: Any) -> Call:
    return Call(
        operation=_private("keras", node, "operation"),
        inputs=_private("keras", node, "arguments.keras_tensors"),
        outputs=_private("keras", node, "outputs"),
        args=_private("keras", node, "arguments.args"),
        kwargs=_private("keras", node, "arguments.kwargs"),
    )


def producer(tensor: Any) -> Any:
    """Return the layer or operation that made a Keras tensor."""
    return _private("keras", tensor, "_keras_history.operation")


def calls_of(operation: Any) -> list[Call]:
    """Return every call of a layer or operation, including calls in other models."""
    return [_call(node) for node in _private("keras", operation, "_inbound_nodes")]


def inputs_of(tensor: Any) -> list[Any]:
    """Return the inputs of the call that made a Keras tensor."""
    place = _private("keras", tensor, "_keras_history.node_index")
    return list(calls_of(producer(tensor))[place].inputs)


def readers(operation: Any) -> list[Any]:
    """Return the operations that read the outputs of a layer or operation, once per call."""
    nodes = _private("keras", operation, "_outbound_nodes")
    return [_private("keras", node, "operation") for node in nodes]


def calls_in(model: Any) -> Iterator[Call]:
    """Yield the calls of a functional model, each after the calls that it depends on.

    `model.operations` contains a layer that is called twice only once.
    """
    by_depth = _private("keras", model, "_nodes_by_depth")
    for depth in sorted(by_depth, reverse=True):
        yield from map(_call, by_depth[depth])


def run_through(
    model: Any, inputs: Any, rebuild: Callable[[Any], Any], call: Callable[..., Any]
) -> Any:
    """Call copies of the operations of a functional model on `inputs`; return its outputs.

    `keras.models.clone_model` does the same, but returns a new model, which is not connected to the
    graph of `inputs`.

    Args:
        model: a functional model.
        inputs: Keras tensors, in the structure of the model's inputs.
        rebuild: makes the copy of an operation.
        call: `call(copy, *args, **kwargs)` calls it.
    """
    run = _private("keras", model, "_run_through_graph")
    return run(inputs, operation_fn=rebuild, call_fn=call)


def all_layers(model: Any) -> list[Any]:
    """Return the layers of a model, and those inside them; `model.layers` has the outer ones."""
    layers: list[Any] = _private("keras", model, "_flatten_layers")(include_self=False)
    return layers


_OPERATIONS = {
    **dict.fromkeys(("Dot", "Einsum", "Matmul", "Tensordot"), "keras.src.ops.numpy"),
    **dict.fromkeys(
        ("Conv", "DepthwiseConv", "SeparableConv", "Sigmoid", "Softmax"), "keras.src.ops.nn"
    ),
    "Cast": "keras.src.ops.core",
    "FakeQuantWithMinMaxVars": "keras.src.quantizers.quantizers",
}


def operations(*names: str) -> tuple[type, ...]:
    """Return the classes of operations that Keras' functions add to a model, for `isinstance`.

    The functions, such as `keras.ops.softmax`, are public. Their classes (`Softmax`) are not.
    """
    return tuple(_private("keras", _OPERATIONS[name], name) for name in names)


# Keras: optimizers -------------------------------------------------------------------------------


def skip_gradient_sum(optimizer: Any) -> None:
    """Make an optimizer use gradients unchanged.

    Keras sums them over the replicas of a `tf.distribute` strategy. A training loop that has
    already summed them, which it must do to clip the sum, cannot turn that off.
    """
    _private("keras", optimizer, "_all_reduce_sum_gradients")
    optimizer._all_reduce_sum_gradients = list


def variable_index(optimizer: Any, variable: Any) -> int:
    """Return the index of a variable among those that the optimizer was built for.

    `update_step`, which a subclass must define, gets TensorFlow's variable, but `build` got the
    Keras variable.
    """
    index: int = _private("keras", optimizer, "_get_variable_index")(variable)
    return index


# TensorFlow: the message in a saved_model.pb -----------------------------------------------------


def saved_model(content: bytes) -> Any:
    """Parse a saved_model.pb, without loading the model.

    The public functions read it only to load it.

    Raises:
        google.protobuf.message.DecodeError: the file is damaged.
    """
    kind = _private("tensorflow", "tensorflow.core.protobuf.saved_model_pb2", "SavedModel")
    return kind.FromString(content)


# TensorFlow: its kernels -------------------------------------------------------------------------


def uses_onednn() -> bool:
    """Return True if TensorFlow computes with oneDNN's kernels in this process.

    No public function shows this. The environment variable and the CPU only show what should be.
    """
    module = "tensorflow.python.util._pywrap_util_port"
    return bool(_private("tensorflow", module, "IsMklEnabled")())


# tensorflow-model-optimization, and tf_keras, which it needs -------------------------------------


def quantized_weights(wrapper: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Return the weights that a `QuantizeWrapper` rounds, each with its quantizer's variables.

    These variables (range, zeros, clusters) have no public name.
    """
    weights = _private("tensorflow-model-optimization", wrapper, "_weight_vars")
    return [(weight, variables) for weight, _, variables in weights]


def freeze_weight(layer: Any, weight: Any) -> None:
    """Stop training one weight of a tf_keras layer; `layer.trainable` would stop all of them."""
    trained = _private("tf-keras", layer, "_trainable_weights")
    layer._trainable_weights = [other for other in trained if other is not weight]
    _private("tf-keras", layer, "_non_trainable_weights").append(weight)
    # Loading weights looks for variables in the layer's lists once more, and would find it trained.
    _private("tensorflow", weight, "_trainable")
    weight._trainable = False

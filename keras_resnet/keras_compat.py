"""The private names of Keras, TensorFlow and tensorflow-model-optimization that this package uses.

Each function does one thing for which the public interface has no name, and says where that ends.
Nothing else uses a private name: `tests/package/test_keras_compat.py` reads the sources. The names
were seen in the versions of `SEEN`, and pyproject.toml allows no newer series. To allow one, run
the tests with it, then change both.

Some names look private and are documented, so they are used directly: `tf.raw_ops`; what TensorFlow
and LiteRT call experimental, which may change but not within a series; TFLite's schema
(`ai_edge_litert.schema_py_generated`), to which fields are only added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple

from keras_resnet.errors import UserError

# By the name that pip knows; the module has underscores in it.
SEEN = {
    "keras": "3.15.1",
    "tensorflow": "2.21.0",
    "tf-keras": "2.21.0",
    "tensorflow-model-optimization": "0.8.1",
}


class IncompatibleVersionError(UserError):
    """The installed version of a package lacks a private name; the message has one that has it."""

    def __init__(self, name: str, package: str, installed: str) -> None:
        super().__init__(
            f"keras_resnet needs `{name}` of {package}, seen in {SEEN[package]}; you have "
            f"{installed}, which does not have it. "
            f'Run: pip install "{package}=={_series(SEEN[package])}.*"'
        )


def _series(version: str) -> str:
    """The first two numbers of a version: "3.15" of "3.15.1"."""
    return ".".join(version.split(".")[:2])


def _private(package: str, owner: Any, name: str) -> Any:
    """Return `owner.name`, a private name of `package`.

    Args:
        package: a key of `SEEN`.
        owner: an object, or the name of the module to import.
        name: of the attribute; dots lead on to attributes of attributes.

    Raises:
        IncompatibleVersionError: the installed version of `package` does not have it.
    """
    try:
        return attrgetter(name)(import_module(owner) if isinstance(owner, str) else owner)
    except (AttributeError, ImportError) as error:
        installed = str(import_module(package.replace("-", "_")).__version__)
        if _series(installed) == _series(SEEN[package]):
            raise  # this version has the name, so `owner` is not what it should be: our mistake
        raise IncompatibleVersionError(name, package, installed) from error


# Keras: the graph of a functional model ----------------------------------------------------------
# Public are a model's layers and operations, and of an operation that was called once its input and
# output. Which calls there were, and how they hang together, is not.


class Call(NamedTuple):
    """One call of a layer or operation in a functional model.

    Attributes:
        operation: what was called.
        inputs: the Keras tensors it was given, in the order of its arguments; none for an input.
        outputs: the Keras tensors it gave.
        args: its positional arguments, as they were given.
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
    """Return the layer or operation that a Keras tensor comes from."""
    return _private("keras", tensor, "_keras_history.operation")


def calls_of(operation: Any) -> list[Call]:
    """Return every call of a layer or operation, also those that other models are made of."""
    return [_call(node) for node in _private("keras", operation, "_inbound_nodes")]


def inputs_of(tensor: Any) -> list[Any]:
    """Return what a Keras tensor was made of, in the one call of its layer that made it."""
    place = _private("keras", tensor, "_keras_history.node_index")
    return list(calls_of(producer(tensor))[place].inputs)


def readers(operation: Any) -> list[Any]:
    """Return what reads the outputs of a layer or operation, once for each call that does."""
    nodes = _private("keras", operation, "_outbound_nodes")
    return [_private("keras", node, "operation") for node in nodes]


def calls_in(model: Any) -> Iterator[Call]:
    """Give out the calls of a functional model, each after those it depends on.

    `model.operations` names a layer that is called twice only once.
    """
    by_depth = _private("keras", model, "_nodes_by_depth")
    for depth in sorted(by_depth, reverse=True):
        yield from map(_call, by_depth[depth])


def run_through(
    model: Any, inputs: Any, rebuild: Callable[[Any], Any], call: Callable[..., Any]
) -> Any:
    """Call copies of the operations of a functional model on `inputs`; return its outputs.

    `keras.models.clone_model` does the same and makes a model of the result, which cuts it off the
    graph that `inputs` belong to.

    Args:
        model: a functional model.
        inputs: Keras tensors, in the structure of the model's inputs.
        rebuild: makes the copy of an operation.
        call: `call(copy, *args, **kwargs)` calls it.
    """
    run = _private("keras", model, "_run_through_graph")
    return run(inputs, operation_fn=rebuild, call_fn=call)


def all_layers(model: Any) -> list[Any]:
    """Return the layers of a model and those inside them; `model.layers` has the outer ones."""
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
    """Return the classes of operations that functions of Keras leave in a model, for `isinstance`.

    The functions, such as `keras.ops.softmax`, are public; their classes (`Softmax`) are not.
    """
    return tuple(_private("keras", _OPERATIONS[name], name) for name in names)


# Keras: optimizers -------------------------------------------------------------------------------


def skip_gradient_sum(optimizer: Any) -> None:
    """Make an optimizer take gradients as they are.

    Keras sums them over the replicas of a `tf.distribute` strategy, and has no switch for a
    training loop that has summed them already, as it must in order to clip the sum.
    """
    _private("keras", optimizer, "_all_reduce_sum_gradients")
    optimizer._all_reduce_sum_gradients = list


def variable_index(optimizer: Any, variable: Any) -> int:
    """Return the place of a variable in those that the optimizer was built for.

    `update_step`, which a subclass must write, is given TensorFlow's variable and not the Keras
    variable that `build` was given.
    """
    index: int = _private("keras", optimizer, "_get_variable_index")(variable)
    return index


# TensorFlow: the two steps of a conversion to int8 -----------------------------------------------
# The public converter calibrates and quantizes in one go. Only between the two can other ranges be
# written, and only the second takes a list of operations to leave in float.


def calibrate(converter: Any) -> bytes:
    """Return the float `.tflite` file with the ranges that a `tf.lite.TFLiteConverter` measured."""
    _private("tensorflow", converter, "_experimental_calibrate_only")
    converter._experimental_calibrate_only = True
    calibrated: bytes = converter.convert()
    return calibrated


def quantize(
    calibrated: bytes, *, input_type: Any, output_type: Any, float_operations: list[str]
) -> bytes:
    """Return the int8 file of what `calibrate` returned.

    Args:
        calibrated: a `.tflite` file in float32, with ranges.
        input_type: TensorFlow's dtype of the images.
        output_type: TensorFlow's dtype of the scores.
        float_operations: the names of the outputs of operations that stay in float32.
    """
    mlir_quantize = _private("tensorflow", "tensorflow.lite.python.convert", "mlir_quantize")
    quantized: bytes = mlir_quantize(
        calibrated,
        input_data_type=input_type,
        output_data_type=output_type,
        denylisted_nodes=float_operations,
    )
    return quantized


# TensorFlow: the kernels it runs on --------------------------------------------------------------


def uses_onednn() -> bool:
    """Return whether TensorFlow computes with oneDNN's kernels in this process.

    No public function tells: the environment variable and the CPU only say what it should be.
    """
    module = "tensorflow.python.util._pywrap_util_port"
    return bool(_private("tensorflow", module, "IsMklEnabled")())


# tensorflow-model-optimization and tf_keras, on which it works -----------------------------------


def quantized_weights(wrapper: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Return the weights that a `QuantizeWrapper` rounds, each with its quantizer's variables.

    What a quantizer keeps beside a weight (its range, zeros, clusters) has no public name.
    """
    weights = _private("tensorflow-model-optimization", wrapper, "_weight_vars")
    return [(weight, variables) for weight, _, variables in weights]


def freeze_weight(layer: Any, weight: Any) -> None:
    """Stop training one weight of a tf_keras layer; `layer.trainable` is for all of them."""
    trained = _private("tf-keras", layer, "_trainable_weights")
    layer._trainable_weights = [other for other in trained if other is not weight]
    _private("tf-keras", layer, "_non_trainable_weights").append(weight)

"""Build a Keras model from a network: the steps from input to classifier that all families share.

A family is a frozen dataclass derived from `Network`, with its own `trunk` and sometimes its own
`head`. It has one table of rows. `row` turns each row into a public function and a registry name.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec

import keras
from keras import layers

from keras_resnet import registry
from keras_resnet.arguments import checked
from keras_resnet.errors import UnknownNameError, UntrainedWarning, UserError, warn
from keras_resnet.images import labels, preprocessing
from keras_resnet.layers import require_dtype
from keras_resnet.models.network import Network, Tensor, Trunk
from keras_resnet.weights import catalog, loading


@checked
def build(
    network: Network,
    include_top: bool = True,
    weights: loading.Weights = None,
    input_tensor: Any = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
    include_preprocessing: bool = False,
    features: bool = False,
    dtype: str | keras.DTypePolicy | None = None,
    **options: Any,
) -> keras.Model:
    """Build the functional Keras model of `network`, such as a `ResNetSpec` or a `ChainSpec`.

    Args:
        include_top: True ends the model in the classifier (float32 under every dtype policy).
            False ends it in the last feature map.
        weights: None for random weights; without this argument they are random too, and a warning
            says so. Otherwise the path of a `.weights.h5` file or of a weight file of Keras
            Applications, or weights of the catalog: "imagenet" or "cifar10" (the default weights
            for that data), or one tag such as "imagenet/torchvision_v2" (see
            `keras_resnet.list_weights`), or an address of the Hugging Face Hub, such as
            "hf://timm/resnet50d.ra2_in1k". What is downloaded stays on the disk, and its hash is
            checked. With another number of classes the classifier is new. For images that are not
            RGB the first convolution is adapted. A message reports both.
        input_tensor: a Keras tensor to build on instead of a new input.
        input_shape: (height, width, channels). The default is the network's own size. None as
            height or width allows any size.
        pooling: pooling of the last feature map when `include_top` is False: "avg", "max" or None.
        classes: number of classes. The default is that of the weights, or else of the network.
        classifier_activation: "softmax" returns probabilities, None returns logits. With
            `classes=1` the model has one output for two classes, and "softmax" becomes "sigmoid",
            with a warning.
        name: name of the model. The default is the registry name, or "network" for a network of
            your own. A network of your own can load weights of the catalog if you give it the
            registry name of the matching network.
        include_preprocessing: True puts the normalisation of the weights inside the model, which
            then takes RGB values 0...255. With False the model takes images normalised as the
            network expects (see `keras_resnet.preprocess`). If the weights were trained with
            another normalisation, a layer `rescaling_between` converts.
        features: True returns the feature pyramid instead: `{"stage1": map, "stage2": map, ...}`,
            the last map at each resolution. In a pre-activation network these maps are taken before
            the BN and ReLU at the start of the head.
        dtype: dtype policy of this network, e.g. "mixed_bfloat16". None uses the policy of the
            process (`keras.config.set_dtype_policy`).
        options: fields of the network to change, such as `dropout=0.2`. Residual networks also take
            `output_stride=8`, `stochastic_depth=0.1` and `zero_init_last=True`. GoogLeNet and
            Inception v3 take `auxiliary=True` (with `include_top`).

    Returns:
        A model from (batch, height, width, channels) to (batch, classes). Without the top, to
        (batch, height / 32, width / 32, channels), or / 4 for CIFAR networks; with pooling, to
        (batch, channels). With auxiliary classifiers, to a dictionary `predictions`, `aux1`, ...;
        see `keras_resnet.loss_weights` and `keras_resnet.inference_model`.

    Raises:
        UserError: the shape, pooling, options or weights are not possible.
    """
    _check(classes, pooling, include_preprocessing, options)
    name = name or "network"
    network = with_options(network, options, name)
    found = loading.resolve(name, weights)
    trained_with = _trained_with(network, found, options)
    with _policy(dtype):
        inputs = _inputs(network, input_tensor, input_shape)
        if include_preprocessing:
            x = preprocessing.rescale(inputs, trained_with)
        else:
            x = preprocessing.convert(inputs, network.preprocessing, trained_with)
        trunk = network.trunk(x)
        outputs: Any
        if features:
            outputs = trunk.features
        elif include_top:
            classes = classes or loading.classes_in(found) or network.classes
            activation = _activation(classes, classifier_activation)
            outputs = _classifiers(network, trunk, classes, activation)
        else:
            outputs = _pool(trunk.output, pooling)
        before: list[str] = []
        if input_tensor is not None:  # the model starts where the given tensor comes from
            sources = keras.utils.get_source_inputs(input_tensor)
            inputs = sources[0] if len(sources) == 1 else sources
            before = [layer.name for layer in keras.Model(inputs, input_tensor).layers]
        model = keras.Model(inputs, outputs, name=name)
    loading.load(model, found, before)
    if include_top and not features:
        labels.remember(model, loading.known_with(found))
    return model


@contextmanager
def _policy(dtype: str | keras.DTypePolicy | None) -> Iterator[None]:
    """Build layers under a dtype policy. None keeps the current policy."""
    before = keras.config.dtype_policy()
    if dtype is not None:
        require_dtype(dtype)
    try:
        keras.config.set_dtype_policy(before if dtype is None else dtype)
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check(
    classes: int | None, pooling: str | None, include_preprocessing: bool, options: dict[str, Any]
) -> None:
    if "preprocessing" in options and not include_preprocessing:
        raise UserError(
            "preprocessing= needs include_preprocessing=True. Without it, normalise the images "
            "with keras_resnet.preprocess, which uses the network's own preprocessing."
        )
    if classes is not None and not (isinstance(classes, int) and classes >= 1):
        raise UserError(f"classes must be a whole number, 1 or more; received {classes!r}.")
    if pooling not in (None, "avg", "max"):
        raise UserError(f"pooling must be 'avg', 'max' or None; received {pooling!r}.")


# Options for training or for another task. In inference the weights compute the same function.
FREE_OPTIONS = {
    "auxiliary",
    "auxiliary_dropout",
    "classes",
    "drop_rate",
    "dropout",
    "input_size",
    "output_stride",
    "preprocessing",
    "stochastic_depth",
    "zero_init_last",
}


def _trained_with(network: Network, found: loading.Resolved, options: dict[str, Any]) -> str:
    """Return the preprocessing of the weights. Refuse options that need other weights."""
    about = loading.about(found)
    others = sorted(options.keys() - FREE_OPTIONS)
    mine = {key: getattr(network, key) for key in {*about.options, *others}}
    if about.network is not None and mine != about.options:
        given = ", ".join(f"{key}={value!r}" for key, value in about.options.items())
        mend = f"in its registered form. Remove {', '.join(others)}"
        if given:
            mend = f"with other options. Use {given}"
        raise UserError(f"The weights '{found}' are for '{about.network}' {mend}.")
    mode = about.preprocessing or network.preprocessing
    if options.get("preprocessing", mode) != mode:
        raise UserError(
            f"The weights '{found}' were trained with preprocessing '{mode}'. Remove "
            f"preprocessing='{network.preprocessing}'."
        )
    return mode


def with_options(network: Network, options: dict[str, Any], name: str) -> Network:
    """Return `network` with the fields in `options` changed. `name` is for the error message.

    Raises:
        UserError: a field does not exist, or its value has the wrong type.
    """
    fields = [field.name for field in dataclasses.fields(network)]
    for option, value in options.items():
        if option not in fields:
            raise UnknownNameError("option", option, fields, "")
        default = getattr(network, option)
        if isinstance(default, int | float) and not isinstance(value, int | float):
            raise UserError(f"The option '{option}' must be a number; received {value!r}.")
        if isinstance(default, tuple) and not isinstance(value, tuple | list):
            raise UserError(f"The option '{option}' must be a tuple; received {value!r}.")
    # JSON and TOML have lists, no tuples.
    tuples = {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
    return dataclasses.replace(network, **{**options, **tuples})


def _activation(classes: int, activation: str | None) -> str | None:
    try:
        keras.activations.get(activation)
    except (ValueError, TypeError) as error:
        raise UserError(
            "classifier_activation must be the name of a Keras activation, such as 'softmax', or "
            f"None; received {activation!r}."
        ) from error
    if classes != 1 or activation != "softmax":
        return activation
    warn(
        "classes=1: the network ends in a sigmoid, which gives the probability of the second of "
        "two classes. A softmax over one output is always 1. Use "
        "classifier_activation='sigmoid' to avoid this warning."
    )
    return "sigmoid"


def _classifiers(network: Network, trunk: Trunk, classes: int, activation: str | None) -> Any:
    """Return the probabilities (or logits), or a dictionary if there are auxiliary classifiers.

    Keras finds the loss of an output by the name of the layer that produces it. With several
    outputs, these layers therefore have the dictionary's keys as names, even for logits, where the
    layer does nothing.
    """

    def end(logits: Tensor, name: str) -> Tensor:
        if activation is None and not trunk.auxiliary:
            return logits
        return layers.Activation(activation or "linear", dtype="float32", name=name)(logits)

    predictions = end(network.head(trunk.output, classes), "predictions")
    if not trunk.auxiliary:
        return predictions
    others = {
        name: end(network.auxiliary_head(name, x, classes), name)
        for name, x in trunk.auxiliary.items()
    }
    return {"predictions": predictions, **others}


def _inputs(network: Network, input_tensor: Any, input_shape: Any) -> Any:
    if keras.config.image_data_format() != "channels_last":
        raise UserError(
            "keras_resnet builds channels_last networks; this process is set to channels_first. "
            "Call keras.config.set_image_data_format('channels_last')."
        )
    if input_tensor is not None:
        if not keras.backend.is_keras_tensor(input_tensor) or input_shape is not None:
            raise UserError(
                "input_tensor must be a Keras tensor, such as keras.layers.Input(...) returns, and "
                "it fixes the shape. Give input_tensor or input_shape, not both; received "
                f"{input_tensor!r} and {input_shape}."
            )
        _require_shape(network, tuple(input_tensor.shape[1:]))
        return input_tensor
    size = network.input_size
    shape = (size, size, 3) if input_shape is None else input_shape
    _require_shape(network, shape)
    return layers.Input(shape, name="images")


def _require_shape(network: Network, shape: Any) -> None:
    valid = isinstance(shape, tuple | list) and len(shape) == 3
    if not valid or not all(s is None or (isinstance(s, int) and s > 0) for s in shape):
        raise UserError(f"input_shape must be (height, width, channels); received {shape}.")
    if shape[-1] is None:
        raise UserError(f"The number of channels cannot be None; received input_shape {shape}.")
    least = network.min_size
    if any(side is not None and side < least for side in shape[:2]):
        raise UserError(
            f"This network needs images of at least {least}×{least} pixels; "
            f"received input_shape {shape}."
        )


def _pool(x: Any, pooling: str | None) -> Any:
    if pooling is None:
        return x
    kind = layers.GlobalAveragePooling2D if pooling == "avg" else layers.GlobalMaxPooling2D
    return kind(dtype="float32", name="head_pool")(x)


# The tables ---------------------------------------------------------------------------------------

P = ParamSpec("P")

# A row of a family's table: public function, network, short description, source.
Row = tuple[str, Network, str, str]


_IMAGES = """Use `keras_resnet.preprocess_input(x, model)` to prepare RGB images for it, not the
`preprocess_input` of `keras.applications`. To run notebooks written for `keras.applications`, use
`keras_resnet.applications`."""


class _Table(Generic[P]):
    """A table that registers networks and derives their public functions from `build`.

    It is a class so that the type variable `P` passes the arguments of `build` to each function.
    Type checkers and editors read them from `P`; `help` and `inspect` read the signature.
    """

    def __init__(self, build: Callable[Concatenate[Network, P], keras.Model]) -> None:
        self._build = build
        signature = inspect.signature(build)
        _network, *arguments = signature.parameters.values()
        self._signature = signature.replace(parameters=arguments)
        _summary, _, self._sections = (inspect.getdoc(build) or "").partition("\n\n")

    def row(
        self, function: str, network: Network, summary: str, source: str, name: str | None = None
    ) -> Callable[P, keras.Model]:
        """Register `network` and return its public function.

        The registry name is the function's name in lower case, unless `name` gives timm's name.
        """
        return self._add(name or function.lower(), network, summary, source, function)

    def register(self, name: str, network: Network, summary: str, source: str) -> None:
        """Register a `network` without a public function; only `create_model` builds it."""
        self._add(name, network, summary, source, None)

    def _add(
        self, registry_name: str, network: Network, summary: str, source: str, function: str | None
    ) -> Callable[P, keras.Model]:
        @wraps(self._build)
        def builder(*args: P.args, **kwargs: P.kwargs) -> keras.Model:
            given = self._signature.bind(*args, **kwargs)
            # The catalog needs the registry name; the user may have named the model otherwise.
            weights = loading.resolve(registry_name, given.arguments.get("weights"))
            if "weights" not in given.arguments:
                _say_untrained(registry_name)
            given.arguments["weights"] = weights
            name = given.arguments.get("name")
            unnamed = isinstance(name, str | None) and not name
            given.arguments["name"] = registry_name if unnamed else name
            return self._build(network, *given.args, **given.kwargs)

        builder.__signature__ = self._signature  # type: ignore[attr-defined]
        builder.__name__ = builder.__qualname__ = function or registry_name
        builder.__doc__ = (
            f"{summary} ({source}).\n\nRegistry name `{registry_name}`. Defaults: input "
            f"{network.input_size}×{network.input_size}×3, {network.classes} classes, "
            f'preprocessing "{network.preprocessing}".\n\n{_IMAGES}\n\n{self._sections}'
        )
        weights = partial(catalog.of_model, registry_name)
        registry.register(
            registry.Architecture(
                registry_name, network, builder, summary, source, function, weights
            )
        )
        return builder


_SAID: list[str] = []  # the network of the first warning; there is one warning per process
_MOST_TAGS = 4  # more do not fit in the line


def _say_untrained(name: str) -> None:
    """Warn once per process that network `name` has random weights although trained ones exist."""
    tags = [entry.tag for entry in catalog.of_model(name)]
    if not tags or _SAID:
        return
    _SAID.append(name)
    default = tags[0].partition("/")[0]
    others = ", ".join(f'"{tag}"' for tag in tags[:_MOST_TAGS] if tag != default)
    if len(tags) > _MOST_TAGS:
        others += f', … (keras_resnet.list_weights("{name}") has all {len(tags)})'
    choice = f'weights="{default}"' + (f" or one of {others}" if others else "")
    warn(
        f"'{name}' was built with random weights. For trained weights use {choice}. "
        "Use weights=None to say that random weights are intended.",
        UntrainedWarning,
    )


_TABLE = _Table(build)
row = _TABLE.row
register = _TABLE.register

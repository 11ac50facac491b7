"""From a network to a Keras model: what every family shares, from the input to the classifier.

A family is a frozen dataclass derived from `Network` (its `trunk`, maybe its `head`) and one table
of rows; `row` makes of each a public function and a registry name.
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
from keras_resnet.errors import UnknownNameError, UntrainedWarning, UserError, warn
from keras_resnet.images import labels, preprocessing
from keras_resnet.models.network import Network, Tensor, Trunk
from keras_resnet.weights import catalog, loading


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
    """Build the functional Keras model of `network`: a `ResNetSpec`, a `ChainSpec`, ...

    Args:
        include_top: end in the classifier (float32 under every dtype policy); otherwise in the
            last feature map.
        weights: None (random initialisation; where nothing is said, a warning says so), the path of
            a `.weights.h5` file or of a file of Keras Applications, or weights of the catalog:
            "imagenet", "cifar10" (the default weights of that data), or one tag,
            "imagenet/torchvision_v2"; see `keras_resnet.list_weights`. They are fetched once and
            their hash is checked. With another number of classes the classifier stays new; for
            other than RGB images the first convolution is adapted; a message says so.
        input_tensor: a Keras tensor to build on instead of a new input.
        input_shape: (height, width, channels), the network's size by default; None for a free size.
        pooling: without the top, "avg" or "max" over the last feature map, or None.
        classes: width of the classifier, the network's by default.
        classifier_activation: "softmax" gives probabilities, None logits. With `classes=1` there is
            one output for two classes, and "softmax" becomes "sigmoid", with a warning.
        name: the model's name, by default the registry name. A network of your own is called
            "network"; under the registry name of one of ours it takes the catalog's weights.
        include_preprocessing: put the normalisation inside, so that the model takes RGB 0...255:
            that of the weights. Outside, the model takes the network's own (see
            `keras_resnet.preprocess`) whatever the weights were trained with; a layer
            `rescaling_between` makes up the difference.
        features: end in the feature pyramid instead: `{"stage1": map, "stage2": map, ...}`, the
            last map of every resolution. None of them has passed the BN and ReLU with which the
            head of a pre-activation network begins.
        dtype: the dtype policy of this network, e.g. "mixed_bfloat16"; None: that of the process
            (`keras.config.set_dtype_policy`).
        options: fields of the network to change, such as `dropout=0.2`, and for residual networks
            `output_stride=8`, `stochastic_depth=0.1`, `zero_init_last=True`; for GoogLeNet and
            Inception v3 `auxiliary=True` (with the top).

    Returns:
        A model from (batch, height, width, channels) to (batch, classes); without the top to
        (batch, height / 32, width / 32, channels) (CIFAR networks: / 4) or (batch, channels).
        With auxiliary classifiers to a dictionary: `predictions`, `aux1`, ...; see
        `keras_resnet.loss_weights` and `keras_resnet.inference_model`.

    Raises:
        UserError: an impossible shape, pooling, option or weights.
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
    """Build layers under a dtype policy; None: under the one that is set."""
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(before if dtype is None else dtype)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"dtype is a dtype policy of Keras, such as 'mixed_bfloat16'; received {dtype!r}."
        ) from error
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check(
    classes: int | None, pooling: str | None, include_preprocessing: bool, options: dict[str, Any]
) -> None:
    if "preprocessing" in options and not include_preprocessing:
        raise UserError(
            "preprocessing= is for include_preprocessing=True; outside the model "
            "keras_resnet.preprocess knows only the network's own."
        )
    if classes is not None and not (isinstance(classes, int) and classes >= 1):
        raise UserError(f"classes is a whole number, 1 or more; received {classes!r}.")
    if pooling not in (None, "avg", "max"):
        raise UserError(f"pooling is 'avg', 'max' or None; received {pooling!r}.")


# Options of a training or a task: the weights' function stays what it was in inference.
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
    """The preprocessing that the weights want; refuse options that make another network."""
    about = loading.about(found)
    others = sorted(options.keys() - FREE_OPTIONS)
    mine = {key: getattr(network, key) for key in {*about.options, *others}}
    if about.network is not None and mine != about.options:
        given = ", ".join(f"{key}={value!r}" for key, value in about.options.items())
        mend = f"as it is registered; leave {', '.join(others)} out"
        if given:
            mend = f"with other options; give {given}"
        raise UserError(f"The weights '{found}' are of '{about.network}' {mend}.")
    mode = about.preprocessing or network.preprocessing
    if options.get("preprocessing", mode) != mode:
        raise UserError(
            f"The weights '{found}' were trained with preprocessing '{mode}'; leave "
            f"preprocessing='{network.preprocessing}' out."
        )
    return mode


def with_options(network: Network, options: dict[str, Any], name: str) -> Network:
    """Return `network` with the fields of `options` changed; `name` is for the message.

    Raises:
        UserError: no such field, or a word where a number is meant.
    """
    fields = [field.name for field in dataclasses.fields(network)]
    for option, value in options.items():
        if option not in fields:
            see = f"'{name}' is a {type(network).__name__}, whose fields these are."
            raise UnknownNameError("option", option, fields, see)
        default = getattr(network, option)
        if isinstance(default, int | float) and not isinstance(value, int | float):
            raise UserError(f"The option '{option}' is a number; received {value!r}.")
        if isinstance(default, tuple) and not isinstance(value, tuple | list):
            raise UserError(f"The option '{option}' is a tuple; received {value!r}.")
    # JSON and TOML have lists.
    tuples = {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
    return dataclasses.replace(network, **{**options, **tuples})


def _activation(classes: int, activation: str | None) -> str | None:
    if classes != 1 or activation != "softmax":
        return activation
    warn(
        "classes=1: the network ends in a sigmoid, the probability of the second of two classes. "
        "The softmax of one output is always 1. To say so: classifier_activation='sigmoid'."
    )
    return "sigmoid"


def _classifiers(network: Network, trunk: Trunk, classes: int, activation: str | None) -> Any:
    """The probabilities (or logits); with auxiliary classifiers a dictionary of all.

    Keras finds the loss of an output by the name of its last layer, so with several outputs the
    layers that end them are named as the dictionary's keys, also where they do nothing (logits).
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
                "input_tensor is a Keras tensor, as keras.layers.Input gives, and has a shape, so "
                f"there is no input_shape beside it; received {input_tensor!r} and {input_shape}."
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
        raise UserError(f"input_shape is (height, width, channels); received {shape}.")
    if shape[-1] is None:
        raise UserError(f"The number of channels is fixed; received input_shape {shape}.")
    least = network.min_size
    if any(side is not None and side < least for side in shape[:2]):
        raise UserError(
            f"This network takes images of {least}×{least} pixels or more; "
            f"received input_shape {shape}."
        )


def _pool(x: Any, pooling: str | None) -> Any:
    if pooling is None:
        return x
    kind = layers.GlobalAveragePooling2D if pooling == "avg" else layers.GlobalMaxPooling2D
    return kind(dtype="float32", name="head_pool")(x)


# The tables ---------------------------------------------------------------------------------------

P = ParamSpec("P")

# A row of a family's table: the public function, its network, what it is and where it is from.
Row = tuple[str, Network, str, str]


_IMAGES = """`keras_resnet.preprocess_input(x, model)` makes the images for it, in RGB; the
`preprocess_input` of `keras.applications` does not. `keras_resnet.applications` is for notebooks
that were written for `keras.applications`."""


class _Table(Generic[P]):
    """Puts networks into the registry, and makes their functions out of `build`.

    It is a class so that `P` carries the arguments of `build` to every function: type checkers and
    editors read them there, `help` and `inspect` read them from the signature.
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

        The registry name is the function's in lower case, unless `name` gives timm's.
        """
        return self._add(name or function.lower(), network, summary, source, function)

    def register(self, name: str, network: Network, summary: str, source: str) -> None:
        """Register a `network` that has no function of its own; `create_model` builds it."""
        self._add(name, network, summary, source, None)

    def _add(
        self, registry_name: str, network: Network, summary: str, source: str, function: str | None
    ) -> Callable[P, keras.Model]:
        @wraps(self._build)
        def builder(*args: P.args, **kwargs: P.kwargs) -> keras.Model:
            given = self._signature.bind(*args, **kwargs)
            # The catalog knows the registry name; the model's name may be the user's.
            weights = loading.resolve(registry_name, given.arguments.get("weights"))
            if "weights" not in given.arguments:
                _say_untrained(registry_name)
            given.arguments["weights"] = weights
            given.arguments["name"] = given.arguments.get("name") or registry_name
            return self._build(network, *given.args, **given.kwargs)

        builder.__signature__ = self._signature  # type: ignore[attr-defined]
        builder.__name__ = builder.__qualname__ = function or registry_name
        builder.__doc__ = (
            f"{summary} ({source}).\n\nRegistry name `{registry_name}`; by default "
            f"{network.input_size}×{network.input_size}×3 in, {network.classes} classes out, "
            f'preprocessing "{network.preprocessing}".\n\n{_IMAGES}\n\n{self._sections}'
        )
        weights = partial(catalog.of_model, registry_name)
        registry.register(
            registry.Architecture(
                registry_name, network, builder, summary, source, function, weights
            )
        )
        return builder


_SAID: list[str] = []  # the network that was warned of: one line a process is enough
_MOST_TAGS = 4  # that fit in the line


def _say_untrained(name: str) -> None:
    """Warn, once in a process, that network `name` is random though there are weights of it."""
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
        f"'{name}' was built with random weights. For trained weights give {choice}. "
        "weights=None says that random weights are meant.",
        UntrainedWarning,
    )


_TABLE = _Table(build)
row = _TABLE.row
register = _TABLE.register

"""Prepare a classifier for explanations: the copy, the layer to use, and the setup of tf-keras-vis
(the right Keras, no output, repeatable noise).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_resnet import keras_compat
from keras_resnet.errors import UnknownNameError, UserError, require, require_tensorflow
from keras_resnet.keras_compat import calls_of, producer
from keras_resnet.models.auxiliary import inference_model

# These layers change the position of a feature, not the feature. The map before them is used.
_WITHOUT_FEATURES = (
    *(layers.InputLayer, layers.Rescaling, layers.Normalization),
    *(layers.MaxPooling2D, layers.AveragePooling2D, layers.ZeroPadding2D, layers.Cropping2D),
    *(layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, layers.Reshape),
    *(layers.Dropout, layers.SpatialDropout2D, layers.Identity),
)


def prepared(model: keras.Model) -> keras.Model:
    """Return a float32 copy of `model` that is one flat graph and ends in logits.

    A single output for two classes becomes the logits of both.

    Layers keep class, name and weights. The copy is needed because tf-keras-vis finds no layers in
    inner models, and its CAMs fail in half precision. Auxiliary classifiers are left out. A final
    softmax or sigmoid is removed, because its gradient vanishes where the network is certain. The
    end of an ensemble, a mean of probabilities, stays.

    Raises:
        UserError: the model is not a functional (or sequential) classifier of one image, or Keras'
            backend is not TensorFlow.
    """
    require_tensorflow("Explaining a model")
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise UserError(f"Expected a functional Keras model; received {type(model).__name__}.")
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    model = inference_model(model)
    shapes = [tuple(x.shape) for x in (*model.inputs, *model.outputs)]
    if [len(shape) for shape in shapes] != [4, 2]:
        raise UserError(
            "The model must map one image (batch, height, width, channels) to one vector "
            f"(batch, classes); '{model.name}' has {', '.join(map(str, shapes))}."
        )
    return _of_classes(_with_logits(_flat_copy(model)))


def _flat_copy(model: keras.Model) -> keras.Model:
    pairs: list[tuple[Any, Any]] = []

    def rebuild(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return layer  # `call` replaces it by its layers
        if not isinstance(layer, keras.Layer):  # an operator such as `x * 2`
            return type(layer).from_config(layer.get_config())
        copy = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
        pairs.append((layer, copy))
        return copy

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            return run(layer, args[0])
        return layer(*args, **kwargs)

    def run(part: keras.Model, inputs: Any) -> Any:
        graph = keras.Model(part.inputs[0], part.outputs[0])
        return keras_compat.run_through(graph, inputs, rebuild, call)

    inputs = keras.Input(model.inputs[0].shape[1:], name="images")
    try:
        copy = keras.Model(inputs, run(model, inputs), name=model.name)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"'{model.name}' cannot be rebuilt in float32: {reason}") from error
    for old, new in pairs:
        new.set_weights(old.get_weights())
    return copy


def _with_logits(model: keras.Model) -> keras.Model:
    """Remove a final softmax or sigmoid. This may change `model`, which is our copy."""
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear

    last = producer(model.outputs[0])
    alone: Any = (layers.Softmax, *keras_compat.operations("Softmax", "Sigmoid"))
    if isinstance(last, alone):
        return keras.Model(model.inputs[0], last.input, name=model.name)
    if hasattr(last, "activation"):
        ReplaceToLinear()(model)
    return model


def _of_classes(model: keras.Model) -> keras.Model:
    """Replace a single output z for two classes by the logits -z and z, to explain either class."""
    (logit,) = model.outputs
    if logit.shape[-1] != 1:
        return model
    negative = layers.Rescaling(-1.0, dtype="float32", name="negative_logit")(logit)
    both = layers.Concatenate(dtype="float32", name="logits_of_both")([negative, logit])
    return keras.Model(model.inputs[0], both, name=model.name)


def find_layer(model: keras.Model, name: str | None) -> Any:
    """Return the layer of a `prepared` model whose map the CAMs use.

    The default is the last feature map before the classifier. In our networks this is the end of
    the last stage (`stage4_block3_out_relu`, or `head_relu` in pre-activation; in chains the last
    ReLU before the pool). In others it is the last 4-D output that all paths go through. Maps with
    one position are skipped, because they cannot show a place.

    Raises:
        UnknownNameError: there is no layer with that name.
        UserError: the layer gives no map; or, without a name, there is no such layer, as in an
            ensemble, where each member has its own.
    """
    if name is not None:
        known = {layer.name: layer for layer in model.layers}
        if name not in known:
            see = "Run 'keras-resnet profile MODEL' to see the layers."
            raise UnknownNameError("layer", name, known, see)
        if not _is_map(known[name]):
            raise UserError(
                f"The layer '{name}' gives {known[name].output.shape}, which is no map. Choose "
                "another layer."
            )
        return known[name]
    maps = [x for x in model.layers if _is_map(x) and not isinstance(x, _WITHOUT_FEATURES)]
    found = next((x for x in reversed(maps) if _all_paths_lead_through(x, model)), None)
    if found is None:
        names = ", ".join(f"'{x.name}'" for x in reversed(maps[-2:])) or "no maps at all"
        raise UserError(
            f"'{model.name}' has no map on every path to the classes. Choose a layer with layer= "
            f"(--layer). The last ones with maps are: {names}."
        )
    return found


def _is_map(layer: Any) -> bool:
    shape = getattr(layer.output, "shape", ())
    return len(shape) == 4 and tuple(shape[1:3]) != (1, 1)


def _all_paths_lead_through(layer: Any, model: keras.Model) -> bool:
    """Return True if every path from the images to the classes goes through `layer`."""
    seen = {id(layer)}
    waiting = [producer(model.outputs[0])]
    while waiting:
        operation = waiting.pop()
        if id(operation) in seen:
            continue
        seen.add(id(operation))
        if isinstance(operation, layers.InputLayer):
            return False
        inputs = [x for call in calls_of(operation) for x in call.inputs]
        waiting += [producer(x) for x in inputs]
    return True


def checked_images(images: Any, model: keras.Model) -> np.ndarray:
    """Return the images in float32.

    Raises:
        UserError: `model` does not take these images.
    """
    array = np.asarray(images)
    expected = model.input_shape[1:]
    fits = array.ndim == 4 and all(
        e in (None, r) for e, r in zip(expected, array.shape[1:], strict=True)
    )
    if not fits or len(array) == 0 or array.dtype.kind not in "uif":
        raise UserError(
            f"'{model.name}' takes one or more images of shape (n, *{expected}); received "
            f"{array.shape} of {array.dtype}. keras_resnet.load_images reads image files."
        )
    return array.astype("float32")


def checked_classes(given: Any, model: keras.Model, images: int = 1) -> list[int]:
    """Return the class numbers. A single number is used for all `images`.

    Raises:
        UserError: a number is no class of `model`, or there are no numbers.
    """
    count = model.output_shape[-1]
    try:
        numbers = list(given)
    except TypeError:  # no list
        numbers = [given] * images
    whole = all(isinstance(n, int | np.integer) and 0 <= n < count for n in numbers)
    if not numbers or not whole:
        raise UserError(f"classes must be whole numbers from 0 to {count - 1}; received {given}.")
    return [int(n) for n in numbers]


# tf-keras-vis ------------------------------------------------------------------------------------


def require_tf_keras_vis() -> None:
    """Import tf-keras-vis. Refuse an environment where it would use another Keras."""
    import tensorflow as tf

    try:
        ours = tf.keras.Model is keras.Model
    except ImportError:  # tf.keras is tf_keras, which is not installed
        ours = False
    if not ours:
        raise UserError(
            "tf-keras-vis needs Keras 3 as tf.keras, but TF_USE_LEGACY_KERAS is set (importing "
            "tensorflow_model_optimization sets it, too). Unset it and start again: "
            "env -u TF_USE_LEGACY_KERAS keras-resnet explain …"
        )
    with warnings.catch_warnings(action="ignore"):  # it imports scipy's zoom by a deprecated name
        require("tf_keras_vis.scorecam", "explain")
        require("tf_keras_vis.gradcam", "explain")


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which tf-keras-vis uses, and restore it afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


@contextmanager
def quiet_tf_keras_vis() -> Iterator[None]:
    """Hide the progress bar of `predict`, which Score-CAM calls, and Keras' warning that
    tf-keras-vis passes its single input in a list."""
    was = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The structure of `inputs`")
            yield
    finally:
        if was:
            keras.config.enable_interactive_logging()

"""Keras model → SavedModel for a server: it takes images or image files and returns class names.

    signature        input                                       output
    serving_default  images, uint8 (batch, any, any, channels)   predictions, logits, probabilities,
    image_bytes      image_bytes, strings: JPEG or PNG           classes, scores
    features         images                                      features: pooled, (batch, width)
    network          images, float32, of the model's own size    predictions

The first three crop images to the model's size. `network` is the bare model, for the converters
that read a SavedModel: TFLiteConverter, tf2onnx, OpenVINO.

`predictions` is the Keras model's own output, as in every other format. `probabilities` has a
number for every class, so two numbers if the model has one output. `classes` and `scores` are the
names and probabilities of the best five. Loading it needs neither Keras nor this package. If the
model does not take RGB 0...255, there is no `image_bytes`, and images must have the model's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_resnet.export.formats import saved_model, warmup
from keras_resnet.export.runtimes.base import INPUT, OUTPUT
from keras_resnet.images.answers import LINEAR, SIGMOID, Answers, numbered
from keras_resnet.images.crop import SingleCrop, shown
from keras_resnet.images.read import require_size, view
from keras_resnet.keras_compat import calls_of, producer

VERSION = "1"  # TensorFlow Serving looks for numbered folders in the model's folder
BYTES = "image_bytes"  # the name must end in _bytes for JSON's {"b64": ...}
NETWORK = "network"
TOP = 5
_LEAST = 1e-37  # JSON has no number for the logarithm of 0
_DECODED_AT_ONCE = 4  # images of up to images.read.MAX_PIXELS each


@dataclass(frozen=True)
class Service:
    """The work of a server before and after the model.

    Attributes:
        raw_pixels: True if the model takes RGB 0...255.
        crop: the crop of an image; None scales it to cover the model's size.
        answers: the rules for reading the outputs.
    """

    raw_pixels: bool
    crop: SingleCrop | None
    answers: Answers


@dataclass(frozen=True)
class _Ending:
    """A model split into parts: `outputs = activation(logits(body(images)))`.

    Attributes:
        body: the model up to the classifier's input, or up to the logits.
        pooled: True if `body` ends in a vector of features.
        logits: the last layer without its activation.
        activation: the activation; None if the model has none.
    """

    body: keras.Model
    pooled: bool
    logits: Callable[[Any], Any]
    activation: Callable[[Any], Any] | None


class _Server(tf.Module):
    """The signatures. As in `saved_model.write`, it holds only the variables of the Keras model.

    `answer` takes the model's own input. All signatures call it, so the network is written once.
    """

    def __init__(self, model: keras.Model, labels: Sequence[str] | None, service: Service) -> None:
        super().__init__()
        self.weights = [variable.value for variable in model.variables]
        self._shape, self._service = tuple(model.input_shape[1:]), service
        ending = _taken_apart(model)
        self.has_features = ending.pooled
        names = numbered(labels, service.answers.classes)

        def answer(images: Any) -> dict[str, Any]:
            read = ending.body(images, training=False)
            answers = _answers(read, ending, service.answers, list(names))
            return {**answers, "features": read} if ending.pooled else answers

        spec = tf.TensorSpec([None, *self._shape], tf.float32, name=INPUT)
        self.answer = tf.function(answer, input_signature=[spec])

    def signatures(self) -> dict[str, Any]:
        """Return the signatures as {name: concrete function}."""
        dtype, size = tf.float32, list(self._shape[:2])
        if self._service.raw_pixels:
            dtype, size = tf.uint8, [None, None]
        images = tf.TensorSpec([None, *size, self._shape[2]], dtype, name=INPUT)
        files = tf.TensorSpec([None], tf.string, name=BYTES)
        found = {"serving_default": tf.function(self._of_images).get_concrete_function(images)}
        if self._service.raw_pixels and self._shape[2] in (1, 3):
            found[BYTES] = tf.function(self._of_files).get_concrete_function(files)
        own = tf.TensorSpec([None, *self._shape], tf.float32, name=INPUT)
        found[NETWORK] = tf.function(self._of_network).get_concrete_function(own)
        if self.has_features:
            found["features"] = tf.function(self._features).get_concrete_function(images)
        return found

    def _of_images(self, images: Any) -> dict[str, Any]:
        answers = self.answer(self._cut(images))
        return {name: value for name, value in answers.items() if name != "features"}

    def _of_files(self, image_bytes: Any) -> dict[str, Any]:
        def one(item: tuple[Any, Any]) -> Any:
            name = tf.strings.join(["image ", tf.as_string(item[0]), ": "])
            return view(item[1], self._shape, self._service.crop, name)

        images = tf.map_fn(
            one,
            (tf.range(tf.size(image_bytes)), image_bytes),
            fn_output_signature=tf.TensorSpec(self._shape, tf.uint8),
            parallel_iterations=_DECODED_AT_ONCE,
        )
        return self._of_images(images)

    def _features(self, images: Any) -> dict[str, Any]:
        return {"features": self.answer(self._cut(images))["features"]}

    def _of_network(self, images: Any) -> dict[str, Any]:
        return {OUTPUT: self.answer(images)[OUTPUT]}

    def _cut(self, images: Any) -> Any:
        """Return the images as the model takes them; refuse an empty batch with a clear message."""
        some = tf.debugging.Assert(tf.shape(images)[0] > 0, ["expected images, received none"])
        limits = [some]
        if self._service.raw_pixels:
            height, width = tf.unstack(tf.shape(images)[1:3])
            limits += require_size(height, width, "images: ")
        with tf.control_dependencies(limits):
            images = tf.identity(images)
        if not self._service.raw_pixels:
            return images
        return tf.cast(shown(images, self._shape[:2], self._service.crop), tf.float32)


def write(
    model: keras.Model, path: Path, name: str, labels: Sequence[str] | None, service: Service
) -> None:
    """Write `model` (float32, stock layers, one image size) to `path`/1, with warm-up requests.

    TensorFlow Serving can serve `path` directly, under `name`. Without `labels` the classes are
    called "class 0", ...
    """
    server = _Server(model, labels, service)
    signatures = server.signatures()
    folder = path / VERSION
    saved_model.save(server, folder, signatures)
    warmup.write(folder, name, tuple(model.input_shape[1:]), signatures)


def _answers(read: Any, ending: _Ending, meaning: Answers, names: list[str]) -> dict[str, Any]:
    logits = predictions = ending.logits(read)
    if ending.activation is not None:
        predictions = ending.activation(logits)
    elif meaning.activation != LINEAR:  # for example the mean of several networks' probabilities
        logits = tf.math.log(tf.maximum(predictions, _LEAST))
        if meaning.activation == SIGMOID:
            logits -= tf.math.log(tf.maximum(1 - predictions, _LEAST))
    likelihoods = _likelihoods(predictions, meaning)
    scores, best = tf.math.top_k(likelihoods, min(TOP, len(names)))
    return {
        OUTPUT: predictions,
        "logits": logits,
        "probabilities": likelihoods,
        "classes": tf.gather(tf.constant(names), best),
        "scores": scores,
    }


def _likelihoods(predictions: Any, meaning: Answers) -> Any:
    """Compute `Answers.probabilities` in TensorFlow."""
    if meaning.binary:
        positive = tf.sigmoid(predictions) if meaning.activation == LINEAR else predictions
        return tf.concat([1 - positive, positive], axis=-1)
    return tf.nn.softmax(predictions) if meaning.activation == LINEAR else predictions


def _taken_apart(model: keras.Model) -> _Ending:
    """Find the classifier and its softmax or sigmoid, in one layer or in two."""
    outputs = model.outputs[0]
    activation = inside = _activation(producer(outputs))
    if activation and isinstance(producer(outputs), keras.layers.Activation | keras.layers.Softmax):
        outputs, inside = producer(outputs).input, None
    dense = producer(outputs)
    bare = type(dense) is keras.layers.Dense and len(calls_of(dense)) == 1
    if not bare or dense.activation is not (inside or keras.activations.linear):
        body = keras.Model(model.inputs[0], outputs)
        return _Ending(body, False, lambda x: x, None if inside else activation)

    def logits(features: Any) -> Any:
        product = tf.linalg.matmul(features, dense.kernel)
        return product if dense.bias is None else product + dense.bias

    return _Ending(keras.Model(model.inputs[0], dense.input), True, logits, activation)


def _activation(layer: Any) -> Callable[[Any], Any] | None:
    """Return the softmax or sigmoid in `layer`; None for any other activation."""
    if isinstance(layer, keras.layers.Softmax):
        return layer if layer.axis == -1 else None
    function = getattr(layer, "activation", None)
    known = (keras.activations.softmax, keras.activations.sigmoid)
    return function if function in known else None

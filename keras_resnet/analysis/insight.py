"""Measurements from the papers on residual networks, as small functions of a model and images.

They take networks of `ResNetSpec`, and others whose units add two paths in a layer `…_add`, the
shortcut first. The images are as the model takes them. `benchmarks/insight.py` draws a picture
of each measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError, require_tensorflow

__all__ = [
    "PathLength",
    "Switch",
    "Switched",
    "deletion_accuracies",
    "gradient_norms",
    "path_lengths",
    "response_deviations",
    "shortcut_gains",
]

_BATCH = 100
_ADD = "_add"


def response_deviations(model: keras.Model, images: np.ndarray) -> dict[str, float]:
    """Measure the standard deviation of every weight layer's response (He 2015, Fig. 7).

    See section 4.2 of that paper (arXiv:1512.03385).

    The response is the output of the BN after the convolution, before ReLU and addition. In
    pre-activation, where BN comes before, it is the convolution's own output. Convolutions of
    shortcuts and gates are left out.

    Args:
        model: a residual network of this package.
        images: (n, height, width, channels) as the model takes them.

    Returns:
        The deviation over all images, positions and channels, by the convolution's name, in order.

    Raises:
        UserError: no layer has a name like those of this package, or the arrays do not fit.
    """
    convs = [layer for layer in model.layers if _is_on_main_path(layer)]
    if not convs:
        raise UserError(f"'{model.name}' has no layers with names such as 'stage1_block1_conv1'.")
    by_name = {layer.name: layer for layer in model.layers}
    outputs = []
    for conv in convs:
        bn = by_name.get("bn".join(conv.name.rsplit("conv", 1)))
        outputs.append(bn.output if bn is not None and bn.input is conv.output else conv.output)
    _require_fitting(model, images)
    responses = keras.Model(model.input, outputs)
    sums = np.zeros((3, len(convs)))
    for batch, _ in _batches(images):
        for index, response in enumerate(responses(batch, training=False)):
            values = np.asarray(response, dtype="float64")
            sums[:, index] += values.size, values.sum(), (values**2).sum()
    mean = sums[1] / sums[0]
    deviations = np.sqrt(sums[2] / sums[0] - mean**2)
    return {conv.name: float(std) for conv, std in zip(convs, deviations, strict=True)}


def gradient_norms(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Measure the norm of the loss's gradient for every weight layer's kernel, in one batch.

    BN uses the statistics of the batch, as in a training step. At initialisation this is the
    gradient of the first step, and shows the effect of depth (He 2015, section 4.1; for plain nets
    with BN it grows towards the input, arXiv:1902.08129). The model's statistics do not change.

    Args:
        model: a classifier that returns probabilities.
        images: (n, height, width, channels), one batch.
        labels: (n,), class numbers.

    Returns:
        The norm by the convolution's name, in order.

    Raises:
        UserError: no layer has a name like those of this package, or the arrays do not fit.
    """
    kernels = {x.name: x.kernel for x in model.layers if _is_on_main_path(x)}
    if not kernels:
        raise UserError(f"'{model.name}' has no layers with names such as 'stage1_block1_conv1'.")
    _require_fitting(model, images, labels)
    before = [variable.numpy() for variable in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(
            labels, model(tf.constant(images, tf.float32), training=True)
        )
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [kernel.value for kernel in kernels.values()])
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        variable.assign(value)
    return {name: float(tf.norm(g)) for name, g in zip(kernels, gradients, strict=True)}


def deletion_accuracies(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Measure the accuracy after removing the F of one unit at a time (arXiv:1605.06431, Fig. 3).

    The shortcut of the unit is kept.

    Args:
        model: a residual network of this package.
        images: (n, height, width, channels) as the model takes them.
        labels: (n,), class numbers.

    Returns:
        The accuracy by the unit's name, `stage1_block1`, in order; "" is the whole network.

    Raises:
        UserError: no unit adds two paths, or the arrays do not fit.
    """
    switched = Switched(model)
    _require_fitting(model, images, labels)
    infer = tf.function(lambda batch: switched.model(batch, training=False))

    def accuracy() -> float:
        hits = [np.asarray(infer(b)).argmax(-1) == labels[place] for b, place in _batches(images)]
        return float(np.concatenate(hits).mean())

    accuracies = {"": accuracy()}
    for name, switch in switched.units.items():
        switch.signal.assign(0.0)
        accuracies[name] = accuracy()
        switch.signal.assign(1.0)
    return accuracies


@dataclass(frozen=True)
class PathLength:
    """The paths through the network that pass the F of `length` units (arXiv:1605.06431, sec. 5).

    Attributes:
        length: number of units whose F the path passes; it takes the shortcut of the others.
        share: share of all 2^n paths (binomial distribution).
        gradient: mean norm of the loss's gradient with respect to the image along one such path.
        contribution: share · gradient, divided by the sum over all lengths.
    """

    length: int
    share: float
    gradient: float
    contribution: float


def path_lengths(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, samples: int = 8, seed: int = 0
) -> list[PathLength]:
    """Measure how much paths of each length contribute to the gradient (arXiv:1605.06431, Fig. 6).

    The forward pass uses the whole network. Each length gets `samples` random choices of units. In
    the backward pass the gradient flows only through F in the chosen units, and only through the
    shortcut in the others.

    Args:
        model: a residual classifier that returns probabilities.
        images: (n, height, width, channels), as the model takes them.
        labels: (n,), class numbers.
        samples: number of random choices per length.
        seed: seed of the choices.

    Returns:
        One entry per length, from 0 to the number of units.

    Raises:
        UserError: no unit adds two paths, or the arrays do not fit.
    """
    switched = Switched(model)
    _require_fitting(model, images, labels)
    if samples < 1:
        raise UserError(f"samples must be 1 or more; received {samples}.")
    inputs = tf.constant(images, tf.float32)
    gradient = tf.function(lambda: _input_gradient(switched.model, inputs, labels))
    rng = np.random.default_rng(seed)
    count = len(switched.units)
    norms = []
    for length in range(count + 1):
        found = []
        for _ in range(samples if 0 < length < count else 1):  # at the ends there is one choice
            chosen = set(rng.permutation(count)[:length].tolist())
            for index, switch in enumerate(switched.units.values()):
                switch.through_f.assign(float(index in chosen))
                switch.through_h.assign(float(index not in chosen))
            found.append(float(tf.reduce_mean(gradient())))
        norms.append(float(np.mean(found)))
    shares = [math.comb(count, length) / 2**count for length in range(count + 1)]
    total = sum(s * n for s, n in zip(shares, norms, strict=True))
    return [
        PathLength(length, share, norm, share * norm / total)
        for length, (share, norm) in enumerate(zip(shares, norms, strict=True))
    ]


def _input_gradient(model: keras.Model, inputs: tf.Tensor, labels: np.ndarray) -> tf.Tensor:
    """Return the norm of each image's gradient."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = keras.losses.sparse_categorical_crossentropy(labels, model(inputs, training=False))
    return tf.norm(tf.reshape(tape.gradient(loss, inputs), (inputs.shape[0], -1)), axis=-1)


def shortcut_gains(model: keras.Model, images: np.ndarray) -> dict[str, tuple[float, float]]:
    """Measure how a signal and its gradient scale along the shortcuts alone, from unit to unit.

    Identity Mappings (arXiv:1603.05027), eq. 5 to 8: with h(x) = λx, the direct term of the signal
    and of the gradient is the product of the λ between two units. Here the signal y comes from the
    network with every F removed. The gradient is that of the last |y|²/2, through shortcuts only.
    Identity shortcuts keep the gradient's norm at 1, and the signal's within a stage. Where the
    resolution halves, option A drops three of four pixels.

    Args:
        model: a residual network of this package.
        images: (n, height, width, channels) as the model takes them.

    Returns:
        Two numbers by the unit's name, in order: the norm of its y divided by that of the first
        unit, and the norm of the gradient with respect to its y divided by that of the last unit.

    Raises:
        UserError: no unit adds two paths, or the arrays do not fit.
    """
    switched = Switched(model)
    _require_fitting(model, images)
    for switch in switched.units.values():
        switch.signal.assign(0.0)
        switch.through_f.assign(0.0)
    layers = [switched.model.get_layer(name + _ADD).output for name in switched.units]
    chain = keras.Model(switched.model.input, layers)
    with tf.GradientTape() as tape:
        signals = chain(tf.constant(images, tf.float32), training=False)
        end = tf.reduce_sum(signals[-1] ** 2) / 2
    gradients = tape.gradient(end, signals)
    forward = [_norm(signal) / _norm(signals[0]) for signal in signals]
    backward = [_norm(gradient) / _norm(gradients[-1]) for gradient in gradients]
    return dict(zip(switched.units, zip(forward, backward, strict=True), strict=True))


def _norm(tensor: Any) -> float:
    return float(np.linalg.norm(np.asarray(tensor, dtype="float64")))


# A network with switches in its units -------------------------------------------------------------


class Switch(keras.layers.Layer):
    """A layer before the addition of `h(x)` and `F(x)` that can cut either path.

    Attributes:
        signal: 0 removes F(x), 1 keeps it.
        through_h, through_f: 0 stops the gradient on that path; the signal still passes.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, trainable=False)
        self.signal, self.through_h, self.through_f = (
            self.add_weight(shape=(), initializer="ones", name=which, trainable=False)
            for which in ("signal", "through_h", "through_f")
        )

    def call(self, paths: Sequence[Any]) -> list[Any]:
        """Return both paths after the switches."""
        h, f = paths
        return [_gated(h, self.through_h), _gated(f * self.signal, self.through_f)]

    def compute_output_shape(self, shapes: Any) -> Any:
        """Return the shapes unchanged."""
        return shapes


def _gated(x: Any, gate: Any) -> Any:
    stopped = tf.stop_gradient(x)
    return stopped + gate * (x - stopped)


class Switched:
    """A copy of a residual network with a `Switch` before the addition in every unit.

    Attributes:
        model: the copy. Its outputs are the same while all switches are 1.
        units: the switches by unit, in the network's order.
    """

    def __init__(self, model: keras.Model) -> None:
        """Copy `model`.

        Raises:
            UserError: no unit adds two paths, as in plain nets.
        """
        self.units: dict[str, Switch] = {}

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(layer, keras.layers.Add) and layer.name.endswith(_ADD):
                name = layer.name.removesuffix(_ADD)
                self.units[name] = Switch(f"{name}_switch")
                return layer(self.units[name](args[0]))
            return layer(*args, **kwargs)

        self.model = keras.models.clone_model(model, call_function=call)
        if not self.units:
            raise UserError(f"'{model.name}' has no units that add two paths ('…_add').")
        for layer in model.layers:
            self.model.get_layer(layer.name).set_weights(layer.get_weights())


def _is_on_main_path(layer: Any) -> bool:
    """Return True for a convolution of the stem or of a unit's F."""
    name = layer.name
    convolves = isinstance(layer, keras.layers.Conv2D) and "_conv" in name
    return convolves and not any(part in name for part in ("_shortcut_", "_gate_"))


def _require_fitting(
    model: keras.Model, images: np.ndarray, labels: np.ndarray | None = None
) -> None:
    require_tensorflow("keras_resnet.insight")
    expected, found = model.input_shape[1:], np.shape(images)
    sides = zip(expected, found[1:], strict=False)
    if len(found) != 4 or not found[0] or any(e not in (None, f) for e, f in sides):
        size = ", ".join("any" if side is None else str(side) for side in expected)
        raise UserError(f"images must be (n, {size}) with n of 1 or more; received {found}.")
    if labels is None:
        return
    classes = model.output_shape[-1]
    if classes == 1:
        raise UserError(
            f"'{model.name}' has one output; this needs a classifier with a softmax over at least "
            "two classes."
        )
    if np.shape(labels) != found[:1] or np.min(labels) < 0 or np.max(labels) >= classes:
        spread = f" of {np.min(labels)} to {np.max(labels)}" if np.size(labels) else ""
        raise UserError(
            f"Expected {found[0]} labels from 0 to {classes - 1}, one per image; received "
            f"{np.shape(labels)}{spread}."
        )


def _batches(images: np.ndarray) -> Iterator[tuple[tf.Tensor, slice]]:
    for start in range(0, len(images), _BATCH):
        place = slice(start, start + _BATCH)
        yield tf.constant(images[place], tf.float32), place

"""What a network looks at: heat maps of images, by tf-keras-vis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import keras
import numpy as np

from keras_resnet.analysis import explained_model
from keras_resnet.analysis.explained_model import (
    numpy_seed,
    quiet_tf_keras_vis,
    require_tf_keras_vis,
)
from keras_resnet.display import sheets
from keras_resnet.errors import UnknownNameError, UserError

_BATCH = 8  # images at a time; the gradient keeps every map of them
_SAMPLES = 25  # of SmoothGrad
# Score-CAM runs the network once a channel. Of more, the most varied are taken, as "Faster
# Score-CAM" does: all 2048 of ResNet-50 would take 5 GB an image.
_CHANNELS = 128

# Methods that give a value a pixel; the others are maps of a layer, enlarged.
PIXEL_METHODS = ("saliency", "smoothgrad", "guided")
METHODS = (*PIXEL_METHODS, "gradcam", "gradcam++", "layercam", "scorecam")


def explain(
    model: keras.Model,
    images: Any,
    methods: str | Sequence[str] = ("gradcam",),
    *,
    classes: int | Sequence[int] | None = None,
    layer: str | None = None,
    noise: float = 0.1,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Say where in each image the evidence for a class is.

    Args:
        model: a functional classifier, of this zoo or not, of any dtype policy.
        images: (n, height, width, channels) as `model` takes them: RGB 0...255 where the
            normalisation is inside (`include_preprocessing=True`, run artefacts), else what
            `keras_resnet.preprocess` makes of it.
        methods: of the gradient of the class's logit with respect to pixels "saliency"
            (arXiv:1312.6034), "smoothgrad" (arXiv:1706.03825; 25 samples) and "guided"
            backpropagation (arXiv:1412.6806; it hardly depends on the weights, arXiv:1810.03292);
            of a layer's maps "gradcam" (arXiv:1610.02391), "gradcam++"
            (arXiv:1710.11063), "layercam" (IEEE TIP 2021, 9462463) and "scorecam"
            (arXiv:1910.01279; of more than 128 channels the 128 that vary most).
        classes: the class of each image, or one for all; by default the highest score's.
        layer: whose maps the CAMs weigh; by default the last before the classifier.
        noise: SmoothGrad's standard deviation as a part of the image's range (0 to 1): 0.1 to 0.2
            in its paper; at CIFAR's 32 pixels more than 0.05 leaves a fog.
        seed: of SmoothGrad's noise.

    Returns:
        For each method (n, height, width), float32, 0 to 1 within each image. All zero: nothing
        there speaks for the class. A dictionary; a notebook shows the maps beside the images.

    Raises:
        UserError: the model is no functional classifier, images or classes do not fit it, the layer
            gives no maps, no method is named, the noise is not from 0 to 1, the gradients are not
            finite, or the environment makes `tf.keras` another Keras.
        UnknownNameError: an unknown method or layer.
        MissingExtraError: tf-keras-vis is not installed.
    """
    wanted = _methods(methods)
    if not (isinstance(noise, Real) and 0 <= noise <= 1):
        raise UserError(f"noise is a part of the image's range, from 0 to 1; received {noise!r}.")
    require_tf_keras_vis()
    copy = explained_model.prepared(model)
    pixels = explained_model.checked_images(images, copy)
    chosen = _classes(classes, copy, pixels)
    without = layer is None and set(wanted) <= set(PIXEL_METHODS)
    options = _Options(None if without else explained_model.find_layer(copy, layer), noise)
    maps: dict[str, np.ndarray] = {}
    for method in wanted:
        with numpy_seed(seed):
            found = _in_batches(method, _explainer(method, copy, options), pixels, chosen)
        if not np.isfinite(found).all():
            raise UserError(f"{method}: the gradients of '{model.name}' are not finite.")
        maps[method] = _normalised(found)
    return sheets.Maps(maps, pixels, chosen)


def default_layer(model: keras.Model) -> str:
    """Return the name of the layer that `explain` looks at where none is given.

    Args:
        model: as `explain` takes it.

    Raises:
        UserError: as `explain`.
        MissingExtraError: tf-keras-vis is not installed.
    """
    return str(require_layer(model, None).name)


def require_layer(model: keras.Model, name: str | None) -> Any:
    """Return what `explain` looks at where `name` is given as its layer.

    Raises:
        UserError, UnknownNameError, MissingExtraError: as `explain`.
    """
    require_tf_keras_vis()
    return explained_model.find_layer(explained_model.prepared(model), name)


# What tf-keras-vis is asked ---------------------------------------------------------------------

Explainer = Callable[[Any, np.ndarray], Any]  # of a score and images, to maps


@dataclass(frozen=True)
class _Options:
    layer: Any  # for the CAMs
    noise: float  # for SmoothGrad


def _methods(given: str | Sequence[str]) -> tuple[str, ...]:
    listed = [given] if isinstance(given, str) else given
    methods = tuple(listed) if isinstance(listed, Iterable) else ()
    if not methods:
        known = ", ".join(METHODS)
        raise UserError(f"methods are one or more of {known}; received {given!r}.")
    for method in methods:
        if method not in METHODS:
            raise UnknownNameError("method", method, METHODS, "")
    return methods


def _explainer(method: str, model: keras.Model, options: _Options) -> Explainer:
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.model_modifiers import GuidedBackpropagation

    if method not in PIXEL_METHODS:
        return _cam(method, model, options.layer)
    if method == "guided":
        _require_activations(model)
        guided = Saliency(model, GuidedBackpropagation())  # on a copy
        return partial(guided, normalize_map=False)
    samples = _SAMPLES if method == "smoothgrad" else 0
    return partial(
        Saliency(model),
        smooth_samples=samples,
        smooth_noise=options.noise,
        normalize_map=False,
    )


def _cam(method: str, model: keras.Model, layer: Any) -> Explainer:
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.scorecam import Scorecam

    kinds = {"gradcam": Gradcam, "gradcam++": GradcamPlusPlus, "layercam": Layercam}
    cam = kinds.get(method, Scorecam)(model)
    options: dict[str, Any] = {
        "penultimate_layer": layer,
        "seek_penultimate_conv_layer": False,
        "normalize_cam": False,
    }
    if method == "scorecam":
        options["max_N"] = min(_CHANNELS, layer.output.shape[-1])
    return partial(cam, **options)


def _in_batches(method: str, run: Explainer, images: np.ndarray, classes: list[int]) -> np.ndarray:
    # Score-CAM chooses its channels over the batch: alone, each image has its own.
    size = 1 if method == "scorecam" else _BATCH
    parts = []
    for start in range(0, len(images), size):
        score = _score(classes[start : start + size], exponential=method == "gradcam++")
        with quiet_tf_keras_vis():
            parts.append(np.asarray(run(score, images[start : start + size]), dtype="float32"))
    return np.concatenate(parts)


def _normalised(maps: np.ndarray) -> np.ndarray:
    """Each from 0 to 1; tf-keras-vis' own adds 1e-7 to the range, and gradients may be as small."""
    low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return np.divide(maps - low, high - low, out=np.zeros_like(maps), where=high > low)


def _score(classes: list[int], *, exponential: bool) -> Any:
    """The class's logit. Grad-CAM++ takes its exponential, which overflows above 88.

    That is a factor of the whole map (its weights are ratios), which the scaling to 0...1 takes
    out, so the logit's value may be 0 with its gradient kept.
    """
    import tensorflow as tf
    from tf_keras_vis.utils.scores import CategoricalScore

    score = CategoricalScore(classes)
    if not exponential:
        return score
    return lambda logits: score(logits) - tf.stop_gradient(score(logits))


def _require_activations(model: keras.Model) -> None:
    """Guided backpropagation changes the gradient of `Activation("relu")` and the like only."""
    others = [x.name for x in model.layers if isinstance(x, keras.layers.ReLU)]
    relus = [x for x in model.layers if getattr(x, "activation", 0) is keras.activations.relu]
    if others or not relus:
        named = f"has ReLU layers ('{others[0]}')" if others else "has none"
        raise UserError(
            'guided: tf-keras-vis guides the gradient of activations "relu" of layers, and '
            f"'{model.name}' {named}."
        )


def _classes(
    given: int | Sequence[int] | None, model: keras.Model, images: np.ndarray
) -> list[int]:
    if given is None:
        batches = range(0, len(images), _BATCH)
        scores = [np.asarray(model(images[i : i + _BATCH], training=False)) for i in batches]
        return [int(i) for i in np.concatenate(scores).argmax(-1)]
    numbers = explained_model.checked_classes(given, model, len(images))
    if len(numbers) != len(images):
        raise UserError(f"There are {len(images)} images and {len(numbers)} classes.")
    return numbers

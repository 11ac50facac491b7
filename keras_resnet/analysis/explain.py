"""Heat maps that show which parts of an image a network uses, made with tf-keras-vis."""

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
from keras_resnet.arguments import checked
from keras_resnet.display import sheets
from keras_resnet.errors import UnknownNameError, UserError

_BATCH = 8  # images at a time; the gradient keeps all their maps in memory
_SAMPLES = 25  # of SmoothGrad
# Score-CAM runs the network once per channel. Of more channels, the most varied are taken, as in
# "Faster Score-CAM": all 2048 of ResNet-50 would take 5 GB per image.
_CHANNELS = 128

# Methods that give one value per pixel. The others give maps of a layer, enlarged.
PIXEL_METHODS = ("saliency", "smoothgrad", "guided")
METHODS = (*PIXEL_METHODS, "gradcam", "gradcam++", "layercam", "scorecam")


@checked
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
    """Show where in each image the evidence for a class is.

    Args:
        model: a functional classifier, of this package or not, with any dtype policy.
        images: (n, height, width, channels) as `model` takes them. That is RGB 0...255 if the
            model contains its normalisation (`include_preprocessing=True`, models of a run), and
            otherwise the result of `keras_resnet.preprocess`.
        methods: one or more methods. Three use the gradient of the class's logit with respect to
            the pixels: "saliency" (arXiv:1312.6034), "smoothgrad" (arXiv:1706.03825; 25 samples)
            and "guided" backpropagation (arXiv:1412.6806; it hardly depends on the weights,
            arXiv:1810.03292). Four use the maps of a layer: "gradcam" (arXiv:1610.02391),
            "gradcam++" (arXiv:1710.11063), "layercam" (IEEE TIP 2021, 9462463) and "scorecam"
            (arXiv:1910.01279; of more than 128 channels, the 128 that vary most).
        classes: the class of each image, or one class for all. The default is the class with the
            highest score.
        layer: name of the layer whose maps the CAMs use. The default is the last feature map before
            the classifier.
        noise: standard deviation of SmoothGrad's noise, as a fraction (0 to 1) of the pixel range.
            Its paper uses 0.1 to 0.2. For CIFAR's 32 pixels use at most 0.05, because more noise
            blurs the map.
        seed: seed of SmoothGrad's noise.

    Returns:
        A dictionary with one array per method: (n, height, width), float32, 0 to 1 within each
        image. A map of zeros means that nothing there speaks for the class. A notebook shows the
        maps next to the images.

    Raises:
        UserError: the model is not a functional classifier, images or classes do not fit it, the
            layer gives no maps, no method is given, the noise is not from 0 to 1, the gradients are
            not finite, or `tf.keras` is not Keras 3 in this environment.
        UnknownNameError: a method or the layer is unknown.
        MissingExtraError: tf-keras-vis is not installed.
    """
    wanted = _methods(methods)
    if not (isinstance(noise, Real) and 0 <= noise <= 1):
        raise UserError(f"noise must be a number from 0 to 1; received {noise!r}.")
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
            raise UserError(
                f"{method}: the gradients of '{model.name}' are not finite (NaN or infinity)."
            )
        maps[method] = _normalised(found)
    return sheets.Maps(maps, pixels, chosen)


def default_layer(model: keras.Model) -> str:
    """Return the name of the layer that `explain` uses if no layer is given.

    Args:
        model: a model as for `explain`.

    Raises:
        UserError: as for `explain`.
        MissingExtraError: tf-keras-vis is not installed.
    """
    return str(require_layer(model, None).name)


def require_layer(model: keras.Model, name: str | None) -> Any:
    """Return the layer that `explain` uses for the given `name` (None: the default).

    Raises:
        UserError, UnknownNameError, MissingExtraError: as for `explain`.
    """
    require_tf_keras_vis()
    return explained_model.find_layer(explained_model.prepared(model), name)


# Calls of tf-keras-vis --------------------------------------------------------------------------

Explainer = Callable[[Any, np.ndarray], Any]  # from a score and images to maps


@dataclass(frozen=True)
class _Options:
    layer: Any  # for the CAMs
    noise: float  # for SmoothGrad


def _methods(given: str | Sequence[str]) -> tuple[str, ...]:
    listed = [given] if isinstance(given, str) else given
    methods = tuple(listed) if isinstance(listed, Iterable) else ()
    if not methods:
        known = ", ".join(METHODS)
        raise UserError(f"methods must be one or more of {known}; received {given!r}.")
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
    # Score-CAM selects channels over the whole batch. One image at a time gets its own channels.
    size = 1 if method == "scorecam" else _BATCH
    parts = []
    for start in range(0, len(images), size):
        score = _score(classes[start : start + size], exponential=method == "gradcam++")
        with quiet_tf_keras_vis():
            parts.append(np.asarray(run(score, images[start : start + size]), dtype="float32"))
    return np.concatenate(parts)


def _normalised(maps: np.ndarray) -> np.ndarray:
    """Scale each map to 0...1. tf-keras-vis adds 1e-7 to the range; gradients may be that small."""
    low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return np.divide(maps - low, high - low, out=np.zeros_like(maps), where=high > low)


def _score(classes: list[int], *, exponential: bool) -> Any:
    """Return a function that gives the class's logit. Grad-CAM++ takes its exponential.

    The exponential overflows above 88. It only scales the whole map, because Grad-CAM++'s weights
    are ratios, and scaling the map to 0...1 removes it. So the logit's value may become 0 if its
    gradient is kept.
    """
    import tensorflow as tf
    from tf_keras_vis.utils.scores import CategoricalScore

    score = CategoricalScore(classes)
    if not exponential:
        return score
    return lambda logits: score(logits) - tf.stop_gradient(score(logits))


def _require_activations(model: keras.Model) -> None:
    """Require activations "relu", the only ones whose gradient guided backpropagation changes."""
    others = [x.name for x in model.layers if isinstance(x, keras.layers.ReLU)]
    relus = [x for x in model.layers if getattr(x, "activation", 0) is keras.activations.relu]
    if others or not relus:
        named = f"has ReLU layers ('{others[0]}')" if others else "has no ReLU activations"
        raise UserError(
            'guided: tf-keras-vis only changes the gradient of the layer activation "relu", but '
            f"'{model.name}' {named}. Choose another method."
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
        raise UserError(
            f"classes must be one number, or one per image; received {len(numbers)} for "
            f"{len(images)} images."
        )
    return numbers

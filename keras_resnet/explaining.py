"""What a network looks at: heat maps of images, and images of classes, by tf-keras-vis."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_resnet import explain_models, preprocessing, registry
from keras_resnet.errors import UnknownNameError, UserError, require

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
        noise: SmoothGrad's standard deviation as a part of the image's range: 0.1 to 0.2 in its
            paper; at CIFAR's 32 pixels more than 0.05 leaves a fog.
        seed: of SmoothGrad's noise.

    Returns:
        For each method (n, height, width), float32, 0 to 1 within each image. All zero: nothing
        there speaks for the class.

    Raises:
        UserError: the model is no functional classifier, images or classes do not fit it, there is
            no such layer, its numbers are not finite, or the environment makes `tf.keras` another
            Keras.
        UnknownNameError: an unknown method or layer.
        MissingExtraError: tf-keras-vis is not installed.
    """
    wanted = (methods,) if isinstance(methods, str) else tuple(methods)
    for method in wanted:
        if method not in METHODS:
            raise UnknownNameError("method", method, METHODS, "")
    _require_tf_keras_vis()
    copy = explain_models.prepared(model)
    pixels = _checked_images(images, copy)
    chosen = _classes(classes, copy, pixels)
    of_pixels = set(wanted) <= set(PIXEL_METHODS)
    options = _Options(None if of_pixels else explain_models.find_layer(copy, layer), noise)
    maps: dict[str, np.ndarray] = {}
    for method in wanted:
        with _numpy_seed(seed):
            maps[method] = _in_batches(method, _explainer(method, copy, options), pixels, chosen)
        if not np.isfinite(maps[method]).all():
            raise UserError(f"{method}: the gradients of '{model.name}' are not finite.")
    return maps


def default_layer(model: keras.Model) -> str:
    """Return the name of the layer that `explain` looks at where none is given.

    Raises:
        UserError: as `explain`.
        MissingExtraError: tf-keras-vis is not installed.
    """
    _require_tf_keras_vis()
    return str(explain_models.find_layer(explain_models.prepared(model), None).name)


def activation_maximization(
    model: keras.Model,
    classes: int | Sequence[int],
    *,
    steps: int = 200,
    preprocessing_mode: str | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Draw what the network takes for each class: an image changed until its logit is high.

    Noise is changed by RMSprop along the gradient; it is shifted and turned a little between the
    steps and held smooth (arXiv:1312.6034, section 2; https://distill.pub/2017/feature-visualization).

    Args:
        model: a functional classifier.
        classes: one, or several: one image each.
        steps: updates.
        preprocessing_mode: of a model that lacks its normalisation: a key of
            `keras_resnet.preprocessing.PREPROCESSING`; the zoo's networks' is known.
        seed: of the noise.

    Returns:
        (len(classes), height, width, channels), uint8 RGB; 224 pixels a side where the model's
        size is free.

    Raises:
        UserError, UnknownNameError, MissingExtraError: as `explain`.
    """
    _require_tf_keras_vis()
    copy = explain_models.prepared(model)
    numbers = [classes] if isinstance(classes, int) else list(classes)
    chosen = _checked_classes(numbers, copy)
    height, width, channels = copy.input_shape[1:]
    inputs = keras.Input((height or 224, width or 224, channels))
    scaled = preprocessing.rescale(inputs, _mode(model, preprocessing_mode))
    whole = keras.Model(inputs, copy(scaled))
    rng = np.random.default_rng(seed)
    start = rng.uniform(96, 160, (len(chosen), *whole.input_shape[1:])).astype("float32")
    with _numpy_seed(seed), _quiet():
        drawn = _maximised(whole, chosen, start, steps, rng)
    return np.rint(np.clip(drawn, 0, 255)).astype("uint8")


def _maximised(
    model: keras.Model, classes: list[int], start: np.ndarray, steps: int, rng: Any
) -> np.ndarray:
    from tf_keras_vis.activation_maximization import ActivationMaximization
    from tf_keras_vis.activation_maximization.input_modifiers import Jitter, Rotate2D
    from tf_keras_vis.utils.scores import CategoricalScore

    turn = Rotate2D(degree=1)
    turn.random_generator = rng  # its own is not seeded
    shift = Jitter(jitter=max(1, start.shape[1] // 16))
    maximise = ActivationMaximization(model)
    return np.asarray(
        maximise(CategoricalScore(classes), start, input_modifiers=[shift, turn], steps=steps)
    )


def _mode(model: keras.Model, given: str | None) -> str:
    """The normalisation between RGB 0...255 and what the model takes."""
    if given is not None:
        return given
    outside = not preprocessing.has_preprocessing(model) and model.name in registry.list_models()
    return registry.architecture(model.name).preprocessing if outside else "raw"


# What tf-keras-vis is asked ---------------------------------------------------------------------

Explainer = Callable[[Any, np.ndarray], Any]  # of a score and images, to maps


@dataclass(frozen=True)
class _Options:
    layer: Any  # for the CAMs
    noise: float  # for SmoothGrad


def _explainer(method: str, model: keras.Model, options: _Options) -> Explainer:
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.model_modifiers import GuidedBackpropagation

    if method not in PIXEL_METHODS:
        return _cam(method, model, options.layer)
    if method == "guided":
        _require_activations(model)
        return Saliency(model, GuidedBackpropagation())  # on a copy
    samples = _SAMPLES if method == "smoothgrad" else 0
    return partial(Saliency(model), smooth_samples=samples, smooth_noise=options.noise)


def _cam(method: str, model: keras.Model, layer: Any) -> Explainer:
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.scorecam import Scorecam

    kinds = {"gradcam": Gradcam, "gradcam++": GradcamPlusPlus, "layercam": Layercam}
    cam = kinds.get(method, Scorecam)(model)
    options: dict[str, Any] = {"penultimate_layer": layer, "seek_penultimate_conv_layer": False}
    if method == "scorecam":
        options["max_N"] = min(_CHANNELS, layer.output.shape[-1])
    return partial(cam, **options)


def _in_batches(method: str, run: Explainer, images: np.ndarray, classes: list[int]) -> np.ndarray:
    # Score-CAM chooses its channels over the batch: alone, each image has its own.
    size = 1 if method == "scorecam" else _BATCH
    parts = []
    for start in range(0, len(images), size):
        score = _score(classes[start : start + size], exponential=method == "gradcam++")
        with _quiet():
            parts.append(np.asarray(run(score, images[start : start + size]), dtype="float32"))
    return np.clip(np.concatenate(parts), 0, 1)  # rounding leaves 1 + 1e-7


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


def _require_tf_keras_vis() -> None:
    """Import it; refuse an environment in which it would explain models of another Keras."""
    import tensorflow as tf

    try:
        ours = tf.keras.Model is keras.Model
    except ImportError:  # tf.keras is tf_keras, which is not installed
        ours = False
    if not ours:
        raise UserError(
            "tf-keras-vis works on tf.keras, which is not Keras 3 in this process: "
            "TF_USE_LEGACY_KERAS is set (importing tensorflow_model_optimization sets it, too). "
            "Unset it and start again: env -u TF_USE_LEGACY_KERAS keras-resnet explain …"
        )
    with warnings.catch_warnings(action="ignore"):  # it imports scipy's zoom by an old name
        require("tf_keras_vis.scorecam", "explain")
        require("tf_keras_vis.gradcam", "explain")


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


# What goes in -----------------------------------------------------------------------------------


def _checked_images(images: Any, model: keras.Model) -> np.ndarray:
    array = np.asarray(images)
    expected = model.input_shape[1:]
    fits = array.ndim == 4 and all(
        e in (None, r) for e, r in zip(expected, array.shape[1:], strict=True)
    )
    if not fits or len(array) == 0 or array.dtype.kind not in "uif":
        raise UserError(
            f"'{model.name}' takes images of (n, *{expected}), one or more; received "
            f"{array.shape} of {array.dtype}. keras_resnet.load_images reads files."
        )
    return array.astype("float32")


def _classes(
    given: int | Sequence[int] | None, model: keras.Model, images: np.ndarray
) -> list[int]:
    if given is None:
        batches = range(0, len(images), _BATCH)
        scores = [np.asarray(model(images[i : i + _BATCH], training=False)) for i in batches]
        return [int(i) for i in np.concatenate(scores).argmax(-1)]
    numbers = [given] * len(images) if isinstance(given, int | np.integer) else list(given)
    if len(numbers) != len(images):
        raise UserError(f"There are {len(images)} images and {len(numbers)} classes.")
    return _checked_classes(numbers, model)


def _checked_classes(numbers: Sequence[Any], model: keras.Model) -> list[int]:
    count = model.output_shape[-1]
    whole = all(isinstance(n, int | np.integer) and 0 <= n < count for n in numbers)
    if not numbers or not whole:
        raise UserError(f"classes are numbers from 0 to {count - 1}; received {list(numbers)}.")
    return [int(n) for n in numbers]


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """tf-keras-vis draws from NumPy's global generator; leave that as it was."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """No bar on stdout of the `predict` that Score-CAM calls, and no warning of Keras' that
    tf-keras-vis hands over its one input in a list."""
    was = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The structure of `inputs`")
            yield
    finally:
        if was:
            keras.config.enable_interactive_logging()

"""Wrong things where the public functions want a model, an array, a path, a number or a list."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import keras
import numpy as np

import keras_resnet
from campaign import invariant, material
from keras_resnet import recipes
from keras_resnet.errors import UserError
from keras_resnet.export import check, export, layer_errors
from keras_resnet.export.formats.tflite import metadata
from keras_resnet.export.measure import benchmark
from keras_resnet.images.crop import SingleCrop
from keras_resnet.recipes import compare, evaluate, report, sources
from keras_resnet.recipes.runs import folder as runs

NAME = "api"
TRIALS, SHARE, SECONDS = 1500, 8, 200.0

# Resources that a call may take: a right call of the largest converts a small network.
CALL_SECONDS, CALL_MEGABYTES = 60.0, 1500.0


def trial(seed: int, folder: Path) -> str | None:
    """Call one public function with one or two wrong arguments."""
    random = Random(seed)
    name, function, right = random.choice(_calls(folder))
    parameters = [key for key in inspect.signature(function).parameters if key != "arguments"]
    if name in ("create_model", "ResNet8"):
        parameters = [*inspect.signature(keras_resnet.ResNet8).parameters, *_OPTIONS]
    if name == "create_model":
        parameters.append("name")
    wrong = {
        key: _thing(random, folder)
        for key in random.sample(parameters, min(len(parameters), random.choice((1, 1, 1, 2))))
    }
    given = {**right, **wrong}
    problem = _judged(function, given, folder)
    told = ", ".join(f"{key}={_short(value)}" for key, value in wrong.items())
    return problem and f"{problem} [{name}: {told}]"


def _judged(function: Callable[..., Any], given: dict[str, Any], folder: Path) -> str | None:
    said: str | None = None

    def work() -> None:
        nonlocal said
        try:
            function(**given)
        except UserError as error:
            said = None if str(error).strip() else "a UserError without a message"
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

    inside = set(folder.rglob("*"))
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
        mock.patch.dict(os.environ, {"KERAS_RESNET_OFFLINE": "1"}),
    ):
        wrong = invariant.bounded(work, CALL_SECONDS, CALL_MEGABYTES)
    if left := [path.name for path in set(folder.rglob("*")) - inside if "partial" in path.name]:
        wrong = wrong or f"leaves {left[0]}"
    return wrong or said


def _short(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}" if len(text) < 200 else type(value).__name__


# Right calls --------------------------------------------------------------------------------------


@functools.cache
def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras_resnet.ResNet8(weights=None, include_preprocessing=True, input_shape=(32, 32, 3))


@functools.cache
def _digits() -> Any:
    return recipes.load_dataset("digits")


def _images(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), "uint8")


# Fields of the network that `build` takes besides its own arguments.
_OPTIONS = ("depths", "widths", "dropout", "stochastic_depth", "output_stride", "zero_init_last")


def _calls(folder: Path) -> list[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Return public functions with arguments that are right."""
    run = material.run_folder(folder)
    picture = material.picture(folder / "cat.png")
    model, images = _model(), _images()
    heat, scores = np.random.default_rng(0).random((32, 32)), np.full((2, 10), 0.1, "float32")
    row = keras_resnet.Row("a", images[0], {"b": images[1]}, [("c", 0.5)], "c")
    exports = run / "exports"
    converted = {"model": model, "formats": ["tflite-float32"], "out": folder / "new"}
    files = (exports / "test_resnet-float32.tflite", exports / "test_resnet-int8.tflite")
    return [
        ("create_model", _created, {"name": "resnet8", "weights": None}),
        ("ResNet8", keras_resnet.ResNet8, {"weights": None}),
        ("preprocess", keras_resnet.preprocess, {"images": images, "model": "resnet20"}),
        ("load_images", keras_resnet.load_images, {"paths": [picture], "model": model}),
        (
            "decode_predictions",
            keras_resnet.decode_predictions,
            {"predictions": scores, "data": "cifar10"},
        ),
        (
            "explain",
            keras_resnet.explain,
            {"model": model, "images": images, "methods": "saliency"},
        ),
        ("profile", keras_resnet.profile, {"model_or_name": model}),
        ("deepen", keras_resnet.deepen, {"model": model, "stage": 1}),
        ("ensemble", keras_resnet.ensemble, {"models": [model, model]}),
        ("inference_model", keras_resnet.inference_model, {"model": model}),
        ("loss_weights", keras_resnet.loss_weights, {"model": model}),
        ("to_stock", keras_resnet.to_stock, {"model": model}),
        ("overlay", keras_resnet.overlay, {"image": images[0], "heatmap": heat}),
        ("pixel_map", keras_resnet.pixel_map, {"heatmap": heat}),
        ("contact_sheet", keras_resnet.contact_sheet, {"rows": [row]}),
        ("list_models", keras_resnet.list_models, {}),
        ("list_weights", keras_resnet.list_weights, {}),
        ("class_names", keras_resnet.labels.class_names, {"data": "cifar10"}),
        ("labels_of", keras_resnet.labels.labels_of, {"model": model}),
        ("export", export, {**converted, "calibration": images, "verbose": False}),
        ("About.parse", metadata.About.parse, {"texts": ["author=me"]}),
        ("SingleCrop", SingleCrop, {"resize": 32}),
        ("check_folder", check.check_folder, {"folder": exports}),
        ("recorded_reference", check.recorded_reference, {"folder": exports}),
        (
            "layer_errors",
            layer_errors.measure,
            {"float_file": files[0], "quantized_file": files[1], "images": images},
        ),
        ("benchmark.find", benchmark.find, {"paths": [files[0]]}),
        ("load_config", recipes.load_config, {"name": "debug/tiny"}),
        ("load_dataset", recipes.load_dataset, {"name": "digits"}),
        (
            "measure_model",
            evaluate.measure_model,
            {"model": model, "split": _digits().test.subset(np.arange(8))},
        ),
        ("prune_filters", recipes.prune_filters, {"model": model, "multiply_adds": 0.5}),
        ("compare.rows", compare.rows, {"references": [run]}),
        ("list_runs", runs.list_runs, {"folder": folder}),
        ("report.write", report.write, {"run": runs.Run(folder / "none")}),
        ("find_run", runs.find_run, {"path": run}),
        ("sources.find", sources.find, {"reference": str(run)}),
    ]


def _created(**given: Any) -> keras.Model:
    """Call `create_model`, of which the name has a place and no keyword."""
    return keras_resnet.create_model(given.pop("name"), **given)


# Wrong things -------------------------------------------------------------------------------------


def _thing(random: Random, folder: Path) -> Any:
    """Return something that is probably wrong; a few are right."""
    kind = random.random()
    if kind < 0.2:
        return material.hostile(random)
    if kind < 0.3:
        return random.choice((folder / "cat.png", folder / "no", folder, Path("."), Path("a\0b")))
    return random.choice(_things())()


@functools.cache
def _things() -> tuple[Callable[[], Any], ...]:
    array = np.zeros((2, 32, 32, 3), "float32")
    values: list[Any] = [
        *(None, True, False, 0, 1, -1, 2, 10**23, 2.5, -0.5, float("nan"), float("inf"), 1 + 2j),
        *("", "x", "resnet20", b"x", bytearray(b"x"), Ellipsis, NotImplemented, int, print),
        *([], (), {}, set(), [None], [1], [1.5], ["x"], [[1, 2], [3]], {"a": 1}, {1: None}),
        *((32, 32, 3), (0, 0, 3), (-1, 32, 3), (None, None, 3), (32, 32), ("a", "b", "c")),
        *(array, array[:0], array[0], array * np.nan, array.astype("complex64"), array > 0),
        *(np.array("x"), np.array(["x", "y"]), np.array([None, {}]), np.zeros(()), np.float32(1)),
        *(np.int64(3), np.zeros((2, 10), "float32"), np.zeros((1, 1, 1, 1, 1)), np.arange(2)),
        *(range(3), slice(1), object(), Path("/dev/null"), np.datetime64("2020-01-01")),
        *([array[0], array[1][:16]], [np.nan], [object()], np.zeros((2, 32, 32, 4), "uint8")),
    ]
    made: list[Callable[[], Any]] = [functools.partial(lambda value: value, v) for v in values]
    return (
        *made,
        lambda: (x for x in ()),
        lambda: iter([array, "x"]),
        lambda: lambda: [array],
        lambda: keras.Input((32, 32, 3)),
        lambda: keras.layers.Dense(3),
        lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
        lambda: keras.Sequential([keras.layers.Dense(2)]),
        lambda: keras.ops.zeros((2, 32, 32, 3)),
        _two_inputs,
        _model,
    )


def _two_inputs() -> keras.Model:
    inputs = [keras.Input((4, 4, 3)), keras.Input((4, 4, 3))]
    return keras.Model(inputs, keras.layers.Add()(inputs))

"""Public functions refuse arguments of the wrong type in one sentence, before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.arguments import checked, require_fields
from keras_resnet.errors import UserError
from keras_resnet.export import export, metadata
from keras_resnet.images.crop import SingleCrop
from keras_resnet.recipes import load_config, load_dataset
from keras_resnet.recipes.runs import compare


@checked
def _takes(
    model: keras.Model | str = "x",
    count: int | None = None,
    share: float = 0.0,
    names: Sequence[str] = (),
    labels: Sequence[object] | None = None,
    rates: Sequence[float] = (),
    path: str | Path = "",
    array: np.ndarray | None = None,
    flag: bool = False,
    other: Any = None,
    **more: Any,
) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    "given",
    [
        {"model": keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])},
        {"count": 3, "share": 1, "names": ["a"], "path": Path("x"), "flag": np.bool_(True)},
        {"count": np.int64(3), "share": np.float32(0.5), "names": (), "labels": [1, "x", None]},
        {"labels": np.array(["a", "b"]), "rates": np.array([1.0, 2.0]), "names": np.array(["a"])},
        {"array": [[1, 2]], "rates": [1, 2.5], "other": object(), "more": object()},
        {"array": keras.ops.zeros(3), "count": None},
        {"rates": range(3), "labels": range(2)},
    ],
)
def test_what_the_annotations_allow_is_taken(given):
    _takes(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": 3}, "model must be a Keras model or a string; received 3."),
        ({"count": True}, "count must be a whole number; received True."),
        ({"count": 2.0}, "count must be a whole number; received 2.0."),
        ({"share": "x"}, "share must be a number; received 'x'."),
        ({"names": "abc"}, "names must be a list of strings; received 'abc'. Write names=['abc']."),
        ({"names": ["a", 1]}, "names must be a list of strings; received a list of str."),
        ({"names": range(3)}, "names must be a list of strings; received a range."),
        ({"names": np.zeros(2)}, "names must be a list of strings; received a ndarray."),
        ({"path": None}, "path must be a string or a path; received None."),
        ({"array": [[1, 2], [3]]}, "array must be an array; received a list."),
        ({"path": np.array("x")}, "path must be a string or a path; received a ndarray."),
        ({"array": object()}, "array must be an array; received a object."),
        ({"flag": 1}, "flag must be True or False; received 1."),
        ({"flag": "y" * 100}, f"flag must be True or False; received '{'y' * 79}…."),
    ],
)
def test_other_types_are_refused(given, message):
    with pytest.raises(UserError) as raised:
        _takes(**given)
    assert str(raised.value) == message


def test_a_wrong_call_is_pythons_own_error():
    with pytest.raises(TypeError, match="multiple values"):
        _takes("x", model="y")


def test_fields_are_checked_too():
    @dataclass
    class Two:
        size: int
        name: str = ""

    globals()["Two"] = Two
    require_fields(Two(1))
    with pytest.raises(UserError, match="size must be a whole number; received 'x'"):
        require_fields(Two("x"))


def _built():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.build((None, 2))
    return model


@pytest.fixture(scope="module")
def model():
    return keras_resnet.ResNet8(weights=None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: keras_resnet.ResNet8(weights=None, classes=True), "classes must be a whole"),
        (
            lambda m: keras_resnet.ResNet8(weights=None, include_preprocessing="tf"),
            "include_preprocessing must be True or False; received 'tf'.",
        ),
        (lambda m: keras_resnet.load_images([], m), "load_images needs one or more image files"),
        (
            lambda m: keras_resnet.profile(3),
            "model_or_name must be a Keras model or a string; received 3.",
        ),
        (lambda m: keras_resnet.profile(m, Path("x")), "input_shape must be like (224, 224, 3)"),
        (lambda m: keras_resnet.profile(m, (32, "x", 3)), "received (32, 'x', 3)"),
        (
            lambda m: export("model.keras", out="x"),
            "model must be a Keras model; received 'model.keras'. keras.models.load_model opens",
        ),
        (lambda m: export(m, "tflite-int8", out="x"), "formats must be a list of strings"),
        (lambda m: export(m, ["web"], out="x", labels="ab"), "labels must be a list of values"),
        (lambda m: export(m, ["web"], out="x", about="me"), "about must be a About"),
        (lambda m: export(m, ["web"], out="x", crop=32), "crop must be a SingleCrop"),
        (lambda m: keras_resnet.ensemble([m, 1]), "models must be a list of Keras models"),
        (lambda m: keras_resnet.pixel_map([np.nan]), "heatmap must be an array of finite numbers"),
        (lambda m: SingleCrop("32"), "resize must be a whole number; received '32'."),
        (lambda m: metadata.About(author=3), "author must be a string; received 3."),
        (lambda m: load_config(3), "A path must be a string or a Path; received a int."),
        (lambda m: load_config("a\0b"), "A path must not contain the character NUL"),
        (lambda m: load_config("x" * 300), "This path is too long for a file: xxx"),
        (lambda m: load_dataset(""), "data.name is empty."),
        (lambda m: load_dataset("digits", 10, -1), "split_seed must be 0 or more; received -1."),
        (lambda m: keras_resnet.ResNet8(weights=None, name=np.zeros(2)), "name must be a string"),
        (lambda m: keras_resnet.ResNet8(weights=None, dtype="x"), "dtype must be a Keras dtype"),
        (lambda m: keras_resnet.to_stock(m, "null"), "dtype must be a Keras dtype policy"),
        (lambda m: keras_resnet.inference_model(keras.Sequential()), "has no outputs yet"),
        (lambda m: keras_resnet.loss_weights(_built()), "has no outputs yet"),
        (
            lambda m: keras_resnet.ResNet8(weights=None, classifier_activation="inf"),
            "classifier_activation must be the name of a Keras activation",
        ),
        (lambda m: keras_resnet.from_hub(3), "name must be a string; received 3."),
        (lambda m: keras_resnet.from_hub("a"), "must be hf://USER/NAME"),
        (lambda m: compare.rows(keras.Input((3,))), "references must be a list"),
    ],
)
def test_public_functions_say_what_they_want(call, message, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        call(model)
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []

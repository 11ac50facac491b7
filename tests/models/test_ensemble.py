"""Ensembles: the mean of the members, one flat model that is saved, exported and evaluated."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export import export
from keras_resnet.export.rewrites import fold_rescaling
from keras_resnet.images.preprocessing import has_preprocessing


@pytest.fixture(scope="module")
def members():
    """The mixed ensemble of the lecture in small: three families, one of them ending in logits."""
    keras.utils.set_random_seed(0)
    arguments = {"include_preprocessing": True, "input_shape": (32, 32, 3)}
    models = [
        keras_resnet.create_model("test_densenet", **arguments),
        keras_resnet.create_model("test_resnetv2", classifier_activation=None, **arguments),
        keras_resnet.ResNet8(**arguments),  # takes raw pixels without a layer for it
    ]
    return [randomize_batch_norms(model) for model in models]


def _run(model, images):
    return np.asarray(model(images.astype("float32"), training=False))


@pytest.fixture(scope="module")
def mean(members, images):
    first, logits, third = (_run(model, images) for model in members)
    return (first + np.asarray(keras.ops.softmax(logits)) + third) / 3


def test_it_averages_the_probabilities_in_one_flat_model(members, mean, images):
    model = keras_resnet.ensemble(members)
    assert model.name == "ensemble"
    assert model.count_params() == sum(member.count_params() for member in members)
    assert not [layer for layer in model.layers if isinstance(layer, keras.Model)]
    names = {layer.name for layer in model.layers} - {"images", "predictions"}
    assert all(name.startswith(("member1_", "member2_", "member3_")) for name in names)
    assert {"member1_stem_conv", "member2_stage2_block2_conv1", "member3_head"} <= names
    # float32 rounding of three probabilities.
    np.testing.assert_allclose(_run(model, images), mean, atol=1e-6)


def test_weights_and_an_ensemble_as_a_member(members, mean, images):
    inner = keras_resnet.ensemble(members)
    model = keras_resnet.ensemble([inner, members[0]], "outer", weights=[6, 2])
    assert model.name == "outer"
    expected = (3 * mean + _run(members[0], images)) / 4
    np.testing.assert_allclose(_run(model, images), expected, atol=1e-6)
    np.testing.assert_allclose(mean.sum(-1), 1, atol=1e-6)


def test_members_keep_their_weights_and_may_be_the_same_model(members, images):
    model = keras_resnet.ensemble([members[0], members[0]])
    expected = _run(members[0], images)
    np.testing.assert_allclose(_run(model, images), expected, atol=1e-6)
    layer = model.get_layer("member1_stem_conv")
    layer.set_weights([0 * weight for weight in layer.get_weights()])
    np.testing.assert_array_equal(_run(members[0], images), expected)


def test_saved_it_is_stock_keras(members, mean, images, tmp_path):
    keras_resnet.to_stock(keras_resnet.ensemble(members)).save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}
    # The fused and the stock BN differ by float32 rounding; these are probabilities.
    np.testing.assert_allclose(_run(loaded, images), mean, atol=1e-5)


def test_the_members_rescalings_fold(members, mean, images):
    folded = fold_rescaling.fold_rescaling(keras_resnet.to_stock(keras_resnet.ensemble(members)))
    assert folded.get_layer("member1_rescaling").scale == 1.0
    assert folded.get_layer("member2_rescaling").scale == 1.0
    # Exact but for float32 rounding (probabilities).
    np.testing.assert_allclose(_run(folded, images), mean, atol=1e-5)


@pytest.mark.slow
def test_a_mixed_ensemble_exports(members, images, tmp_path):
    model = keras_resnet.ensemble(members)
    report = export(
        model, ["savedmodel", "tflite-float32"], out=tmp_path / "out", check_images=images
    )
    assert report.passed
    assert report.manifest["output"]["is"] == "probabilities"


def test_preprocessing_inside_is_seen_whatever_member_is_the_deepest(members):
    shallow, deep = (
        keras_resnet.create_model("test_highway", include_preprocessing=True),
        members[2],
    )
    assert not has_preprocessing(deep)  # raw pixels: it has no layer for them
    assert has_preprocessing(keras_resnet.ensemble([deep, shallow]))
    outside = [
        keras_resnet.create_model("test_highway"),
        keras_resnet.create_model("test_densenet"),
    ]  # both "cifar"
    assert not has_preprocessing(keras_resnet.ensemble(outside))


def test_members_that_do_not_fit_are_named(members):
    first = members[0]

    def refuse(match, *others, **arguments):
        with pytest.raises(UserError, match=match):
            keras_resnet.ensemble([first, *others], **arguments)

    def tiny(**arguments):
        return keras_resnet.create_model(
            "test_highway", **{"include_preprocessing": True, **arguments}
        )

    refuse("at least two models")
    seven = r"Member 2 \('test_highway'\) has 7 classes, but 'test_densenet' has 10"
    refuse(seven, tiny(classes=7))
    refuse(r"Member 3 .* takes images of \(16, 16, 3\)", tiny(), tiny(input_shape=(16, 16, 3)))
    refuse(r"takes images of \(32, 32, 1\)", tiny(input_shape=(32, 32, 1)))
    refuse("must map images to classes", tiny(include_top=False))
    refuse("1 inputs and 2 outputs", tiny(features=True))
    refuse("ends in 'sigmoid'", tiny(classifier_activation="sigmoid"))
    refuse("ends in 'relu'", tiny(classifier_activation="relu"))
    refuse("normalised outside.*include_preprocessing=True", tiny(include_preprocessing=False))
    refuse("weights must be 2 numbers above 0", tiny(), weights=[1, 0])
    inputs = keras.layers.Input((32, 32, 3))
    nested = keras.Model(
        inputs, keras.layers.Dense(10)(tiny(include_top=False, pooling="avg")(inputs))
    )
    refuse("contains the model", nested)
    half = keras.layers.Dense(10, dtype="float16")(keras.layers.Flatten()(inputs))
    refuse("to_stock", keras.Model(inputs, half))
    free = keras_resnet.ensemble([tiny(input_shape=(None, None, 3)), first])
    assert free.input_shape == (None, 32, 32, 3)


def test_the_command_writes_a_file_that_is_evaluated_and_exported(tiny_run, tmp_path, capsys):
    out = tmp_path / "both.keras"
    run = str(tiny_run.path)
    assert main(["ensemble", run, str(tiny_run.model), "--out", str(out), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["classes"] == 10
    assert written["members"] == [run, str(tiny_run.model)]
    assert (tmp_path / "labels.txt").read_text() == (tiny_run.path / "labels.txt").read_text()
    assert main(["evaluate", str(out), "--data", "digits", "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    # Twice the same network.
    assert evaluated["accuracy"] == tiny_run.summary()["test"]["accuracy"]
    arguments = ["--data", "digits", "--formats", "tflite-float32", "--check-images", "32"]
    exports = tmp_path / "exports"
    assert main(["export", str(out), *arguments, "--out", str(exports)]) == 0
    assert (exports / "both-float32.tflite").is_file()


def test_the_command_refuses_other_labels_and_other_files(tiny_run, tmp_path, capsys):
    other, run = tmp_path / "other", str(tiny_run.path)
    other.mkdir()
    shutil.copy(tiny_run.model, other / "model.keras")
    names = [f"class{n}" for n in range(10)]
    (other / "labels.txt").write_text("\n".join(names) + "\n")

    def refuse(match, *arguments):
        assert main(["ensemble", run, *arguments]) == 2
        assert match in capsys.readouterr().err

    refuse(
        "must have the same classes", str(other / "model.keras"), "--out", str(tmp_path / "e.keras")
    )
    refuse("names of another model", run, "--out", str(other / "e.keras"))
    refuse("exists", run, "--out", str(other / "model.keras"))
    refuse("must be a .keras file", run, "--out", str(tmp_path / "e.tflite"))
    refuse("No such folder", run, "--out", str(tmp_path / "none" / "e.keras"))
    refuse("at least two models", "--out", str(tmp_path / "e.keras"))
    assert not (tmp_path / "e.keras").exists()


def test_a_softmax_written_by_hand_is_not_put_through_another():
    def model(hand):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Flatten()(inputs)
        x = keras.layers.Dense(3, activation=None if hand else "softmax")(x)
        if hand:
            exponentials = keras.ops.exp(x - keras.ops.max(x, -1, keepdims=True))
            x = exponentials / keras.ops.sum(exponentials, -1, keepdims=True)
        return keras.Model(inputs, x)

    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    given, wanted = (
        keras_resnet.ensemble([model(hand)] * 2).predict(images, verbose=0) for hand in (1, 0)
    )
    np.testing.assert_allclose(given, wanted, atol=1e-6)  # float32's rounding


def test_members_with_nan_are_refused():
    broken = keras_resnet.ResNet8(weights=None)
    broken.get_layer("head").bias.assign(np.full(10, np.nan))
    with pytest.raises(UserError, match="has weights that are not finite"):
        keras_resnet.ensemble([broken, keras_resnet.ResNet8(weights=None)])

"""Distillation: what the loss is, and that a run keeps its teacher."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.recipes import train
from keras_resnet.recipes.configs import schema
from keras_resnet.recipes.configs.schema import DistillConfig
from keras_resnet.recipes.runs.folder import find_run
from keras_resnet.recipes.training.loop import Loop
from keras_resnet.recipes.training.teacher import Teacher

LABELS = np.arange(8) % 4


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("uint8")


def _network(seed, *, softmax=False):
    """From RGB 0...255 to 4 classes, with logits of a few units."""
    keras.utils.set_random_seed(seed)
    inputs = keras.layers.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(stddev=4))(x)
    if softmax:
        outputs = keras.layers.Softmax()(outputs)
    return keras.Model(inputs, outputs, name="teacher")


def _softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize("softmax", [False, True])
def test_the_loss_is_hintons(pixels, softmax):
    """Section 2: T² times the divergence at temperature T; by hand in float64."""
    student, teacher = _network(0), _network(1)
    given, wanted = (np.asarray(m(pixels.astype("float32")), "float64") for m in (student, teacher))
    p, q = _softmax(wanted / 3), _softmax(given / 3)
    own = -np.log(_softmax(given)[np.arange(8), LABELS])
    expected = np.mean(0.25 * own + 0.75 * 9 * (p * np.log(p / q)).sum(-1))

    choice = DistillConfig(temperature=3.0, weight=0.75)
    built = Teacher(_network(1, softmax=softmax), choice, (8, 8, 3))
    loop = Loop(
        tf.distribute.get_strategy(),
        student,
        keras.optimizers.SGD(0.1),
        batch_size=8,
        teacher=built,
    )
    before = [v.numpy() for v in built.model.weights]
    loop.train_step(iter([(tf.constant(pixels), tf.constant(LABELS, tf.int32))]))
    # Float32; a softmax in front of the logarithm costs a digit.
    assert loop.metrics()["loss"] == pytest.approx(expected, rel=1e-4)
    for weight, value in zip(built.model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)  # only the student learns


def test_a_student_of_itself_has_nothing_to_learn(pixels):
    """The gradient of the divergence is zero there, so with weight 1 no step moves anything."""
    student = _network(0)
    choice = DistillConfig(temperature=2.0, weight=1.0)
    loop = Loop(
        tf.distribute.get_strategy(),
        student,
        keras.optimizers.SGD(1.0),
        batch_size=8,
        teacher=Teacher(student, choice, (None, None, 3)),
    )
    before = [v.numpy() for v in student.weights]
    loop.train_step(iter([(tf.constant(pixels), tf.constant(LABELS, tf.int32))]))
    assert loop.metrics()["loss"] == pytest.approx(0.0, abs=1e-6)
    for weight, value in zip(student.weights, before, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, atol=1e-5)  # rounding of float32


@pytest.mark.slow
def test_a_run_keeps_its_teacher_and_goes_on_without_the_source(tiny_run, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 7:
                raise KeyboardInterrupt

    teacher = tmp_path / "teacher.keras"
    teacher.write_bytes(tiny_run.model.read_bytes())
    settings = {"distill.teacher": str(teacher), "train.sizes": [8, 32]}
    settings["train.size_boundaries"] = [0.5]
    loaded = schema.load_config("debug/tiny", settings)
    whole = train.run(loaded, tmp_path / "whole")
    with pytest.raises(train.Interrupted):
        train.run(loaded, tmp_path / "run", callbacks=[Stop()])
    teacher.unlink()
    run = train.resume(tmp_path / "run")
    assert run.summary() | {"training_seconds": 0} == whole.summary() | {"training_seconds": 0}
    assert run.summary()["teacher"] == "resnet8"


def test_the_command_names_the_teacher(tiny_run, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--teacher", str(tiny_run.path), "--epochs", "1", "--out", str(out), "--json"]
    assert main(["distill", "debug/tiny", *options]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": str(out), **find_run(out).summary()}
    assert find_run(out).config.distill.teacher == str(tiny_run.path)
    assert find_run(out).teacher.is_file()
    assert main(["distill", "debug/tiny"]) == 2
    assert "Give --teacher" in capsys.readouterr().err


def test_a_teacher_that_does_not_fit_is_refused(tmp_path):
    def refused(message, teacher, **settings):
        given = {f"distill.{key}": value for key, value in settings.items()}
        loaded = schema.load_config("debug/tiny", {"distill.teacher": str(teacher), **given})
        with pytest.raises(UserError, match=message):
            train.run(loaded, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    keras_resnet.ResNet20(classes=7, include_preprocessing=True).save(tmp_path / "seven.keras")
    refused("has 7 classes, but the data has 10", tmp_path / "seven.keras")
    keras_resnet.ResNet20(classes=10).save(tmp_path / "bare.keras")
    refused("include_preprocessing=True", tmp_path / "bare.keras")
    refused("answers are random", "resnet20")
    refused(
        "is a path to a model that contains its weights", tmp_path / "bare.keras", weights="cifar10"
    )
    refused(
        "has the classes airplane, .*, …, but the data has 0, 1, 2, …",
        "resnet20",
        weights="cifar10",
    )
    refused("No such file", tmp_path / "none.keras")
    other_size = keras_resnet.VGG11(classes=10, input_shape=(64, 64, 3), include_preprocessing=True)
    other_size.save(tmp_path / "vgg.keras")
    refused("takes only images of .*, but the student gets", tmp_path / "vgg.keras")


def test_features_add_keras_loss_of_their_difference(pixels):
    """By hand in float64: the mean over positions and channels, times the weight."""
    student, teacher = _network(0), _network(1)
    maps = [
        keras.Model(m.input, m.layers[2].output)(pixels.astype("float32"))
        for m in (student, teacher)
    ]
    given, wanted = (np.asarray(each, "float64") for each in maps)
    name = f"{student.layers[2].name}={teacher.layers[2].name}"

    def loss(**settings):
        choice = DistillConfig(weight=0.0, teacher="RUN", **settings)
        loop = Loop(
            tf.distribute.get_strategy(),
            keras.models.clone_model(student),
            keras.optimizers.SGD(0.1),
            batch_size=8,
            teacher=Teacher(teacher, choice, (8, 8, 3)),
        )
        loop.model.set_weights(student.get_weights())
        loop.train_step(iter([(tf.constant(pixels), tf.constant(LABELS, tf.int32))]))
        return loop.metrics()["loss"]

    plain = loss()
    mse, mae = np.mean((given - wanted) ** 2), np.mean(np.abs(given - wanted))
    assert mse > 1e-4  # else the features are equal and the test shows nothing
    one = {"features": (name,), "feature_weight": 5.0}
    assert loss(**one) - plain == pytest.approx(5 * mse, rel=1e-3)  # the rest is float32 rounding
    assert loss(**one, feature_loss="mae") - plain == pytest.approx(5 * mae, rel=1e-3)


def test_features_that_do_not_fit_are_refused(tiny_run, tmp_path):
    def refused(message, **settings):
        given = {f"distill.{key}": value for key, value in settings.items()}
        with pytest.raises(UserError, match=message):
            train.run(schema.load_config("debug/tiny", given), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    teacher = str(tiny_run.path)
    refused("needs a teacher", features=["head_pool"])
    refused("must be layer names", features=["=x"], teacher=teacher)
    refused("Unknown distill.feature_loss 'l7'", feature_loss="l7", teacher=teacher)
    refused(
        "layer of the student 'resnet8' 'head_pol'. Did you mean 'head_pool'",
        features=["head_pol"],
        teacher=teacher,
    )
    refused(r"has the shape \(.*\) in the student", features=["head_pool=head"], teacher=teacher)


def test_the_command_matches_features(tiny_run, tmp_path):
    out = tmp_path / "run"
    options = ["--teacher", str(tiny_run.path), "--epochs", "1", "--out", str(out)]
    features = 'distill.features=["head_pool", "stage2_block1_add"]'
    assert main(["distill", "debug/tiny", *options, "--set", features]) == 0
    assert find_run(out).config.distill.features == ("head_pool", "stage2_block1_add")
    model = keras.models.load_model(find_run(out).model)
    assert model.output.shape == (None, 10)  # the features are not outputs of the result

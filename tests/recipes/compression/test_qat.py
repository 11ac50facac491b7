"""Quantization-aware training: what is rounded where, and that the file computes as the model."""

import os
import signal
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from helpers import run_python

import keras_resnet
from keras_resnet import keras_compat
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export import export, manifest
from keras_resnet.export.rewrites import fold_rescaling
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.layers import to_stock
from keras_resnet.recipes import compress, evaluate, train
from keras_resnet.recipes.compression import int8_network, process, to_tf_keras
from keras_resnet.recipes.compression.process import train_apart
from keras_resnet.recipes.configs import schema
from keras_resnet.recipes.runs.folder import Run, find_run, locked

SHIFT = {"augment.crop": "shift", "augment.flip": "none", "data.name": "digits"}
SHIFT |= {"compress.freeze_bn": 0.5}
_CONV = partial(keras.layers.Conv2D, 4, 3)


def _settled(name, images, **options):
    """A network whose BN statistics are those of some images, as after training."""
    keras.utils.set_random_seed(0)
    model = keras_resnet.create_model(name, include_preprocessing=True, **options)
    for _ in range(30):
        model(images.astype("float32"), training=True)
    return model


def _kinds(model):
    return {type(operation).__name__ for operation in model.operations}


# The rewrites ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["resnet8", "resnetv2_20", "seresnet20", pytest.param("seresnet50", marks=pytest.mark.slow)],
)
def test_a_prepared_network_gives_the_same_logits(name, images):
    model = _settled(name, images, input_shape=(32, 32, 3))
    prepared = int8_network.prepared(model)
    stock = int8_network._with_rounded_offset(to_stock(model))
    logits = keras.Model(stock.input, stock.get_layer("head").output)
    expected = logits.predict(images, verbose=0)
    given = prepared.predict(images, verbose=0)
    # The same float32 sums, with scales multiplied in before instead of after.
    if logits.layers[-1].activation is keras.activations.softmax:
        given = np.asarray(keras.ops.softmax(given))
    assert np.abs(given - expected).max() <= 1e-5 * np.abs(expected).max()
    standing = [
        layer.name
        for layer in prepared.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        and not isinstance(keras_compat.producer(layer.input), keras.layers.Conv2D)
    ]
    assert not standing  # each is behind a convolution, into whose weights it folds


def test_kernels_lie_on_255_steps_per_channel(resnet20):
    rounded = int8_network.rounded(int8_network.prepared(resnet20), {})
    for layer in rounded.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            kernel = layer.get_weights()[0]
            channels = kernel.reshape(-1, kernel.shape[-1])
            steps = channels / (np.abs(channels).max(axis=0) / 127)
            np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)  # float32 division
            original = resnet20.get_layer(layer.name).get_weights()[0]
            if layer.name == "stage2_block1_conv1":
                least = np.abs(original).reshape(-1, kernel.shape[-1]).max(axis=0) / 127 / 2
                assert (np.abs(kernel - original) <= least * 1.001).all()  # half a step


def test_the_range_of_pixels_is_known(resnet20):
    folded = fold_rescaling.fold_rescaling(int8_network.prepared(resnet20))
    rescaling = int8_network.normalisation(folded)
    least, most = int8_network.range_behind(rescaling)
    means = np.array([125.307, 122.961, 113.8575])  # the scale is in the first convolution
    steps = np.round(means / (means.max() / 255))
    assert np.abs(steps - means / (means.max() / 255)).max() > 0.2  # else nothing is rounded
    means = steps * means.max() / 255
    np.testing.assert_allclose(-np.asarray(rescaling.offset), means, rtol=1e-6)
    assert least == pytest.approx(-max(means), rel=1e-5)
    assert most == pytest.approx(255 - min(means), rel=1e-5)
    assert int8_network.range_behind(None) == (0, 255)


def _first_addend(path):
    """What the first ADD of a file adds to the pixels: a constant, in float."""
    interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    found = tflite_graph.operations(tflite_graph.read(path.read_bytes()))
    place = next(item.inputs[1] for item in found if item.kind == "ADD")
    (details,) = [x for x in interpreter.get_tensor_details() if x["index"] == place]
    scale, zero_point = details["quantization"]
    return scale * (interpreter.get_tensor(details["index"]).astype("float64") - zero_point)


def test_the_mean_colour_is_the_files(resnet20, images, tmp_path):
    """The constant that the file's first ADD has, and not the exact mean, is trained with."""
    report = export(resnet20, ["tflite-int8"], out=tmp_path / "out", calibration=images)
    rescaling = int8_network.normalisation(
        fold_rescaling.fold_rescaling(int8_network.prepared(resnet20))
    )
    addend = _first_addend(report.folder / report.checks[0].file)
    np.testing.assert_allclose(addend, rescaling.offset, rtol=1e-6)


def test_ranges_of_absent_layers_are_refused(resnet20):
    with pytest.raises(UserError, match=r"the layer 'stage9', but .* has no such layer"):
        int8_network.rounded(int8_network.prepared(resnet20), {"stage9": (0.0, 1.0)})


def test_an_operation_that_is_no_layer_is_named():
    """Of local response normalisation; the message comes from the bridge."""
    model = keras_resnet.create_model("test_alexnet", include_preprocessing=True)
    with pytest.raises(UserError, match=r"\(Rsqrt\) has no counterpart in tf_keras"):
        to_tf_keras.to_legacy(int8_network.prepared(model))


# Training ----------------------------------------------------------------------------------------


def test_what_was_trained_is_what_comes_out():
    """After all weights changed by up to a half, the result computes what the trained one does.

    Its convolutions have no bias (ResNet-8's, below, have). Rounding is all that differs, since the
    scale of the normalisation is in the first kernel only afterwards; with the kernels of the start
    the error is above 1/2.
    """
    code = """
import types
import keras, numpy as np
import keras_resnet
from keras_resnet.recipes import load_config, load_dataset
from keras_resnet.recipes.compression import qat
digits = load_dataset("digits")
keras.utils.set_random_seed(0)
start = keras_resnet.create_model(
    "test_resnet", classes=10, input_shape=(32, 32, 3), include_preprocessing=True
)
trainee = qat.QuantizationAware(start)
job = types.SimpleNamespace(config=load_config("compress/qat"), dataset=digits)
trained = trainee.build(job, digits.input_shape)
rng = np.random.default_rng(0)
for weight in trained.trainable_weights:
    weight.assign(weight * rng.uniform(0.5, 1.5, weight.shape))
images = digits.test.images[:64].astype("float32")
trained(images, training=True)  # quantizers take the new kernels' ranges
expected = np.asarray(trained(images, training=False))
found = np.asarray(trainee.result(job, trained)(images))
print(np.sqrt(np.mean((found - expected) ** 2)) / expected.std())
"""
    printed = run_python(code, env={"TF_USE_LEGACY_KERAS": "1"}).stdout
    assert float(printed.split()[-1]) < 0.1


@pytest.fixture(scope="module")
def qat_run(tiny_run, tmp_path_factory):
    """ResNet-8 of the digits, trained quantized for two epochs by the command."""
    out = tmp_path_factory.mktemp("qat") / "run"
    settings = [f"{key}={value}" for key, value in SHIFT.items()]
    options = ["--epochs", "2", "--distill", "--out", str(out)]
    chosen = [part for setting in settings for part in ("--set", setting)]
    assert main(["qat", str(tiny_run.path), *options, *chosen]) == 0
    return find_run(out)


def test_the_run_is_as_any_other(qat_run, tiny_run, digits):
    summary = qat_run.summary()
    assert summary["technique"] == "qat"
    assert summary["precision"] == "float32"
    assert summary["teacher"] == "resnet8"
    assert len(qat_run.rows()) == 2
    model = keras.models.load_model(qat_run.model)
    assert "FakeQuantWithMinMaxVars" in _kinds(model)
    measured = evaluate.measure_model(model, digits.test)
    assert measured["accuracy"] == summary["test"]["accuracy"]
    # It goes on from what the float network knows: within 18 of 360 images of it.
    assert measured["accuracy"] >= tiny_run.summary()["test"]["accuracy"] - 0.05
    assert os.environ.get("TF_USE_LEGACY_KERAS") is None  # tfmot was in another process


def test_the_model_loads_without_this_package_and_its_file_computes_the_same(
    qat_run, digits, tmp_path, small_litert_js
):
    code = "import sys, keras; print(keras.models.load_model(sys.argv[1]).count_params())"
    assert int(run_python(code, qat_run.model, cwd=tmp_path).stdout.split()[-1]) > 70_000
    model = keras.models.load_model(qat_run.model)
    report = export(
        model,
        ["savedmodel", "tflite-int8", "web"],
        out=tmp_path / "exports",
        check_images=digits.test.images,
        check_labels=digits.test.labels,
    )
    assert report.passed
    assert report.checks[2].accuracy == report.checks[1].accuracy  # the same file, in a page
    file = report.checks[1]
    # Integer sums are exact where float ones round; a value half-way may fall to the other side.
    assert file.agreement >= 0.99
    assert file.snr_db >= 25
    allowed = {"ADD", "CONV_2D", "FULLY_CONNECTED", "MEAN", "QUANTIZE", "SOFTMAX"}
    assert set(file.operations) <= allowed | {"AVERAGE_POOL_2D", "RESHAPE"}
    with pytest.raises(UserError, match="is a quantization-aware model"):
        export(model, ["tflite-float32"], out=tmp_path / "float")


def test_the_next_command_exports_what_it_has(qat_run, tmp_path, capsys):
    """No float file, which it has not, and ranges that were learned."""
    out = tmp_path / "exports"
    assert main(["export", str(qat_run.path), "--out", str(out)]) == 0
    content = manifest.read(out)
    assert [entry["format"] for entry in content["files"]] == ["savedmodel", "tflite-int8"]
    assert content["calibration_method"] == "trained"
    assert content["origin"]["compressed by"] == "qat"
    assert main(["check", str(out)]) == 0


@pytest.mark.parametrize("verb", ["qat", "prune", "cluster", "prune-filters", "finetune"])
def test_nothing_trains_on_what_rounds_already(verb, qat_run, tmp_path, capsys):
    arguments = [verb, str(qat_run.path), "--data", "digits", "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "is a quantization-aware model" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_frozen_batch_normalisation_stays_as_it_came(qat_run, tiny_run, tmp_path):
    start = keras.models.load_model(tiny_run.model)
    settings = {key.replace(".", "__"): value for key, value in SHIFT.items()}
    settings |= {"train__epochs": 1, "compress__freeze_bn": 0.0, "train__ema": 0.0}
    del settings["data__name"]
    frozen = compress.qat(start, "digits", tmp_path / "run", **settings)
    later = keras.models.load_model(qat_run.model)  # frozen after the first of its two epochs
    names = [layer.name for layer in start.layers if "_bn" in layer.name]
    for name in names:
        before, kept, moved = (x.get_layer(name).get_weights() for x in (start, frozen, later))
        assert all(np.array_equal(*pair) for pair in zip(before, kept, strict=True))
        assert not any(np.array_equal(*pair) for pair in zip(before, moved, strict=True))
    assert len(names) > 5


@pytest.mark.slow
def test_batch_normalisation_freezes_in_the_middle_of_a_run(qat_run, tiny_run, tmp_path):
    """The same run without freezing is the same until then, and differs from there."""
    settings = [f"{key}={value}" for key, value in (SHIFT | {"compress.freeze_bn": 1.0}).items()]
    chosen = [part for setting in settings for part in ("--set", setting)]
    out = tmp_path / "run"
    options = ["--epochs", "2", "--distill", "--out", str(out)]
    assert main(["qat", str(tiny_run.path), *options, *chosen]) == 0
    frozen, free = (
        [(row["loss"], row["val_loss"]) for row in run.rows()] for run in (qat_run, find_run(out))
    )
    assert frozen[0] == free[0]
    assert frozen[1] != free[1]


@pytest.mark.slow
def test_two_devices(tiny_run, tmp_path):
    """In a process as the command has, where devices can still be chosen."""
    out = tmp_path / "run"
    command = ["qat", tiny_run.path, "--epochs", "1", "--devices", "cpu:2", "--out", out]
    chosen = [part for key, value in SHIFT.items() for part in ("--set", f"{key}={value}")]
    code = "import sys; from keras_resnet.cli.main import main; sys.exit(main(sys.argv[1:]))"
    run_python(code, *command, *chosen, "--set", "train.batch_size=32")
    summary = find_run(out).summary()
    assert summary["replicas"] == 2
    assert summary["test"]["accuracy"] >= tiny_run.summary()["test"]["accuracy"] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_goes_on(tiny_run, tmp_path, name):
    """In a process as the command has: the process that trains saves and stops, too.

    By SIGTERM as a shell's background job, which ignores interrupts and dies of this.
    """
    code = """
import os, signal, sys, threading, time
from pathlib import Path
from keras_resnet.cli.main import main
chosen = getattr(signal, sys.argv[3])
ignored = chosen == signal.SIGTERM
signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
def interrupt():
    log = Path(sys.argv[2]) / "log.csv"
    while not log.is_file() or log.read_text().count("\\n") < 2: time.sleep(0.1)
    os.kill(os.getpid(), chosen)
threading.Thread(target=interrupt, daemon=True).start()
sys.exit(main(["qat", sys.argv[1], "--epochs", "3", "--out", sys.argv[2], "--set",
               "data.name=digits", "--set", "data.validation=0", "--set", "augment.crop=shift",
               "--set", "augment.flip=none"]))
"""
    out = tmp_path / "run"
    result = run_python(code, tiny_run.path, out, name, check=False)
    if name == "SIGINT":
        assert result.returncode == 130, result.stderr
        assert f"keras-resnet train --resume {out}" in result.stderr
    else:
        assert result.returncode == -signal.SIGTERM
    with locked(find_run(out)):  # refused while a process trains
        done = len(find_run(out).rows())
    assert 1 <= done < 3  # it stopped after an epoch, not at the end
    run = train.resume(out)
    assert len(run.rows()) == 3
    assert run.summary()["test"]["accuracy"] > 0.8


def test_what_cannot_be_trained_quantized_is_refused(tmp_path):
    settings = {**SHIFT, "data.validation": 0, "train.epochs": 1}
    loaded = schema.load_config(compress.QAT, settings)
    inputs = keras.layers.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.PReLU(name="learned_slope", shared_axes=(1, 2))(x)
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(UserError, match="learned_slope"):
        compress.run(keras.Model(inputs, outputs, name="own"), loaded, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="keras-resnet qat MODEL"):
        train.run(loaded, tmp_path / "run")
    with pytest.raises(UserError, match="include_preprocessing=True"):
        compress.run(keras_resnet.ResNet20(), loaded, tmp_path / "run")
    x = keras.layers.Conv2D(4, 3, activation="elu", name="bent")(inputs)
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(
        UserError, match=r"does not know the activation 'elu' of the layer 'bent_activation'"
    ):
        compress.run(keras.Model(inputs, outputs, name="own"), loaded, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    half = schema.load_config(compress.QAT, {**settings, "train.precision": "mixed_bfloat16"})
    with pytest.raises(UserError, match=r"trains in float32; received .*mixed_bfloat16"):
        compress.run(keras_resnet.ResNet20(include_preprocessing=True), half, tmp_path / "run")
    lrn = keras_resnet.create_model("test_alexnet", include_preprocessing=True)
    with pytest.raises(UserError, match=r"'stage1_lrn' .*local response normalisation"):
        compress.run(lrn, loaded, tmp_path / "run")
    with pytest.raises(UserError, match=r"'resnet8' has 7 classes .* the data has 10"):
        compress.run(keras_resnet.ResNet8(classes=7), loaded, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _own(*layers):
    """A classifier of the digits with these layers in it."""
    inputs = x = keras.layers.Input((32, 32, 3))
    for layer in (keras.layers.Rescaling(1 / 255), *layers, keras.layers.GlobalAveragePooling2D()):
        x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x), name="own")


class _Doubling(keras.layers.Layer):
    def call(self, x):
        return 2 * x


class _Subclassed(keras.Model):
    def call(self, x):
        return x


def _double(x):
    return 2 * x


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: "resnet20", "must be a Keras model; received 'resnet20'"),
        (_Subclassed, "received a _Subclassed"),
        (lambda: _own(_CONV(), keras.layers.Lambda(_double, name="code")), r"'code' \(Lambda\)"),
        (lambda: _own(_CONV(activation=lambda x: 2 * x, name="code")), r"'code' \(Conv2D\)"),
        (lambda: _own(_CONV(), _Doubling(name="mine")), "'mine' .* custom class _Doubling"),
        (lambda: _own(keras.layers.SeparableConv2D(4, 3)), "'own' has no second one"),
    ],
)
def test_what_no_other_process_can_train_is_refused_before_a_folder_is_made(make, said, tmp_path):
    with pytest.raises(UserError, match=said):
        compress.qat(make(), "digits", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_one_liner_takes_a_name_and_keeps_its_technique(digits, tmp_path):
    model, out = _own(_CONV()), tmp_path / "run"
    with pytest.raises(UserError, match=r"data must be a string or a path; received a Dataset\."):
        compress.qat(model, digits, out)
    with pytest.raises(UserError, match=r"compress\.technique cannot be set here; received ''"):
        compress.qat(model, "digits", out, compress__technique="")
    with pytest.raises(UserError, match=r"train\.epochs must be a whole number") as raised:
        compress.qat(model, "digits", out, train__epochs=digits)
    assert len(str(raised.value)) < 200
    assert not out.exists()


def test_a_separable_convolution_is_named():
    with pytest.raises(UserError, match=r"'two' \(SeparableConv2D\)\. .* DepthwiseConv2D"):
        int8_network.prepared(_own(_CONV(), keras.layers.SeparableConv2D(4, 3, name="two")))


def test_a_process_that_ended_is_gone_on_with_where_it_had_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_PROCESS", "import sys; sys.exit(1)")
    with pytest.raises(UserError, match=r"ended with code 1\. It had not saved"):
        train_apart(Run(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"ended with code 1\. Resume with: .*--resume"):
        train_apart(Run(tmp_path))


@pytest.mark.slow
def test_the_one_liner_takes_ones_own_network(digits, tmp_path):
    """A plain CNN with activations inside its layers and a softmax in its classifier."""
    keras.utils.set_random_seed(0)
    inputs = keras.layers.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x), name="own")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(digits.train.images, digits.train.labels, epochs=12, verbose=0)
    quantized = compress.qat(
        model,
        "digits",
        tmp_path / "run",
        train__epochs=1,
        optimizer__learning_rate=0.001,  # there is no BN to forgive more
        data__validation=0,
        augment__crop="shift",
        augment__flip="none",
    )
    float_hits, hits = (
        (m.predict(digits.test.images, verbose=0).argmax(-1) == digits.test.labels).mean()
        for m in (model, quantized)
    )
    assert hits >= float_hits - 0.05  # 18 of 360 images
    report = export(
        quantized,
        ["tflite-int8"],
        out=tmp_path / "exports",
        check_images=digits.test.images,
    )
    assert report.passed


def test_the_config_is_of_the_verb(tiny_run, tmp_path, capsys):
    command = ["qat", str(tiny_run.path), "--config", "compress/prune", "--out"]
    assert main([*command, str(tmp_path / "run")]) == 2
    assert "is for 'keras-resnet prune', not for 'keras-resnet qat'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_command_needs_a_trained_network(capsys):
    assert main(["qat", "resnet20"]) == 2
    assert "answers are random" in capsys.readouterr().err


def test_the_recipe_is_a_program_by_its_path():
    """With the verb, since it is that of three commands."""
    result = subprocess.run(
        [sys.executable, compress.__file__, "qat", "resnet20"], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "answers are random" in result.stderr

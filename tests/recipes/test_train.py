"""Data, config, schedule, loop and the training program."""

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import TESTS, first_by_default, run_python
from helpers.models import small_model
from helpers.training import RESUMED, epochs_in

from keras_resnet.errors import UserError
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.labels import Known, labels_of
from keras_resnet.recipes import evaluate, train
from keras_resnet.recipes.configs import schema
from keras_resnet.recipes.data.decoded import Split
from keras_resnet.recipes.runs.folder import Run, find_run, list_runs
from keras_resnet.recipes.training import devices
from keras_resnet.recipes.training.checkpoints import State
from keras_resnet.recipes.training.loop import Loop, NonFiniteLossError

# The loop -----------------------------------------------------------------------------------------


def test_a_step_is_sgd_on_the_mean_loss_with_decayed_kernels():
    keras.utils.set_random_seed(0)
    model = small_model()
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("uint8")
    labels = np.arange(8) % 4
    with tf.GradientTape() as tape:
        targets = tf.one_hot(labels, 4) * 0.9 + 0.1 / 4
        loss = tf.reduce_mean(
            keras.losses.categorical_crossentropy(targets, model(images), from_logits=True)
        )
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    expected = [
        v.numpy() - 0.5 * (g.numpy() + (0.01 * v.numpy() if v.name == "kernel" else 0))
        for v, g in zip(model.trainable_variables, gradients, strict=True)
    ]
    loop = Loop(
        tf.distribute.get_strategy(),
        model,
        keras.optimizers.SGD(0.5),
        batch_size=8,
        weight_decay=0.01,
        label_smoothing=0.1,
    )
    loop.train_step(iter([(tf.constant(images), tf.constant(labels, tf.int32))]))
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, atol=1e-6)  # float32 rounding
    assert loop.metrics()["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_evaluation_is_exact(digits, tiny_run):
    model = keras.models.load_model(tiny_run.model)
    logits = keras.Model(model.input, model.get_layer("head").output)
    loop = Loop(tf.distribute.get_strategy(), logits, keras.optimizers.SGD(), batch_size=77)
    measured = loop.evaluate(digits.test)  # 360 = 4 × 77 + 52
    outputs = logits.predict(digits.test.images, verbose=0).astype("float64")
    assert measured["accuracy"] == pytest.approx(
        (outputs.argmax(-1) == digits.test.labels).mean(), abs=1e-6
    )
    right = outputs[np.arange(360), digits.test.labels]
    losses = np.logaddexp.reduce(outputs, axis=-1) - right
    assert measured["loss"] == pytest.approx(losses.mean(), rel=1e-4)


def _loop_and_batch(count=8, **arguments):
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype("uint8")
    batch = (tf.constant(images), tf.constant(np.arange(count) % 4, tf.int32))
    optimizer = keras.optimizers.SGD(0.5)
    strategy = tf.distribute.get_strategy()
    return Loop(strategy, small_model(), optimizer, batch_size=count, **arguments), batch


def _weights_after(loop, batch, steps=1):
    for _ in range(steps):
        loop.train_step(iter([batch]))
    return [v.numpy() for v in loop.model.trainable_variables]


def test_accumulated_parts_are_one_step_of_the_whole_batch():
    loop, batch = _loop_and_batch(weight_decay=0.01)
    parts, _ = _loop_and_batch(weight_decay=0.01, accumulate=4)
    for a, b in zip(_weights_after(loop, batch), _weights_after(parts, batch), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # the sum is in another order
    assert parts.metrics()["loss"] == pytest.approx(loop.metrics()["loss"], rel=1e-6)


def test_clipping_is_of_the_norm_of_the_whole_gradient():
    loop, batch = _loop_and_batch()
    before = [v.numpy() for v in loop.model.trainable_variables]
    clipped, _ = _loop_and_batch(clip_norm=1e-3)
    after = [_weights_after(x, batch) for x in (loop, clipped)]
    moves, short = (
        np.concatenate([(b - a).ravel() for a, b in zip(before, weights, strict=True)])
        for weights in after
    )
    assert np.linalg.norm(moves) > 1e-2
    assert np.linalg.norm(short) == pytest.approx(0.5 * 1e-3, rel=1e-3)  # the rate is 0.5
    np.testing.assert_allclose(
        short / np.linalg.norm(short), moves / np.linalg.norm(moves), atol=1e-3
    )


def test_averaged_weights_are_evaluated_and_the_raw_ones_trained_on():
    loop, batch = _loop_and_batch(ema=0.5)
    expected = [v.numpy() for v in loop.model.weights]
    for step in range(4):
        raw = _weights_after(loop, batch)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * r for e, r in zip(expected, raw, strict=True)]
    with loop.evaluated_weights():
        inside = [v.numpy() for v in loop.model.weights]
    for a, b, e in zip(loop.model.weights, inside, expected, strict=True):
        np.testing.assert_allclose(b, e, atol=1e-6)
        assert not np.array_equal(a.numpy(), b)
    for a, b in zip(raw, loop.model.weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_soft_targets_and_binary_cross_entropy():
    loop, (images, labels) = _loop_and_batch(loss="binary_cross_entropy")
    logits = loop.model(images)
    expected = keras.losses.binary_crossentropy(tf.one_hot(labels, 4), logits, from_logits=True)
    loop.train_step(iter([(images, tf.one_hot(labels, 4))]))
    assert loop.metrics()["loss"] == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-5)


STRATEGY_SCRIPT = """
import sys
import numpy as np, keras, tensorflow as tf
from keras_resnet.recipes.training import devices
from keras_resnet.recipes.training.loop import Loop
sys.path.insert(0, sys.argv[3])
from helpers.models import small_model

precision = sys.argv[2]
float16 = precision == "mixed_float16"
strategy = devices.strategy(sys.argv[1], 8)
keras.config.set_dtype_policy(precision)
keras.utils.set_random_seed(0)
with strategy.scope():
    model = small_model(1.0) if float16 else small_model(synchronized_bn=True)
    optimizer = keras.optimizers.SGD(0.1, 0.9)
loop = Loop(strategy, model, optimizer, batch_size=8, weight_decay=0.01, clip_norm=0.5, ema=0.5)
rng = np.random.default_rng(0)
images = rng.integers(0, 3 if float16 else 256, (48, 8, 8, 3)).astype("uint8")
labels = (np.arange(48) % 4).astype("int32")
images[24:28], images[28:32] = 0, 255  # step 3: half of it black, half white
iterator = loop.distribute(tf.data.Dataset.from_tensor_slices((images, labels)).batch(8))
values = lambda: [v.numpy() for v in model.trainable_variables]
for step in range(6):
    before = values()
    loop.train_step(iterator)
    same = all(np.array_equal(a, b) for a, b in zip(before, values()))
    # White makes features of hundreds, and with a scale of 2^15 gradients beyond float16; black
    # makes none. On two devices only the second sees the overflow, and both must skip the step.
    assert same == (float16 and step == 3), step
if float16:
    assert float(loop.loss_scale.scale) == 2.0**14
with loop.evaluated_weights():
    averages = values()
np.savez("out.npz", *values(), *averages)
"""


def _train_small(folder, where, precision="float32"):
    folder.mkdir()
    run_python(STRATEGY_SCRIPT, where, precision, TESTS, cwd=folder)
    with np.load(folder / "out.npz") as arrays:
        return [arrays[key] for key in arrays.files]


@pytest.mark.parametrize("devices", first_by_default(["cpu:2", "cpu:4"]))
def test_several_devices_compute_what_one_does(tmp_path, devices):
    """With synchronised BN, clipping and averaged weights.

    2e-6: the sums over replicas are in another order; six steps of a small net in float32.
    """
    one = _train_small(tmp_path / "one", "cpu")
    several = _train_small(tmp_path / "several", devices)
    for a, b in zip(one, several, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_float16_overflow_skips_the_step_on_every_replica(tmp_path):
    """The script asserts the skip. 1e-2: activations of 11 bits, summed in another order."""
    one = _train_small(tmp_path / "one", "cpu", "mixed_float16")
    two = _train_small(tmp_path / "two", "cpu:2", "mixed_float16")
    for a, b in zip(one, two, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=1e-2)


STATISTICS_SCRIPT = """
import numpy as np, keras, tensorflow as tf
import keras_resnet
from keras_resnet.recipes.training import devices
from keras_resnet.recipes.data.datasets import Split
from keras_resnet.recipes.training.loop import Loop

strategy = devices.strategy("cpu:2", 8)
with strategy.scope():
    inputs = keras.layers.Input((8, 8, 3))
    x = keras_resnet.BatchNormalization(momentum=0.0, name="bn")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model, optimizer = keras.Model(inputs, keras.layers.Dense(4)(x)), keras.optimizers.SGD(0.0)
loop = Loop(strategy, model, optimizer, batch_size=8)
images = np.zeros((8, 8, 8, 3), "uint8")
images[:4], images[4:] = 10, 30  # the first device sees 10, the second 30
labels = np.arange(8, dtype="int32") % 4
loop.train_step(loop.distribute(tf.data.Dataset.from_tensors((images, labels))))
moving = model.get_layer("bn").moving_mean.value
local = [float(v[0]) for v in strategy.experimental_local_results(moving)]
assert local == [10.0, 30.0], local
with loop.evaluated_weights():
    loop.evaluate(Split(images, labels))
local = [float(v[0]) for v in strategy.experimental_local_results(moving)]
assert local == [20.0, 20.0], local
"""


def test_each_device_keeps_statistics_and_their_mean_is_what_is_used():
    run_python(STATISTICS_SCRIPT)


def test_a_loss_that_is_not_finite_is_found_at_its_step():
    model = small_model()
    loop = Loop(tf.distribute.get_strategy(), model, keras.optimizers.SGD(0.1), batch_size=4)
    batch = (tf.zeros([4, 8, 8, 3]), tf.zeros([4], tf.int32))
    loop.train_step(iter([batch]))
    loop.require_finite_loss()
    model.layers[-1].set_weights([w * np.nan for w in model.layers[-1].get_weights()])
    loop.train_step(iter([batch]))
    loop.train_step(iter([batch]))
    with pytest.raises(NonFiniteLossError) as caught:
        loop.require_finite_loss()
    assert caught.value.step == 1


# Devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "batch", "message"),
    [
        ("tpu", 8, "auto, cpu, gpu"),
        ("cpu:x", 8, "auto, cpu, gpu"),
        ("cpu:3", 8, "must be a multiple of 3"),
        ("gpu:99", 99, "sees no GPU|sees only"),
        ("cpu:0", 8, "1 or more"),
    ],
)
def test_bad_devices_are_refused(where, batch, message):
    with pytest.raises(UserError, match=message):
        devices.strategy(where, batch)


def test_precision():
    assert devices.precision("mixed_float16") == "mixed_float16"
    assert devices.precision("auto") == (
        "mixed_bfloat16" if devices._cpu_has_bfloat16() else "float32"
    )
    with pytest.raises(UserError, match="Did you mean 'float32'"):
        devices.precision("flaot32")


# The program --------------------------------------------------------------------------------------


def test_a_run_leaves_all_its_files(tiny_run, digits):
    names = {path.name for path in tiny_run.path.iterdir()}
    assert names - {"exports"} == {  # which another test of this run may have made
        ".lock",
        "best.weights.h5",
        "checkpoints",
        "config.toml",
        "labels.txt",
        "log.csv",
        "model.keras",
        "summary.json",
        "tensorboard",
        "trained_on.npz",
    }
    epochs = list(range(1, 9))
    assert [int(row["epoch"]) for row in tiny_run.rows()] == epochs
    (events,) = tiny_run.tensorboard.glob("train/events*")
    assert epochs_in(events) == epochs
    model = keras.models.load_model(tiny_run.model)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    summary = tiny_run.summary()
    measured = evaluate.measure_model(model, digits.test)
    assert summary["test"] == measured
    *_, best = sorted(tiny_run.rows(), key=lambda row: (float(row["val_accuracy"]), row["epoch"]))
    assert summary["validation"]["accuracy"] == float(best["val_accuracy"])
    assert summary["best_epoch"] == int(best["epoch"])  # of equals the last
    assert summary["training_seconds"] == float(tiny_run.rows()[-1]["training_seconds"])


def test_a_runs_model_knows_its_classes_and_its_crop(tiny_run, tmp_path):
    """In a process that did not train it."""
    code = (
        "import sys, keras\n"
        "from keras_resnet.images.labels import known_of\n"
        "from keras_resnet.recipes.runs.folder import find_run\n"
        "run = find_run(sys.argv[1])\n"
        "print(known_of(keras.models.load_model(run.model)).labels)\n"
        "print(known_of(run.keras_model()))"
    )
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in ("config.toml", "labels.txt", "model.keras"):
        shutil.copy(tiny_run.path / file, copy)
    summary = tiny_run.summary()
    summary["test"]["protocol"] = {"crops": 1, "resize": 36, "size": 32}  # as --resize records it
    (copy / "summary.json").write_text(json.dumps(summary))
    plain, known = run_python(code, copy).stdout.splitlines()
    assert plain == "None"  # Keras does not say which file it read
    names = tuple(str(digit) for digit in range(10))
    assert known == repr(Known(names, names, SingleCrop(36, 32)))
    here = keras.models.load_model(tiny_run.model)  # by its classifier, which was trained here
    assert labels_of(here) == names


KILL_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from helpers.training import RESUMED, KillAt
from keras_resnet.recipes import load_config, train
kill = KillAt(int(sys.argv[2]))
train.run(load_config("debug/tiny", RESUMED), "killed", callbacks=[kill])
"""


def test_kill_9_and_resume_equals_the_uninterrupted_run_bit_for_bit(tmp_path):
    loaded = schema.load_config("debug/tiny", RESUMED)
    whole = train.run(loaded, tmp_path / "whole")
    killed = run_python(
        KILL_SCRIPT,
        TESTS,
        13,  # of 27, in the second epoch
        check=False,
        cwd=tmp_path,
    )
    assert killed.returncode == -signal.SIGKILL
    run = find_run(tmp_path / "killed")
    assert not run.model.exists()
    assert len(run.rows()) == 1
    latest = tf.train.latest_checkpoint(str(run.path / "checkpoints"))
    assert latest.endswith("-13")
    # The state of a run must come from its folder alone, not from this process' random state.
    keras.utils.set_random_seed(12345)
    train.resume(run.path)
    for key in ("loss", "accuracy", "val_loss", "learning_rate", "step"):
        assert [row[key] for row in whole.rows()] == [row[key] for row in run.rows()]
    models = [keras.models.load_model(r.model) for r in (whole, run)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match="is finished"):
        train.resume(run.path)


class _Interrupt(keras.callbacks.Callback):
    """Ctrl-C in the middle of an epoch, in validation, or after it."""

    def __init__(self, when):
        super().__init__()
        self.when, self.tests = when, 0

    def on_train_batch_end(self, batch, logs=None):
        if self.when == "step" and batch == 4:
            raise KeyboardInterrupt

    def on_test_begin(self, logs=None):
        if self.when == "validation":
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        if self.when == "log":
            raise KeyboardInterrupt


@pytest.mark.parametrize("when", first_by_default(["step", "validation", "log"]))
def test_ctrl_c_leaves_a_run_that_ends_as_if_nothing_had_happened(tmp_path, when):
    loaded = schema.load_config("debug/tiny", {"train.epochs": 1})
    whole = train.run(loaded, tmp_path / "whole")
    with pytest.raises(train.Interrupted):
        train.run(loaded, tmp_path / "run", callbacks=[_Interrupt(when)])
    run = train.resume(tmp_path / "run")
    assert run.summary() | {"training_seconds": 0} == whole.summary() | {"training_seconds": 0}
    for key in ("epoch", "loss", "accuracy", "val_loss"):
        assert [row[key] for row in run.rows()] == [row[key] for row in whole.rows()]


@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, minutes):
    """Also when the state is saved at every step: weights of 1e30 are finite, but not good."""
    bad = {"optimizer.learning_rate": 1e30, "train.checkpoint_minutes": minutes}
    with pytest.raises(UserError, match=r"NaN or infinite at step \d+ of 18"):
        train.run(schema.load_config("debug/tiny", bad), tmp_path / "run")
    checkpoint = tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints"))
    reader = tf.train.load_checkpoint(checkpoint)
    kernels = [n for n in reader.get_variable_to_shape_map() if "kernel" in n.lower()]
    for name in kernels:
        assert np.abs(reader.get_tensor(name)).max() < 100
    assert not (tmp_path / "run" / "model.keras").exists()
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.index"))) <= 2


def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    loaded = schema.load_config("debug/tiny", {"train.epochs": 2})
    with pytest.raises(train.Interrupted):
        train.run(loaded, tmp_path / "run", callbacks=[_Interrupt("log")])
    latest = tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints"))
    Path(latest + ".index").write_bytes(b"torn")
    state_file = tmp_path / "run" / "checkpoints" / "checkpoint"
    content = state_file.read_bytes()
    state_file.write_bytes(b"")  # without it the run would start anew, and its log be dropped
    with pytest.raises(
        UserError, match=r"is missing or damaged\. It has the name of the newest checkpoint"
    ):
        train.resume(tmp_path / "run")
    state_file.write_bytes(content)
    data = Path(latest + ".data-00000-of-00001")
    data.rename(tmp_path / "data")
    os.mkfifo(data)  # which TensorFlow would read without end
    with pytest.raises(UserError, match=r"data-00000-of-00001 is not a file\. Restore it"):
        train.resume(tmp_path / "run")
    data.unlink()
    (tmp_path / "data").rename(data)
    run = train.resume(tmp_path / "run")
    assert "cannot read the checkpoint" in capsys.readouterr().err
    assert run.summary()["steps"] == 18


class _NoRoom(keras.callbacks.Callback):
    """From step 5 on no file can become longer than 100 bytes, as on a full disk."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 5:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))


def test_a_full_disk_ends_the_run_and_the_last_checkpoint_survives(tmp_path):
    loaded = schema.load_config(
        "debug/tiny", {"train.epochs": 2, "train.checkpoint_minutes": 0.0, "data.validation": 0}
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UserError, match=r"File too large\. The last checkpoint is step 5\."):
            train.run(loaded, tmp_path / "run", callbacks=[_NoRoom()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    latest = tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints"))
    assert latest.endswith("-5")
    assert train.resume(tmp_path / "run").summary()["steps"] == 22


def test_a_checkpoint_of_another_model_is_refused_by_its_first_difference(tmp_path):
    loaded = schema.load_config("debug/tiny", {"train.epochs": 2})
    with pytest.raises(train.Interrupted):
        train.run(loaded, tmp_path / "run", callbacks=[_Interrupt("step")])
    path = tmp_path / "run" / "config.toml"
    text = path.read_text()
    path.write_text(text.replace('model = "resnet8"', 'model = "resnet20"'))
    with pytest.raises(UserError, match=r"stage1_block1_conv1/kernel has shape \(3, 3"):
        train.resume(tmp_path / "run")
    path.write_text(text.replace("ema = 0.0", "ema = 0.9"))
    with pytest.raises(UserError, match=r"network is the same, but .* train.ema"):
        train.resume(tmp_path / "run")
    path.write_text(text)
    assert train.resume(tmp_path / "run").summary()["steps"] == 18


def test_of_equally_good_epochs_the_last_is_kept(tmp_path):
    """1/3 is no number of float32, which the state has."""
    loop = Loop(tf.distribute.get_strategy(), small_model(), keras.optimizers.SGD(), batch_size=8)
    state = State(Run(tmp_path), loop, minutes=1.0)
    found = []
    for epoch, accuracy in enumerate([0.2, 1 / 3, 1 / 3, 0.3]):
        state.keep_best(epoch, accuracy)
        found.append(int(state.best_epoch))
    assert found == [0, 1, 2, 2]


def test_the_time_of_a_run_is_summed_over_its_sittings(tmp_path):
    """What the log, the summary and `runs` say is one number, and never less than before."""
    loaded = schema.load_config("debug/tiny", {"train.epochs": 3})

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(train.Interrupted):
        train.run(loaded, tmp_path / "run", callbacks=[Stop()])

    def listed():
        return list_runs(tmp_path)[0]["training_seconds"]

    first = listed()
    run = train.resume(tmp_path / "run")
    totals = [float(row["training_seconds"]) for row in run.rows()]
    assert 0 < totals[0] < totals[1] == first < totals[2]
    assert run.summary()["training_seconds"] == listed() == totals[2]


def test_callbacks_may_stop_the_training(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    loaded = schema.load_config("debug/tiny", {"train.epochs": 4})
    run = train.run(loaded, tmp_path / "run", callbacks=[Stop()])
    assert [row["epoch"] for row in run.rows()] == ["1", "2"]
    assert run.model.is_file()


NO_LEARNING = {"optimizer.learning_rate": 0.0, "train.epochs": 6, "train.patience": 2}


def test_a_run_stops_when_its_patience_is_out(tmp_path, capsys):
    run = train.run(schema.load_config("debug/tiny", NO_LEARNING), tmp_path / "run")
    assert [row["epoch"] for row in run.rows()] == ["1", "2", "3"]
    assert "stopped after epoch 3: the last 2 epochs brought no better" in capsys.readouterr().err
    assert run.model.is_file()


def test_patience_waits_for_the_least_number_of_updates(tmp_path):
    least = NO_LEARNING | {"train.batch_size": 256, "train.least_steps": 17}  # 4 updates an epoch
    run = train.run(schema.load_config("debug/tiny", least), tmp_path / "run")
    assert [row["epoch"] for row in run.rows()] == ["1", "2", "3", "4", "5"]


def test_a_resumed_run_is_as_patient_as_an_uninterrupted_one(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    loaded = schema.load_config("debug/tiny", NO_LEARNING)
    with pytest.raises(train.Interrupted):
        train.run(loaded, tmp_path / "run", callbacks=[Interrupt()])
    run = train.resume(tmp_path / "run")
    assert [row["epoch"] for row in run.rows()] == ["1", "2", "3"]


def test_patience_without_validation_images_trains_all_epochs(tmp_path, capsys):
    loaded = schema.load_config("debug/tiny", NO_LEARNING | {"data.validation": 0})
    run = train.run(loaded, tmp_path / "run")
    assert len(run.rows()) == 6
    assert "Hold some out: --set data.validation_share=0.1" in capsys.readouterr().err


def test_callbacks_by_name_come_from_the_config(tmp_path, monkeypatch):
    (tmp_path / "tracker.py").write_text(
        "import keras\n\n\n"
        "class Tracker(keras.callbacks.Callback):\n"
        "    def on_epoch_end(self, epoch, logs=None):\n"
        "        print(epoch, sorted(logs)[:2], file=open('seen', 'a'))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {"train.epochs": 2, "train.callbacks": ["tracker.Tracker"]}
    train.run(schema.load_config("debug/tiny", settings), tmp_path / "run")
    seen = "0 ['accuracy', 'images_per_second']\n1 ['accuracy', 'images_per_second']\n"
    assert (tmp_path / "seen").read_text() == seen


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.Tracker", "cannot import 'no_such_package.Tracker'"),
        ("keras.callbacks.Nothing", "cannot import 'keras.callbacks.Nothing'"),
        ("Tracker", "cannot import 'Tracker'"),
        ("os.getcwd", "'os.getcwd' is no Keras callback; received a builtin"),
        ("keras.layers.Dense", "'keras.layers.Dense' is no Keras callback"),
        ("keras.callbacks.ModelCheckpoint", "needs arguments .missing a required argument"),
    ],
)
def test_what_is_no_callback_is_refused_and_not_called(tmp_path, name, message):
    loaded = schema.load_config("debug/tiny", {"train.callbacks": [name]})
    with pytest.raises(UserError, match=message):
        train.run(loaded, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_few_images_get_more_epochs(tmp_path):
    settings = {"train.epochs": 2, "train.batch_size": 256, "train.least_steps": 11}
    planned = train.plan(schema.load_config("debug/tiny", settings), tmp_path / "run")
    assert (planned.job.steps_per_epoch, planned.job.epochs) == (4, 3)
    assert planned.job.config.train.epochs == 3  # `runs` shows how many there are
    table = tmp_path / "mine.toml"
    table.write_text('model = "resnet8"\n[train]\nepochs = 2\nleast_steps = 100\n')
    assert schema.load_config(table, {"train.epochs": 3}).train.least_steps == 0
    assert schema.load_config(table).train.least_steps == 100


def test_the_resolved_config_fixes_the_precision(tiny_run, tmp_path):
    loaded = schema.load_config("debug/tiny", {"train.precision": "auto", "train.epochs": 1})
    run = train.run(loaded, tmp_path / "run")
    assert run.config.train.precision == run.summary()["precision"] in devices.PRECISIONS


def test_nothing_is_left_of_a_run_that_could_not_start(tmp_path):
    for override in (
        {"train.sizes": (2,)},
        {"train.accumulate": 3},
        {"train.batch_size": 5000},
        {"augment.crop": "cutout"},
        {"model": "resnet21"},
    ):
        with pytest.raises(UserError):
            train.run(schema.load_config("debug/tiny", override), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_run_folder_is_not_overwritten(tiny_run, tmp_path):
    loaded = schema.load_config("debug/tiny")
    with pytest.raises(UserError, match="--resume"):
        train.run(loaded, tiny_run.path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty"):
        train.run(loaded, tmp_path)
    with pytest.raises(UserError, match="not a run folder"):
        train.resume(tmp_path)


def test_evaluate_refuses_images_of_another_size(tiny_run, digits):
    model = keras.models.load_model(tiny_run.model)
    small = Split(digits.test.images[:, :16], digits.test.labels)
    with pytest.raises(UserError, match="takes one or more images of"):
        evaluate.measure_model(model, small)


def test_a_mirrored_run_trains_and_finishes(tmp_path):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "keras_resnet", "train", "debug/tiny", "--devices", "cpu:2"),
            *("--epochs", "1", "--out", "run", "--json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["replicas"] == 2
    assert math.isfinite(summary["test"]["loss"])


def test_the_share_of_time_spent_waiting_for_input_is_recorded(tiny_run):
    assert all(0 < float(row["input_wait"]) < 1 for row in tiny_run.rows())

"""Fine-tuning: what is taken over, what learns when."""

import json

import keras
import numpy as np
import pytest
from helpers import run_python
from PIL import Image

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.recipes import finetune, train
from keras_resnet.recipes.configs import schema
from keras_resnet.recipes.runs import sources
from keras_resnet.recipes.runs.folder import find_run
from keras_resnet.recipes.training import transfer
from keras_resnet.recipes.training.rate_finder import find_rate

SHIFT = {"augment.crop": "shift", "augment.flip": "none", "train.precision": "float32"}


def test_adapt_keeps_the_features_at_another_size_and_channels_of_any_classes(resnet20, images):
    adapted = transfer.adapt(resnet20, (None, None, 3), 7)
    assert adapted.output_shape == (None, 7)
    assert isinstance(adapted.get_layer("stem_bn"), keras_resnet.BatchNormalization)
    features = [
        keras.Model(m.input, m.get_layer("head_pool").output).predict(images, verbose=0)
        for m in (resnet20, adapted)
    ]
    np.testing.assert_allclose(*features, rtol=1e-5, atol=1e-6)  # the same kernels
    assert adapted(np.zeros((1, 64, 48, 3), "uint8")).shape == (1, 7)


def test_a_network_without_a_classifier_is_refused(resnet20):
    body = keras.Model(resnet20.input, resnet20.get_layer("head_pool").output, name="body")
    with pytest.raises(UserError, match="'body' must end in a Dense classifier"):
        transfer.adapt(body, (32, 32, 3), 2)
    vgg = keras_resnet.create_model("test_vgg", include_preprocessing=True)  # it has a Flatten
    height, width, channels = vgg.input_shape[1:]
    with pytest.raises(UserError, match="cannot take"):
        transfer.adapt(vgg, (2 * height, 2 * width, channels), 2)


@pytest.mark.parametrize("channels", [1, 4])
def test_rgb_weights_are_adapted_as_by_a_builder(resnet20, tmp_path, capsys, channels):
    """Digits in grey on weights of RGB: one function, whichever way it is made."""
    path = tmp_path / "resnet20.weights.h5"
    start = keras_resnet.ResNet20(include_preprocessing=True)
    start.save_weights(path)
    shape = (32, 32, channels)
    built = keras_resnet.ResNet20(weights=path, input_shape=shape, include_preprocessing=True)
    capsys.readouterr()
    adapted = transfer.same(start, shape)
    assert f"'stem_conv' was adapted from RGB to {channels} channel(s)" in capsys.readouterr().err
    given = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype("float32")
    logits = keras.Model(built.input, built.get_layer("head").output)
    # The same operations in another graph.
    np.testing.assert_allclose(adapted(given), logits(given), rtol=1e-5, atol=1e-5)


def test_other_channels_than_those_of_rgb_weights_are_not_guessed(resnet20):
    grey = transfer.adapt(resnet20, (32, 32, 1), 2)
    with pytest.raises(UserError, match=r"cannot take|do not fit"):
        transfer.adapt(grey, (32, 32, 3), 2)


@pytest.mark.parametrize("train_bn", [False, True])
def test_first_the_head_learns_then_the_rest(tiny_run, tmp_path, train_bn):
    """After epoch 1 of 2 nothing but the head has changed, BN statistics included."""
    seen = []

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append({v.path: v.numpy() for v in self.model.variables})

    source = sources.find(str(tiny_run.path))
    settings = {**SHIFT, "data.name": "digits", "train.epochs": 2, "finetune.frozen": 0.5}
    settings["finetune.train_bn"] = train_bn
    loaded = schema.load_config(finetune.CONFIG, settings)
    run = finetune.run(source, loaded, tmp_path / "run", callbacks=[Keep()])
    start = source.keras_model()
    body = {v.path: v.numpy() for layer in start.layers for v in layer.variables}
    changed = [
        {path for path in body if path in after and not np.array_equal(body[path], after[path])}
        for after in seen
    ]
    assert changed[0] == {"head/kernel", "head/bias"}
    moved_bn = {path for path in changed[1] if "_bn/" in path}
    assert any("moving_mean" in path for path in moved_bn) == train_bn
    assert any("gamma" in path for path in moved_bn) == train_bn
    assert "stem_conv/kernel" in changed[1]
    assert run.config.model == "resnet8"
    assert run.start.is_file()
    assert keras.models.load_model(run.model).output_shape == (None, 10)


def test_the_command_prints_one_object(tiny_run, tmp_path, capsys):
    out = tmp_path / "run"
    settings = [f"--set={key}={value}" for key, value in SHIFT.items()]
    command = ["finetune", str(tiny_run.path), "--data", "digits", "--epochs", "1", *settings]
    assert main([*command, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": str(out), **find_run(out).summary()}


@pytest.mark.slow
def test_an_interrupted_fine_tuning_goes_on_without_its_source(tiny_run, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 50:
                raise KeyboardInterrupt

    loaded = schema.load_config(
        finetune.CONFIG, {**SHIFT, "data.name": "digits", "train.epochs": 2, "finetune.frozen": 0.5}
    )
    source = sources.find(str(tiny_run.path))
    whole = finetune.run(source, loaded, tmp_path / "whole")
    with pytest.raises(train.Interrupted):
        finetune.run(source, loaded, tmp_path / "run", callbacks=[Stop()])
    run = train.resume(tmp_path / "run")
    assert run.summary() | {"training_seconds": 0} == whole.summary() | {"training_seconds": 0}


@pytest.mark.parametrize(
    ("made_for", "photographs", "size"),
    [
        (224, 500, 224),  # ImageNet's networks keep their size
        (224, 64, 224),
        (None, 500, 224),  # of free size
        (32, 28, 32),  # images no larger than the network's own
        (32, 32, 32),
        (32, 40, 32),
        (32, 60, 32),
        (32, 100, 64),
        (32, 160, 64),
        (32, 4000, 64),
        (64, 4000, 128),
    ],
)
def test_the_image_size_follows_from_network_and_photographs(made_for, photographs, size):
    inputs = keras.layers.Input((made_for, made_for, 3))
    start = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    assert transfer.image_size(start, photographs) == size


def test_the_module_is_a_function_too(tiny_run, tmp_path, capsys):
    photographs = _album(tmp_path / "photographs", 10)
    run = finetune(
        str(tiny_run.path),
        photographs,
        tmp_path / "run",
        epochs=1,
        freeze=1.0,
        balanced=True,
        train__batch_size=4,
    )
    said = capsys.readouterr().err
    assert "the network sees 64×64 pixels (your images: 70, its training: 32)" in said
    assert "(finetune: --image-size N)" in said
    assert run.config.data.image_size == 64
    assert run.config.data.balanced
    assert run.keras_model().output_shape == (None, 2)
    with pytest.raises(UserError, match="Fine-tuning does not prune"):
        finetune(run.keras_model(), photographs, tmp_path / "again", pruning__keep=0.5)


def _album(folder, count, side=70):
    rng = np.random.default_rng(0)
    for name in "ant", "bee":
        (folder / name).mkdir(parents=True)
        for place in range(count):
            pixels = rng.integers(0, 256, (side, side + 20, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{place}.png")
    return folder


def _plan(model, folder, out, **settings):
    loaded = schema.load_config(finetune.CONFIG, {"data.name": str(folder), **settings})
    return finetune.plan_from(model, loaded, out, model=model.name, name="finetune")


@pytest.mark.slow
def test_pruning_and_photograph_runs_keep_their_image_size(tiny_run, tmp_path):
    album = _album(tmp_path / "album", 10)
    model = keras_resnet.ResNet8(include_preprocessing=True, classes=2)
    kept = _plan(model, album, tmp_path / "run", **{"finetune.keep_head": True})
    assert kept.job.config.data.image_size == 32
    run = finetune(str(tiny_run.path), album, tmp_path / "at40", epochs=1, image_size=40)
    source = sources.find(str(run.path))
    loaded = schema.load_config(finetune.CONFIG, {"data.name": str(album)})
    assert finetune.plan(source, loaded).job.config.data.image_size == 40


def test_a_network_of_free_size_sees_images_of_one_size_as_they_are(tmp_path):
    free = keras_resnet.ResNet8(
        include_preprocessing=True, classes=10, input_shape=(None, None, 3), weights=None
    )
    assert _plan(free, "digits", tmp_path / "run").job.dataset.input_shape == (32, 32, 3)
    album = _album(tmp_path / "album", 10)
    assert _plan(free, album, tmp_path / "run").job.dataset.input_shape == (224, 224, 3)


def test_files_that_cannot_be_read_do_not_hinder_the_choice_of_the_size(tmp_path):
    album = _album(tmp_path / "album", 10)
    (album / "ant" / "gone.png").symlink_to(tmp_path / "nothing")
    (album / "bee" / "bomb.png").write_bytes(b"no image")
    model = keras_resnet.ResNet8(include_preprocessing=True, classes=2)
    assert _plan(model, album, tmp_path / "run").job.config.data.image_size == 64


@pytest.mark.parametrize(("accumulate", "batch"), [(1, 16), (5, 15)])
def test_a_batch_has_no_more_images_than_there_are(tmp_path, accumulate, batch):
    folder = tmp_path / "album"
    _album(folder / "train", 9)
    _album(folder / "val", 1)
    model = keras_resnet.ResNet8(include_preprocessing=True, classes=2)
    settings = {"train.accumulate": accumulate, "train.batch_size": 30}
    planned = _plan(model, folder, tmp_path / "run", **settings)
    assert len(planned.job.dataset.train) == 16  # one of each class is held out
    assert planned.job.config.train.batch_size == batch


@pytest.mark.slow
def test_patience_does_not_count_the_frozen_epochs(tiny_run, tmp_path):
    settings = {"train__least_steps": 0, "optimizer__learning_rate": 0.0}
    run = finetune(
        *(str(tiny_run.path), "digits", tmp_path / "run"),
        **{"epochs": 8, "freeze": 0.5, "patience": 2, **settings},
    )
    assert len(run.rows()) == 4 + 3


def test_the_rate_finder_trains_what_the_run_trains_last(tiny_run, tmp_path):
    source = sources.find(str(tiny_run.path))
    settings = {"data.name": "digits", "finetune.frozen": 1.0}
    planned = finetune.plan(source, schema.load_config(finetune.CONFIG, settings), tmp_path / "run")
    seen = []
    choose = planned.job.trainee.choose_layers
    planned.job.trainee.choose_layers = lambda job, loop, epoch: (
        choose(job, loop, epoch),
        seen.append(len(loop.model.trainable_variables)),
    )
    find_rate(planned, steps=3)
    assert seen == [2]  # the head's kernel and bias


def test_what_cannot_be_fine_tuned_is_refused(tmp_path):
    loaded = schema.load_config("debug/tiny", {"finetune.frozen": 0.5})
    with pytest.raises(UserError, match="keras-resnet finetune"):
        train.run(loaded, tmp_path / "run")
    keras_resnet.ResNet20().save(tmp_path / "bare.keras")
    source = sources.find(str(tmp_path / "bare.keras"))
    with pytest.raises(UserError, match="include_preprocessing=True"):
        finetune.run(source, schema.load_config(finetune.CONFIG), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_fine_tuning_on_two_devices(tiny_run, tmp_path):
    """The devices are chosen before the model is loaded, also when the run goes on."""
    out = tmp_path / "run"
    command = ["finetune", tiny_run.path, "--data", "digits", "--devices", "cpu:2", "--out", out]
    # Half of it frozen: what is averaged over the devices stays the same when all layers learn.
    settings = ["--epochs", "2", "--freeze", "0.5", "--batch-size", "64"]
    code = "import sys; from keras_resnet.cli.main import main; sys.exit(main(sys.argv[1:]))"
    run_python(code, *command, *settings)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["replicas"] == 2
    (out / "model.keras").unlink()  # as if it had been stopped before it wrote the result
    run_python(code, "train", "--resume", out)
    again = json.loads((out / "summary.json").read_text())
    assert (again["test"], again["replicas"]) == (summary["test"], 2)

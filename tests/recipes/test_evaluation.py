"""Evaluation as the papers did it, what the result says of it, and the list of runs."""

import csv
import json
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from keras_resnet.cli.main import main
from keras_resnet.display import bars
from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.base import Runtime
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.recipes import evaluate
from keras_resnet.recipes.data.datasets import load_dataset
from keras_resnet.recipes.data.decoded import Split
from keras_resnet.recipes.data.protocol import Protocol, crop_size, describe, resize_for, ten_crops
from keras_resnet.recipes.runs.folder import Run, list_runs
from keras_resnet.recipes.training.callbacks import Log

CLASSES = 7
TEN = Protocol(crops=10)
# Averages of probabilities in another order, or of batches of another size, differ by float32
# rounding; a wrong crop moves the loss by 1e-3 and more.
CLOSE = {"rel": 1e-5}


def _model(size=32, head="pool", classes=CLASSES):
    """A tiny network whose answers depend on where in the image something is."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((size, size, 3), name="images")
    x = layers.Rescaling(1 / 32, -4, name="rescaling")(inputs)
    x = layers.Conv2D(8, 5, strides=4, activation="relu", name="stem_conv")(x)
    pool = layers.GlobalAveragePooling2D if head == "pool" else layers.Flatten
    x = pool(name="head_pool")(x)
    x = layers.Dense(classes, name="head")(x)
    return keras.Model(inputs, layers.Softmax(name="predictions")(x), name="tiny")


@pytest.fixture(scope="module")
def model():
    return _model()


@pytest.fixture(scope="module")
def free_model(model):
    free = _model(size=None)
    free.set_weights(model.get_weights())
    return free


@pytest.fixture(scope="module")
def small(images):
    """32 images of one size, in memory."""
    return Split(images, np.random.default_rng(1).integers(0, CLASSES, 32).astype("int32"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of JPEG and PNG images of six sizes; the fourth and fifth are alike."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    shapes = [(60, 90), (48, 40), (40, 40), (150, 200), (150, 200), (300, 37)]
    for split in "train", "val":
        for name in "ant", "bee", "cow":
            (folder / split / name).mkdir(parents=True)
            for index, (height, width) in enumerate(shapes):
                coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype("uint8"))
                suffix = "png" if index == 1 else "jpg"
                smooth = coarse.resize((width, height), Image.BICUBIC)
                smooth.save(folder / split / name / f"{index}.{suffix}")
    return folder


def _pictures(split, side):
    return [pictures[0].numpy() for pictures, _ in split.whole((side,))]


def _run(model, images):
    return np.asarray(model(images.astype("float32"), training=False))


def _of_probabilities(probabilities, labels):
    """What `measure` says, by hand."""
    right = np.array([p[label] for p, label in zip(probabilities, labels, strict=True)])
    better = (probabilities > right[:, None]).sum(-1)
    return {
        "accuracy": (better == 0).mean(),
        "top5": (better < 5).mean(),
        "loss": -np.log(right).mean(),
        "n": len(labels),
    }


def _assert_measured(measured, probabilities, labels, **protocol):
    expected = _of_probabilities(np.stack(probabilities), labels)
    record = dict.fromkeys(("size", "resize", "scales", "interpolation"), None) | {"crops": 1}
    assert measured.pop("protocol") == record | protocol
    per_class, macro = measured.pop("per_class"), measured.pop("macro")
    assert measured == pytest.approx(expected, **CLOSE)
    found = precision_recall_fscore_support(
        labels,
        np.stack(probabilities).argmax(-1),
        labels=range(np.shape(probabilities)[-1]),
        zero_division=0.0,
    )
    present = found[3] > 0
    for name, scores in zip(("precision", "recall", "f1"), found, strict=False):
        np.testing.assert_allclose(per_class[name], scores, atol=1e-6)  # six digits are kept
        assert macro[name] == pytest.approx(scores[present].mean(), abs=1e-6)
    assert per_class["n"] == found[3].tolist()


# Crops --------------------------------------------------------------------------------------------


def test_ten_crops_are_corners_centre_and_their_mirror_images():
    image = np.arange(6 * 9 * 3).reshape(6, 9, 3)
    found = ten_crops(image, 4)
    five = [image[:4, :4], image[:4, 5:], image[2:, :4], image[2:, 5:], image[1:5, 2:6]]
    np.testing.assert_array_equal(found[:5], five)
    np.testing.assert_array_equal(found[5:], [crop[:, ::-1] for crop in five])
    assert found.shape == (10, 4, 4, 3)


def test_crops_are_cut_from_256_for_224_and_in_that_ratio():
    assert [resize_for(size) for size in (224, 299, 32)] == [256, 342, 37]


def test_whole_images_keep_their_shape_whatever_their_shorter_side(photos):
    split = load_dataset(str(photos)).test
    for side in 20, 64:
        for picture, path in zip(_pictures(split, side), split.source.paths, strict=True):
            with Image.open(path) as original:
                width, height = original.size
                shorter = min(width, height)
                expected = (round(height * side / shorter), round(width * side / shorter))
                resized = np.asarray(original.resize(expected[::-1], Image.BILINEAR), int)
            assert picture.shape == (*expected, 3)
            # PIL decodes JPEGs another way, and smooths before what libjpeg halves: grey levels
            # of smooth pictures, whose neighbours of one pixel differ by more than that.
            assert np.abs(picture - resized).mean() < 4
    labels = [int(label) for _, label in split.whole((20,))]
    np.testing.assert_array_equal(labels, split.labels)


# Protocols ----------------------------------------------------------------------------------------


def test_a_single_crop_is_what_the_split_gives_out(model, small, photos):
    probabilities = KerasRuntime(model).probabilities(small.images)
    _assert_measured(
        evaluate.measure_model(model, small), probabilities, small.labels, size=32, resize=None
    )
    split = load_dataset(str(photos), image_size=32).test
    measured = evaluate.measure_model(model, split)
    record = {"crops": 1, "size": 32, "resize": 37, "scales": None, "interpolation": None}
    assert measured["protocol"] == record


def test_ten_crops_are_averaged_after_the_softmax(model, photos):
    """In order and once each, also where an image does not fit in a batch with the one before."""
    split = load_dataset(str(photos)).test
    probabilities = [
        _run(model, ten_crops(picture, 32)).mean(0) for picture in _pictures(split, 37)
    ]
    measured = evaluate.measure_model(model, split, TEN)
    _assert_measured(measured, probabilities, split.labels, crops=10, size=32, resize=37)


def test_flip_averages_an_image_and_its_mirror_image(model, small):
    views = [small.images, small.images[:, :, ::-1]]
    probabilities = np.mean([KerasRuntime(model).probabilities(view) for view in views], axis=0)
    measured = evaluate.measure_model(model, small, Protocol(flip=True))
    _assert_measured(measured, probabilities, small.labels, size=32, flip=True)


def test_small_images_are_enlarged_for_ten_crops_with_a_warning(model, small, capsys):
    enlarged = tf.image.resize(small.images, (37, 37)).numpy().round().astype("uint8")
    probabilities = [_run(model, ten_crops(x, 32)).mean(0) for x in enlarged]
    measured = evaluate.measure_model(model, small, TEN)
    _assert_measured(measured, probabilities, small.labels, crops=10, size=32, resize=37)
    assert "images of 32×32 are enlarged to a shorter side of 37" in capsys.readouterr().err


def test_a_model_of_free_size_takes_crops_of_the_size_of_the_images(free_model, small, photos):
    runtime, split = KerasRuntime(free_model), load_dataset(str(photos)).test
    assert crop_size(runtime, small) == 32
    assert crop_size(runtime, split) == 224
    assert crop_size(runtime, split.at(48, 0.875)) == 48


def test_multi_scale_averages_over_whole_images(model, free_model, photos):
    split, scales = load_dataset(str(photos)).test, (24, 32, 48)
    by_scale = [[_run(free_model, x[None])[0] for x in _pictures(split, scale)] for scale in scales]
    # One decoding serves all scales, so the smaller ones start from more pixels than alone.
    at_once = [[x.numpy()[None] for x in pictures] for pictures, _ in split.whole(scales)]
    probabilities = [
        np.mean([_run(free_model, x)[0] for x in pictures], axis=0) for pictures in at_once
    ]
    assert np.abs(np.mean(by_scale, axis=0) - probabilities).max() < 0.02
    measured = evaluate.measure_model(model, split, Protocol(scales=scales))
    _assert_measured(measured, probabilities, split.labels, scales=list(scales))


def test_the_free_size_averages_the_class_scores_over_all_positions(model, images):
    """The paper's fully convolutional form: the classifier as a 1×1 convolution."""
    runtime = KerasRuntime(model).any_size()
    features = keras.Model(model.input, model.get_layer("stem_conv").output)
    larger = np.tile(images[:4], (1, 2, 3, 1))
    free = keras.models.clone_model(features, input_tensors=keras.Input((None, None, 3)))
    free.set_weights(features.get_weights())
    kernel, bias = model.get_layer("head").get_weights()
    scores = (np.asarray(free(larger.astype("float32"))) @ kernel + bias).mean((1, 2))
    expected = np.asarray(keras.ops.softmax(scores))
    # float32 rounding, summed in another order.
    np.testing.assert_allclose(runtime.probabilities(larger), expected, rtol=1e-4)
    np.testing.assert_allclose(
        runtime.probabilities(images), KerasRuntime(model).probabilities(images), rtol=1e-5
    )
    assert runtime.any_size() is runtime


def test_every_kind_of_block_can_be_freed_of_its_size(resnet20, images):
    runtime = KerasRuntime(resnet20).any_size()
    expected = KerasRuntime(resnet20).probabilities(images)
    # The same operations; only their shapes are not known beforehand.
    np.testing.assert_allclose(runtime.probabilities(images), expected, rtol=1e-4, atol=1e-6)


def test_top5_only_where_there_are_more_than_five_classes(small):
    few = Split(small.images, small.labels % 5)
    assert "top5" not in evaluate.measure_model(_model(classes=5), few)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crops": 10, "flip": True}, "--flip adds the mirror image"),
        ({"crops": 5}, "crops must be 1 or 10; received 5"),
        ({"scales": (224, 224)}, "different sizes"),
        ({"scales": (0,)}, "different sizes"),
        ({"crops": 10, "scales": (224,)}, "Give --crops or --scales"),
    ],
)
def test_protocols_that_do_not_exist(values, message):
    with pytest.raises(UserError, match=message):
        Protocol(**values)


def test_models_of_one_size_have_no_scales(small):
    protocol = Protocol(scales=(32, 40))
    with pytest.raises(UserError, match=r"'tiny' takes only images of 32×32.*--crops 10"):
        evaluate.measure_model(_model(head="flatten"), small, protocol)
    file = Runtime()
    file.input_shape = (32, 32, 3)
    with pytest.raises(UserError, match=r"file takes only images of 32×32.*\.keras"):
        evaluate.measure(file, small, protocol)


def test_a_scale_at_which_nothing_is_left_is_named(model, small):
    with pytest.raises(
        UserError, match=r"cannot run on images of 4×4 pixels.* Leave out the scale 4"
    ):
        evaluate.measure_model(model, small, Protocol(scales=(4,)))


# The command --------------------------------------------------------------------------------------


def test_the_command(tiny_run, capsys, tmp_path):
    command = ["evaluate", str(tiny_run.path), "--split", "validation"]
    assert main([*command, "--scales", "32,40", "--json", "--out", str(tmp_path / "e.json")]) == 0
    result = json.loads(capsys.readouterr().out)
    record = {"crops": 1, "size": None, "resize": None, "scales": [32, 40], "interpolation": None}
    assert result["protocol"] == record
    assert result["n"] == 180
    assert result["accuracy"] <= result["top5"] <= 1
    assert json.loads((tmp_path / "e.json").read_text()) == result
    assert main([*command, "--crops", "10"]) == 0
    printed = capsys.readouterr()
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in printed.out.splitlines())
    assert rows["images"] == "180, validation split of digits"
    assert rows["crop"] == "10 crops of 32, shorter side 37"
    assert rows["trained on"] == "0 of these images"
    assert {"accuracy", "top-5", "macro F1", "loss"} < set(rows)
    assert "so images of 32×32 are enlarged" in printed.err
    assert main([*command, "--scales", "224,large"]) == 2
    assert "whole number, 1 or more; received 'large'" in capsys.readouterr().err


def test_whole_images_of_a_folder_are_evaluated_at_their_own_size(photos, model, tmp_path, capsys):
    keras.utils.set_random_seed(0)
    model.save(tmp_path / "tiny.keras")
    command = ["evaluate", str(tmp_path / "tiny.keras"), "--data", str(photos), "--json"]
    assert main([*command, "--scales", "24,48"]) == 0
    by_command = json.loads(capsys.readouterr().out)
    split = load_dataset(str(photos)).test
    expected = evaluate.measure_model(model, split, Protocol(scales=(24, 48)))
    assert {key: by_command[key] for key in expected} == expected


def test_protocols_in_words():
    multi = {"crops": 1, "size": None, "resize": None, "scales": [224, 256]}
    assert describe(multi) == "whole images, shorter side 224, 256"
    single = {"crops": 1, "size": 224, "resize": 256, "scales": None}
    assert describe(single) == "central crop of 224, shorter side 256"
    assert describe({**single, "resize": None}) == "images as they are"
    flipped = describe({**single, "flip": True})
    assert flipped == "central crop of 224, shorter side 256, and its mirror image"


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    with bars.progress("evaluating", 50_000) as advance:
        advance(64)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(bars, "_LINE_SECONDS", 0)
    with bars.progress("evaluating", 50_000) as advance:
        advance(1_000)
        advance(49_000)
    assert capsys.readouterr().err == "evaluating: 1,000 of 50,000, 0.0 min left\n"


# Runs and their logs ------------------------------------------------------------------------------


def test_a_run_that_cannot_be_read_does_not_hide_the_others(
    tiny_run, tmp_path, capsys, monkeypatch
):
    for name in "good", "old", "broken", "cut":
        (tmp_path / name).mkdir()
        for file in "config.toml", "log.csv", "summary.json", "model.keras":
            shutil.copy(tiny_run.path / file, tmp_path / name)
    old = tmp_path / "old" / "config.toml"
    old.write_text(old.read_text().replace("batch_size =", "batch ="))
    (tmp_path / "broken" / "config.toml").write_bytes(b"model = \xff")
    (tmp_path / "cut" / "summary.json").write_text('{"test": ')
    rows = {row["run"]: row for row in list_runs(tmp_path)}
    assert len(rows) == 4
    good, old, broken, cut = (
        rows[str(tmp_path / name)] for name in ("good", "old", "broken", "cut")
    )
    assert (good["state"], good["problem"]) == ("finished", None)
    assert "'train.batch'" in old["problem"]
    assert "'train.batch_size'" in old["problem"]
    assert "not valid TOML" in broken["problem"]
    for row in old, broken, cut:
        assert row["state"] == "unreadable"
        assert row["problem"]
        assert row.keys() == good.keys()
    monkeypatch.chdir(tmp_path)  # for short names in the table
    assert main(["runs", "."]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("unreadable") == 3
    assert "8/8 epochs" in printed.out
    assert printed.err.count("warning: ") == 3


def test_the_log_has_the_columns_that_were_measured(tmp_path):
    def write(**logs):
        log = Log(str(tmp_path / "log.csv"), append=True)
        log.on_train_begin()
        log.on_epoch_end(3, {"loss": 1.5, "accuracy": 0.5, **logs})
        log.on_train_end()
        return (tmp_path / "log.csv").read_text().splitlines()

    assert write() == ["epoch,accuracy,loss", "4,0.5,1.5"]
    (tmp_path / "log.csv").unlink()
    assert write(val_loss=2.0) == ["epoch,accuracy,loss,val_loss", "4,0.5,1.5,2.0"]
    # A log that Keras' own callback began, as earlier runs have it.
    (tmp_path / "log.csv").write_text(
        "epoch,accuracy,loss,val_accuracy,val_loss\n3,0.4,1.6,NA,NA\n"
    )
    write()
    assert Run(tmp_path).rows() == [
        {"epoch": "3", "accuracy": "0.4", "loss": "1.6"},
        {"epoch": "4", "accuracy": "0.5", "loss": "1.5"},
    ]
    assert len(list(csv.reader((tmp_path / "log.csv").open()))) == 3

"""Photographs with several labels: from a CSV file to sigmoids, their scores and their answers."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.recipes import evaluate, load_config, load_dataset, train
from keras_resnet.recipes.configs.schema import AugmentConfig
from keras_resnet.recipes.data.batches import training_batches
from keras_resnet.recipes.data.decoded import Split
from keras_resnet.recipes.data.labels import described
from keras_resnet.recipes.runs import outcomes, report, scores
from keras_resnet.recipes.training import transfer
from keras_resnet.recipes.training.loop import Loop

NAMES = ("blue", "green", "red")
SETTINGS = {
    "data.image_size": 32,
    "data.validation_share": 0.2,
    "train.batch_size": 16,
    "train.epochs": 5,
    "optimizer.learning_rate": 0.02,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Grey images with a red, a green and a blue patch, each with a chance of one in two."""
    folder, rng = tmp_path_factory.mktemp("patches"), np.random.default_rng(0)
    rows = [["file", "labels"]]
    for place in range(200):
        pixels = np.full((40, 40, 3), 100, "uint8") + rng.integers(0, 20, (40, 40, 1), "uint8")
        has = rng.random(3) < 0.5
        for number in np.flatnonzero(has):
            top, left = rng.integers(4, 22, 2)
            pixels[top : top + 14, left : left + 14] = [0, 0, 0]
            pixels[top : top + 14, left : left + 14, 2 - number] = 255
        Image.fromarray(pixels).save(folder / f"{place}.png")
        rows.append([f"{place}.png", "|".join(np.array(NAMES)[has])])
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    settings = {**SETTINGS, "data.name": str(table)}
    return train.run(load_config("debug/tiny", settings), tmp_path_factory.mktemp("runs") / "tags")


# Scores -------------------------------------------------------------------------------------------


def _answers(n=400, classes=6):
    """Labels and logits that know something of them; the last class has no image."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n, classes)) < [0.5, 0.3, 0.1, 0.05, 0.5, 0]).astype("uint8")
    logits = rng.normal(0, 2, (n, classes)) + 2 * labels - [0, 0, 3, 3, -4, 0]
    return labels, logits.astype("float32")


def test_the_mean_average_precision_is_scikit_learns():
    labels, logits = _answers()
    metric = scores.AveragePrecision(6)
    for part in range(0, 400, 100):
        rows = slice(part, part + 100)
        metric.update_state(labels[rows], logits[rows])
    expected = np.mean([average_precision_score(labels[:, k], logits[:, k]) for k in range(5)])
    # Keras joins the points of the curve, scikit-learn takes steps: about 1 / (images of a class).
    assert float(metric.result()) == pytest.approx(expected, abs=0.01)
    assert 0.4 < expected < 0.9
    metric.reset_state()
    assert float(metric.result()) == 0
    metric.update_state(labels, -logits, np.zeros(400))  # padding
    metric.update_state(labels, 10 * labels.astype("float32") - 5, np.ones(400))
    assert float(metric.result()) == pytest.approx(1, abs=1e-6)


def test_the_scores_of_labels_are_scikit_learns():
    labels, logits = _answers()
    guesses = (logits > 0).astype("uint8")
    found = scores.per_class(labels, guesses, 6)
    expected = precision_recall_fscore_support(labels, guesses, zero_division=0)
    for ours, theirs in zip((found.precision, found.recall, found.f1), expected[:3], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)  # the same quotients of integers
    assert found.n.tolist() == expected[3].tolist()
    none = scores.per_class(0 * labels, guesses, 6)
    assert none.macro() == {"precision": 0, "recall": 0, "f1": 0}


def test_which_score_decides():
    assert scores.deciding({"accuracy": 1}) == "accuracy"
    both = {"val_accuracy": "1", "val_mean_average_precision": "0.5"}
    assert scores.spoken(scores.deciding(both, "val_")) == "mean average precision"


def test_outcomes_of_several_labels_are_of_every_label():
    labels = np.array([[1, 0], [1, 1], [0, 0]])
    guesses = np.array([[1, 0], [0, 1], [0, 1]])
    confidences = np.array([[0.9, 0.8], [0.7, 0.6], [0.9, 0.95]])
    found = outcomes.Outcomes(labels, guesses, confidences, 2)
    assert found.accuracy == 4 / 6
    assert found.worst(5).tolist() == [5, 2]  # class 1 of image 2, class 0 of image 1
    assert found.examples(0, 5).tolist() == [0, 1]
    assert found.reliability().counts.sum() == 6
    assert [report._caption(found, *divmod(place, 2), ("cat", "dog")) for place in (5, 2)] == [
        "dog 95 %, which is no label of it",
        "cat (true) → no 70 %",
    ]


# Training -----------------------------------------------------------------------------------------


def test_a_step_is_that_of_binary_cross_entropy():
    labels = np.array([[1, 0, 1], [0, 0, 0]], "uint8")
    inputs = keras.layers.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    model.layers[-1].set_weights([np.zeros((48, 3)), np.array([2.0, -1.0, 0.5])])
    loop = Loop(
        tf.distribute.get_strategy(),
        model,
        keras.optimizers.SGD(1.0),
        batch_size=2,
        loss="binary_cross_entropy",
        multi_label=True,
    )
    batches = tf.data.Dataset.from_tensors((np.zeros((2, 4, 4, 3), "uint8"), labels))
    before = model.layers[-1].bias.numpy()
    measured = loop.evaluate(Split(np.zeros((2, 4, 4, 3), "uint8"), labels))
    loop.train_step(loop.distribute(batches))
    probabilities = 1 / (1 + np.exp(-before))
    expected = keras.losses.binary_crossentropy(labels.astype("float32"), [probabilities] * 2)
    assert loop.metrics()["loss"] == pytest.approx(float(np.mean(expected)), rel=1e-5)
    assert loop.metrics()["accuracy"] == pytest.approx(4 / 6)
    assert measured["loss"] == pytest.approx(loop.metrics()["loss"], rel=1e-6)
    assert measured["accuracy"] == loop.metrics()["accuracy"]
    gradient = (probabilities - labels).mean(0) / 3
    np.testing.assert_allclose(model.layers[-1].bias, before - gradient, rtol=1e-5)


@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.4}, {"cutmix": 1.0}])
def test_labels_are_targets_and_are_mixed(mixed):
    labels = np.random.default_rng(0).integers(0, 2, (64, 3)).astype("uint8")
    images = np.zeros((64, 8, 8, 3), "uint8")
    images[:, :, :, 0] = np.arange(64)[:, None, None]
    augment = AugmentConfig(crop="none", flip="none", **mixed)
    batches = training_batches(Split(images, labels), 64, 0, augment, classes=3)
    pixels, found = next(batches.as_numpy_iterator())
    if not mixed:
        np.testing.assert_array_equal(found, labels[pixels[:, 0, 0, 0]])
        return
    assert found.dtype == "float32"
    # Every target is between those of two images, so the sum over the batch is unchanged.
    np.testing.assert_allclose(found.sum(0), labels.sum(0), rtol=1e-5)
    assert 0 < np.mean((found > 0) & (found < 1)) < 1


def test_the_run_learns_and_its_model_ends_in_sigmoids(run, table):
    summary, rows = run.summary(), run.rows()
    assert run.config.train.loss == "binary_cross_entropy"  # without being asked for
    assert summary["test"]["mean_average_precision"] > 0.9
    assert summary["test"]["macro"]["f1"] > 0.8
    assert "top5" not in summary["test"]
    validation = [float(row["val_mean_average_precision"]) for row in rows]
    assert summary["validation"] == {
        "mean_average_precision": pytest.approx(max(validation), abs=1e-6),
        "n": 32,
    }
    last = max(epoch for epoch, value in enumerate(validation, 1) if value == max(validation))
    assert summary["best_epoch"] == last
    model = run.keras_model()
    assert model.layers[-1].activation is keras.activations.sigmoid
    test = load_dataset(str(table), image_size=32).test
    again = evaluate.measure_model(model, test)
    assert again == summary["test"]
    sample = test.sample(len(test))
    probabilities = model.predict(sample.images, verbose=0)
    by_keras = keras.metrics.BinaryAccuracy()(sample.labels, probabilities)
    assert again["accuracy"] == pytest.approx(float(by_keras), abs=1e-6)
    loss = keras.losses.BinaryCrossentropy()(sample.labels.astype("float32"), probabilities)
    assert again["loss"] == pytest.approx(float(loss), rel=1e-4)


def test_the_run_is_shown_with_its_score(run, capsys):
    assert "test mean average precision " in repr(run)
    assert main(["runs", str(run.path.parent), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert row["score"] == "mean average precision"
    assert row["test"] == run.summary()["test"]["mean_average_precision"]
    assert "measured mean average precision" in run.origin()


def test_the_command_evaluates_every_label(run, capsys):
    assert main(["evaluate", str(run.path), "--flip"]) == 0
    printed = capsys.readouterr().out
    assert "mean AP" in printed
    assert "of every label of every image" in printed
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == list(NAMES)
    assert lines[-4].split() == ["label", "precision", "recall", "F1", "images"]


def test_the_command_predicts_every_label_above_one_half(run, table, tmp_path, capsys):
    folder, out = table.parent, tmp_path / "answers.csv"
    labels = dict(row for row in csv.reader(table.open()) if row[0] != "file")
    names = [name for name, found in labels.items() if found.count("|") == 1][:20]
    names += [name for name, found in labels.items() if not found][:5]
    files = [str(folder / name) for name in names]
    (tmp_path / "bad.png").write_text("no image")
    assert (
        main(["predict", str(run.path), *files, str(tmp_path / "bad.png"), "--out", str(out)]) == 2
    )
    capsys.readouterr()
    header, *rows = csv.reader(out.open())
    assert header == ["image", "labels", *NAMES, "error"]
    assert len(rows) == 26
    assert rows[-1][1:-1] == [""] * 4
    assert "bad.png" in rows[-1][-1]
    for row in rows[:-1]:
        above = {name for name, text in zip(NAMES, row[2:5], strict=True) if float(text) > 0.5}
        assert set(filter(None, row[1].split("|"))) == above
    found = [set(row[1].split("|")) for row in rows[:-1]]
    right = [set(labels[name].split("|")) == tags for name, tags in zip(names, found, strict=True)]
    assert np.mean(right) > 0.6
    lines = tmp_path / "answers.jsonl"
    assert main(["predict", str(run.path), *files[:2], "--out", str(lines), "--json"]) == 0
    first = json.loads(lines.read_text().splitlines()[0])
    assert set(first["probabilities"]) == set(NAMES)
    assert [entry["label"] for entry in first["top"]] == sorted(
        filter(None, rows[0][1].split("|")), key=lambda name: -first["probabilities"][name]
    )
    counted = json.loads(capsys.readouterr().out)["labels"]
    assert set(counted) <= {*NAMES, "no label"}
    assert main(["predict", str(run.path), files[0], files[-1]]) == 0
    assert "no label (nearest: " in capsys.readouterr().out


def test_the_report_has_scores_and_no_confusions(run, tmp_path, capsys):
    page = report.write(run, tmp_path / "page.html").read_text()
    assert "so no label is taken for another one" in page
    assert "test mean average precision" in page
    assert "mean of the classes" in page
    test = run.summary()["test"]
    assert f"{test['mean_average_precision']:.2%}" in page


def test_the_int8_file_is_checked_on_every_label(run, tmp_path, capsys):
    out = str(tmp_path / "exports")
    formats = "tflite-float32,tflite-int8"
    assert main(["export", str(run.path), "--formats", formats, "--out", out, "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["output"]["activation"] == "sigmoid"
    float32, int8 = manifest["files"]
    exact = run.summary()["test"]
    assert float32["accuracy"] == pytest.approx(exact["accuracy"], abs=1e-6)
    assert int8["accuracy"] == pytest.approx(exact["accuracy"], abs=0.05)
    assert (
        main(["evaluate", f"{out}/{int8['file']}", "--data", run.config.data.name, "--json"]) == 0
    )
    measured = json.loads(capsys.readouterr().out)
    assert measured["mean_average_precision"] == pytest.approx(
        exact["mean_average_precision"], abs=0.03
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", [["qat"], ["prune-filters", "--keep", "0.7"]])
def test_a_run_with_several_labels_is_compressed(run, table, tmp_path, command, capsys):
    verb, *options = command
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    settings += ["--set=train.epochs=2", f"--data={table}", f"--out={tmp_path / 'run'}"]
    assert main([verb, str(run.path), *options, *settings, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["test"]["mean_average_precision"] > 0.9
    assert (
        keras.models.load_model(tmp_path / "run" / "model.keras").layers[-1].name == "predictions"
    )


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.balanced": True}, "data.balanced is for images with one label each"),
        ({"train.class_weights": True}, "Leave it out: --set train.class_weights=false"),
        ({"distill.teacher": "the run"}, "distill.teacher is for images with one label each"),
    ],
)
def test_what_is_for_one_label_is_refused(run, table, tmp_path, settings, message):
    if "distill.teacher" in settings:
        settings = {"distill.teacher": str(run.path)}
    given = {**SETTINGS, "data.name": str(table), **settings}
    with pytest.raises(UserError, match=message):
        train.run(load_config("debug/tiny", given), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_softmax_keeps_no_head_for_several_labels(run, table):
    softmax = keras_resnet.ResNet20(weights=None, include_preprocessing=True)
    with pytest.raises(UserError, match="ends in a softmax and keeps it, but the data has any"):
        transfer.require_classes(softmax, 10, multi_label=True)
    transfer.require_classes(run.keras_model(), 3, multi_label=True)
    test = load_dataset(str(table), image_size=32).test
    with pytest.raises(
        UserError, match=r"has 3 labels.* The model has 10 classes and ends in soft"
    ):
        evaluate.measure_model(softmax, test)
    options = {"classes": 5, "classifier_activation": "sigmoid", "include_preprocessing": True}
    other = keras_resnet.ResNet20(weights=None, **options)
    with pytest.raises(UserError, match=r"The model has 5 classes\. Evaluate a model with"):
        evaluate.measure_model(other, test)


def test_labels_are_shown_by_name(table):
    data = load_dataset(str(table), image_size=32)
    assert described(np.array([1, 0, 1]), NAMES) == "blue, red"
    assert described(np.array([0, 0, 0]), NAMES) == "no label"
    assert described(np.int32(2), ()) == "2"
    shown = data._repr_html_()
    assert any(f"<figcaption>{text}" in shown for text in (*NAMES, "no label"))

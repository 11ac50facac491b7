"""`keras_resnet.analysis.insight`: each measure against the same by hand."""

import importlib.metadata
import itertools
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, randomize_batch_norms

import keras_resnet
from keras_resnet.analysis import insight
from keras_resnet.errors import UserError

UNITS = ["stage1_block1", "stage2_block1", "stage2_block2"]


def network(name, **arguments):
    keras.utils.set_random_seed(0)
    return randomize_batch_norms(keras_resnet.create_model(name, **arguments))


@pytest.fixture(scope="module")
def small():
    return network("test_resnet")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 12)


@pytest.mark.parametrize(
    ("name", "layer"), [("test_resnet", "stage2_block1_bn2"), ("test_resnetv2", None)]
)
def test_responses_are_behind_bn_or_the_convolutions_own(name, layer, data):
    model, conv = network(name), "stage2_block1_conv2"
    deviations = insight.response_deviations(model, data[0])
    convs = [x.name for x in model.layers if "conv" in x.name and "shortcut" not in x.name]
    assert list(deviations) == convs
    responses = keras.Model(model.input, model.get_layer(layer or conv).output)(data[0])
    assert deviations[conv] == pytest.approx(np.std(responses), rel=1e-5)  # float32


def test_gradient_norms_are_the_first_steps(small, data):
    before = small.get_weights()
    norms = insight.gradient_norms(small, *data)
    for old, new in zip(before, small.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    copy = keras.models.clone_model(small)
    copy.set_weights(before)
    kernel = copy.get_layer("stage1_block1_conv1").kernel
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy()(data[1], copy(data[0], training=True))
    expected = np.linalg.norm(tape.gradient(loss, kernel.value))
    # Sums in another order, through BN's division by the batch's deviation.
    assert norms["stage1_block1_conv1"] == pytest.approx(expected, rel=1e-4)


def test_a_deleted_unit_is_one_whose_last_bn_gives_zero(data):
    """With the labels that the whole network gives, made to differ from image to image."""
    images, model = data[0], network("test_resnet")
    head = model.get_layer("head")
    logits = keras.Model(model.input, head.output).predict(images, verbose=0)
    kernel, bias = head.get_weights()
    head.set_weights([kernel, bias - logits.mean(0)])
    labels = model.predict(images, verbose=0).argmax(-1)
    accuracies = insight.deletion_accuracies(model, images, labels)
    assert list(accuracies) == ["", *UNITS]
    assert accuracies[""] == 1
    zeroed = keras.models.clone_model(model)
    for unit in UNITS:
        zeroed.set_weights(model.get_weights())
        last = zeroed.get_layer(f"{unit}_bn2")
        last.set_weights([0 * w if i < 2 else w for i, w in enumerate(last.get_weights())])
        hits = zeroed.predict(images, verbose=0).argmax(-1) == labels
        assert accuracies[unit] == pytest.approx(hits.mean())
    assert min(accuracies.values()) < 1


def test_the_gradient_is_the_sum_over_all_paths(small, data):
    """Each path through F or shortcut of every unit (arXiv:1605.06431, eq. 6), 2³ of them."""
    images, labels = tf.constant(data[0]), data[1]
    switched = insight.Switched(small)

    def gradient(model):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = keras.losses.sparse_categorical_crossentropy(labels, model(images))
        return np.asarray(tape.gradient(loss, images))

    whole = gradient(small)
    np.testing.assert_allclose(gradient(switched.model), whole, atol=1e-6 * np.abs(whole).max())
    total = np.zeros_like(whole)
    for choice in itertools.product((0.0, 1.0), repeat=3):
        for through_f, switch in zip(choice, switched.units.values(), strict=True):
            switch.through_f.assign(through_f)
            switch.through_h.assign(1 - through_f)
        total += gradient(switched.model)
    # Eight float32 terms, some larger than their sum.
    np.testing.assert_allclose(total, whole, atol=1e-5 * np.abs(whole).max())


def test_path_lengths_are_binomial_and_contributions_a_distribution(small, data):
    rows = insight.path_lengths(small, *data, samples=2)
    assert [row.length for row in rows] == [0, 1, 2, 3]
    assert [row.share for row in rows] == [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    assert sum(row.contribution for row in rows) == pytest.approx(1)
    weighed = [row.share * row.gradient for row in rows]
    assert rows[1].contribution == pytest.approx(weighed[1] / sum(weighed))
    again = insight.path_lengths(small, *data, samples=2)
    assert [row.gradient for row in again] == [row.gradient for row in rows]


def test_shortcut_gains_are_the_product_of_the_lambdas(data):
    """arXiv:1603.05027, eq. 3 to 8: 1 for identities, powers of λ for λ = 0.5."""
    identity = insight.shortcut_gains(network("resnetv2_20"), data[0])
    units = list(identity)
    assert units == [f"stage{s}_block{b}" for s in (1, 2, 3) for b in (1, 2, 3)]
    for index, unit in enumerate(units):
        signal, gradient = identity[unit]
        assert gradient == 1  # nothing is computed on the way
        if index < 3:  # before three of four pixels are dropped
            assert signal == 1
    halved = insight.shortcut_gains(network("resnet20_constant_scaling"), data[0])
    for index, unit in enumerate(units):
        signal, gradient = halved[unit]
        assert gradient == pytest.approx(0.5 ** (8 - index))
        if index < 3:
            assert signal == pytest.approx(0.5**index)


def test_networks_without_units_are_refused(data):
    plain, foreign = (
        network("plain20"),
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
    )
    for function in (insight.deletion_accuracies, insight.path_lengths):
        with pytest.raises(UserError, match="'plain20' has no units that add two paths"):
            function(plain, *data)
    with pytest.raises(UserError, match="no layers with names such as 'stage1_block1_conv1'"):
        insight.response_deviations(foreign, data[0])
    with pytest.raises(UserError, match="no layers with names such as 'stage1_block1_conv1'"):
        insight.gradient_norms(foreign, *data)


def test_arrays_that_do_not_fit_are_refused(small, data):
    images, labels = data
    for function in (insight.gradient_norms, insight.deletion_accuracies, insight.path_lengths):
        with pytest.raises(UserError, match=r"images must be \(n, 32, 32, 3\) with n of 1 or more"):
            function(small, images[:, :16], labels)
        with pytest.raises(UserError, match=r"labels from 0 to 9, one per image; received"):
            function(small, images, labels + 10)
        with pytest.raises(UserError, match="labels from 0 to"):
            function(small, images, labels[:0])
    for function in (insight.response_deviations, insight.shortcut_gains):
        with pytest.raises(UserError, match=r"received \(0, 32, 32, 3\)"):
            function(small, images[:0])
    with pytest.raises(UserError, match="samples must be 1 or more"):
        insight.path_lengths(small, images, labels, samples=0)


def test_the_pictures_come_from_the_record(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    docs = ROOT / "docs" / "insight"
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    drawing = importlib.import_module("insight")
    values = json.loads((ROOT / "benchmarks" / "results" / "insight.json").read_text())
    drawing.draw(values, tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(drawing.PICTURES)
    pinned = re.search(r"^matplotlib==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if importlib.metadata.version("matplotlib") != pinned[1]:
        pytest.skip(f"only matplotlib {pinned[1]} draws the same paths")
    for name in drawing.PICTURES:
        shown, drawn = (_paths(folder / f"{name}.svg") for folder in (docs, tmp_path))
        assert [words for words, _ in shown] == [words for words, _ in drawn]
        for (_, old), (_, new) in zip(shown, drawn, strict=True):
            # Points of a page of 500 and more, written with six decimals.
            np.testing.assert_allclose(old, new, atol=1e-4)


def test_the_figures_of_the_page_are_those_of_the_record():
    record = json.loads((ROOT / "benchmarks" / "results" / "insight.json").read_text())
    page = " ".join((ROOT / "docs" / "insight.md").read_text().split())
    responses = {name: list(layers.values()) for name, layers in record["responses"].items()}
    mean = {name: f"{np.mean(values):.2f}" for name, values in responses.items()}
    pairs = list(zip(responses["resnet56"], responses["plain56"], strict=True))
    smaller = sum(residual < plain for residual, plain in pairs)
    assert f"(mean {mean['resnet56']} in ResNet-56, {mean['resnet20']} in ResNet-20)" in page
    assert f"(mean {mean['plain56']}; in {smaller} of {len(pairs)} layers)" in page
    assert f"not smaller than the plain net's ({mean['plain20']})" in page
    accuracies = record["deletion"]["resnet56"]
    costs = {unit: 100 * (accuracies[""] - a) for unit, a in accuracies.items() if unit}
    worst = max(costs, key=costs.get)
    cheap = sum(cost < 6 for cost in costs.values())
    units = f"ResNet-56 has {len(costs)} units. Without one of {cheap} of them, the accuracy falls"
    assert f"{units} by less than 6 points" in page
    assert f"by {costs[worst]:.1f} points, without the first unit of the third stage" in page
    assert worst == "stage3_block1"
    share = sum(p["contribution"] for p in record["paths"]["resnet56"] if 4 <= p["length"] <= 10)
    assert "paths of 4 to 10 F carry nine tenths" in page
    assert round(share, 1) == 0.9
    gains = list(record["shortcuts"]["0.5 · x"].values())
    assert "λ = 0.5 leaves 0.5²⁶ of the gradient" in page
    assert gains[0][1] == pytest.approx(0.5**26, rel=1e-4)
    count = record["images"]
    assert f"{count['deletion']:,} test images for deleted units and responses" in page
    assert f"{count['gradients']} for gradients and paths, {count['shortcuts']} for signals" in page
    assert (count["responses"], count["paths"]) == (count["deletion"], count["gradients"])


def _paths(picture):
    """The commands and the coordinates of each path of an SVG, and its texts."""
    drawn = picture.read_text()
    found = re.findall(r'\bd="([^"]+)"|>([^<>]+)</text>', drawn)
    found = [path or text for path, text in found]
    assert len(found) > 20
    numbers = r"-?\d+(?:\.\d+)?"
    return [(re.sub(numbers, "", d), [float(x) for x in re.findall(numbers, d)]) for d in found]

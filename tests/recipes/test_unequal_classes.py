"""Classes with few images: held out in shares, shown equally often, or weighed in the loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from keras_resnet.errors import UserError
from keras_resnet.recipes import load_config, load_dataset, train
from keras_resnet.recipes.configs.schema import AugmentConfig
from keras_resnet.recipes.data.batches import training_batches
from keras_resnet.recipes.data.datasets import configured_dataset
from keras_resnet.recipes.data.decoded import Split
from keras_resnet.recipes.training.job import class_weights
from keras_resnet.recipes.training.loop import Loop

COUNTS = {"ant": 20, "bee": 5, "cow": 2, "dog": 1}
PLAIN = AugmentConfig(crop="none", flip="none")


def _write(folder, counts):
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (40, 40, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("uneven")
    _write(path / "train", COUNTS)
    _write(path / "val", dict.fromkeys(COUNTS, 1))
    return str(path)


@pytest.fixture(scope="module")
def split():
    """100 images of which the first pixel is the place: 80, 15 and 5 of three classes."""
    labels = np.repeat([0, 1, 2], [80, 15, 5]).astype("int32")
    images = np.zeros((100, 4, 4, 3), "uint8")
    images[:, 0, 0, 0] = np.arange(100)
    return Split(images, labels)


# Validation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "held"), [(0.1, [2, 1, 1, 0]), (0.4, [8, 2, 1, 0]), (0.99, [19, 4, 1, 0])]
)
def test_a_share_of_every_class_is_held_out(folder, share, held):
    data = load_dataset(folder, image_size=32, validation_share=share)
    assert np.bincount(data.validation.labels, minlength=4).tolist() == held
    kept = np.bincount(data.train.labels, minlength=4)
    assert (kept + held).tolist() == list(COUNTS.values())
    assert not set(data.train.identities) & set(data.validation.identities)


def test_the_share_is_the_same_each_time_and_another_with_another_seed(folder):
    first, again = (load_dataset(folder, image_size=32, validation_share=0.4) for _ in range(2))
    other = load_dataset(folder, image_size=32, validation_share=0.4, split_seed=1)
    assert set(first.validation.identities) == set(again.validation.identities)
    assert set(first.validation.identities) != set(other.validation.identities)


def test_a_share_replaces_a_number_and_a_number_that_is_set_the_share(tmp_path):
    table = tmp_path / "mine.toml"
    table.write_text('model = "resnet8"\n[train]\nepochs = 1\n[data]\nvalidation_share = 0.1\n')
    assert load_config(table).data.validation_share == 0.1
    number = load_config(table, {"data.validation": 150}).data
    assert (number.validation, number.validation_share) == (150, 0.0)
    share = load_config("debug/tiny", {"data.validation_share": 0.1})
    counts = np.bincount(load_dataset("digits").train.labels)
    held = np.bincount(configured_dataset(share.data).validation.labels)
    assert held.tolist() == [round(0.1 * count) for count in counts]


# Sampling -----------------------------------------------------------------------------------------


def _shown(split, epochs, start_step=0, **options):
    """The places that batches of 10 show, a row for each step."""
    batches = training_batches(split, 10, 0, PLAIN, start_step, **options)
    steps = batches.take(10 * epochs - start_step).as_numpy_iterator()
    return np.array([images[:, 0, 0, 0] for images, _ in steps])


def test_balanced_batches_show_every_class_equally_often(split):
    first, second = _shown(split, 2, balanced=True).reshape(2, 100)
    for places in (first, second):
        counts = np.bincount(split.labels[places])
        assert counts.min() >= 33
        assert counts.max() <= 34
        repeats = np.bincount(places, minlength=100)
        assert repeats[:80].max() == 1  # a large class shows an image once at most
        assert set(repeats[80:95]) == {2, 3}  # 33 or 34 draws of 15 images
        assert set(repeats[95:]) <= {6, 7}
    assert set(first[first < 80]) != set(second[second < 80])


def test_balanced_batches_are_a_function_of_the_step(split):
    whole = _shown(split, 2, balanced=True)
    np.testing.assert_array_equal(_shown(split, 2, start_step=13, balanced=True), whole[13:])
    assert not np.array_equal(whole, _shown(split, 2))


# Weights ------------------------------------------------------------------------------------------


def test_class_weights_are_scikit_learns():
    labels = np.repeat([0, 1, 3], [80, 15, 5])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(class_weights(labels, 4)[[0, 1, 3]], expected, rtol=1e-6)
    assert class_weights(labels, 4)[labels].mean() == pytest.approx(1, abs=1e-6)


def _moved(weights, labels):
    """How far a step on images of these classes moves the classifier's bias."""
    inputs = keras.layers.Input((4, 4, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, kernel_initializer="zeros")(x))
    model.compile(keras.optimizers.SGD(1.0), auto_scale_loss=False)
    strategy = tf.distribute.get_strategy()
    loop = Loop(strategy, model, model.optimizer, batch_size=2, class_weights=weights)
    images = np.zeros((2, 4, 4, 3), "uint8")
    batches = tf.data.Dataset.from_tensors((images, np.array(labels)))
    loop.train_step(loop.distribute(batches))
    return model.layers[-1].bias.numpy()


def test_the_loss_of_an_image_is_multiplied_by_the_weight_of_its_class():
    weights = np.array([0.0, 1.0, 2.5], "float32")
    plain = {label: _moved(None, np.array([label, label], "int32")) for label in range(3)}
    for label in range(3):
        found = _moved(weights, np.array([label, label], "int32"))
        np.testing.assert_allclose(found, weights[label] * plain[label], atol=1e-6)
    # An image that is mixed of two classes has the weight between theirs.
    mixed = np.array([[0, 0.5, 0.5]] * 2, "float32")
    np.testing.assert_allclose(_moved(weights, mixed), 1.75 * _moved(None, mixed), atol=1e-6)


@pytest.mark.parametrize(
    ("counts", "options", "warned"),
    [
        ({"ant": 12, "bee": 4}, {}, True),
        ({"ant": 11, "bee": 4}, {}, False),
        pytest.param({"ant": 12, "bee": 4}, {"data.balanced": True}, False, marks=pytest.mark.slow),
        pytest.param(
            {"ant": 12, "bee": 4}, {"train.class_weights": True}, False, marks=pytest.mark.slow
        ),
    ],
)
def test_unequal_classes_are_noticed(tmp_path, capsys, counts, options, warned):
    _write(tmp_path / "data" / "train", counts)
    _write(tmp_path / "data" / "val", dict.fromkeys(counts, 1))
    settings = {"data.name": str(tmp_path / "data"), "data.image_size": 32, "data.validation": 0}
    settings |= {"train.batch_size": 4, "train.epochs": 1, **options}
    train.run(load_config("debug/tiny", settings), tmp_path / "run")
    said = "classes are unequal: 'ant' has 12 training images, 'bee' 4." in capsys.readouterr().err
    assert said == warned


def test_both_corrections_at_once_are_refused():
    with pytest.raises(UserError, match="both correct for unequal classes"):
        load_config("debug/tiny", {"data.balanced": True, "train.class_weights": True})

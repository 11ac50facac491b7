"""Auxiliary classifiers: the loss-weight contract, the network without them, training."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import randomize_batch_norms

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.recipes import load_config, train
from keras_resnet.recipes.training import transfer
from keras_resnet.recipes.training.loop import Loop

WEIGHTS = {"predictions": 1.0, "aux1": 0.3, "aux2": 0.3}


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(0).normal(size=(6, 32, 32, 3)).astype("float32"), np.arange(6) % 3


def _model(**arguments):
    keras.utils.set_random_seed(0)
    model = keras_resnet.create_model("test_googlenet", auxiliary=True, classes=3, **arguments)
    return randomize_batch_norms(model)


def test_the_weights_are_the_published_ones():
    assert keras_resnet.loss_weights(_model(name="mine")) == WEIGHTS
    inception = keras_resnet.create_model(
        "test_inception", auxiliary=True, input_shape=(299, 299, 3)
    )
    assert keras_resnet.loss_weights(inception) == {"predictions": 1.0, "aux1": 0.4}
    assert keras_resnet.loss_weights(keras_resnet.create_model("test_resnet")) == {
        "predictions": 1.0
    }


def test_keras_trains_on_the_weighted_sum(batch):
    """The contract as `keras_resnet.loss_weights` has it, on logits, which have names as well."""
    images, labels = batch
    model = _model(classifier_activation=None)
    weights = keras_resnet.loss_weights(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = dict.fromkeys(weights, loss)
    model.compile("sgd", loss=losses, loss_weights=weights, run_eagerly=True)  # sooner than traced
    measured = model.evaluate(images, dict.fromkeys(weights, labels), verbose=0)[0]
    outputs = model(images)
    expected = sum(w * float(loss(labels, outputs[name])) for name, w in WEIGHTS.items())
    # float32 means of six numbers, twice.
    np.testing.assert_allclose(measured, expected, rtol=1e-5)
    before = model.get_layer("aux2_head").get_weights()[0]
    model.fit(images, dict.fromkeys(weights, labels), verbose=0)
    assert np.abs(model.get_layer("aux2_head").get_weights()[0] - before).max() > 0


@pytest.mark.parametrize("activation", ["softmax", None])
def test_the_inference_model_is_the_network_without_them(batch, activation, tmp_path):
    images, _ = batch
    model = _model(classifier_activation=activation)
    alone = keras_resnet.inference_model(model)
    plain = keras_resnet.create_model("test_googlenet", classes=3, classifier_activation=activation)
    assert [layer.name for layer in alone.layers] == [layer.name for layer in plain.layers]
    assert alone.name == plain.name == "test_googlenet"
    assert alone.get_layer("stem_conv1") is model.get_layer("stem_conv1")  # shared
    expected = model(images)["predictions"]
    alone.save(tmp_path / "m.keras")
    plain.set_weights(alone.get_weights())
    for same in (alone, plain, keras.models.load_model(tmp_path / "m.keras")):
        # One graph without dead branches and one with: the same float32 operations.
        np.testing.assert_allclose(same(images), expected, atol=1e-6)
    assert keras_resnet.inference_model(plain) is plain


def test_a_model_with_them_saves_and_loads(batch, tmp_path):
    images, _ = batch
    model = _model()
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert keras_resnet.loss_weights(loaded) == WEIGHTS
    expected, stock = model(images), keras_resnet.to_stock(loaded)(images)
    for name in WEIGHTS:
        # Fused against stock BN, of probabilities.
        np.testing.assert_allclose(stock[name], expected[name], atol=1e-5)


def test_what_is_no_such_model_is_refused():
    inputs = keras.layers.Input((4,), name="images")
    outputs = [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)]
    for function in (keras_resnet.loss_weights, keras_resnet.inference_model):
        with pytest.raises(UserError, match=r"auxiliary=True.*2 outputs without names"):
            function(keras.Model(inputs, outputs))
        with pytest.raises(UserError, match=r"has \['a', 'b'\]"):
            function(keras.Model(inputs, dict(zip("ab", outputs, strict=True))))
    with pytest.raises(UserError, match=r"keras_resnet.inference_model\(model\)"):
        KerasRuntime(_model())
    with pytest.raises(UserError, match="Unknown option 'auxiliary'"):
        keras_resnet.create_model("resnet20", auxiliary=True)


def test_the_papers_heads_need_a_size():
    options = {"auxiliary": True, "input_shape": (None, None, 3)}
    with pytest.raises(UserError, match="Give an input_shape without None"):
        keras_resnet.create_model("test_googlenet", auxiliary_pool="strided", **options)
    assert keras_resnet.create_model("test_googlenet", **options).input_shape == (
        None,
        None,
        None,
        3,
    )


# Recipes ------------------------------------------------------------------------------------------


def test_a_step_of_the_loop_is_on_the_weighted_sum():
    keras.utils.set_random_seed(0)
    options = {"auxiliary_dropout": 0.0, "dropout": 0.0}  # nothing drawn
    model = _model(classifier_activation=None, include_preprocessing=True, **options)
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype("uint8")
    labels = np.arange(6) % 3
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        losses = {
            name: keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            for name, logits in outputs.items()
        }
        loss = sum(w * tf.reduce_mean(losses[name]) for name, w in WEIGHTS.items())
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    expected = [
        v.numpy() - 0.1 * g for v, g in zip(model.trainable_variables, gradients, strict=True)
    ]
    loop = Loop(tf.distribute.get_strategy(), model, keras.optimizers.SGD(0.1), batch_size=6)
    data = tf.data.Dataset.from_tensors((images, labels.astype("int32")))
    tf.config.run_functions_eagerly(True)  # sooner than traced; a run below traces
    try:
        loop.train_step(loop.distribute(data))
    finally:
        tf.config.run_functions_eagerly(False)
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        # float32 gradients through 20 layers with BN, summed in another order.
        np.testing.assert_allclose(variable.numpy(), value, atol=1e-4)
    np.testing.assert_allclose(loop.metrics()["loss"], float(loss), rtol=1e-5)
    hits = np.argmax(outputs["predictions"], -1) == labels
    assert loop.metrics()["accuracy"] == pytest.approx(hits.mean())


def _config(**changes):
    small = {"data.image_size": 32, "train.epochs": 1, "network.auxiliary": True}
    return load_config("debug/tiny", {"model": "test_googlenet", **small, **changes})


@pytest.mark.slow
def test_a_run_trains_them_and_saves_the_network_without(tmp_path):
    run = train.run(_config(), tmp_path / "run")
    model = keras.models.load_model(run.model)
    assert model.output_shape == (None, 10)
    assert not [layer.name for layer in model.layers if layer.name.startswith("aux")]
    assert run.summary()["parameters"] == keras_resnet.create_model("test_googlenet").count_params()
    # Its loss is of three classifiers in training and of one in evaluation: at the start 1.6 × and
    # 1 × ln 10, which an epoch of 11 steps does not turn around.
    (row,) = run.rows()
    assert float(row["loss"]) > 1.2 * float(row["val_loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet8"}, "Unknown option 'auxiliary'"),
        ({"model": "inception_v3", "data.image_size": 75}, "299×299 pixels or more"),
        (
            {"train.sizes": (16, 32), "train.size_boundaries": (0.5,)},
            "network.auxiliary and train.sizes cannot be combined",
        ),
    ],
)
def test_a_run_that_cannot_is_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train.run(_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fine_tuning_starts_from_the_network_without(batch):
    start = _model(include_preprocessing=True)
    adapted = transfer.adapt(start, (32, 32, 3), 5)
    assert adapted.output_shape == (None, 5)
    assert not [layer.name for layer in adapted.layers if layer.name.startswith("aux")]
    with pytest.raises(UserError, match="this training starts from a trained network"):
        train.run(_config(), "unused", start=start)

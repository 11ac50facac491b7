"""Filter pruning: what goes together, that removing is exact, and the run that trains on."""

import json

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms, run_python
from keras import layers

import keras_resnet
from keras_resnet.analysis.profile import profile
from keras_resnet.cli.main import main
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.layers import to_stock
from keras_resnet.recipes import compress, prune_filters, train
from keras_resnet.recipes.compression.channels import Channels
from keras_resnet.recipes.compression.filters import CRITERIA, choose
from keras_resnet.recipes.configs import schema
from keras_resnet.recipes.runs import sources

# One of each way in which layers share channels: option A, projections, pre-activation (its stage
# too), SE with groups and an average pool in the shortcut, bottlenecks, none, concatenation, gates,
# a head behind Flatten.
NETWORKS = (
    *("resnet20", "test_resnet", "test_resnetv2", "test_seresnextd"),
    *("test_densenet", "test_vgg", "test_highway", "separable"),
)
MORE = ("resnet20_b", "resnetv2_20", "seresnet20", "plain20", "test_googlenet", "test_inception")


def _network(name):
    keras.utils.set_random_seed(1)
    options = {"include_preprocessing": True, "classifier_activation": None}
    return randomize_batch_norms(keras_resnet.create_model(name, **options))


def _separable():
    """A user's own: depthwise convolutions, a Reshape, PReLU, a product that is broadcast."""
    keras.utils.set_random_seed(2)
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(12, 3, padding="same", bias_initializer="random_normal")(image)
    x = layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_normal")(x)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    y = layers.Conv2D(12, 1, activation="relu")(y)
    where = layers.Conv2D(1, 1, activation="sigmoid")(x)
    x = layers.Multiply()([layers.Add()([x, y]), where])
    gate = layers.Dense(12, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 12))(gate)])
    x = layers.Flatten()(layers.MaxPooling2D(8)(x))
    return keras.Model(image, layers.Dense(5)(layers.Dense(16, activation="relu")(x)))


def _with_zeros(channels, kept):
    """The whole network with what makes, and what shifts, a removed channel at zero."""
    model = keras.models.clone_model(channels.model)
    model.set_weights(channels.model.get_weights())
    for step in channels.graph.steps:
        mask = kept[channels.of[step.outputs[0]]]
        layer = model.get_layer(step.operation.name)
        weights = layer.get_weights()
        if isinstance(layer, (layers.Conv2D, layers.Dense, layers.BatchNormalization)):
            changed = weights[:2]  # kernel and bias, or gamma and beta
            layer.set_weights([*(w * mask for w in changed), *weights[2:]])
        elif isinstance(layer, layers.DepthwiseConv2D):
            kernel, bias = weights
            layer.set_weights([kernel * mask.reshape(kernel.shape[2:]), bias * mask])
    return model


@pytest.mark.parametrize(
    "name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_the_smaller_network_computes_what_the_zeroed_one_does(name):
    """To rounding: sums over fewer terms are added up in another order."""
    model = _separable() if name == "separable" else _network(name)
    channels = Channels(model)
    kept = choose(channels, 0.5, least=1)
    smaller = channels.without(kept)
    height, width, colours = model.input_shape[1:]
    images = (
        np.random.default_rng(3).integers(0, 256, (4, height, width, colours)).astype("float32")
    )
    expected = _with_zeros(channels, kept)(images).numpy()
    assert not np.allclose(expected, model(images).numpy(), rtol=1e-2)  # much is gone
    found = smaller(images).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    counts = [profile(m).total for m in (model, smaller)]
    assert counts[1].multiply_adds == channels.multiply_adds(kept)
    assert 0.35 * counts[0].multiply_adds < counts[1].multiply_adds <= 0.5 * counts[0].multiply_adds
    assert smaller.count_params() == counts[1].parameters < 0.75 * counts[0].parameters
    assert smaller.input_shape == model.input_shape
    assert smaller.output_shape == model.output_shape


def test_filters_that_do_nothing_go_first_and_the_logits_stay():
    """Half of every family is zero, so half of every family is what the target asks for."""
    channels = Channels(_network("resnet20"))
    rng = np.random.default_rng(0)
    halves = [rng.permutation(family.roots)[::2] for family in channels.families()]
    kept = channels.mask(np.concatenate(halves))
    model = _with_zeros(channels, kept)
    share = channels.multiply_adds(kept) / profile(model).total.multiply_adds
    images = rng.integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    expected = model(images).numpy()
    for criterion in CRITERIA:
        found = prune_filters(model, share, criterion=criterion)(images).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_option_a_ties_the_channels_that_it_shifts():
    """16 channels run through all stages, 16 more through two (8 padded on each side), then 32."""
    channels = Channels(_network("resnet20"))
    by_layer = {
        s.operation.name: channels.roots[channels.of[s.outputs[0]]] for s in channels.graph.steps
    }
    first, second, third = (by_layer[f"stage{n}_block3_add"] for n in (1, 2, 3))
    np.testing.assert_array_equal(by_layer["stem_conv"], first)
    np.testing.assert_array_equal(second[8:24], first)
    np.testing.assert_array_equal(third[16:48], second)
    assert len({*third.tolist()}) == 64
    sizes = sorted(family.size for family in channels.families())
    assert sizes == sorted([16, 16, 32] + [16] * 3 + [32] * 3 + [64] * 3)


def test_groups_go_as_a_whole():
    channels = Channels(_network("test_seresnextd"))
    kept = choose(channels, 0.5, least=1)
    smaller = channels.without(kept)
    grouped = [x for x in channels.model.layers if getattr(x, "groups", 1) > 1]
    assert grouped
    for layer in grouped:
        after = smaller.get_layer(layer.name)
        assert after.groups < layer.groups
        assert after.filters * layer.groups == after.groups * layer.filters


def test_classes_and_images_stay_and_least_and_divisor_hold():
    smaller = prune_filters(_network("resnet20_b"), 0.4, ranking="global", least=8, divisor=8)
    filters = {x.name: x.filters for x in smaller.layers if isinstance(x, layers.Conv2D)}
    assert {count % 8 for count in filters.values()} == {0}
    assert min(filters.values()) == 8
    assert len({filters[f"stage2_block{n}_conv2"] for n in (1, 2, 3)}) == 1  # tied by additions
    assert smaller.get_layer("head").units == 10


def test_an_inner_ranking_keeps_the_width_of_the_stages():
    smaller = prune_filters(_network("resnet20"), 0.5, ranking="inner")
    widths = {layer.name: layer.filters for layer in smaller.layers if hasattr(layer, "filters")}
    assert widths["stem_conv"] == 16
    for stage, width in ((1, 16), (2, 32), (3, 64)):
        for block in (1, 2, 3):
            name = f"stage{stage}_block{block}_conv"
            assert widths[f"{name}2"] == width
            assert width / 2 - 2 <= widths[f"{name}1"] <= width / 2  # the stem keeps all


def test_a_global_ranking_spares_the_layer_whose_filters_are_alike():
    model = _network("plain20")
    before = dict.fromkeys(("stage1_block1_conv1", "stage1_block2_conv1"))
    alike, unlike = (model.get_layer(name) for name in before)
    kernel = np.ones(alike.kernel.shape, "float32")
    alike.set_weights([kernel])
    unlike.set_weights([kernel * np.where(np.arange(16) < 8, 0.01, 1.0)])
    smaller = prune_filters(model, 0.6, ranking="global")
    assert smaller.get_layer(alike.name).filters == 16
    assert smaller.get_layer(unlike.name).filters <= 8


def _shared():
    conv = layers.Conv2D(8, 3, padding="same", name="twice")
    image = layers.Input((8, 8, 8))
    x = layers.GlobalAveragePooling2D()(conv(conv(image)))
    return keras.Model(image, layers.Dense(2)(x))


def _normalised():
    image = layers.Input((8, 8, 3))
    x = layers.LayerNormalization(name="mixing")(layers.Conv2D(8, 3)(image))
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (_shared, "'twice' is called more than once"),
        (_normalised, "'mixing' has no rule"),
        (lambda: keras_resnet.create_model("test_alexnet"), "'stage1_lrn"),
        (lambda: keras_resnet.create_model("resnet8", input_shape=(None, None, 3)), "input_shape="),
    ],
)
def test_what_cannot_be_followed_is_named(build, named):
    with pytest.raises(UserError, match=named):
        prune_filters(build(), 0.5)


def test_bad_wishes_are_refused(resnet20):
    with pytest.raises(UserError, match=r"between 0 and 1; received 1\.5"):
        prune_filters(resnet20, 1.5)
    with pytest.raises(UserError, match=r"cannot be pruned to 0\.1%"):
        prune_filters(resnet20, 0.001)
    with pytest.raises(UnknownNameError, match="Did you mean 'gamma'"):
        prune_filters(resnet20, criterion="gama")
    with pytest.raises(UnknownNameError, match="Did you mean 'global'"):
        prune_filters(resnet20, ranking="globl")
    for wish in ({"divisor": 0}, {"least": -1}):
        with pytest.raises(UserError, match=f"{min(wish)} must be a number of filters, at least 1"):
            prune_filters(resnet20, **wish)


def test_a_sequential_network_is_pruned_and_what_is_no_network_refused():
    own = [layers.Input((8, 8, 3)), layers.Conv2D(16, 3), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([*own, layers.Dense(2)])
    assert prune_filters(model, 0.5).count_params() < model.count_params()
    with pytest.raises(UserError, match="must be a Keras model; received 'resnet20'"):
        prune_filters("resnet20")


def test_the_saved_file_needs_no_keras_resnet(resnet20, images, tmp_path):
    smaller = prune_filters(resnet20, 0.3)
    smaller.save(tmp_path / "small.keras")
    np.save(tmp_path / "images.npy", images)
    code = """
import sys, keras, numpy as np
model = keras.models.load_model(sys.argv[1] + "/small.keras")
assert "keras_resnet" not in sys.modules
np.save(sys.argv[1] + "/logits.npy", model.predict(np.load(sys.argv[1] + "/images.npy"), verbose=0))
"""
    run_python(code, tmp_path)
    expected = smaller(images).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-5, atol=1e-6)


# The run ------------------------------------------------------------------------------------------

DIGITS = {
    "data.name": "digits",
    "augment.crop": "shift",
    "augment.flip": "none",
    "train.epochs": 1,
    "train.ema": 0,
    "train.precision": "float32",
}


def test_prune_filters_trains_on_and_exports_int8(tiny_run, tmp_path, capsys):
    """Chance is 10 % right; the tiny run, of eight epochs, is about 80 %."""
    out = tmp_path / "run"
    settings = [f"--set={key}={value}" for key, value in DIGITS.items() if key != "data.name"]
    arguments = ["prune-filters", str(tiny_run.path), "--data", "digits", "--keep", "0.5"]
    settings.append("--batch-size=32")  # enough steps for BN's statistics
    assert main([*arguments, "--json", "--out", str(out), *settings]) == 0
    summary = json.loads(capsys.readouterr().out)
    pruned = summary["pruned_filters"]
    before, after = (
        keras.models.load_model(path) for path in (tiny_run.model, out / "model.keras")
    )
    assert pruned["parameters"] == [before.count_params(), after.count_params()]
    counts = [profile(model).total.multiply_adds for model in (before, after)]
    assert pruned["multiply_adds"] == counts
    assert 0.4 * counts[0] < counts[1] <= 0.5 * counts[0]
    assert pruned["filters"][1] < pruned["filters"][0]
    assert pruned["filters_by_layer"]["stem_conv"] == [16, after.get_layer("stem_conv").filters]
    assert summary["test"]["accuracy"] > 0.5
    exported = ["export", str(out), "--formats", "tflite-int8", "--check-images", "100"]
    main([*exported, "--json"])
    manifest = json.loads(capsys.readouterr().out)
    (size,) = [file["bytes"] for file in manifest["files"]]
    assert size < pruned["parameters"][0]  # a byte a weight of the whole network would be more


def test_the_trained_head_is_kept_and_the_run_resumes(tiny_run, tmp_path):
    first = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            first.append(self.model.get_layer("head").get_weights())

        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                raise KeyboardInterrupt

    source = sources.find(str(tiny_run.path))
    loaded = schema.load_config(compress.PRUNE_FILTERS, DIGITS)
    with pytest.raises(train.Interrupted):
        compress.finetune_pruned(source, loaded, tmp_path / "run", callbacks=[Look()])
    start = keras.models.load_model(tmp_path / "run" / "start.keras")
    for found, expected in zip(first[0], start.get_layer("head").get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    resumed = train.resume(tmp_path / "run").summary()
    whole = compress.finetune_pruned(source, loaded, tmp_path / "whole").summary()
    assert resumed | {"training_seconds": 0} == whole | {"training_seconds": 0}


def test_other_classes_and_other_verbs_are_refused(tiny_run, tmp_path):
    keras.Model(*_seven_classes()).save(tmp_path / "seven.keras")
    loaded = schema.load_config(compress.PRUNE_FILTERS, DIGITS)
    with pytest.raises(UserError, match=r"has 7 classes .* the data has 10"):
        compress.finetune_pruned(
            sources.find(str(tmp_path / "seven.keras")), loaded, tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="keras-resnet prune-filters"):
        train.run(schema.load_config("debug/tiny", {"pruning.keep": 0.5}), tmp_path / "run")


def _seven_classes():
    model = to_stock(keras_resnet.create_model("resnet8", classes=7, include_preprocessing=True))
    return model.input, model.output

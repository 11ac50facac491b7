"""Local response normalization against its formula, and its stock form."""

import zipfile

import keras
import numpy as np
import pytest
from helpers import run_python

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.export import export
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.layers import LocalResponseNormalization, to_stock

CONSTANTS = {"size": 5, "alpha": 0.5, "beta": 0.75, "bias": 2.0}  # far from doing nothing


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(0, 3, (2, 5, 6, 8)).astype("float32")


def _formula(x, size, alpha, beta, bias):
    """Krizhevsky et al., 2012, section 3.3, with Caffe's alpha, channel by channel."""
    y = np.empty_like(x)
    for i in range(x.shape[-1]):
        window = x[..., max(0, i - size // 2) : i + size // 2 + 1]
        y[..., i] = x[..., i] / (bias + alpha / size * (window**2).sum(-1)) ** beta
    return y


def _model(policy="float32", **constants):
    inputs = keras.layers.Input((None, None, 8), name="images")
    layer = LocalResponseNormalization(**constants, name="stage1_lrn", dtype=policy)
    return keras.Model(inputs, layer(inputs))


@pytest.mark.parametrize(
    "constants",
    [CONSTANTS, {**CONSTANTS, "size": 3}, {**CONSTANTS, "beta": 0.6}, {"alpha": 10.0}],
)
def test_the_layer_and_its_stock_form_are_the_formula(x, constants):
    model = _model(**constants)
    stock = to_stock(model)
    expected = _formula(x, **{"size": 5, "beta": 0.75, "bias": 1.0, **constants})
    for either in (model, stock):
        # float32 rounding of values up to 5.
        np.testing.assert_allclose(either.predict(x, verbose=0), expected, atol=5e-6)
    assert {type(layer).__module__.split(".")[0] for layer in stock.layers} == {"keras"}
    assert all(layer.name.startswith(("images", "stage1_lrn")) for layer in stock.layers)
    assert stock.get_layer("stage1_lrn").output is stock.output


def test_it_is_computed_in_float32_under_mixed_precision(x):
    """300² is past half precision, and 2 + 0.001 is 2 in bfloat16."""
    large = (100 * x).astype("float16")
    model = _model("mixed_float16", **CONSTANTS)
    expected = _formula(large.astype("float32"), **CONSTANTS)
    # One rounding to 11 bits at the end.
    np.testing.assert_allclose(model.predict(large, verbose=0), expected, rtol=1e-3)
    assert model.output.dtype == "float16"


def test_a_window_without_a_middle_is_refused():
    with pytest.raises(UserError, match="odd number of channels; received 4"):
        LocalResponseNormalization(size=4)


def test_its_constants_survive_saving(tmp_path):
    _model(**CONSTANTS).save(tmp_path / "m.keras")
    layer = keras.models.load_model(tmp_path / "m.keras").get_layer("stage1_lrn")
    assert {key: getattr(layer, key) for key in CONSTANTS} == CONSTANTS


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """A tiny AlexNet and the file of its stock copy."""
    keras.utils.set_random_seed(0)
    model = keras_resnet.create_model("test_alexnet", include_preprocessing=True)
    path = tmp_path_factory.mktemp("alexnet") / "m.keras"
    to_stock(model).save(path)
    return model, path


def test_a_stock_file_has_no_trace_of_ours_and_can_be_exported_again(alexnet, images):
    model, path = alexnet
    with zipfile.ZipFile(path) as archive:
        assert b"keras_resnet" not in archive.read("config.json")
    loaded = keras.models.load_model(path, safe_mode=True)
    again = to_stock(loaded).predict(images, verbose=0)
    np.testing.assert_array_equal(again, loaded.predict(images, verbose=0))
    # Two ways to the same power, float32 rounding; these are probabilities.
    np.testing.assert_allclose(again, model.predict(images, verbose=0), atol=1e-6)


def test_its_int8_file_leaves_nothing_in_float(alexnet, images, tmp_path):
    report = export(
        alexnet[0], ["tflite-int8"], calibration=images, out=tmp_path / "out", verbose=False
    )
    (found,) = report.checks
    operations = open_file(report.folder / found.file).graph
    assert [item.kind for item in operations if item.in_float] == []
    assert found.operations["RSQRT"] == 2  # instead of a power, which would be in float


@pytest.mark.slow
def test_a_stock_file_loads_where_keras_resnet_was_never_imported(alexnet, images, tmp_path):
    model, path = alexnet
    np.save(tmp_path / "x.npy", images.astype("float32"))
    run_python(
        "import sys, keras, numpy as np\n"
        "m = keras.models.load_model(sys.argv[1], safe_mode=True)\n"
        "np.save('y.npy', m.predict(np.load('x.npy'), verbose=0))\n"
        "assert not [n for n in sys.modules if n.startswith('keras_resnet')]",
        path,
        cwd=tmp_path,
    )
    expected = model.predict(images.astype("float32"), verbose=0)
    # As above.
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-6)

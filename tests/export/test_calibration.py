"""The images that files are calibrated on, and the ranges that come of them."""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from helpers import cifar10_or_skip
from PIL import Image

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.export import calibration, export
from keras_resnet.export.formats import saved_model
from keras_resnet.export.formats.tflite import convert, ranges
from keras_resnet.export.formats.tflite.options import Quantization
from keras_resnet.images.preprocessing import PREPROCESSING
from keras_resnet.recipes.data.datasets import load_dataset

layers = keras.layers
_INT8 = ("tflite-int8",)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two convolutions, as SavedModel and Keras model, and 40 images."""
    keras.utils.set_random_seed(0)
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, name="linear")(layers.Rescaling(1 / 128, -1.0)(inputs))
    x = layers.Conv2D(6, 3, activation="relu", name="rectified")(x)
    x = layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x, name="tiny")
    folder = tmp_path_factory.mktemp("tiny") / "saved_model"
    saved_model.write(model, folder, batch=1)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype("uint8")
    return model, folder, images


def _int8(folder, images, chosen):
    return convert.quantized(convert.float32(folder), "int8", images, chosen)


def _quantized(tiny, method):
    """The int8 file, and the (scale, zero point) of its tensors by shape."""
    _, folder, images = tiny
    data = _int8(folder, images, Quantization(method))
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    details = interpreter.get_tensor_details()
    return data, {tuple(entry["shape"]): entry["quantization"] for entry in details}


def _maps(tiny):
    """What the two convolutions give for the calibration images, {file's shape: values}."""
    model, _, images = tiny
    outputs = [model.get_layer(name).output for name in ("linear", "rectified")]
    seen = convert.pinned("tflite-int8", images)
    maps = keras.Model(model.input, outputs).predict(seen, verbose=0)
    return {(1, *values.shape[1:]): values for values in maps}


def _assert_ranges(quantized, expected):
    """int8 holds least...most in 255 steps. A percentile's resolution is a 32nd of a step."""
    for shape, (least, most) in expected.items():
        scale, zero_point = quantized[shape]
        least, most = min(least, 0.0), max(most, 0.0)
        step = (most - least) / 255
        assert scale == pytest.approx(step, rel=1e-3)
        assert zero_point == pytest.approx(-128 - least / step, abs=0.6)  # rounded


def test_min_max_takes_the_whole_range(tiny):
    _, quantized = _quantized(tiny, "min-max")
    maps = _maps(tiny)
    _assert_ranges(quantized, {shape: (x.min(), x.max()) for shape, x in maps.items()})


@pytest.mark.parametrize("share", [99.0, 90.0])
def test_a_percentile_cuts_off_both_ends(tiny, share):
    _, quantized = _quantized(tiny, f"percentile:{share}")
    expected = {}
    for shape, x in _maps(tiny).items():
        cut = round(x.size * (100 - share) / 100)
        expected[shape] = np.sort(x, axis=None)[[cut, -1 - cut]]
    _assert_ranges(quantized, expected)


def test_a_moving_average_weighs_the_last_images_most(tiny):
    _, quantized = _quantized(tiny, "moving-average:0.8")
    weights = 0.8 ** np.arange(40)[::-1]
    expected = {}
    for shape, x in _maps(tiny).items():
        extremes = [(image.min(), image.max()) for image in x]
        expected[shape] = np.average(extremes, axis=0, weights=weights)
    _assert_ranges(quantized, expected)
    plain = {s: (x.min((1, 2, 3)).mean(), x.max((1, 2, 3)).mean()) for s, x in _maps(tiny).items()}
    _assert_ranges(_quantized(tiny, "moving-average:1")[1], plain)


def test_input_and_scores_keep_their_whole_range(tiny):
    _, whole = _quantized(tiny, "min-max")
    _, cut = _quantized(tiny, "percentile:90")
    assert cut[1, 8, 8, 3] == whole[1, 8, 8, 3] == (1.0, 0)  # a byte is its pixel
    assert cut[1, 4] == whole[1, 4]
    assert cut[1, 4, 4, 6][0] < whole[1, 4, 4, 6][0]


def _stock(folder, images):
    """The int8 file as TensorFlow's guide makes it."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    samples = convert.pinned("tflite-int8", images)
    converter.representative_dataset = lambda: ({"images": image[None]} for image in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return converter.convert()


def _scales(data):
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    details = interpreter.get_tensor_details()
    return {x["name"]: x["quantization"][0] for x in details if len(x["shape"]) != 1}  # no biases


@pytest.mark.parametrize("method", ["min-max", "percentile:100"])
def test_without_additions_the_ranges_are_those_of_tensorflows_calibrator(tiny, method):
    """1e-5: two kernels' rounding; a 32nd of a step for the histogram of a percentile."""
    ours, theirs = _scales(_quantized(tiny, method)[0]), _scales(_stock(*tiny[1:]))
    inside = {"tfl.quantize": "serving_default_images:0_inside"}
    inside["StatefulPartitionedCall:01"] = "StatefulPartitionedCall:0_inside"
    assert ours.keys() == {inside.get(name, name) for name in theirs}
    for name, scale in theirs.items():
        expected = pytest.approx(scale, rel=1e-5 if method == "min-max" else 1e-3)
        assert ours[inside.get(name, name)] == expected


def test_the_range_before_an_addition_is_its_own_and_not_the_sums(tmp_path):
    """TensorFlow's calibrator takes the sum's range for it: the sum lies in the same memory."""
    model = keras_resnet.create_model("resnet20", weights="cifar10", include_preprocessing=True)
    before = model.get_layer("stage1_block2_bn2").output
    saved_model.write(model, tmp_path / "saved_model", batch=1)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    values = keras.Model(model.input, before).predict(convert.pinned("", images), verbose=0)
    step = (values.max() - values.min()) / 255

    def scale(data):
        return next(x for name, x in _scales(data).items() if "stage1_block2_conv2" in name and x)

    ours = _int8(tmp_path / "saved_model", images, Quantization())
    assert scale(ours) == pytest.approx(step, rel=1e-3)
    assert scale(_stock(tmp_path / "saved_model", images)) > 2 * step


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("percentil", "Did you mean 'percentile'"),
        ("min-max:3", "Unknown calibration method 'min-max:3'"),
        ("percentile:", "a number from 50 to 100"),
        ("percentile:40", r"received 'percentile:40'\. Example: 'percentile:99\.999'"),
        ("percentile:nan", "a number from 50 to 100"),
        ("moving-average:2", "a number from 0 to 1"),
    ],
)
def test_what_is_no_method_is_refused(tiny, tmp_path, method, message):
    model, _, images = tiny
    with pytest.raises(UserError, match=message):
        export(model, _INT8, out=tmp_path, calibration=images, calibration_method=method)
    assert list(tmp_path.iterdir()) == []


def test_a_method_without_an_int8_file_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match=r"tflite-int8 .*; received the formats tflite-float32"):
        export(tiny[0], ["tflite-float32"], out=tmp_path, calibration_method="percentile")


def test_the_manifest_names_the_method_and_its_value(tiny, tmp_path):
    model, _, images = tiny
    arguments = {"calibration": images, "calibration_method": "percentile", "verbose": False}
    report = export(model, _INT8, out=tmp_path / "out", **arguments)
    assert report.manifest["calibration_method"] == "percentile:99.999"
    assert report.manifest["warnings"] == []
    assert ranges.full_name("min-max") == "min-max"


# Images that look wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"), [(7, "Every value of the calibration images is 7"), (np.nan, "finite")]
)
def test_images_that_say_nothing_are_refused(tiny, tmp_path, value, message):
    constant = np.full((40, 8, 8, 3), value, "float32")
    checked = {"check_images": tiny[2], "verbose": False}
    with warnings.catch_warnings(action="ignore"), pytest.raises(UserError, match=message):
        export(tiny[0], _INT8, out=tmp_path / "out", calibration=constant, **checked)
    assert list(tmp_path.iterdir()) == []
    # Where nothing is calibrated, they are only images to compare on.
    calibration.require_images(constant, ["tflite-float32"])


@pytest.fixture(scope="module")
def networks():
    """A network that takes pixels, one that takes normalised images, one that takes raw pixels."""
    return {
        "inside": keras_resnet.ResNet20(include_preprocessing=True),
        "outside": keras_resnet.ResNet20(),
        "raw": keras_resnet.ResNet8(),
        "unknown": keras.Sequential([layers.Input((32, 32, 3)), layers.Flatten()]),
    }


def _pixels(count=64):
    """Patches, as dark and as spread as photographs are."""
    return np.random.default_rng(0).normal(120, 60, (count, 32, 32, 3)).clip(0, 255)


_NORMALISED = (_pixels() - 120) / 63
_SUSPECT = [
    ("inside", _pixels(), None),
    ("inside", _pixels() / 255, "reach only 1"),
    ("inside", _NORMALISED, "range from -1.9.* as if they were already normalised"),
    ("inside", _pixels() / 8, "mean pixel 15 and the standard deviation 7"),
    ("inside", 100 + _pixels() / 8, "the standard deviation 7"),
    ("inside", _pixels() * 257, "probably takes RGB 0...255; .* reach 65535. Scale them to 0"),
    ("outside", _NORMALISED, None),
    ("outside", _pixels(), "takes normalised images; the calibration images range from 0 to 255"),
    ("outside", _pixels() / 255, "the standard deviation 15"),
    ("raw", _pixels(), None),
    ("raw", _pixels() + 0.4, None),  # resized in floats
    ("raw", _pixels() * 257, "probably takes RGB 0...255; .* reach 65535"),
    ("raw", _pixels() * 2, "reach 510"),
    ("raw", _pixels() / 10, "mean pixel 12 and the .* 6 .* photographs have about 114"),
    ("raw", 255 - _pixels() / 10, "mean pixel 243"),
    ("raw", _NORMALISED, "The model probably takes RGB 0...255; .* already normalised"),
    ("unknown", _NORMALISED, None),
    ("unknown", _pixels() / 255, None),
]


@pytest.mark.parametrize(("network", "images", "message"), _SUSPECT)
def test_images_of_another_range_are_noticed(networks, network, images, message):
    model = networks[network]
    found = calibration.hints(model, None, images.astype("float32"), _INT8)
    found = [hint for hint in found if "was built without" not in hint]
    if message is None:
        assert found == []
    else:
        (hint,) = found
        assert re.search(message, hint), hint


@pytest.mark.parametrize("network", ["inside", "raw"])
def test_ordinary_images_are_no_matter(networks, network):
    photographs = cifar10_or_skip().test.images[:64].astype("float32")
    grey = photographs.mean(axis=-1, keepdims=True)
    for images in (photographs, grey, load_dataset("digits").test.images):
        assert calibration.hints(networks[network], None, images, _INT8) == []


def test_without_a_normalisation_black_grounds_are_no_matter(networks):
    """MNIST's mean pixel is 33."""
    digits = load_dataset("digits").test.images
    drawn = np.pad(digits, [(0, 0), (8, 8), (8, 8), (0, 0)])
    assert drawn.mean() == pytest.approx(33, abs=5)
    assert calibration.hints(networks["raw"], None, drawn, _INT8) == []
    assert round(np.mean(PREPROCESSING["torch"].mean)) == calibration._PHOTOGRAPHS


def test_images_of_one_colour_are_noticed(networks):
    greys = np.linspace(0, 255, 64).reshape(-1, 1, 1, 1) * np.ones((1, 32, 32, 3))
    for model in networks.values():
        assert "a single colour" in " ".join(calibration.hints(model, None, greys, _INT8))
    assert calibration.hints(networks["inside"], None, greys, ["tflite-float32"]) == []


def test_the_normalisation_that_is_put_in_front_counts(networks):
    found = calibration.hints(networks["unknown"], "torch", _NORMALISED, _INT8)
    assert "as if they were already normalised" in found[0]
    assert calibration.hints(networks["unknown"], "torch", _pixels(), _INT8) == []


def test_few_images_are_noticed_where_they_calibrate(networks):
    model = networks["inside"]
    assert "31 calibration images are few" in calibration.hints(model, None, _pixels(31), _INT8)[0]
    assert calibration.hints(model, None, _pixels(32), _INT8) == []
    assert calibration.hints(model, None, _pixels(31), ["tflite-float32"]) == []
    same = np.repeat(_pixels(1), 64, axis=0)
    slow, hint = calibration.hints(model, None, same, ["tflite-int16x8"])
    assert "slow" in slow
    assert hint.startswith("The 64 calibration images are all identical")


# What calibration= takes --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The 40 images as files, in the order of their names."""
    made = tmp_path_factory.mktemp("photos")
    for index, image in enumerate(tiny[2]):
        Image.fromarray(image).save(made / f"{index:02}.png")
    return made


class _Batches(keras.utils.PyDataset):
    """Four batches of ten with labels."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.images[10 * index : 10 * index + 10], np.zeros(10)


def _given(images, folder):
    """The same images in every form."""
    labels = np.zeros(len(images))
    singly = tf.data.Dataset.from_tensor_slices(images)
    with_labels = tf.data.Dataset.from_tensor_slices((images, labels))

    def representative():  # as for TFLite, which takes float32 only
        for image in images:
            yield [image[None].astype("float32")]

    def by_name():
        for image in images:
            yield {"images": image[None].astype("float32")}

    return {
        "list": list(images),
        "tensor": tf.constant(images),
        "data set": singly,
        "batches": singly.batch(7),
        "with labels": with_labels,
        "batches with labels": with_labels.batch(7),
        "dictionaries": with_labels.map(lambda x, y: {"label": y, "image": x}),
        "endless": singly.repeat(),
        "generator function": representative,
        "generator": representative(),
        "named": by_name,
        "PyDataset": _Batches(images),
        "folder": folder,
        "path": str(folder),
    }


def test_calibration_takes_every_form_of_images(tiny, folder):
    model, _, images = tiny
    for form, given in _given(images, folder).items():
        found = calibration.images_of(given, model, None)
        assert found.dtype == np.uint8, form
        expected = images
        if form == "endless":
            expected = np.resize(images, (calibration.FROM_STREAM, *images.shape[1:]))
        np.testing.assert_array_equal(found, expected, err_msg=form)


def test_normalised_images_stay_as_they_are(tiny):
    model, _, images = tiny
    normalised = (images / 127.5 - 1).astype("float32")
    for given in (normalised, tf.data.Dataset.from_tensor_slices(normalised).batch(8)):
        np.testing.assert_array_equal(calibration.images_of(given, model, None), normalised)


def test_a_generator_gives_the_file_that_an_array_gives(tiny, tmp_path):
    model, _, images = tiny
    files = []
    for name, given in (("array", images), ("generator", ([x[None]] for x in images))):
        report = export(
            model, _INT8, out=tmp_path / name, calibration=given, about=None, verbose=False
        )
        assert report.manifest["calibration_images"] == 40
        files.append((report.folder / "tiny-int8.tflite").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: iter(()), "gave no images. A generator that was used before"),
        (lambda: iter([np.zeros((8, 8, 3)), np.zeros((9, 9, 3))]), "have different sizes"),
        (lambda: iter([np.zeros(3)]), r"received an element of shape \(3,\)"),
        ("no/such/folder", "no such folder: no/such/folder"),
        (7, "must be an array of images, a folder, .*received a int"),
    ],
)
def test_what_gives_no_images_is_refused(given, message, tiny, tmp_path):
    with pytest.raises(UserError, match=message):
        export(tiny[0], _INT8, out=tmp_path / "out", calibration=given, verbose=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scale", [1.0, 0.999])  # whole numbers, and what a resize leaves
def test_float_pixels_are_pixels_where_the_model_normalises_them(tmp_path, images, scale):
    model = keras_resnet.ResNet20(weights=None, include_preprocessing=True)
    given = {"calibration": images.astype("float32") * scale, "verbose": False}
    report = export(model, ["tflite-int8"], out=tmp_path / "out", **given)
    assert report.manifest["input"]["raw_pixels"]

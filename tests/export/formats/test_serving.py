"""The SavedModel for servers: its signatures, by the bytes and names that a client sends."""

import io
import json
import struct
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import randomize_batch_norms, run_python
from PIL import Image

import keras_resnet
from keras_resnet.export import check, export, manifest
from keras_resnet.export.formats import saved_model, serving
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.images.answers import Answers
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.read import read_image
from keras_resnet.recipes import load_config
from keras_resnet.recipes.runs import sources
from keras_resnet.recipes.runs.folder import create_run, write_json

NAMES = [f"name {index}" for index in range(10)]
CROP = SingleCrop(37, 32, "bicubic")
ROUNDED = 2e-3  # of a probability, by some grey levels that differ by one


@pytest.fixture(scope="module")
def network():
    """ResNet-20 with probabilities that are not all 0 or 1, so that they tell something."""
    keras.utils.set_random_seed(0)
    model = randomize_batch_norms(keras_resnet.ResNet20(include_preprocessing=True))
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel / 50, bias])
    return model


@pytest.fixture(scope="module")
def exported(network, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("served") / "resnet20"
    return export(
        network,
        ["savedmodel"],
        out=out,
        check_images=images,
        labels=NAMES,
        crop=CROP,
        verbose=False,
    )


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported.folder / "saved_model" / "1"))


def _photo(seed=0, size=(90, 60)):
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (6, 9, 3)).astype("uint8")
    return Image.fromarray(patches).resize(size, Image.BICUBIC)


def _file(picture, kind="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _ask(served, files):
    return served.signatures["image_bytes"](image_bytes=tf.constant(files))


# Values -------------------------------------------------------------------------------------------


def test_the_bare_network_is_what_converters_read(exported, served, network, images):
    """The same kernels or others of float32: 1e-5 of a probability is their rounding."""
    expected, pixels = network.predict(images, verbose=0), images.astype("float32")
    path = str(exported.folder / "saved_model" / "1")
    converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=["network"])
    (file := exported.folder.parent / "bare.tflite").write_bytes(converter.convert())
    given = open_file(file).predict(pixels)
    np.testing.assert_allclose(given, expected, atol=1e-5)
    openvino = pytest.importorskip("openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # its default is bfloat16 where the CPU has it
    compiled = openvino.compile_model(
        openvino.convert_model(served.signatures["network"]), "CPU", exact
    )
    np.testing.assert_allclose(compiled(pixels)[0], expected, atol=1e-5)


@pytest.mark.slow
def test_tf2onnx_reads_the_bare_network(exported, network, images, tmp_path):
    path, out = exported.folder / "saved_model" / "1", tmp_path / "bare.onnx"
    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", path]
    subprocess.run([*command, "--signature_def", "network", "--output", out], check=True)
    given = open_file(out).predict(images)
    np.testing.assert_allclose(given, network.predict(images, verbose=0), atol=1e-5)


def test_the_outputs_are_those_of_keras(served, exported, network, images):
    assert exported.passed, exported.checks[0].problems
    assert exported.checks[0].logit_error < 1e-5  # the same operations in the same order
    answers = served.signatures["serving_default"](images=tf.constant(images))
    expected = network.predict(images, verbose=0)
    head = network.get_layer("head")
    features = keras.Model(network.input, head.input).predict(images, verbose=0)
    # Another batch and other threads sum in another order.
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(answers["predictions"], expected, **close)
    np.testing.assert_allclose(answers["probabilities"], expected, **close)
    logits = features @ np.asarray(head.kernel) + np.asarray(head.bias)
    np.testing.assert_allclose(answers["logits"], logits, rtol=1e-4, atol=1e-4)
    best = (-expected).argsort(-1, kind="stable")[:, :5]
    names = [[NAMES[index].encode() for index in row] for row in best]
    assert answers["classes"].numpy().tolist() == names
    np.testing.assert_allclose(answers["scores"], np.take_along_axis(expected, best, -1), **close)
    found = served.signatures["features"](images=tf.constant(images))
    np.testing.assert_allclose(found["features"], features, rtol=1e-4, atol=1e-5)


def test_images_of_any_size_are_cut_by_the_protocol(served, network):
    for width, height in (90, 60), (33, 50), (20, 24):
        batch = np.stack([np.asarray(_photo(seed, (width, height))) for seed in range(3)])
        answers = served.signatures["serving_default"](images=tf.constant(batch))
        expected = network.predict(np.asarray(CROP.cut(batch)), verbose=0)
        np.testing.assert_allclose(answers["predictions"], expected, rtol=1e-5, atol=1e-6)


def test_files_and_images_and_python_give_the_same(served, network, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [
        _file(_photo(0), quality=90),
        _file(_photo(1), "PNG"),
        _file(_photo(2).convert("L"), quality=90),
        _file(_photo(3).convert("CMYK")),
        _file(_photo(4).convert("RGBA"), "PNG"),
        _file(_photo(5), "PNG", exif=exif),
    ]
    paths = [tmp_path / str(index) for index in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    images = np.stack([read_image(path, (32, 32), crop=CROP) for path in paths])
    answers = _ask(served, files)
    expected = network.predict(images, verbose=0)
    np.testing.assert_allclose(answers["predictions"], expected, atol=ROUNDED)
    upright = np.asarray(_photo(5).transpose(Image.Transpose.ROTATE_270))[None]
    stored = served.signatures["serving_default"](images=tf.constant(upright))
    np.testing.assert_allclose(stored["logits"], answers["logits"][5:], rtol=1e-4, atol=1e-4)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"", "image 1: it is empty; expected a JPEG or PNG"),
        (b"not an image", "image 1: it is not an image of a known kind"),
        (_file(_photo(), "GIF"), "image 1: it is a GIF"),
        (_file(_photo())[:700], "Invalid JPEG data"),
        (_file(_photo(), "PNG")[:700], "Invalid PNG data"),
        (_file(_photo(size=(400, 3)), "PNG"), "image 1: it has 3×400 pixels"),
        (
            b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 20_000, 20_000),
            "image 1: it has 20000×20000 pixels; at most",
        ),
    ],
)
def test_a_bad_file_fails_its_request_and_says_why(served, bad, message):
    good = _file(_photo())
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        _ask(served, [good, bad])
    assert _ask(served, [good])["classes"].shape == (1, 5)  # the server goes on


def test_images_that_are_too_large_or_of_another_type_are_refused(served):
    serve = served.signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="images: it has 2×300 pixels"):
        serve(images=tf.zeros([1, 2, 300, 3], tf.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError, match="uint8"):
        serve(images=tf.zeros([1, 32, 32, 3]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected images, received none"):
        serve(images=tf.zeros([0, 32, 32, 3], tf.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected images, received none"):
        _ask(served, np.array([], object))


# The folder ---------------------------------------------------------------------------------------


def test_the_variables_are_written_once(exported, network):
    folder = exported.folder / "saved_model" / "1"
    shapes = dict(tf.train.list_variables(str(folder / "variables" / "variables")))
    del shapes["_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert sum(np.prod(shape, dtype=int) for shape in shapes.values()) == network.count_params()


def test_it_is_served_without_keras(exported, tmp_path):
    (tmp_path / "x.jpg").write_bytes(_file(_photo()))
    output = run_python(
        "import sys\n"
        "sys.modules['keras'] = sys.modules['keras_resnet'] = None\n"
        "import tensorflow as tf\n"
        "served = tf.saved_model.load(sys.argv[1])\n"
        "file = tf.io.read_file(sys.argv[2])\n"
        "print(served.signatures['image_bytes'](image_bytes=file[None])['classes'][0, 0].numpy())",
        exported.folder / "saved_model" / "1",
        tmp_path / "x.jpg",
    )
    image = read_image(tmp_path / "x.jpg", (32, 32), crop=CROP)
    runtime = open_file(exported.folder / "saved_model")
    assert output.stdout.strip() == f"b'{NAMES[runtime.predict(image[None]).argmax()]}'"


def test_the_runtime_knows_the_models_size_and_the_newest_version(exported, tmp_path):
    runtime = open_file(exported.folder / "saved_model")
    assert (runtime.input_shape, runtime.classes) == ((32, 32, 3), 10)
    assert (runtime.input_dtype, runtime.output_name) == ("uint8", "predictions")
    one = open_file(exported.folder / "saved_model" / "1")
    assert one.input_shape == runtime.input_shape
    for version, size in ("2", 8), ("10", 16):
        saved_model.write(_tiny(size), tmp_path / "versions" / version)
    (tmp_path / "versions" / "notes").mkdir()
    assert open_file(tmp_path / "versions").input_shape == (16, 16, 3)


def test_the_manifest_has_the_crop_and_predict_takes_it(exported, tmp_path, capsys):
    from keras_resnet.cli.main import main

    assert manifest.read(exported.folder)["input"]["crop"] == {
        "resize": 37,
        "size": 32,
        "interpolation": "bicubic",
    }
    (tmp_path / "x.jpg").write_bytes(_file(_photo()))
    model = str(exported.folder / "saved_model")
    assert main(["predict", model, str(tmp_path / "x.jpg"), "--json", "--top", "1"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["predictions"]
    served = tf.saved_model.load(f"{model}/1")  # kept: a signature lives as long as it
    score = _ask(served, [(tmp_path / "x.jpg").read_bytes()])["scores"][0, 0]
    assert answer["top"][0]["probability"] == pytest.approx(float(score), abs=ROUNDED)


def test_images_are_cut_as_the_model_was_evaluated(tmp_path):
    run = create_run(tmp_path / "run", load_config("debug/tiny"))
    run.model.write_bytes(b"trained")
    for protocol, crop in (
        ({"resize": 37, "size": 32}, SingleCrop(37, 32)),  # photographs
        ({"resize": None, "size": 32}, None),  # images of one size, as they are
        (None, None),  # a run of before protocols were recorded
    ):
        test = {"accuracy": 0.5, "n": 10, **({"protocol": protocol} if protocol else {})}
        about = {"data": "digits", "parameters": 1, "steps": 1, "precision": "float32"}
        about |= {"best_epoch": None, "validation": None, "training_seconds": 1.0, "test": test}
        write_json(run.path / "summary.json", about)
        assert sources.find(str(run.path)).crop == crop
    assert sources.find("resnet50", "imagenet").crop == SingleCrop(256, 224, "bicubic")


def test_warm_up_requests_lie_beside(exported):
    """Read by the official messages in test_served.py."""
    path = exported.folder / "saved_model/1/assets.extra/tf_serving_warmup_requests"
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    assert len(records) == 4
    for record, signature in zip(
        records, (b"serving_default", b"image_bytes", b"network", b"features"), strict=True
    ):
        assert signature in record
        assert b"resnet20" in record


# Other models -------------------------------------------------------------------------------------


def _tiny(size=8, channels=3, activation=None, last=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, channels), name="images")
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, activation=activation)(x)
    return keras.Model(inputs, x if last is None else last(x), name="tiny")


def _served(model, tmp_path, dtype="uint8", **arguments):
    shape = (4, *model.input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    if dtype != "uint8":
        images /= 255  # no bytes
    folder = tmp_path / "out"
    report = export(
        model, ["savedmodel"], out=folder, check_images=images, verbose=False, **arguments
    )
    assert report.passed, report.checks[0].problems
    served = tf.saved_model.load(str(folder / "saved_model" / "1"))
    answers = served.signatures["serving_default"](images=tf.constant(images))
    return served, images, {name: value.numpy() for name, value in answers.items()}


@pytest.mark.parametrize(
    ("make", "probabilities", "features"),
    [
        (lambda: _tiny(), "softmax", True),
        (lambda: _tiny(activation="softmax"), "itself", True),
        (lambda: _tiny(activation="sigmoid"), "itself", True),
        (lambda: _tiny(activation="relu"), "softmax", False),
        (lambda: _tiny(last=keras.layers.Softmax()), "itself", True),
        (lambda: _tiny(last=keras.layers.Activation("sigmoid")), "itself", True),
        (lambda: _tiny(activation="relu", last=keras.layers.Softmax()), "itself", False),
        (lambda: _tiny(last=keras.ops.softmax), "itself", False),
    ],
)
def test_logits_and_probabilities_however_a_model_ends(make, probabilities, features, tmp_path):
    model = make()
    served, images, answers = _served(model, tmp_path)
    expected = model.predict(images.astype("float32"), verbose=0)
    close = {"rtol": 1e-5, "atol": 1e-6}  # float32, another batch
    np.testing.assert_allclose(answers["predictions"], expected, **close)
    of_logits = {"softmax": keras.activations.softmax, "sigmoid": keras.activations.sigmoid}
    name = "sigmoid" if expected.sum(-1).max() > 1.01 and probabilities == "itself" else "softmax"
    again = np.asarray(of_logits[name](answers["logits"]))
    np.testing.assert_allclose(answers["probabilities"], again, **close)
    if probabilities == "itself":
        np.testing.assert_allclose(answers["probabilities"], expected, **close)
    else:
        np.testing.assert_allclose(answers["logits"], expected, **close)
    assert ("features" in served.signatures) == features
    assert answers["classes"][0, 0].decode() == f"class {answers['probabilities'][0].argmax()}"
    assert answers["classes"].shape == (4, 3)  # there are no five


def test_an_ensemble_has_logits_and_no_features(tmp_path):
    members = [keras_resnet.ResNet8(include_preprocessing=True) for _ in range(2)]
    served, _, answers = _served(keras_resnet.ensemble(members), tmp_path)
    assert "features" not in served.signatures
    again = np.asarray(keras.activations.softmax(answers["logits"]))
    np.testing.assert_allclose(answers["probabilities"], again, rtol=1e-5, atol=1e-6)


def test_a_model_that_takes_no_bytes_keeps_its_own_input(tmp_path):
    served, _, _ = _served(_tiny(), tmp_path, dtype="float32")
    assert set(served.signatures) == {"serving_default", "network", "features"}
    (spec,) = served.signatures["serving_default"].structured_input_signature[1].values()
    assert (spec.dtype, spec.shape[1:]) == (tf.float32, (8, 8, 3))


def test_grey_models_take_colour_files_and_others_only_images(tmp_path):
    served, _, _ = _served(_tiny(channels=1), tmp_path)
    picture = _photo(size=(8, 8))
    answers = _ask(served, [_file(picture, "PNG")])
    grey = np.asarray(picture.convert("L"))[None, ..., None]
    expected = served.signatures["serving_default"](images=tf.constant(grey))
    np.testing.assert_array_equal(answers["logits"], expected["logits"])
    served, _, _ = _served(_tiny(channels=4), tmp_path, overwrite=True)
    assert "image_bytes" not in served.signatures


def test_a_foreign_saved_model_opens(tmp_path):
    """Of one input and one output, whatever their names; of several, ours."""

    class Foreign(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="x")])
        def one(self, x):
            return {"y": tf.reduce_mean(x, [1, 2])}

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="x")])
        def two(self, x):
            return {"y": tf.reduce_mean(x, [1, 2]), "z": x}

    module = Foreign()
    for name in "one", "two":
        function = getattr(module, name).get_concrete_function()
        tf.saved_model.save(module, str(tmp_path / name), {"serving_default": function})
    runtime = open_file(tmp_path / "one")
    assert (runtime.input_name, runtime.output_name, runtime.classes) == ("x", "y", 3)
    assert runtime.predict(np.ones((2, 8, 8, 3))).tolist() == [[1, 1, 1]] * 2
    with pytest.raises(keras_resnet.errors.UserError, match="one named 'predictions'"):
        open_file(tmp_path / "two")


@pytest.mark.slow
def test_resnet50_is_hardly_larger_than_its_weights(tmp_path):
    model = keras_resnet.to_stock(keras_resnet.ResNet50(include_preprocessing=True))
    service = serving.Service(True, SingleCrop(256, 224), Answers("softmax", 1000))
    serving.write(model, tmp_path / "saved_model", "resnet50", None, service)
    ratio = manifest.size(tmp_path / "saved_model") / (4 * model.count_params())
    print(f"bytes of ResNet50's SavedModel over those of its weights: {ratio:.4f}")
    assert ratio < 1.05
    runtime = open_file(tmp_path / "saved_model")
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype("uint8")
    expected = KerasRuntime(model).predict(images)
    logits, wanted = map(service.answers.logits, (runtime.predict(images), expected))
    assert check._logit_error(logits, wanted) < 1e-4

"""Exports against their source, through the real runtimes."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import first_by_default, randomize_batch_norms, run_python
from helpers.models import user_cnn

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.export import FORMATS, check, export, manifest
from keras_resnet.export.formats.tflite import convert
from keras_resnet.export.reference import Reference, read_reference
from keras_resnet.export.rewrites import fold_rescaling
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.labels import class_names

# Those of the extra "export"; the others have tests of their own.
LITE = [kind for kind in FORMATS if kind == "savedmodel" or kind.startswith("tflite-")]


@pytest.fixture(scope="session")
def exported(resnet20, images, tmp_path_factory):
    """ResNet-20 in every format of them."""
    out = tmp_path_factory.mktemp("exports") / "resnet20"
    labels = [f"name {index}" for index in range(10)]
    return export(resnet20, LITE, out=out, calibration=images, labels=labels, verbose=False)


@pytest.fixture(scope="session")
def small():
    """Seconds to export, for tests of folders."""
    return user_cnn()


def test_every_format_passes_its_check(exported):
    assert [item.format for item in exported.checks] == LITE
    assert exported.passed, [item.problems for item in exported.checks]
    assert {item.agreement for item in exported.checks} == {1.0}
    by_format = {item.format: item for item in exported.checks}
    # float32: the project's bar; the measured value is a hundred times below it.
    assert by_format["tflite-float32"].logit_error < 1e-4
    sizes = {kind: manifest.size(exported.folder / i.file) for kind, i in by_format.items()}
    assert sizes["tflite-float16"] < 0.6 * sizes["tflite-float32"]
    assert sizes["tflite-int8"] < 0.4 * sizes["tflite-float32"]
    # Variables once: 271,098 floats; the graphs of network and pictures take 0.7 MB.
    assert sizes["savedmodel"] < 4 * 271_098 + 1_000_000


def test_the_int8_file_is_all_integer_and_takes_raw_bytes(exported):
    runtime = open_file(exported.folder / "resnet20-int8.tflite")
    assert runtime.float_operations == {}
    assert (runtime.input_dtype, runtime.output_dtype) == ("uint8", "uint8")
    assert runtime._input["quantization"] == (1.0, 0)  # a byte is its pixel
    assert "MUL" not in runtime.operations  # folded: BN and the normalisation's scale


@pytest.mark.parametrize(
    ("input_type", "quantization"), [("int8", (1.0, -128)), ("float32", (0.0, 0))]
)
def test_the_input_type_is_selectable(resnet20, images, tmp_path, input_type, quantization):
    report = export(
        resnet20,
        ["tflite-int8"],
        out=tmp_path / "out",
        calibration=images,
        input_type=input_type,
        verbose=False,
    )
    runtime = open_file(tmp_path / "out" / "resnet20-int8.tflite")
    assert runtime.input_dtype == runtime.output_dtype == input_type
    assert runtime._input["quantization"] == quantization
    assert report.passed


def test_the_manifest_says_what_the_files_are(exported):
    content = json.loads((exported.folder / "manifest.json").read_text())
    assert content["model"] == "resnet20"
    assert content["input"]["shape"] == [32, 32, 3]
    assert content["input"]["range"] == [0, 255]
    assert content["input"]["raw_pixels"] is True
    assert content["output"]["is"] == "probabilities"
    assert content["labels"][3] == "name 3"
    assert content["passed"] is True
    assert (exported.folder / "labels.txt").read_text().splitlines()[3] == "name 3"
    for entry in content["files"]:
        path = exported.folder / entry["file"]
        assert entry["sha256"] == manifest.sha256(path)
        assert entry["bytes"] == manifest.size(path)
    # Nothing of this machine's folders.
    assert str(exported.folder.parent) not in json.dumps(content)


def test_a_users_own_cnn_exports(tmp_path):
    model = user_cnn()
    images = np.random.default_rng(0).uniform(0, 1, (64, 16, 20, 3)).astype("float32")
    formats = ("savedmodel", "tflite-float32", "tflite-int8")
    report = export(model, formats, calibration=images, out=tmp_path / "out", verbose=False)
    assert report.passed, [item.problems for item in report.checks]
    assert report.manifest["output"]["is"] == "scores"
    assert report.manifest["input"]["raw_pixels"] is False
    assert report.manifest["input"]["range"][1] == pytest.approx(1, abs=0.01)
    expected = model.predict(images, verbose=0)
    for name in ("saved_model", "mine-float32.tflite"):
        outputs = open_file(tmp_path / "out" / name).predict(images)
        np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max())
    int8 = open_file(tmp_path / "out" / "mine-int8.tflite").predict(images)
    noise, signal = np.square(int8 - expected).mean(), np.square(expected).mean()
    assert 10 * np.log10(signal / noise) > 20  # dB; 8 bits of one small net


def test_a_mixed_precision_model_exports_in_float32(images, tmp_path):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = randomize_batch_norms(keras_resnet.ResNet8(include_preprocessing=True))
    finally:
        keras.config.set_dtype_policy(previous)
    report = export(model, ["tflite-float32"], out=tmp_path / "out", check_images=images)
    assert report.passed
    assert not any("Flex" in name for name in report.checks[0].operations)


def test_preprocessing_can_be_added_and_a_free_size_fixed(images, tmp_path):
    model = keras_resnet.ResNet20(input_shape=(None, None, 3))
    with pytest.raises(UserError, match="size is free"):
        export(model, ["tflite-float32"], out=tmp_path / "out", verbose=False)
    report = export(
        model,
        ["tflite-float32"],
        out=tmp_path / "out",
        calibration=images,
        preprocessing="cifar",
        verbose=False,
    )
    assert report.passed
    outputs = open_file(tmp_path / "out" / "resnet20-float32.tflite").predict(images)
    expected = model.predict(keras_resnet.preprocess(images, "resnet20"), verbose=0)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)  # probabilities in float32


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnetv2_20"])
def test_folding_the_rescaling_is_exact(name):
    """With "same" and explicit padding behind it. 1e-5 relative: float32 rounding."""
    model = keras_resnet.create_model(
        name, input_shape=(32, 32, 3), classifier_activation=None, include_preprocessing=True
    )
    model = keras_resnet.to_stock(randomize_batch_norms(model))
    folded = fold_rescaling.fold_rescaling(model)
    assert folded.get_layer("rescaling").scale == 1.0
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    difference = np.abs(folded.predict(x, verbose=0) - expected).max()
    assert difference <= 1e-5 * np.abs(expected).max()


def test_folding_leaves_alone_what_it_cannot_fold():
    inputs = keras.layers.Input((8, 8, 3))
    x = keras.layers.Rescaling(2.0)(inputs)
    both = keras.layers.Concatenate()([keras.layers.Conv2D(2, 1)(x), x])
    forked = keras.Model(inputs, both)
    assert fold_rescaling.fold_rescaling(forked) is forked
    shared = keras.layers.Conv2D(2, 1)
    twice = keras.layers.Add()([shared(x), shared(inputs)])
    shared_kernel = keras.Model(inputs, twice)
    assert fold_rescaling.fold_rescaling(shared_kernel) is shared_kernel
    assert fold_rescaling.fold_rescaling(model := keras_resnet.ResNet8()) is model


# The runtimes of others ---------------------------------------------------------------------------


def test_the_saved_model_serves_without_keras(exported, images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    run_python(
        "import sys, numpy as np, tensorflow as tf\n"
        "serve = tf.saved_model.load(sys.argv[1]).signatures['serving_default']\n"
        "np.save('y.npy', serve(images=tf.constant(np.load('x.npy')))['predictions'])\n"
        "assert not [n for n in sys.modules if n.split('.')[0] == 'keras_resnet']",
        exported.folder / "saved_model" / "1",
        cwd=tmp_path,
    )
    reference = read_reference(exported.folder)
    # The same float32 operations; other thread counts sum in another order.
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), reference.outputs, atol=1e-5)


def test_of_all_files_the_float32_one_alone_is_in_float32(exported):
    files = {item.format: exported.folder / item.file for item in exported.checks}
    found = [
        kind
        for kind, path in files.items()
        if path.suffix == ".tflite" and tflite_graph.in_float32(open_file(path).graph)
    ]
    assert found == ["tflite-float32"]


def test_tflite_runs_where_there_is_no_tensorflow(exported, tmp_path):
    """A device has LiteRT and NumPy; the signature's names are the contract."""
    output = run_python(
        "import sys, numpy as np\n"
        "sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from ai_edge_litert.interpreter import Interpreter\n"
        "reference = np.load(sys.argv[1] + '/reference.npz')\n"
        "interpreter = Interpreter(sys.argv[1] + '/resnet20-float32.tflite')\n"
        "run = interpreter.get_signature_runner()\n"
        "x = reference['images'].astype('float32')\n"
        "y = [run(images=image[None])['predictions'][0] for image in x]\n"
        "print(np.abs(np.array(y) - reference['outputs']).max())",
        exported.folder,
    )
    assert float(output.stdout) < 1e-5


# The check notices --------------------------------------------------------------------------------


def _copy(exported, tmp_path):
    return shutil.copytree(exported.folder, tmp_path / "copy")


def test_check_folder_repeats_the_check(exported):
    again = check.check_folder(exported.folder)
    assert [item.format for item in again] == LITE
    assert all(item.passed for item in again)
    other = keras_resnet.ResNet20(include_preprocessing=True)
    answers = check.recorded_reference(exported.folder, other)
    against = check.check_folder(exported.folder, answers)
    assert not any(item.passed for item in against)  # another network's answers


def test_a_changed_file_is_refused_before_it_is_opened(exported, tmp_path):
    folder = _copy(exported, tmp_path)
    path = folder / "resnet20-int8.tflite"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"resnet20-int8.tflite is not the file that was exported"):
        check.check_folder(folder)
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        check.check_folder(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("reference.npz", b"PK\x03\x04 torn", "missing or damaged"),
        ("manifest.json", b"[]", "must be a manifest of schema"),
        ("manifest.json", b"{", "not valid JSON"),
    ],
)
def test_damaged_companions_are_refused(exported, tmp_path, name, content, message):
    folder = _copy(exported, tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        check.check_folder(folder)


def test_a_file_of_other_weights_fails(exported, images):
    """The check must be able to fail: the right interface and other or slightly other values."""
    reference = read_reference(exported.folder)
    outputs = reference.outputs
    wrong = keras_resnet.ResNet20(include_preprocessing=True)
    files = {"wrong": ("savedmodel", KerasRuntime(wrong))}
    (item,) = check.compare(files, reference)
    assert not item.passed
    assert item.agreement < 1
    slightly = Reference(images, outputs * 0.99, None, "images", "softmax")
    files = {"x": ("tflite-float32", open_file(exported.folder / "saved_model"))}
    (item,) = check.compare(files, slightly)
    assert any("logits" in problem for problem in item.problems)


def test_a_half_quantized_file_fails_as_int8(exported):
    reference = read_reference(exported.folder)
    dynamic = open_file(exported.folder / "resnet20-dynamic.tflite")
    (item,) = check.compare({"x": ("tflite-int8", dynamic)}, reference)
    assert any("left in float" in problem for problem in item.problems)


def test_a_file_of_another_shape_fails(exported):
    reference = read_reference(exported.folder)
    small = KerasRuntime(keras_resnet.ResNet20(input_shape=(16, 16, 3), classes=3))
    (item,) = check.compare({"x": ("savedmodel", small)}, reference)
    assert len(item.problems) == 2
    assert not item.passed


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ["tflite-int9"]}, "Did you mean 'tflite-int8'"),
        ({"formats": "savedmodel"}, "must be a list"),
        ({"formats": []}, "must be a list"),
        ({"formats": ["tflite-int8"]}, "needs calibration images"),
        ({"formats": ["tflite-int8"], "calibration": np.zeros((0, 32, 32, 3))}, "one or more"),
        (
            {"formats": ["tflite-int8"], "calibration": np.zeros((4, 16, 16, 3))},
            "takes one or more images of",
        ),
        ({"formats": ["savedmodel"], "input_type": "uint9"}, "Did you mean 'uint8'"),
        ({"formats": ["savedmodel"], "labels": ["a", "b"]}, "2 class names for a model with 10"),
        (
            {"formats": ["savedmodel"], "labels": ["a\nb"] * 10},
            r"single line in labels.txt, .*; received 'a\\nb'",
        ),
        ({"formats": ["savedmodel"], "preprocessing": "torch"}, "already normalises its input"),
        ({"formats": ["savedmodel"], "out": ""}, "folder's name is empty"),
    ],
)
def test_bad_arguments_are_refused_and_leave_nothing(resnet20, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        export(resnet20, **{"out": tmp_path / "out", "verbose": False, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_weights_of_the_catalog_bring_names_and_crop(images, tmp_path):
    """As the command gives them; labels and a crop of one's own come first."""
    model = keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)
    given = {"formats": ["tflite-float32"], "check_images": images[:2], "verbose": False}
    report = export(model, out=tmp_path / "known", **given)
    names = (tmp_path / "known" / "labels.txt").read_text().splitlines()
    assert names == report.manifest["labels"] == list(class_names("cifar10"))
    crop = {"resize": 32, "size": 32, "interpolation": "bilinear"}  # as catalog.toml says
    assert report.manifest["input"]["crop"] == crop
    own = {"labels": [f"bird {n}" for n in range(10)], "crop": SingleCrop(40)}
    report = export(model, out=tmp_path / "own", **given, **own)
    assert report.manifest["labels"][3] == "bird 3"
    assert report.manifest["input"]["crop"]["resize"] == 40


def _with_operators():
    inputs = keras.layers.Input((16, 20, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.ops.relu(x * 2.0) + 1.0
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(5)(x)))


def _transfer_learning():
    """A network of ours inside a model, in mixed precision: what Keras' guides teach."""
    backbone = keras_resnet.ResNet20(include_top=False, pooling="avg", input_shape=(16, 20, 3))
    inputs = keras.layers.Input((16, 20, 3))
    return keras.Model(inputs, keras.layers.Dense(5, dtype="float32")(backbone(inputs)))


def _sequential():
    layers = [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(5)]
    return keras.Sequential([keras.layers.Input((16, 20, 3)), *layers], name="sequential")


@pytest.mark.parametrize("make", [_with_operators, _transfer_learning, _sequential])
@pytest.mark.parametrize("preprocessing", first_by_default(["tf", None]))
def test_what_else_users_build_exports(make, preprocessing, tmp_path):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if make is _transfer_learning else previous)
    try:
        keras.utils.set_random_seed(0)
        model = make()
    finally:
        keras.config.set_dtype_policy(previous)
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 20, 3)).astype("uint8")
    report = export(
        model,
        ["savedmodel", "tflite-float32"],
        out=tmp_path / "out",
        calibration=images,
        preprocessing=preprocessing,
        verbose=False,
    )
    assert report.passed, [item.problems for item in report.checks]
    if preprocessing and make is not _transfer_learning:
        expected = model.predict(images / 127.5 - 1, verbose=0)
        outputs = open_file(tmp_path / "out" / "saved_model").predict(images)
        np.testing.assert_allclose(outputs, expected, atol=1e-4 * np.abs(expected).max())


def test_an_operation_that_tflite_lacks_is_refused_by_name(tmp_path):
    inputs = keras.layers.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.ops.real(keras.ops.ifft2((inputs, inputs))[0]))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    with pytest.raises(UserError, match="converter cannot convert this model to tflite-float32"):
        export(model, ["tflite-float32"], out=tmp_path / "out", verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_a_bare_network_of_the_zoo_is_warned_about(images, tmp_path):
    with pytest.warns(UserWarning, match=r"'resnet20' was built without its normalisation"):
        report = export(
            keras_resnet.ResNet20(), ["savedmodel"], out=tmp_path / "out", check_images=images
        )
    assert report.manifest["warnings"]


def test_a_link_to_a_folder_is_written_through(small, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export(small, ["savedmodel"], out=tmp_path / "link", verbose=False)
    assert (tmp_path / "real" / "saved_model").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"}


def test_models_that_are_no_classifiers_are_refused(tmp_path):
    a, b = keras.layers.Input((8, 8, 3)), keras.layers.Input((8, 8, 3))
    two = keras.Model([a, b], keras.layers.Flatten()(keras.layers.Add()([a, b])))
    for model in (two, keras_resnet.ResNet20(include_top=False)):
        with pytest.raises(UserError, match="Expected a functional Keras model from one image"):
            export(model, ["savedmodel"], out=tmp_path / "out", verbose=False)


def test_a_model_that_answers_nan_is_refused(tmp_path, images):
    model = keras_resnet.ResNet8()
    model.get_layer("head").set_weights([w * np.nan for w in model.get_layer("head").get_weights()])
    with pytest.raises(UserError, match="not finite"):
        export(model, ["savedmodel"], out=tmp_path / "out", calibration=images, verbose=False)


def test_an_existing_folder_is_kept_unless_told(small, tmp_path):
    out = tmp_path / "out"
    arguments = {"out": out, "verbose": False}
    export(small, ["tflite-float32"], **arguments)
    with pytest.raises(UserError, match=r"exists\. Add --overwrite"):
        export(small, ["savedmodel"], **arguments)
    (tmp_path / "empty").mkdir()
    export(small, ["savedmodel"], **{**arguments, "out": tmp_path / "empty"})
    shutil.rmtree(tmp_path / "empty")
    assert (out / "mine-float32.tflite").exists()
    export(small, ["savedmodel"], overwrite=True, **arguments)
    assert not (out / "mine-float32.tflite").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="will not be overwritten"):
        export(small, ["savedmodel"], **{**arguments, "out": tmp_path / "photos"}, overwrite=True)


def test_what_two_formats_share_is_converted_once(small, tmp_path, monkeypatch, small_litert_js):
    asked = []

    def counted(float_file, precision, calibration, quantization):
        asked.append(f"{precision} {quantization.input_type}")
        return quantized(float_file, precision, calibration, quantization)

    def counted_float32(saved_model):
        asked.append("float32")
        return float32(saved_model)

    quantized, float32 = convert.quantized, convert.float32
    monkeypatch.setattr(convert, "quantized", counted)
    monkeypatch.setattr(convert, "float32", counted_float32)
    kinds = ["tflite-int8", "web", "micro", "tflite-dynamic"]
    calibration = np.random.default_rng(0).integers(0, 256, (100, 16, 20, 3)).astype("uint8")
    export(small, kinds, out=tmp_path / "out", calibration=calibration, verbose=False)
    assert asked == ["float32", "int8 uint8", "int8 int8", "dynamic uint8"]


def test_an_export_that_fails_in_the_middle_leaves_the_old_one(small, tmp_path, monkeypatch):
    arguments = {"out": tmp_path / "out", "verbose": False}
    export(small, ["savedmodel"], **arguments)
    before = manifest.sha256(tmp_path / "out")

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "float32", full_disk)
    with pytest.raises(OSError, match="No space left"):
        export(small, ["savedmodel", "tflite-float32"], overwrite=True, **arguments)
    assert manifest.sha256(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_written(small, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file" / "out", tmp_path / "file" / "deep" / "out"):
        with pytest.raises(UserError, match=r"Cannot (make|write to) .*file"):
            export(small, ["savedmodel"], out=out, verbose=False)


def test_files_that_are_no_models_are_refused(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"not a model at all")
    (tmp_path / "x.keras").write_bytes(b"not a model at all")
    (tmp_path / "x.pt").write_bytes(b"")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"nothing")
    for name, message in (
        ("x.tflite", "LiteRT cannot load"),
        ("x.keras", r"Cannot load .*damaged, cut short .*not a zip archive"),
        ("x.pt", "is not a model file"),
        ("saved", "cannot be read as a SavedModel"),
        ("missing", "No such file"),
    ):
        with pytest.raises(UserError, match=message):
            open_file(tmp_path / name)


def test_a_keras_file_that_carries_code_is_refused(tmp_path):
    inputs = keras.layers.Input((8, 8, 3))
    x = keras.layers.Lambda(lambda t: t * 2)(inputs)
    keras.Model(inputs, x).save(tmp_path / "code.keras")
    with pytest.raises(UserError, match="Cannot load"):
        open_file(tmp_path / "code.keras")


def test_four_channels_are_no_colour_that_has_a_name(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.layers.Input((8, 8, 4))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x), name="multispectral")
    report = export(model, ["tflite-float32"], out=tmp_path / "out", verbose=False)
    assert report.passed
    assert report.manifest["input"]["color"] == "4 channels"
    assert "4 channels" in (report.folder / "README.md").read_text()

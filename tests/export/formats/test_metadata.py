"""Metadata in TFLite files: read by others, and nothing else changed by it."""

import json
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms
from helpers.environments import make_environment, run_in

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export import check, export, manifest
from keras_resnet.export.formats.tflite import metadata
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.recipes.runs import sources

FORMATS = ("tflite-float32", "tflite-int8", "tflite-int4")
LABELS = [f"Wörter und Zahl {index}" for index in range(10)]
ABOUT = metadata.About(author="A. Uthor", license="CC0-1.0", version="3")


@pytest.fixture(scope="module")
def folders(digits, tmp_path_factory):
    """ResNet-8 without metadata and with it."""
    keras.utils.set_random_seed(0)
    shape = digits.train.images.shape[1:]
    model = keras_resnet.ResNet8(input_shape=shape, include_preprocessing=True)
    images = digits.train.sample(64).images
    randomize_batch_norms(model)

    def made(name, about):
        out = tmp_path_factory.mktemp("metadata") / name
        given = {"calibration": images, "labels": LABELS, "about": about, "verbose": False}
        return export(model, FORMATS, out=out, **given).folder

    return made("plain", None), made("described", ABOUT)


@pytest.mark.parametrize("file", ["float32", "int8", "int4"])
def test_the_model_inside_is_the_same_to_the_byte(folders, digits, file):
    plain, described = (folder / f"resnet8-{file}.tflite" for folder in folders)
    old, new = plain.read_bytes(), described.read_bytes()
    # At a multiple of 16 the alignment of the weights, which kernels rely on, is as it was.
    assert new.find(old) % 16 == 0
    assert new[4:8] == b"TFL3"
    images = digits.test.images[:50]
    answers = [open_file(path).predict(images) for path in (plain, described)]
    np.testing.assert_array_equal(*answers)
    assert len(new) - len(old) < 2048  # ten names and a few sentences


@pytest.mark.parametrize("file", ["float32", "int8", "int4"])
def test_the_file_is_a_tflite_file_and_an_archive(folders, file):
    plain, described = (folder / f"resnet8-{file}.tflite" for folder in folders)
    old, new = (tflite_graph.read(path.read_bytes()) for path in (plain, described))
    assert [item.name.decode() for item in new.metadata] == [
        *[item.name.decode() for item in old.metadata or ()],
        "TFLITE_METADATA",
    ]
    assert len(new.buffers) == len(old.buffers) + 1
    content = bytes(new.buffers[new.metadata[-1].buffer].data)
    assert content[4:8] == b"M001"
    assert all(text.encode() in content for text in ("A. Uthor", "CC0-1.0", "labels.txt"))
    assert metadata.labels(plain) is None
    assert metadata.labels(described) == tuple(LABELS)
    with zipfile.ZipFile(described) as archive:
        assert archive.testzip() is None
        (entry,) = archive.infolist()
    assert entry.compress_type == zipfile.ZIP_STORED  # MediaPipe reads no other


@pytest.mark.skipif(shutil.which("unzip") is None, reason="no unzip here")
def test_unzip_lists_the_labels(folders):
    path = folders[1] / "resnet8-int8.tflite"
    result = subprocess.run(["unzip", "-l", path], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "labels.txt" in result.stdout


def test_the_manifest_has_what_the_files_say(folders):
    plain, described = map(manifest.read, folders)
    assert plain["about"] is None
    assert described["about"] == {"description": "", **vars(ABOUT)}
    assert all(item.passed for item in check.check_folder(folders[1]) if item.format != FORMATS[2])


def test_equal_models_give_equal_files(folders):
    data = (folders[0] / "resnet8-float32.tflite").read_bytes()
    entry = manifest.read(folders[1])["input"]
    interface = metadata.Interface("resnet8", entry, 10, LABELS)
    again = metadata.add(data, ABOUT, interface)
    assert again == (folders[1] / "resnet8-float32.tflite").read_bytes()


@pytest.mark.parametrize("file", ["float32", "int8"])
def test_the_signature_is_the_contract_of_every_client(folders, digits, file):
    """`CompiledModel` is LiteRT's newer interface; the same kernels, so the same bits."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.interpreter import Interpreter

    path = str(folders[1] / f"resnet8-{file}.tflite")
    compiled, interpreter = CompiledModel.from_file(path), Interpreter(path)
    names = {"serving_default": {"inputs": ["images"], "outputs": ["predictions"]}}
    assert compiled.get_signature_list() == interpreter.get_signature_list() == names
    run = interpreter.get_signature_runner("serving_default")
    dtype = {"float32": np.float32, "int8": np.uint8}[file]
    (inputs,), (outputs,) = compiled.create_input_buffers(0), compiled.create_output_buffers(0)
    for image in digits.test.images[:10, None].astype(dtype):
        inputs.write(image)
        compiled.run_by_index(0, [inputs], [outputs])
        expected = run(images=image)["predictions"][0]
        np.testing.assert_array_equal(outputs.read(10, dtype), expected)


def test_litert_benchmark_runs_it(folders, tmp_path):
    tool = "ai_edge_litert.tools.benchmark_litert_model"  # what the command litert-benchmark is
    files = ["--model", folders[1] / "resnet8-int8.tflite", "--result_json", tmp_path / "out.json"]
    command = [sys.executable, "-m", tool, *files, "--num_runs", "3", "--warmup_runs", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "out.json").is_file()


def test_a_file_alone_knows_its_classes(folders, digits, tmp_path, capsys):
    file = shutil.copy(folders[1] / "resnet8-float32.tflite", tmp_path)
    keras.utils.save_img(tmp_path / "x.png", digits.test.images[0], scale=False)
    assert main(["predict", str(file), str(tmp_path / "x.png"), "--json"]) == 0
    ((top, *_),) = [item["top"] for item in json.loads(capsys.readouterr().out)["predictions"]]
    assert top["label"] in LABELS


def test_resnet8_without_metadata_is_no_larger_than_mlperfs(tmp_path):
    """MLPerf Tiny's pretrainedResnet_quant.tflite has 98,496 bytes; ours the longer names."""
    model = keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype("uint8")
    given = {"calibration": images, "out": tmp_path / "out", "verbose": False}
    export(model, ["tflite-int8"], about=None, **given)
    assert (tmp_path / "out" / "resnet8-int8.tflite").stat().st_size <= 98_496


def test_the_command_line_says_what_is_known_of_the_weights(digits, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for index, image in enumerate(digits.test.images[:4]):
        keras.utils.save_img(tmp_path / "images" / f"{index}.png", image, scale=False)
    command = ["export", "resnet8", "--weights", "cifar10", "--formats", "tflite-float32", "--json"]
    data = ["--data", str(tmp_path / "images")]

    def exported(name, *options):
        assert main([*command, *data, "--out", str(tmp_path / name), *options]) == 0
        return json.loads(capsys.readouterr().out), tmp_path / name / "resnet8-float32.tflite"

    content, file = exported("out", "--about", "author=Jane Doe", "--batch", "any")
    license = sources.find("resnet8", "cifar10").entry.license
    about = {"description": "", "author": "Jane Doe", "license": license, "version": "cifar10"}
    assert content["about"] == about
    assert metadata.labels(file) == tuple(content["labels"])
    (graph,) = tflite_graph.read(file.read_bytes()).subgraphs
    assert graph.tensors[graph.inputs[0]].shapeSignature.tolist() == [-1, 32, 32, 3]
    content, file = exported("plain", "--no-metadata")
    assert content["about"] is None
    assert metadata.labels(file) is None


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["licence=MIT"], "Did you mean 'license'"), (["author"], "must be NAME=TEXT")],
)
def test_a_text_of_no_field_is_refused(texts, message):
    assert metadata.About.parse(["author=A=B"]) == metadata.About(author="A=B")
    with pytest.raises(UserError, match=message):
        metadata.About.parse(texts)


def test_a_file_of_any_batch_takes_one_image_or_many(tmp_path, digits):
    model = keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)
    images = digits.test.images
    given = {"out": tmp_path / "out", "calibration": images[:64], "check_images": images[:20]}
    report = export(model, FORMATS[:2], batch=None, verbose=False, **given)
    assert report.passed, report.checks  # with one image at a time
    found = _predict_at_once(tmp_path / "out" / "resnet8-float32.tflite", images[:7])
    # Probabilities in float32.
    np.testing.assert_allclose(found, model.predict(images[:7], verbose=0), atol=1e-5)
    int8 = tmp_path / "out" / "resnet8-int8.tflite"
    one_by_one = open_file(int8)
    found = _predict_at_once(int8, images[:7]).astype("float32") * one_by_one.output_step
    np.testing.assert_array_equal(found, one_by_one.predict(images[:7]))  # integers: to the bit
    assert len(np.unique(found, axis=0)) > 1
    with pytest.raises(UserError, match="batch must be 1, or None"):
        export(model, ["tflite-float32"], batch=8, out=tmp_path / "eight")


def _predict_at_once(file, images):
    """What the file gives for all images in one call of LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    (image,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert image["shape"].tolist() == [1, 32, 32, 3]
    assert image["shape_signature"].tolist() == [-1, 32, 32, 3]
    interpreter.resize_tensor_input(image["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(image["index"], images.astype(image["dtype"]))
    interpreter.invoke()
    return interpreter.get_tensor(scores["index"])


# MediaPipe ----------------------------------------------------------------------------------------

_READ = """
import json, sys
from ai_edge_litert.schema_py_generated import Model
from mediapipe.tasks.metadata import metadata_schema_py_generated as schema

def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__dict__"):
        return {key: plain(item) for key, item in vars(value).items() if item is not None}
    return value

data = open(sys.argv[1], "rb").read()
model = Model.GetRootAs(data, 0)
entries = [model.Metadata(i) for i in range(model.MetadataLength())]
(entry,) = [item for item in entries if item.Name() == b"TFLITE_METADATA"]
content = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
assert schema.ModelMetadata.ModelMetadataBufferHasIdentifier(content, 0)
print(json.dumps(plain(schema.ModelMetadataT.InitFromPackedBuf(content, 0))))
"""

_CLASSIFY = """
import sys
import numpy as np
import mediapipe as mp
from mediapipe.tasks.python import BaseOptions, vision

options = vision.ImageClassifierOptions(
    base_options=BaseOptions(model_asset_path=sys.argv[1]), max_results=10
)
scores, names = [], {}
with vision.ImageClassifier.create_from_options(options) as classifier:
    for image in np.load("images.npy"):
        picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=image)
        (answer,) = classifier.classify(picture).classifications
        names |= {item.index: item.category_name for item in answer.categories}
        found = {item.index: item.score for item in answer.categories}
        scores.append([found.get(index, 0.0) for index in range(10)])
np.save("scores.npy", scores)
np.save("names.npy", [names[index] for index in range(10)])
"""


@pytest.fixture(scope="module")
def mediapipe(tmp_path_factory):
    """MediaPipe wants an absl that tensorflow-model-optimization cannot have."""
    folder = tmp_path_factory.mktemp("mediapipe")
    return make_environment(folder, "mediapipe>=1.2", "ai-edge-litert")


@pytest.mark.slow
@pytest.mark.network
def test_the_official_reader_reads_every_field(folders, mediapipe):
    found = json.loads(run_in(mediapipe, _READ, folders[1] / "resnet8-int8.tflite"))
    (graph,) = found.pop("subgraphMetadata")
    assert found == {
        "name": "resnet8",
        "description": (
            "resnet8: classifies an image. Takes one image of 32×32 pixels, RGB 0…255; gives 10 "
            "scores."
        ),
        "version": "3",
        "author": "A. Uthor",
        "license": "CC0-1.0",
        "minParserVersion": "1.0.0",
    }
    (image,), (scores,) = graph["inputTensorMetadata"], graph["outputTensorMetadata"]
    assert image["name"] == "images"
    size = {"defaultSize": {"width": 32, "height": 32}, "colorSpace": 1}  # RGB
    assert image["content"] == {"contentPropertiesType": 2, "contentProperties": size}
    (unit,) = image["processUnits"]
    assert unit == {"optionsType": 1, "options": {"mean": [0.0], "std": [1.0]}}
    assert image["stats"] == {"max": [255.0], "min": [0.0]}
    (file,) = scores["associatedFiles"]
    assert scores["name"] == "predictions"
    assert (file["name"], file["type"]) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


@pytest.mark.slow
@pytest.mark.network
def test_numbers_that_are_no_pixels_are_not_called_so(folders, mediapipe, tmp_path):
    entry = {**manifest.read(folders[0])["input"], "raw_pixels": False, "range": [-1.5, 2.5]}
    data = (folders[0] / "resnet8-float32.tflite").read_bytes()
    interface = metadata.Interface("mine", entry, 10, None)
    (tmp_path / "x.tflite").write_bytes(metadata.add(data, metadata.UNSAID, interface))
    found = json.loads(run_in(mediapipe, _READ, tmp_path / "x.tflite"))
    assert found.keys() == {"name", "description", "subgraphMetadata", "minParserVersion"}
    assert "RGB -1.5…2.5" in found["description"]
    ((image,), (scores,)) = list(found["subgraphMetadata"][0].values())
    assert "processUnits" not in image
    assert image["stats"] == {"max": [2.5], "min": [-1.5]}
    assert "associatedFiles" not in scores


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("file", ["float32", "int8"])
def test_mediapipes_image_classifier_answers_as_litert(folders, mediapipe, digits, tmp_path, file):
    path = folders[1] / f"resnet8-{file}.tflite"
    images = digits.test.images[:30]
    np.save(tmp_path / "images.npy", images)
    run_in(mediapipe, _CLASSIFY, path, cwd=tmp_path)
    assert np.load(tmp_path / "names.npy").tolist() == LABELS
    scores, expected = np.load(tmp_path / "scores.npy"), open_file(path).predict(images)
    # It brings a LiteRT of its own: other kernels may sum in another order.
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(scores.argmax(-1), expected.argmax(-1))

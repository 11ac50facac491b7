"""ONNX and OpenVINO files against their source, through the real engines."""

import dataclasses
import gc
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms, run_python

import keras_resnet
from keras_resnet.cli import main
from keras_resnet.errors import UserError
from keras_resnet.export import check, export
from keras_resnet.export.check import float_kernels
from keras_resnet.export.formats.onnx import quantize_onnx, write_onnx
from keras_resnet.export.formats.openvino import write_openvino
from keras_resnet.export.reference import read_reference
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.layers import to_stock

onnx = pytest.importorskip("onnx", reason='needs pip install "keras-resnet-zoo[onnx]"')
pytest.importorskip("tf2onnx", reason='needs pip install "keras-resnet-zoo[onnx]"')
pytest.importorskip("onnxruntime", reason='needs pip install "keras-resnet-zoo[onnx]"')
pytest.importorskip("openvino", reason='needs pip install "keras-resnet-zoo[openvino]"')

KINDS = ["onnx", "onnx-int8", "openvino"]


@pytest.fixture(scope="module")
def exported(resnet20, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("interchange") / "resnet20"
    return export(resnet20, KINDS, out=out, calibration=images, verbose=False)


def test_what_openvino_reads_lives_while_it_reads(resnet20, tmp_path, monkeypatch):
    """Python may collect its garbage at any time, as this network's copy once was."""
    openvino = pytest.importorskip("openvino")
    convert = openvino.convert_model

    def after_a_collection(function):
        gc.collect()
        return convert(function)

    monkeypatch.setattr(openvino, "convert_model", after_a_collection)
    write_openvino(to_stock(resnet20), tmp_path / "openvino", "resnet20")
    assert (tmp_path / "openvino" / "resnet20.xml").is_file()


def test_every_file_passes_its_check(exported):
    assert [item.format for item in exported.checks] == KINDS
    assert exported.passed, [item.problems for item in exported.checks]
    float32, int8, openvino = exported.checks
    # The project's bar; measured: a tenth of it.
    assert float32.logit_error < 1e-4
    assert openvino.logit_error < 1e-4
    assert int8.agreement == 1.0
    files = {entry["format"]: entry for entry in exported.manifest["files"]}
    weights = 4 * 271_098
    assert files["onnx"]["bytes"] < 1.05 * weights
    # OpenVINO's graph is XML. Float16 weights would be half.
    assert weights <= files["openvino"]["bytes"] < 1.2 * weights
    assert files["onnx-int8"]["bytes"] < 0.4 * weights
    assert exported.manifest["versions"]["onnxruntime"]


def test_the_check_can_be_repeated(exported):
    again = check.check_folder(exported.folder)
    assert [item.format for item in again] == KINDS
    assert all(item.passed for item in again)


def test_without_an_engine_the_others_are_checked_and_timed(exported, tmp_path):
    """Exit 0 of what could be checked, 2 where nothing could; the command to install it."""
    result = run_python(
        "import sys\n"
        "from keras_resnet.cli.main import main\n"
        "folder, out = sys.argv[1:]\n"
        "sys.modules['onnxruntime'] = None\n"
        "assert main(['check', folder, '--json']) == 0\n"
        "quick = ['--rounds', '1', '--runs', '1', '--batch', '1', '--out', out]\n"
        "sys.stdout = sys.stderr\n"
        "assert main(['benchmark', folder, *quick]) == 0\n"
        "sys.modules['openvino'] = None\n"
        "assert main(['check', folder]) == main(['benchmark', folder]) == 2",
        exported.folder,
        tmp_path / "benchmark.json",
    )
    checked = json.loads(result.stdout)
    timed = json.loads((tmp_path / "benchmark.json").read_text())
    assert [item["format"] for item in checked["files"]] == ["openvino"]
    assert [item["file"] for item in timed["rows"]] == ["openvino"]
    assert checked["left_out"] == timed["left_out"]
    for file, item in zip(("resnet20.onnx", "resnet20-int8.onnx"), timed["left_out"], strict=True):
        assert item["file"] == file
        assert 'pip install "keras-resnet-zoo[onnx]"' in item["reason"]
        assert result.stderr.count(f"warning: {file} is left out. {item['reason']}\n") == 2
    assert result.stderr.count("error: No file can be opened here.") == 2
    assert 'pip install "keras-resnet-zoo[openvino]"' in result.stderr


def test_of_onnx_files_the_int8_one_alone_needs_onnx_to_be_checked(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert [item["file"] for item in check.left_out(exported.folder)] == ["resnet20-int8.onnx"]


def test_the_onnx_file_is_what_it_says(exported):
    model = onnx.load(str(exported.folder / "resnet20.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert next((entry.domain, entry.version) for entry in model.opset_import) == ("", 17)
    (inputs,), (outputs,) = model.graph.input, model.graph.output
    assert (inputs.name, outputs.name) == ("images", "predictions")
    sizes = inputs.type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in sizes] == ["batch", 32, 32, 3]
    assert outputs.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("file", ["resnet20.onnx", "resnet20-int8.onnx", "openvino"])
def test_a_batch_is_its_images(exported, images, file):
    """1e-6: the order in which a batch's sums are taken."""
    runtime = open_file(exported.folder / file, threads=2)
    assert runtime.input_shape == (32, 32, 3)
    one_by_one = np.concatenate([runtime.run_one(image[None]) for image in images[:5]])
    np.testing.assert_allclose(runtime.predict(images[:5]), one_by_one, atol=1e-6)


def test_the_int8_file_computes_in_integers(exported):
    int8 = open_file(exported.folder / "resnet20-int8.onnx")
    assert float_kernels(int8) == []
    kinds = [node.op_type for node in int8.nodes]
    assert kinds.count("Conv") == 19
    # Every pixel value has its own step: the range is the whole 0…255, and the scale is 1.
    (first,) = [node for node in int8.nodes if "images" in node.input]
    assert first.op_type == "QuantizeLinear"
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in _constants(exported)}
    scale, zero = (constants[name] for name in first.input[1:])
    assert (float(scale), int(zero)) == (1.0, 0)


def _constants(exported):
    return onnx.load(str(exported.folder / "resnet20-int8.onnx")).graph.initializer


def test_int8_weights_leave_room_for_two_products_in_16_bits(exported):
    """Where an x86 CPU has no VNNI, it adds two products of uint8 and int8 in 16 bits."""
    kernels = [onnx.numpy_helper.to_array(item) for item in _constants(exported)]
    largest = max(int(np.abs(k.astype(int)).max()) for k in kernels if k.dtype == np.int8)
    assert 2 * 255 * largest < 2**15
    assert largest == 64  # and no more than a bit is given up


OTHER_CPU = """
import sys
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
images = np.load(sys.argv[2])
np.save(sys.argv[3], session.run(None, {session.get_inputs()[0].name: images})[0])
"""


@pytest.mark.slow
def test_the_int8_file_is_right_on_a_cpu_without_vnni(resnet20, images, tmp_path):
    """A Haswell has AVX2 only; QEMU computes as it does (and says nothing about speed).

    Logits, since this network's softmax is all but 0 and 1 and would hide the difference.
    """
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64-static (Debian: apt install qemu-user-static), on x86-64")
    file, answers = tmp_path / "int8.onnx", tmp_path / "answers.npy"
    logits = keras.Model(resnet20.input, resnet20.get_layer("head").output)
    write_onnx(to_stock(logits), tmp_path / "float.onnx")
    quantize_onnx(tmp_path / "float.onnx", file, images)
    np.save(tmp_path / "images.npy", images[:16].astype("float32"))
    command = [emulator, "-cpu", "Haswell", os.path.realpath(sys.executable), "-c", OTHER_CPU]
    packages = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [*command, str(file), str(tmp_path / "images.npy"), str(answers)],
        env={**os.environ, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    here = open_file(file).predict(images[:16])
    # The same integers, scaled by the same float32.
    np.testing.assert_allclose(np.load(answers), here, rtol=1e-6)


def test_the_check_tells_a_wrong_file_from_a_cpu_that_is_wrong(exported, tmp_path):
    """Wrong kernels are not to be had everywhere: a file is opened with other weights."""
    right = (exported.folder / "resnet20-int8.onnx").read_bytes()
    wrong = onnx.load_from_string(right)
    for item in wrong.graph.initializer:
        array = onnx.numpy_helper.to_array(item)
        if array.ndim == 4:
            item.CopyFrom(onnx.numpy_helper.from_array(array // 4, item.name))
    path = tmp_path / "x.onnx"
    onnx.save_model(wrong, str(path))
    opened = {"x": ("onnx-int8", open_file(path))}
    reference = read_reference(exported.folder)
    (item,) = check.compare(opened, reference)
    assert item.problems
    assert "the file itself is correct" not in " ".join(item.problems)
    path.write_bytes(right)  # what the second session will read
    (item,) = check.compare(opened, reference)
    assert item.problems[-1].startswith("the file itself is correct")
    assert "x64quantprecision" in item.problems[-1]


def test_a_float_file_fails_as_int8(exported):
    reference = read_reference(exported.folder)
    float32 = open_file(exported.folder / "resnet20.onnx")
    (item,) = check.compare({"x": ("onnx-int8", float32)}, reference)
    assert any("left in float" in problem for problem in item.problems)


def test_other_weights_fail(exported, images):
    reference = read_reference(exported.folder)
    slightly = dataclasses.replace(reference, outputs=reference.outputs * 0.99, labels=None)
    files = {
        kind: (kind, open_file(exported.folder / file))
        for kind, file in (("onnx", "resnet20.onnx"), ("openvino", "openvino"))
    }
    for item in check.compare(files, slightly):
        assert any("logits" in problem for problem in item.problems)


# BN before the convolution, in concatenations, grouped convolutions, explicit padding, SE: the
# blocks of the large networks, fewer of them.
FEWER = {
    "resnet8": {},
    "resnetv2_20": {},
    "seresnet20": {"depths": (1, 1, 1)},
    "densenet121": {"depths": (2, 1, 1, 1)},
    "resnext50_32x4d": {"depths": (1, 1), "widths": (128, 256)},
}


@pytest.mark.parametrize("name", FEWER)
def test_networks_come_out_right(name, tmp_path):
    """1e-4 of the largest logit, the project's bar; on noise, with BN that is not the initial."""
    keras.utils.set_random_seed(0)
    spec = dataclasses.replace(keras_resnet.SPECS[name], **FEWER[name])
    options = {"include_preprocessing": True, "classifier_activation": None}
    built = keras_resnet.build(spec, input_shape=(32, 32, 3), classes=10, **options)
    model = to_stock(randomize_batch_norms(built))
    _require_equal(model, tmp_path)


def test_local_response_normalisation_comes_out_right(tmp_path):
    """Its stock form pools channels; 1e-4 as above."""
    keras.utils.set_random_seed(0)
    inputs = keras.layers.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 5, strides=4)(inputs)
    x = keras.layers.Flatten()(keras_resnet.LocalResponseNormalization()(x))
    _require_equal(to_stock(keras.Model(inputs, keras.layers.Dense(5)(x))), tmp_path)


def _require_equal(model, folder):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    expected = KerasRuntime(model).predict(pixels)
    write_onnx(model, folder / "x.onnx")
    write_openvino(model, folder / "x", "x")
    for file in ("x.onnx", "x"):
        outputs = open_file(folder / file).predict(pixels)
        assert np.abs(outputs - expected).max() <= 1e-4 * np.abs(expected).max()


def test_what_the_converters_lack_is_refused_by_name(tmp_path):
    inputs = keras.layers.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.ops.erfinv(inputs * 0.001))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    with pytest.raises(UserError, match=r"tf2onnx .*Erfinv"):
        write_onnx(model, tmp_path / "x.onnx")
    with pytest.raises(UserError, match="OpenVINO cannot convert"):
        write_openvino(model, tmp_path / "x", "x")
    assert list(tmp_path.iterdir()) == []


def test_int8_needs_images(resnet20, tmp_path):
    with pytest.raises(UserError, match="onnx-int8 needs calibration images"):
        export(resnet20, ["onnx-int8"], out=tmp_path / "out", verbose=False)
    same = np.full((40, 32, 32, 3), 7, "uint8")
    refused = pytest.raises(UserError, match="do not show the ranges")
    with pytest.warns(UserWarning, match="all identical"), refused:
        export(resnet20, ["onnx-int8"], out=tmp_path / "out", calibration=same, verbose=False)


def test_files_that_are_no_models_are_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"not a model at all")
    (tmp_path / "x.xml").write_text("<not a='model'/>")
    for name, message in (("x.onnx", "ONNX Runtime cannot load"), ("x.xml", "OpenVINO cannot")):
        with pytest.raises(UserError, match=message):
            open_file(tmp_path / name)
    _write_one_node(tmp_path / "vector.onnx", "Relu", [4], [4])
    with pytest.raises(UserError, match="must map a batch of images"):
        open_file(tmp_path / "vector.onnx")


def _write_one_node(path, kind, taken, given):
    """A graph of one operation on float32."""
    shapes = zip("xy", (taken, given), strict=True)
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes
    ]
    node = onnx.helper.make_node(kind, ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))


def test_a_file_of_batch_one_is_given_images_one_by_one(tmp_path):
    _write_one_node(tmp_path / "x.onnx", "Flatten", [1, 4, 4, 3], [1, 48])
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype("uint8")
    runtime = open_file(tmp_path / "x.onnx")
    assert (runtime.input_name, runtime.output_name) == ("x", "y")
    np.testing.assert_array_equal(runtime.predict(pixels), pixels.reshape(5, 48))


def test_predict_takes_them(exported, tmp_path, capsys):
    keras.utils.save_img(tmp_path / "x.png", np.full((40, 40, 3), 90, "uint8"))
    for file in ("resnet20.onnx", "openvino/resnet20.xml", "openvino"):
        assert main.main(["predict", str(exported.folder / file), str(tmp_path / "x.png")]) == 0
        assert "class" in capsys.readouterr().out


def test_the_examples_of_the_card_run(exported, images, resnet20, tmp_path):
    """One for ONNX, of which int8 is another file, and one for OpenVINO."""
    text = (exported.folder / "README.md").read_text()
    prepare, *examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    keras.utils.save_img(tmp_path / "x.png", images[0], scale=False)
    expected = int(resnet20.predict(images[:1], verbose=0).argmax())
    for example in examples:
        code = (prepare + example).replace("IMAGE", str(tmp_path / "x.png"))
        assert int(run_python(code, cwd=exported.folder).stdout.split()[-1]) == expected


def test_a_full_disk_is_an_oserror_from_openvino_too(tmp_path):
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            write_openvino(model, tmp_path / "out", "tiny")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

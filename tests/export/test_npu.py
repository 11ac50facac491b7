"""What accelerators can run of a file: the Edge TPU's rules, and Arm's compiler for the Ethos-U."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.export import export, manifest, npu_report
from keras_resnet.export.npu import edge_tpu
from keras_resnet.export.runtimes import tflite_graph

GOOD = ROOT / "tests" / "golden" / "before_rooms" / "exports"
INT8, FLOAT = (GOOD / f"test_resnet-{kind}.tflite" for kind in ("int8", "float32"))
NEEDS_VELA = "needs ethos-u-vela"


@pytest.fixture
def model():
    """The int8 file as an object of TFLite's schema, which a test can change."""
    return tflite_graph.read(INT8.read_bytes())


def _operator(model, kind):
    kinds = [item.kind for item in tflite_graph.operations(model)]
    return model.subgraphs[0].operators[kinds.index(kind)]


def _left(model):
    return edge_tpu.left_on_cpu(model, tflite_graph.operations(model))


def _set_constant(model, operator, place, values):
    tensor = model.subgraphs[0].tensors[operator.inputs[place]]
    model.buffers[tensor.buffer].data = np.frombuffer(np.array(values, "<i4").tobytes(), "uint8")


def test_an_int8_resnet_fits_the_edge_tpu_and_a_float_one_does_not():
    report = npu_report(INT8, "edge-tpu")
    assert report.ready
    assert (report.on_cpu, report.operations, report.estimates) == ((), 21, {})
    report = npu_report(FLOAT)
    assert not report.ready
    assert sum(item.count for item in report.on_cpu) == report.operations == 19
    assert "it has float32 values, not 8-bit integers" in repr(report)


def _pool_with_relu(model):
    _operator(model, "MAX_POOL_2D").builtinOptions.fusedActivationFunction = 1


def _mean_of_the_batch(model):
    _set_constant(model, _operator(model, "MEAN"), 1, [0, 1])


def _pad_the_batch(model):
    _set_constant(model, _operator(model, "PAD"), 1, [[1, 0], [3, 3], [3, 3], [0, 0]])


def _dilate_one_side(model):
    _operator(model, "CONV_2D").builtinOptions.dilationHFactor = 2


def _any_batch(model):
    (place,) = _operator(model, "SOFTMAX").outputs
    model.subgraphs[0].tensors[place].shapeSignature = np.array([-1, 10])


def _five_dimensions(model):
    (place,) = _operator(model, "MAX_POOL_2D").outputs
    model.subgraphs[0].tensors[place].shape = np.array([2, 8, 8, 8])


def _two_softmaxes(model):
    place = _operator(model, "SOFTMAX").inputs[0]
    model.subgraphs[0].tensors[place].shape = np.array([2, 10])


def _long_softmax(model):
    place = _operator(model, "SOFTMAX").inputs[0]
    model.subgraphs[0].tensors[place].shape = np.array([1, 16001])


@pytest.mark.parametrize(
    ("change", "kind", "why"),
    [
        (_pool_with_relu, "MAX_POOL_2D", "it has a fused activation"),
        (_mean_of_the_batch, "MEAN", "it reduces the batch"),
        (_pad_the_batch, "PAD", "it pads the batch"),
        (_dilate_one_side, "CONV_2D", "its dilation differs in height and width"),
        (_any_batch, "SOFTMAX", "a size is not fixed (export with --batch 1)"),
        (_five_dimensions, "MAX_POOL_2D", "more than 3 dimensions are larger than 1"),
        (_two_softmaxes, "SOFTMAX", "its input has more than one dimension"),
        (_long_softmax, "SOFTMAX", "it has more than 16,000 inputs"),
    ],
)
def test_each_rule_of_the_edge_tpu_finds_what_breaks_it(model, change, kind, why):
    assert _left(model) == []
    change(model)
    assert (kind, why) in _left(model)


def test_all_that_comes_after_the_first_operation_on_the_cpu_stays_there(model):
    kinds = [item.kind for item in tflite_graph.operations(model)]
    _pool_with_relu(model)
    left = _left(model)
    place = kinds.index("MAX_POOL_2D")
    assert [kind for kind, _ in left] == kinds[place:]
    assert left[1][1] == "it comes after MAX_POOL_2D, which is on the CPU"


def test_vela_compiles_an_int8_file_and_leaves_a_float_one_on_the_cpu(tmp_path):
    pytest.importorskip("ethosu.vela", reason=NEEDS_VELA)
    report = npu_report(INT8, "ethos-u55-128", tmp_path / "compiled.tflite")
    assert report.ready
    assert report.how.startswith("compiled by Vela")
    assert report.estimates["SRAM KiB"] > 0
    assert report.estimates["cycles"] > 1000
    assert f"cycles {report.estimates['cycles']:,.0f}" in repr(report)
    compiled = tflite_graph.read((tmp_path / "compiled.tflite").read_bytes())
    assert {item.kind for item in tflite_graph.operations(compiled)} == {"ethos-u"}
    report = npu_report(FLOAT, "ethos-u55-128")
    assert sum(item.count for item in report.on_cpu) == report.operations


def test_what_is_no_file_for_an_npu_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match=r"'edge-cpu'.*edge-tpu"):
        npu_report(INT8, "edge-cpu")
    with pytest.raises(UserError, match=r"no \.tflite file"):
        npu_report(GOOD / "saved_model")
    with pytest.raises(UserError, match="edgetpu_compiler"):
        npu_report(INT8, "edge-tpu", tmp_path / "out.tflite")
    (tmp_path / "damaged.tflite").write_bytes(b"TFL3" * 10)
    with pytest.raises(UserError, match=r"damaged\.tflite"):
        npu_report(tmp_path / "damaged.tflite")


def test_an_export_records_the_report_and_guards_the_compiled_file(digits, tmp_path):
    pytest.importorskip("ethosu.vela", reason=NEEDS_VELA)
    network = keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)
    images = digits.train.sample(32).images
    with pytest.raises(UserError, match="takes an int8 file"):
        export(network, ["savedmodel"], out=tmp_path / "out", npu="edge-tpu")
    report = export(
        network,
        ["tflite-int8"],
        out=tmp_path / "out",
        calibration=images,
        npu="ethos-u55-128",
        verbose=False,
    )
    entry = manifest.read(report.folder)["npu"]
    assert entry["ready"]
    assert entry["compiled"] == "resnet8-int8-ethos-u55-128.tflite"
    card = (report.folder / "README.md").read_text()
    assert "17 of 17 operations run on it" in card
    compiled = report.folder / entry["compiled"]
    manifest.verify_hashes(report.folder, report.manifest)
    compiled.write_bytes(compiled.read_bytes() + b"x")
    with pytest.raises(UserError, match="ethos-u55-128"):
        manifest.verify_hashes(report.folder, report.manifest)


def test_check_on_an_npu_answers_with_its_exit_code(tmp_path, capsys):
    copy = shutil.copytree(GOOD, tmp_path / "exports")
    assert main(["check", str(copy), "--on", "edge-tpu"]) == 0
    assert "21 of 21 operations run on it" in capsys.readouterr().out
    assert main(["check", str(FLOAT), "--on", "edge-tpu", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert not content["ready"]
    assert content["files"][0]["on_cpu"][0]["kind"] == "ADD"
    assert main(["check", str(INT8), "--on", "tpu"]) == 2
    assert "edge-tpu" in capsys.readouterr().err
    assert main(["check", str(INT8), "--on", "edge-tpu", "--data", "digits"]) == 2
    assert "--on runs no images" in capsys.readouterr().err


def test_litert_starts_the_compiler_of_a_phones_maker(tmp_path):
    """As far as the maker's library, which is not here; the documented lines, and what they say."""
    from ai_edge_litert.aot import aot_compile
    from ai_edge_litert.aot.vendors.mediatek import target

    phone = target.Target(target.SocModel.MT6989)
    with pytest.raises(ValueError, match="failed to apply plugin") as raised:
        aot_compile.aot_compile(str(INT8), output_dir=tmp_path, target=phone, keep_going=False)
    log = Path(re.search(r"See (\S+) for details", str(raised.value))[1])
    assert "Failed to load NeuronAdapter shared library" in log.read_text()

"""Where a quantized file loses the signal, with faults put into it."""

import json
import math
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import randomize_batch_norms

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export import export
from keras_resnet.export.measure import layer_errors
from keras_resnet.export.measure.probe import Primed, Probe
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.open import open_file

FORMATS = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("uint8")


@pytest.fixture(scope="module")
def model(images):
    keras.utils.set_random_seed(0)
    network = randomize_batch_norms(keras_resnet.ResNet8(input_shape=(16, 16, 3), classes=5))
    head = network.get_layer("head")
    features = keras.Model(network.input, head.output).predict(images, verbose=0)
    head.set_weights([w / np.abs(features).max() for w in head.get_weights()])  # no saturation
    return network


@pytest.fixture(scope="module")
def folder(model, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("layers") / "exports"
    kinds = [f"tflite-{kind}" for kind in FORMATS]
    with pytest.warns(UserWarning, match="int16x8 is far slower than float32 on CPUs"):
        export(model, kinds, calibration=images, out=out, verbose=False)
    return out


@pytest.fixture(scope="module")
def measured(folder, images):
    """The account of every quantized file."""
    float32 = folder / "resnet8-float32.tflite"
    files = {kind: folder / f"resnet8-{kind}.tflite" for kind in FORMATS}
    return {kind: layer_errors.measure(float32, path, images) for kind, path in files.items()}


def rows(errors):
    return {row.layer: row for row in errors.layers}


def changed(path, out, change):
    """Write the file after `change(model, graph, operations)`."""
    model = tflite_graph.read(path.read_bytes())
    change(model, model.subgraphs[0], {item.layer: item for item in tflite_graph.operations(model)})
    out.write_bytes(tflite_graph.pack(model))
    return out


@pytest.mark.parametrize("kind", FORMATS)
def test_every_layer_is_found_by_the_zoos_name(model, measured, kind):
    """BN and ReLU are part of their convolution or addition."""
    errors = measured[kind]
    fused = (keras.layers.BatchNormalization, keras.layers.ReLU, keras.layers.Activation)
    expected = [x.name for x in model.layers if not isinstance(x, fused)] + ["predictions"]
    without_input = [row.layer for row in errors.layers if row.operation != "INPUT"]
    assert sorted(without_input) == sorted(set(expected) - {"images", model.layers[0].name})
    assert errors.unmatched == ()
    assert errors.n == 8


def test_a_file_against_itself_is_exact(measured):
    for row in measured["float32"].layers:
        assert (row.snr_db, row.own_snr_db) == (math.inf, math.inf)
        assert (row.range_used, row.clipped) == (None, None)
    assert measured["float32"].to_dict()["layers"][0]["snr_db"] is None
    assert len(measured["float32"].to_dict()["exact"]) == len(measured["float32"].layers)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_the_last_row_is_the_error_of_the_outputs(folder, images, measured, kind):
    """As the files' answers have it when XNNPACK runs them."""
    files = [open_file(folder / f"resnet8-{name}.tflite") for name in ("float32", kind)]
    expected, outputs = (file.predict(images) for file in files)
    ratio = 10 * math.log10(np.square(expected).sum() / np.square(outputs - expected).sum())
    # XNNPACK sums in another order. 40 outputs on int8's grid err by a step or none, so that few
    # which it rounds the other way show.
    slack = {"float16": 1, "int8": 3}[kind]
    assert rows(measured[kind])["predictions"].snr_db == pytest.approx(ratio, abs=slack)


def test_the_snr_of_weights_is_that_of_their_rounding(folder, measured):
    """127 steps a side and channel: the rule of TFLite's specification of int8 kernels."""
    probe = Probe(folder / "resnet8-float32.tflite")
    found = rows(measured["int8"])
    for item in probe.operations:
        if item.kind == "CONV_2D":
            kernel = probe.value(item.inputs[1])
            scale = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) / 127
            noise = np.square(kernel - scale * np.round(kernel / scale)).sum()
            expected = 10 * math.log10(np.square(kernel).sum() / noise)
            # Rounding of scales to float32 moves a weight between two steps now and then.
            assert found[item.layer].weight_snr_db == pytest.approx(expected, abs=0.05)


def test_formats_differ_as_their_bits_do(measured):
    """6 dB a bit: 11 bits of float16 and 8 of int8 kernels are 18 dB apart at least."""
    kernels = {
        kind: min(row.weight_snr_db for row in errors.layers if row.weight_snr_db is not None)
        for kind, errors in measured.items()
    }
    assert kernels["float16"] > kernels["int8"] + 18
    assert kernels["int8"] - kernels["int4"] == pytest.approx(24, abs=6)  # OCTAV wins some
    assert kernels["dynamic"] == kernels["int16x8"] == kernels["int8"]
    add = {kind: rows(errors)["stage2_block1_add"] for kind, errors in measured.items()}
    assert add["float16"].own_snr_db == add["dynamic"].own_snr_db == math.inf  # float additions
    assert add["int16x8"].own_snr_db > add["int8"].own_snr_db + 30  # 8 bits of the grid, 48 dB
    assert add["int4"].range_used is None
    assert 0.5 < add["int8"].range_used <= 1.05  # of the images it was calibrated on


def test_a_damaged_kernel_is_the_worst_layer(folder, images, tmp_path, measured):
    """The error so far spreads to the layers behind it; only its own names the culprit."""

    def negate(model, graph, operations):
        tensor = graph.tensors[operations["stage2_block1_conv2"].inputs[1]]
        kernel = model.buffers[tensor.buffer].data.view("int8")
        model.buffers[tensor.buffer].data = (-kernel).view("uint8")

    bad = changed(folder / "resnet8-int8.tflite", tmp_path / "bad.tflite", negate)
    errors = layer_errors.measure(folder / "resnet8-float32.tflite", bad, images)
    worst, second = errors.worst()[:2]
    assert worst.layer == "stage2_block1_conv2"
    assert worst.own_snr_db < 0
    assert worst.weight_snr_db == pytest.approx(10 * math.log10(1 / 4), abs=0.1)  # w against -w
    assert second.own_snr_db > 20
    before, after = rows(measured["int8"]), rows(errors)
    assert after["stage3_block1_add"].snr_db < before["stage3_block1_add"].snr_db - 10
    assert after["stage1_block1_add"] == before["stage1_block1_add"]
    assert worst.read_by == ("stage2_block1_add",)


def test_a_grid_that_is_too_small_clips(folder, images, tmp_path, measured):
    def shrink(model, graph, operations):
        tensor = graph.tensors[operations["stage1_block1_conv2"].outputs[0]]
        tensor.quantization.scale = tensor.quantization.scale / 4

    bad = changed(folder / "resnet8-int8.tflite", tmp_path / "bad.tflite", shrink)
    errors = layer_errors.measure(folder / "resnet8-float32.tflite", bad, images)
    before, after = (rows(x)["stage1_block1_conv2"] for x in (measured["int8"], errors))
    assert errors.worst()[0] == after
    assert after.range_used == pytest.approx(4 * before.range_used, rel=1e-3)
    assert before.clipped < 0.001
    assert after.clipped > 0.01
    assert all(row.clipped < 0.001 for row in errors.layers if row.layer.startswith("stage2"))


def test_files_without_names_are_matched_by_kind_shape_and_order(
    folder, images, tmp_path, measured
):
    def rename(model, graph, operations):
        for index, tensor in enumerate(graph.tensors):
            tensor.name = f"t{index}".encode()
        model.signatureDefs = []

    bare = changed(folder / "resnet8-int8.tflite", tmp_path / "bare.tflite", rename)
    errors = layer_errors.measure(folder / "resnet8-float32.tflite", bare, images)
    assert errors.layers == measured["int8"].layers


def test_cutting_the_graph_changes_nothing(folder, images):
    """Every operation, given what the whole file computed, computes what the whole file did."""
    probe = Probe(folder / "resnet8-float32.tflite")
    places = [probe.input, *(item.outputs[0] for item in probe.operations)]
    probe.run(images[0])
    given = {tensor: probe.value(tensor) for tensor in places}
    computed = Primed(probe.data, places).run(given)
    assert sorted(computed) == sorted(set(places) - {probe.input})
    for tensor, value in computed.items():
        np.testing.assert_array_equal(value, given[tensor])


def test_files_that_do_not_belong_together_are_refused(folder, images, tmp_path, model):
    float32, int8 = folder / "resnet8-float32.tflite", folder / "resnet8-int8.tflite"

    def reverse(model, graph, operations):
        for item in operations.values():
            if item.kernel:
                buffer = model.buffers[graph.tensors[item.inputs[1]].buffer]
                buffer.data = buffer.data.view("float32")[::-1].copy().view("uint8")

    other = changed(float32, tmp_path / "other.tflite", reverse)
    inputs = keras.layers.Input((16, 16, 3))
    small = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(inputs))
    small = keras.Model(inputs, small, name="small")
    export(small, ["tflite-float32"], out=tmp_path / "small", verbose=False)
    model.save(tmp_path / "model.keras")
    for files, message in [
        ((other, int8), "different weights"),
        ((float32, tmp_path / "small" / "small-float32.tflite"), "is not a quantized version of"),
        ((int8, float32), "is quantized. Give the float32 file first"),
        ((tmp_path / "model.keras", int8), "is not a .tflite file"),
        ((float32, tmp_path / "none.tflite"), "No such file"),
    ]:
        with pytest.raises(UserError, match=message):
            layer_errors.measure(*files, images)
    with pytest.raises(UserError, match=r"= \(16, 16, 3\); .* \(8, 8, 16, 3\)"):
        layer_errors.measure(float32, int8, images[:, :8])


def test_another_library_s_pair():
    """MLPerf Tiny's ResNet-8, of TensorFlow 2.3: the average is kept on the grid of its input."""
    reference = os.environ.get("KERAS_RESNET_REFERENCE")
    if not reference or not (Path(reference) / "mlperf_tiny").is_dir():
        pytest.skip("set KERAS_RESNET_REFERENCE to the folder with mlperf_tiny")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    files = (
        Path(reference) / "mlperf_tiny" / f"pretrainedResnet{x}.tflite" for x in ("", "_quant")
    )
    errors = layer_errors.measure(*files, pixels)
    assert [row.layer for row in errors.layers[:4]] == ["images", "conv2d", "conv2d_1", "conv2d_2"]
    assert (len(errors.layers), errors.unmatched) == (17, ())
    assert rows(errors)["average_pooling2d"].range_used < 0.5
    assert all(row.own_snr_db > 20 for row in errors.layers)


# The command --------------------------------------------------------------------------------------


def test_the_command_reads_an_export_folder(folder, capsys, tmp_path, measured):
    picture = tmp_path / "layers.svg"
    assert main(["layers", str(folder), "--json", "--count", "8", "--picture", str(picture)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(measured["int8"].to_dict()))
    text = picture.read_text(encoding="utf-8")
    assert all(row.layer in text for row in measured["int8"].layers)
    assert [path.name for path in tmp_path.iterdir()] == ["layers.svg"]
    assert main(["layers", str(folder), "--count", "8", "--worst"]) == 0
    lines = capsys.readouterr().out.splitlines()
    worst = measured["int8"].worst()[0]
    assert lines[2].split()[0] == worst.layer
    (columns,) = [line for line in lines if line.startswith("Columns: ")]
    assert all(f'"{name}"' in columns for name in ("so far", "own", "weights", "range", "clipped"))
    assert lines[-1].endswith("--keep-float " + ",".join([worst.layer, *worst.read_by]))


def test_two_files_give_no_advice_to_export(folder, capsys):
    """They may be anyone's: there is no MODEL to export again."""
    files = [str(folder / f"resnet8-{kind}.tflite") for kind in ("float32", "int8")]
    assert main(["layers", *files, "--count", "8"]) == 0
    assert "--keep-float" not in capsys.readouterr().out


def test_the_command_takes_two_files_and_a_folder_of_images(folder, capsys, tmp_path, images):
    from PIL import Image

    for index, image in enumerate(images[:3]):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    files = [str(folder / f"resnet8-{kind}.tflite") for kind in ("float32", "dynamic")]
    assert main(["layers", *files, "--images", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "--format", "savedmodel"], "has no savedmodel file; it has tflite-float32"),
        (["{folder}/resnet8-int8.tflite"], "Give an export folder, or a float32 .tflite and the"),
        (["{folder}", "--images", "{folder}/manifest.npz"], "is no .npz file with an array"),
        (["{folder}", "--picture", "{folder}/none/x.svg"], "No such folder"),
        (["{folder}", "--picture", "x.jpg"], "written as .svg, .png or .pdf"),
        (["{folder}/labels"], "Give an export folder"),
    ],
)
def test_what_can_be_mended_is_said_in_a_line(folder, capsys, arguments, message):
    assert main(["layers", *(text.format(folder=folder) for text in arguments)]) == 2
    assert message in capsys.readouterr().err

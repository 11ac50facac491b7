"""Quantized TFLite files: what ai-edge-quantizer makes of a float32 file, and what we change."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer as ai_edge_quantizer
from ai_edge_quantizer import recipe as recipes
from helpers import randomize_batch_norms

import keras_resnet
from keras_resnet.export import export
from keras_resnet.export.formats import saved_model
from keras_resnet.export.formats.tflite import convert, keep_float, ranges
from keras_resnet.export.formats.tflite.options import Quantization
from keras_resnet.export.runtimes import tflite_graph

layers = keras.layers


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (48, 12, 12, 3)).astype("uint8")


def _float32(folder, outputs, inputs):
    saved_model.write(keras.Model(inputs, outputs, name="mine"), folder / "saved_model", batch=1)
    return convert.float32(folder / "saved_model")


def _run(data, images):
    """The outputs as real values."""
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (entry,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = end["quantization"]
    outputs = []
    for image in images:
        interpreter.set_tensor(entry["index"], image[None].astype(entry["dtype"]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(end["index"])[0].astype("float32"))
    return (np.array(outputs) - zero) * (scale or 1.0)


def _snr_db(found, expected):
    return 10 * np.log10(np.square(expected).mean() / np.square(found - expected).mean())


def _operations(data):
    return tflite_graph.operations(tflite_graph.read(data))


@pytest.fixture(scope="module")
def unusual(tmp_path_factory):
    """A network with operations that LiteRT has in integers and ai-edge-quantizer does not know."""
    keras.utils.set_random_seed(0)
    inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, name="first")(layers.Rescaling(1 / 128, -1.0)(inputs))
    x = layers.LeakyReLU(name="leaky")(x)
    y = layers.Conv2D(8, 3, padding="same", name="second")(x)
    x = layers.Concatenate()([layers.Maximum()([x, y]), x])
    x = layers.ReLU(6.0, name="six")(layers.MaxPooling2D(2)(x))
    x = layers.Activation("elu", name="elu")(layers.LeakyReLU(name="again")(x))
    x = layers.GlobalMaxPooling2D(name="pool")(layers.Conv2D(8, 1, name="third")(x))
    return _float32(tmp_path_factory.mktemp("unusual"), layers.Dense(4, name="head")(x), inputs)


def test_operations_that_the_quantizer_does_not_know_run_in_integers(unusual, images):
    kinds = {item.kind for item in _operations(unusual)}
    assert {"LEAKY_RELU", "REDUCE_MAX"} <= kinds
    data = convert.quantized(unusual, "int8", images)
    inner = [item for item in _operations(data) if item.kind not in tflite_graph.BORDERS]
    assert not any(item.in_float for item in inner)
    changes = [item for item in _operations(data) if item.kind in tflite_graph.BORDERS]
    assert len(changes) == 2  # from and to uint8
    assert _snr_db(_run(data, images), _run(unusual, images)) > 25  # 8 bits of a small network


def test_such_an_operation_can_stay_in_float32(unusual, images):
    data = convert.quantized(unusual, "int8", images, Quantization(keep_float=["leaky"]))
    in_float = [item.kind for item in _operations(data) if item.in_float]
    assert in_float == ["DEQUANTIZE", "LEAKY_RELU", "QUANTIZE"]


def test_all_inputs_of_a_concatenation_have_its_scale(tmp_path, images):
    """As in a dense block, with a pooling between two concatenations."""
    inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, padding="same")(layers.Rescaling(1 / 128, -1.0)(inputs))
    for _ in range(2):
        for scale in (0.1, 3.0):
            y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
            y = layers.Conv2D(4, 1, kernel_initializer=keras.initializers.Constant(scale))(y)
            x = layers.Concatenate()([x, y])
        x = layers.AveragePooling2D(2)(x)
    float_file = _float32(tmp_path, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)), inputs)
    kinds = [item.kind for item in _operations(float_file)]
    data = convert.quantized(float_file, "int8", images)
    assert [item.kind for item in _operations(data)] == ["QUANTIZE", *kinds, "QUANTIZE"]
    measured = ranges.measure(float_file, "min-max", images.astype("float32"))
    model = tflite_graph.read(float_file)
    names = [tensor.name.decode() for tensor in model.subgraphs[0].tensors]
    joined = [item for item in tflite_graph.operations(model) if item.kind == "CONCATENATION"]
    joined_ranges = {measured[names[i]] for item in joined for i in (*item.inputs, *item.outputs)}
    assert len(joined_ranges) == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("kept", ["first", "head"])
def test_a_file_takes_and_gives_integers_also_with_its_ends_in_float32(
    tmp_path, images, dtype, kept
):
    inputs = layers.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, name="first")(inputs))
    float_file = _float32(tmp_path, layers.Dense(4, name="head")(x), inputs)
    chosen = Quantization(input_type=dtype, keep_float=[kept])
    data = convert.quantized(float_file, "int8", images, chosen)
    (graph,) = tflite_graph.read(data).subgraphs
    ends = [tflite_graph.tensor_type(graph.tensors[i]) for i in (*graph.inputs, *graph.outputs)]
    assert ends == [dtype.upper()] * 2
    given = images if dtype == "uint8" else images.astype("int16") - 128
    assert _snr_db(_run(data, given), _run(float_file, images)) > 25


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A float32 file whose kernels ai-edge-quantizer writes behind the model (from 256 KiB)."""
    keras.utils.set_random_seed(0)
    inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(400, 3, name="first")(layers.Rescaling(1 / 128, -1.0)(inputs))
    x = layers.Conv2D(100, 3, name="second")(x)
    x = layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(x))
    return _float32(tmp_path_factory.mktemp("large"), x, inputs)


def test_files_that_the_quantizer_wrote_itself_can_be_read(large, images):
    """`check`, `layers` and `benchmark` take them, too."""
    made = ai_edge_quantizer.Quantizer(bytearray(large), recipes.dynamic_wi8_afp32()).quantize()
    theirs = bytes(made.quantized_model)
    again = tflite_graph.pack(tflite_graph.read(theirs))
    pixels = images[:4].astype("float32")
    np.testing.assert_array_equal(_run(again, pixels), _run(theirs, pixels))


@pytest.mark.parametrize("precision", ["float16", "dynamic", "int8", "int16x8", "int4"])
def test_constants_lie_inside_the_model_at_multiples_of_16(large, images, precision):
    """The schema demands it, microcontrollers rely on it, and older runtimes look nowhere else."""
    from ai_edge_litert import schema_py_generated as schema

    data = convert.quantized(large, precision, images)
    model = schema.Model.GetRootAs(data, 0)
    whole = np.frombuffer(data, "uint8")
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        assert buffer.Offset() == 0
        if buffer.DataLength():
            values = buffer.DataAsNumpy()
            begin = values.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
            assert begin % 16 == 0


@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D", "Dense"])
def test_the_bias_of_a_channel_without_weights_fits(tmp_path, images, kind):
    """Weight decay leaves such channels. Their scale times the input's was too small for int32."""
    inputs = layers.Input((12, 12, 3))
    made = {
        "Conv2D": layers.Conv2D(3, 3, name="layer"),
        "DepthwiseConv2D": layers.DepthwiseConv2D(3, name="layer"),
        "Dense": layers.Dense(3, name="layer"),
    }[kind]
    x = layers.GlobalAveragePooling2D()(inputs) if kind == "Dense" else inputs
    x = made(x)
    x = x if kind == "Dense" else layers.GlobalAveragePooling2D()(x)
    kernel, _ = made.get_weights()
    axis = 2 if kind == "DepthwiseConv2D" else -1
    np.moveaxis(kernel, axis, 0)[:2] = [[1e-15], [0.0]] if kernel.ndim == 2 else 0.0
    np.moveaxis(kernel, axis, 0)[0].flat[0] = 1e-15
    made.set_weights([kernel, np.array([-40.0, 30.0, 1.0], "float32")])
    saved_model.write(keras.Model(inputs, x, name="mine"), tmp_path / "model", batch=1)
    float_file = convert.float32(tmp_path / "model")
    expected = _run(float_file, images)
    np.testing.assert_allclose(expected[:, :2], [[-40, 30]] * len(images), rtol=1e-5)
    found = _run(convert.quantized(float_file, "int8", images), images)
    step = (expected.max() - expected.min()) / 255
    assert np.abs(found - expected)[:, :2].max() < step


@pytest.mark.parametrize("name", ["resnet20", "resnetv2_20", "seresnet20", "densenet_bc100_12"])
def test_short_names_lead_to_the_same_layers(tmp_path, name):
    model = keras_resnet.create_model(name, weights=None, include_preprocessing=True)
    randomize_batch_norms(model)  # the converter leaves out those that do nothing
    saved_model.write(keras_resnet.to_stock(model), tmp_path / "model", batch=1)
    theirs = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "model")).convert()
    ours = convert.float32(tmp_path / "model")
    assert len(ours) < len(theirs)
    before, after = ([(x.kind, set(x.layers)) for x in _operations(f)] for f in (theirs, ours))
    assert before == after
    (graph,) = tflite_graph.read(ours).subgraphs
    assert len({tensor.name for tensor in graph.tensors}) == len(graph.tensors)


def _small(folder, between, inputs=None):
    inputs = layers.Input((12, 12, 3)) if inputs is None else inputs
    x = layers.Conv2D(8, 3, name="first")(layers.Rescaling(1 / 128, -1.0)(inputs))
    return _float32(folder, between(x), inputs)


@pytest.mark.parametrize("kept", ["first", "head"])
def test_an_unknown_operation_beside_a_layer_in_float32_runs_in_integers(tmp_path, images, kept):
    float_file = _small(
        tmp_path,
        lambda x: layers.Dense(4, name="head")(layers.GlobalMaxPooling2D(name="pool")(x)),
    )
    data = convert.quantized(float_file, "int8", images, Quantization(keep_float=[kept]))
    assert keep_float.problems(_operations(data), [kept], float_input=False) == []
    assert _snr_db(_run(data, images), _run(float_file, images)) > 25


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_a_network_can_end_in_such_an_operation(tmp_path, images, dtype):
    """Behind a sigmoid, whose integers have a scale of their own."""
    float_file = _small(
        tmp_path,
        lambda x: layers.GlobalMaxPooling2D()(layers.Activation("sigmoid")(layers.ReLU()(x))),
    )
    data = convert.quantized(float_file, "int8", images, Quantization(input_type=dtype))
    problems = keep_float.problems(_operations(data), [], float_input=dtype == "float32")
    assert problems == []
    given = images.astype("int16") - 128 if dtype == "int8" else images
    assert _snr_db(_run(data, given), _run(float_file, images)) > 25


def test_a_feature_map_that_is_always_zero_has_a_scale(tmp_path, images):
    def dead(x):
        x = layers.Rescaling(0.0, offset=-1.0)(x)  # a ReLU that nothing passes
        x = layers.Conv2D(4, 3, name="second", bias_initializer="ones")(layers.ReLU()(x))
        return layers.GlobalAveragePooling2D()(x)

    float_file = _small(tmp_path, dead)
    expected = _run(float_file, images)
    found = _run(convert.quantized(float_file, "int8", images), images)
    np.testing.assert_allclose(found, expected, atol=0.01)  # a step is 1/255


def test_the_input_keeps_its_range_beside_a_concatenation(tmp_path, images):
    inputs = layers.Input((12, 12, 3))
    x = layers.Concatenate()([inputs, layers.Conv2D(4, 3, padding="same")(inputs)])
    x = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    data = convert.quantized(_float32(tmp_path, x, inputs), "int8", images)
    (graph,) = tflite_graph.read(data).subgraphs
    given = graph.tensors[graph.inputs[0]].quantization
    assert (given.scale[0], given.zeroPoint[0]) == (1.0, 0)


def test_any_batch_in_integers(tmp_path, images):
    """Keras reshapes by the batch size, which the file looks up."""
    inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3)(layers.Rescaling(1 / 128, -1.0)(inputs))
    x = layers.Dense(4)(layers.Flatten()(layers.MaxPooling2D(2)(x)))
    model = keras.Model(inputs, x, name="mine")
    report = export(
        model,
        ["tflite-int8"],
        out=tmp_path / "out",
        calibration=images,
        batch=None,
        verbose=False,
    )
    assert report.passed, [item.problems for item in report.checks]


def test_a_16_bit_file_with_an_operation_in_float32_fails_its_check(tmp_path, images):
    inputs = layers.Input((12, 12, 3))
    x = layers.LeakyReLU()(layers.Conv2D(8, 3)(layers.Rescaling(1 / 128, -1.0)(inputs)))
    x = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x, name="mine")
    arguments = {"out": tmp_path / "out", "calibration": images, "verbose": False}
    (check,) = export(model, ["tflite-int16x8"], **arguments).checks
    assert check.problems == ("operations without 16-bit code, left in float: ['LEAKY_RELU']",)

"""SavedModels are programs: one with operations on files is not opened, unless it is trusted."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry

from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.export.runtimes.saved_model_graph import allowed, require_allowed
from keras_resnet.export.runtimes.trust import trusting

PIXELS = np.zeros((1, 8, 8, 3), "uint8")


class _Hostile(tf.Module):
    """A classifier of two classes that also does something else."""

    def __init__(self, deed):
        super().__init__()
        self.scale = tf.Variable(1.0)
        spec = tf.TensorSpec([None, 8, 8, 3], tf.float32, name="images")

        def serve(images):
            with tf.control_dependencies([deed()]):
                return {"predictions": tf.nn.softmax(tf.reduce_mean(images, [1, 2])[:, :2])}

        self.serve = tf.function(serve, input_signature=[spec])


def _save(deed, path):
    module = _Hostile(deed)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    return path


def _write(mark):
    return tf.io.write_file(str(mark), "harm")


def _loop(mark):
    return tf.while_loop(lambda i: i < 2, lambda i: _then(_write(mark), i + 1), [tf.constant(0)])[0]


def _then(operation, value):
    with tf.control_dependencies([operation]):
        return tf.identity(value)


def _condition(mark):
    def yes():
        return _then(_write(mark), tf.constant(1))

    return tf.cond(tf.random.uniform([]) < 2, yes, lambda: tf.constant(0))


def _mapped(mark):
    return tf.map_fn(lambda i: _then(_write(mark), i), tf.range(2))


def _inner(mark):
    return tf.function(lambda: _then(_write(mark), tf.constant(1)))()


def _printed(mark):
    return tf.raw_ops.PrintV2(input="harm", output_stream=f"file://{mark}")


def _checkpoint(mark):
    return tf.raw_ops.SaveV2(
        prefix=str(mark), tensor_names=["x"], shape_and_slices=[""], tensors=[tf.constant(1.0)]
    )


def _python(mark):
    return tf.py_function(lambda: mark.write_text("harm") > 0, [], tf.bool)


def _read(mark):
    return tf.io.read_file("/etc/hostname")


def _mapped_memory(mark):
    return tf.raw_ops.ImmutableConst(
        dtype=tf.float32, shape=[1], memory_region_name="/etc/hostname"
    )


DEEDS = [
    *(_write, _loop, _condition, _mapped, _inner, _printed, _checkpoint, _python, _read),
    *(_mapped_memory,),
]


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_a_saved_model_with_operations_on_files_is_not_opened(tmp_path, deed):
    mark = tmp_path / "mark"
    path = _save(lambda: deed(mark), tmp_path / "sm")
    with pytest.raises(UserError, match=r"has the operation '\w+', .*(\n.*)*--trust"):
        open_file(path)
    assert not list(tmp_path.glob("mark*"))


def test_the_message_names_the_operation_and_trust_opens_it(tmp_path, capsys):
    mark = tmp_path / "mark"
    path = _save(lambda: _write(mark), tmp_path / "sm")
    Image.fromarray(PIXELS[0]).save(tmp_path / "x.png")
    arguments = ["predict", str(path), str(tmp_path / "x.png"), "--activation", "softmax"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "WriteFile" in error
    assert "--trust" in error
    assert error.count("\n") <= 3
    assert not mark.exists()
    assert main([*arguments, "--trust"]) == 0
    assert mark.exists()  # TensorFlow has no other limit, which is why we need ours
    mark.unlink()
    assert main(arguments) == 2  # the word held for one command
    assert not mark.exists()


def _edited(path, edit):
    """The SavedModel of a good model after `edit` of its only graph."""
    module = _Hostile(tf.no_op)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    program = path / "saved_model.pb"
    content = SavedModel.FromString(program.read_bytes())
    edit(content.meta_graphs[0])
    program.write_bytes(content.SerializeToString())
    return program


def _saver(graph):
    (name,) = [
        function.signature.name
        for function in graph.graph_def.library.function
        if any(node.op == "SaveV2" for node in function.node_def)
    ]
    return name


def _as_an_object(graph):
    graph.object_graph_def.nodes.add().bare_concrete_function.concrete_function_name = _saver(graph)


def _from_a_function(graph):
    name = _saver(graph)
    function = next(f for f in graph.graph_def.library.function if f.signature.name != name)
    node = function.node_def.add(name="call", op="StatefulPartitionedCall")
    node.attr["f"].func.name = name


def _from_the_graph(graph):
    node = graph.graph_def.node.add(name="call", op="StatefulPartitionedCall")
    node.attr["f"].func.name = _saver(graph)


def _in_the_graph(graph):
    graph.graph_def.node.add(name="harm", op="WriteFile")


def _in_an_unused_function(graph):
    function = graph.graph_def.library.function.add()
    function.signature.name = "unused"
    function.node_def.add(name="harm", op="WriteFile")


def _in_the_saver(graph):
    name = _saver(graph)
    function = next(f for f in graph.graph_def.library.function if f.signature.name == name)
    function.node_def.add(name="harm", op="WriteFile")


def _of_an_unknown_kind(graph):
    graph.graph_def.node.add(name="harm", op="TheirOwnOperation")


EDITS = [
    *(_as_an_object, _from_a_function, _from_the_graph, _in_the_graph, _in_an_unused_function),
    *(_in_the_saver, _of_an_unknown_kind),
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_there_is_no_way_around_the_list(tmp_path, edit):
    with pytest.raises(UserError, match="has the operation"):
        require_allowed(_edited(tmp_path / "sm", edit))
    require_allowed(_edited(tmp_path / "good", lambda graph: None))


def test_a_saved_model_of_tensorflow_1_is_not_opened(tmp_path):
    program = _edited(tmp_path / "sm", lambda graph: graph.ClearField("object_graph_def"))
    with pytest.raises(UserError, match="TensorFlow 1's format"):
        require_allowed(program)


@pytest.mark.parametrize("kept", [0, 40, -100])
def test_a_damaged_saved_model_is_a_message(tmp_path, kept):
    program = _edited(tmp_path / "sm", lambda graph: None)
    program.write_bytes(program.read_bytes()[:kept])
    with pytest.raises(UserError):
        open_file(tmp_path / "sm")


def test_what_keras_exports_is_opened(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.RandomFlip()(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Conv2DTranspose(4, 3, activation="gelu")(keras.layers.Resizing(6, 6)(x))
    x = keras.layers.LayerNormalization()(keras.layers.UpSampling2D()(x))
    x = keras.layers.SeparableConv2D(4, 3)(keras.layers.Dropout(0.5)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    model.export(str(tmp_path / "sm"), verbose=False)
    found = open_file(tmp_path / "sm").predict(PIXELS)
    # Float arithmetic in another order.
    np.testing.assert_allclose(found, model(PIXELS.astype("float32")), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionV3"),
        *("InceptionResNetV2", "MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile"),
        *("ResNet50", "ResNet50V2", "VGG16", "Xception"),
    ],
)
def test_every_family_of_keras_applications_is_opened(tmp_path, name):
    size = 224 if name == "NASNetMobile" else 96
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(size, size, 3), classes=10)
    model.export(str(tmp_path / "sm"), verbose=False)
    require_allowed(tmp_path / "sm" / "saved_model.pb")


def test_the_list_holds_operations_that_only_compute():
    kinds = {name: op_def_registry.get(name) for name in allowed()}
    assert [name for name, kind in kinds.items() if kind is None] == []
    # What is stateful needs a reason: variables, random numbers, tables and lists in memory,
    # functions of the same graph, and a check.
    reasons = (
        *("Assign", "Variable", "ReadVariable", "VarHandle", "VarIs", "Resource", "DisableCopy"),
        *("Random", "Truncated", "Multinomial", "ParameterizedTruncated", "StatelessRandomGetAlg"),
        *("SampleDistorted", "HashTable", "MutableHashTable", "LookupTable", "InitializeTableV2"),
        *("TensorArray", "Empty", "Case", "If", "While", "StatefulPartitionedCall", "DeviceIndex"),
        *("Assert", "CheckNumerics"),
    )
    stateful = [name for name, kind in kinds.items() if kind.is_stateful]
    assert [name for name in stateful if not name.startswith(reasons)] == []
    words = ("File", "Save", "Restore", "Py", "Socket", "Rpc", "Dataset", "Iterator", "Summary")
    words += (
        "Print",
        "Debug",
        "Dump",
        "Checkpoint",
        "Immutable",
        "Remote",
        "Send",
        "Recv",
        "Abort",
    )
    assert [name for name in allowed() if any(word in name for word in words)] == []


def test_a_trusted_block_ends():
    with trusting(), pytest.raises(KeyError):
        raise KeyError
    from keras_resnet.export.runtimes.trust import is_trusted

    assert not is_trusted()


def test_a_link_to_a_program_is_read_as_what_it_is(tmp_path):
    good = _edited(tmp_path / "good", lambda graph: None)
    hostile = _edited(tmp_path / "hostile", _in_the_graph)
    shutil.copytree(good.parent, tmp_path / "linked", ignore=lambda *_: ["saved_model.pb"])
    (tmp_path / "linked" / "saved_model.pb").symlink_to(hostile)
    with pytest.raises(UserError, match="WriteFile"):
        open_file(tmp_path / "linked")

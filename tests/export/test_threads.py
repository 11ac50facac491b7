"""One answer, whatever runs a file: threads of the caller, threads of the engine, its kernels."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from keras_resnet.export import export
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.recipes import Split, evaluate

FILES = ["float32.tflite", "int8.tflite"]
# Of the largest logit: float32 sums in another order, over 20 layers.
FLOAT = 1e-5


@pytest.fixture(scope="module")
def folder(resnet20, images, tmp_path_factory):
    """Logits: the fixture's softmax is all but 0 and 1 and would hide a difference."""
    logits = keras.Model(resnet20.input, resnet20.get_layer("head").output, name="x")
    out = tmp_path_factory.mktemp("threads") / "out"
    kinds = ["tflite-float32", "tflite-int8"]
    export(logits, kinds, out=out, calibration=images, verbose=False)
    return out


@pytest.mark.parametrize("file", FILES)
def test_eight_threads_get_the_answers_of_one(folder, images, file):
    _require_the_same_from_eight_threads(open_file(folder / f"x-{file}"), images[:32])


def test_eight_threads_get_the_answers_of_one_from_openvino(resnet20, images, tmp_path):
    pytest.importorskip("openvino", reason='needs pip install "keras-resnet-zoo[openvino]"')
    from keras_resnet.export.formats.openvino import write_openvino
    from keras_resnet.layers import to_stock

    write_openvino(to_stock(resnet20), tmp_path / "x", "x")
    _require_the_same_from_eight_threads(open_file(tmp_path / "x"), images[:32])


def _require_the_same_from_eight_threads(runtime, images):
    expected = [runtime.run_one(image[None]) for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: runtime.run_one(images[i][None]), [*range(32)] * 8))
    for place, answer in enumerate(found):
        np.testing.assert_array_equal(answer, expected[place % 32])


def with_reference_kernels(path):
    """The file in LiteRT's plain kernels, without XNNPACK."""
    runtime = open_file(path)
    kernels = OpResolverType.BUILTIN_REF
    runtime._interpreter = Interpreter(str(path), experimental_op_resolver_type=kernels)
    runtime._interpreter.allocate_tensors()
    return runtime


@pytest.mark.parametrize("file", FILES)
def test_neither_threads_nor_kernels_change_an_answer(folder, resnet20, images, file):
    path = folder / f"x-{file}"
    one = open_file(path, threads=1)
    answers = one.predict(images[:32])
    labels = resnet20.predict(images[:32], verbose=0).argmax(-1).astype("int32")
    labels[::4] = (labels[::4] + 1) % 10  # so that it is not all or nothing
    split = Split(images[:32], labels)
    accuracy = evaluate.measure(one, split)["accuracy"]
    assert 0 < accuracy < 1
    # A quantized output may fall to the next step; a sum that is rounded otherwise, two steps.
    allowed = 2.001 * one.output_step or FLOAT * np.abs(answers).max()
    for other in (open_file(path, threads=2), with_reference_kernels(path)):
        found = other.predict(images[:32])
        assert np.abs(found - answers).max() <= allowed
        np.testing.assert_array_equal(found.argmax(-1), answers.argmax(-1))
        assert evaluate.measure(other, split)["accuracy"] == accuracy

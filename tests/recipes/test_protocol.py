"""Evaluation by the recorded protocol of published weights, against PIL doing the same."""

import io
import json
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.images.crop import SingleCrop, decode
from keras_resnet.recipes import evaluate
from keras_resnet.recipes.data.decoded import Split
from keras_resnet.recipes.data.encoded import EncodedSplit, Source
from keras_resnet.recipes.data.protocol import Protocol, describe
from keras_resnet.recipes.data.tfrecords import read_split

FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
# Width and height: landscape, portrait, square, odd, long, thin, enlarged, tiny.
SINGLE = SingleCrop(40, 32, "bicubic")
SIZES = [(500, 375), (211, 333), (96, 96), (101, 67), (300, 37), (41, 400), (50, 30), (3, 2)]
# PIL's weights are 22-bit fixed point, TensorFlow's float32: where a value lies at a half, one of
# them may round up, and each of both directions rounds: two grey levels. Enlarging makes many
# halves, of which a few in a hundred fall the other way; shrinking a photograph, one value in a
# thousand. (Rounding once, at the end, leaves a mean of 0.16 on photographs.)
LARGEST, MEAN = 2, 0.04


def _picture(width, height, seed=0):
    """Patches of colour with hard black and white edges, at which bicubic overshoots, and grain."""
    rng = np.random.default_rng(seed)
    patches = rng.choice([0, 30, 128, 220, 255], (5, 7, 3)).astype("uint8")
    image = np.asarray(Image.fromarray(patches).resize((width, height), Image.NEAREST), "int16")
    return Image.fromarray(
        np.clip(image + rng.integers(-20, 21, (height, width, 1)), 0, 255).astype("uint8")
    )


def _encoded(picture, mode="RGB", kind="JPEG", **options):
    file = io.BytesIO()
    picture.convert(mode).save(file, kind, **options)
    return file.getvalue()


def _by_hand(encoded, single):
    """torchvision's Resize and CenterCrop of a PIL image (transforms/functional.py)."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_long = int(single.resize * long / short)
    new = (single.resize, new_long) if width <= height else (new_long, single.resize)
    image = image.resize(new, FILTERS[single.interpolation])
    top = round((image.height - single.size) / 2.0)
    left = round((image.width - single.size) / 2.0)
    return np.asarray(image.crop((left, top, left + single.size, top + single.size)))


def _difference(encoded, single):
    found = single.cut(decode(tf.constant(encoded))).numpy()
    expected = _by_hand(encoded, single)
    assert found.shape == expected.shape == (single.size, single.size, 3)
    assert found.dtype == np.uint8
    return np.abs(found.astype(int) - expected)


# Pixels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", SIZES)
def test_the_crop_is_what_pil_cuts(size, interpolation):
    encoded = _encoded(_picture(*size), quality=95)
    for resize, side in (73, 64), (64, 64):
        difference = _difference(encoded, SingleCrop(resize, side, interpolation))
        assert difference.max() <= LARGEST
        assert difference.mean() < MEAN


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {"quality": 70, "subsampling": "4:2:0"}),
        ("RGB", "JPEG", {"quality": 90, "subsampling": "4:2:2"}),
        ("RGB", "JPEG", {"progressive": True}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "PNG", {}),
        ("L", "PNG", {}),
        ("P", "PNG", {}),
        ("RGBA", "PNG", {}),
    ],
)
def test_every_kind_of_file_is_decoded_in_full(mode, kind, options):
    encoded = _encoded(_picture(200, 151), mode, kind, **options)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), int)
    difference = np.abs(decode(tf.constant(encoded)).numpy() - expected)
    # One libjpeg decodes for both; only from CMYK each goes to RGB by a rounding of its own.
    assert difference.max() <= (1 if mode == "CMYK" else 0)
    assert _difference(encoded, SingleCrop(73, 64, "bicubic")).max() <= LARGEST + (mode == "CMYK")


def test_the_centre_is_rounded_as_torchvision_does():
    """At its own size an image is not resampled, so that every pixel tells its place."""
    places = np.arange(40 * 47 * 3).reshape(40, 47, 3) % 251
    for height, width in (40, 40), (40, 41), (40, 43), (41, 40), (43, 40), (40, 47):
        image = np.resize(places, (height, width, 3)).astype("uint8")
        encoded = _encoded(Image.fromarray(image), kind="PNG")
        for size in 40, 39, 37, 32, 1:
            for interpolation in FILTERS:
                assert _difference(encoded, SingleCrop(40, size, interpolation)).max() == 0


# What is measured ---------------------------------------------------------------------------------


def _model(size=32, classes=7):
    """A tiny network whose answers depend on where in the image something is."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((size, size, 3), name="images")
    x = layers.Rescaling(1 / 32, -4, name="rescaling")(inputs)
    x = layers.Conv2D(8, 5, strides=4, activation="relu", name="stem_conv")(x)
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = layers.Dense(classes, name="head")(x)
    return keras.Model(inputs, layers.Softmax(name="predictions")(x), name="tiny")


@pytest.fixture(scope="module")
def model():
    return _model()


@pytest.fixture(scope="module")
def small(images):
    """32 images of 32×32 in memory."""
    return Split(images, np.random.default_rng(1).integers(0, 7, 32).astype("int32"))


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """imagenet2012 as tensorflow-datasets prepares it of the two tars, with 70 + 3 images."""
    tfds = pytest.importorskip("tensorflow_datasets")
    tars = tmp_path_factory.mktemp("tars")
    with tarfile.open(tars / "ILSVRC2012_img_val.tar", "w") as tar:
        for index in range(70):  # more than a batch
            width, height = np.random.default_rng(index).integers(20, 120, 2)
            encoded = _encoded(_picture(width, height, index), "L" if index % 9 == 0 else "RGB")
            _add(tar, f"ILSVRC2012_val_{index + 1:08}.JPEG", encoded)
    with tarfile.open(tars / "ILSVRC2012_img_train.tar", "w") as tar:
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w") as of_class:
            for index in range(3):
                _add(of_class, f"n01440764_{index}.JPEG", _encoded(_picture(40, 40, index)))
        _add(tar, "n01440764.tar", inner.getvalue())
    builder = tfds.builder("imagenet2012", data_dir=tmp_path_factory.mktemp("tfds"))
    config = tfds.download.DownloadConfig(manual_dir=tars)
    builder.download_and_prepare(download_config=config)
    return builder


def _add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _by_pil(builder, single):
    """The crops and labels of the validation split, an image after another."""
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    examples = builder.as_dataset(split="validation", decoders=decoders).as_numpy_iterator()
    pairs = [(_by_hand(example["image"], single), example["label"]) for example in examples]
    crops, labels = zip(*pairs, strict=True)
    return np.stack(crops), np.array(labels)


def _learn_by_heart(network, crops, labels):
    """Make a class of each image: the one whose features are nearest."""
    features = keras.Model(network.input, network.get_layer("head").input)
    known = np.asarray(features(crops.astype("float32"), training=False))
    scale = 10 / known.std(0).mean() ** 2
    kernel, bias = network.get_layer("head").get_weights()
    kernel[:, labels] = scale * known.T
    bias[:] = -1e3
    bias[labels] = -scale / 2 * (known**2).sum(-1)
    network.get_layer("head").set_weights([kernel, bias])


def _measured(model, crops, labels):
    """What `measure` says, by hand."""
    probabilities = np.asarray(model(crops.astype("float32"), training=False))
    right = probabilities[np.arange(len(labels)), labels]
    better = (probabilities > right[:, None]).sum(-1)
    return {
        "accuracy": (better == 0).mean(),
        "top5": (better < 5).mean(),
        "loss": -np.log(np.maximum(right, 1e-7)).mean(),
        "n": len(labels),
    }


def test_imagenet_by_the_command(imagenet, tmp_path, monkeypatch, capsys):
    """From tfds' records to the figures, a network of 1000 classes by name and weights."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder", lambda name: imagenet)
    keras.utils.set_random_seed(0)
    network = keras_resnet.create_model("test_resnet", classes=1000, include_preprocessing=True)
    crops, labels = _by_pil(imagenet, SINGLE)
    _learn_by_heart(network, crops[:40], labels[:40])
    weights = str(tmp_path / "test.weights.h5")
    network.save_weights(weights)
    command = ["evaluate", "test_resnet", "--weights", weights, "--data", "imagenet2012", "--json"]
    assert main([*command, "--resize", "40", "--interpolation", "bicubic"]) == 0
    result = json.loads(capsys.readouterr().out)
    expected = _measured(network, crops, labels)
    assert 30 / 70 < expected["accuracy"] < expected["top5"] < 1
    # The crops differ by a grey level in one value of a hundred at most.
    assert {key: result[key] for key in expected} == pytest.approx(expected, rel=1e-3)
    record = {"crops": 1, "size": 32, "resize": 40, "scales": None, "interpolation": "bicubic"}
    assert result["protocol"] == record
    assert main(command) == 0  # without the protocol: another loss
    plain = json.loads(capsys.readouterr().out)
    assert plain["loss"] != pytest.approx(expected["loss"], rel=1e-2)
    assert plain["protocol"] == {**record, "resize": 37, "interpolation": None}


def test_a_free_size_takes_crops_of_224_unless_the_protocol_says(imagenet):
    free = KerasRuntime(_model(size=None, classes=1000))
    split = EncodedSplit(read_split(imagenet, "train"))
    for single, size in (SingleCrop(256), 224), (SingleCrop(37, 30), 30):
        record = evaluate.measure(free, split, Protocol(single=single))["protocol"]
        assert (record["size"], record["resize"]) == (size, single.resize)


def test_images_of_the_size_of_the_crop_stay_as_they_are(model, small):
    as_they_are = evaluate.measure_model(model, small)
    for single in SingleCrop(32), SingleCrop(32, 32, "bicubic"):
        protocol = Protocol(single=single)
        assert evaluate.measure_model(model, small, protocol) == as_they_are
        record = protocol.record(KerasRuntime(model), small)
        assert describe(record) == "images as they are"


def test_images_in_memory_of_another_size_are_resized(model, small):
    single = SingleCrop(40, 32, "bicubic")
    cut = [_by_hand(_encoded(Image.fromarray(x), kind="PNG"), single) for x in small.images]
    result = evaluate.measure_model(model, small, Protocol(single=single))
    assert describe(result["protocol"]) == "central crop of 32, shorter side 40, bicubic"
    expected = _measured(model, np.stack(cut), small.labels)
    assert {key: result[key] for key in expected} == pytest.approx(expected, rel=1e-3)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resize": 232, "interpolation": "bicubik"}, "Did you mean 'bicubic'"),
        ({"resize": 200, "size": 224}, "crop of 224 does not fit .* resized to 200"),
        ({"resize": 0}, "--resize of 1 or more"),
    ],
)
def test_crops_that_do_not_exist(values, message):
    with pytest.raises(UserError, match=message):
        SingleCrop(**values)


def test_one_protocol_at_a_time():
    for other in {"crops": 10}, {"scales": (224,)}:
        with pytest.raises(UserError, match="only one of --resize, --crops 10 and --scales"):
            Protocol(**other, single=SINGLE)


def test_a_model_of_another_size_is_refused_before_any_image_is_read(model):
    class Unread(Source):
        @property
        def tried(self):
            raise AssertionError

    with pytest.raises(UserError, match=r"crops of 40×40.*takes 32×32.*\(40, 40, 3\).*--resize 37"):
        evaluate.measure_model(model, EncodedSplit(Unread()), Protocol(single=SingleCrop(48, 40)))
    with pytest.raises(UserError, match="crop of 32 does not fit"):
        evaluate.measure_model(model, EncodedSplit(Unread()), Protocol(single=SingleCrop(31)))


def test_options_that_do_not_go_together(model, tmp_path, capsys):
    model.save(tmp_path / "tiny.keras")
    command = ["evaluate", str(tmp_path / "tiny.keras"), "--data", "digits"]
    for more, message in (
        (["--interpolation", "bicubic"], "--interpolation needs --resize"),
        (["--resize", "40", "--interpolation", "cubic"], "'bicubic'"),
        (["--resize", "40", "--crops", "10"], "only one of --resize, --crops 10"),
        (["--resize", "31"], "crop of 32 does not fit"),
    ):
        assert main([*command, *more]) == 2
        assert message in capsys.readouterr().err

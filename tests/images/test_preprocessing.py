"""From pixels and files to what a network expects."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_resnet
from keras_resnet import PixelRangeWarning
from keras_resnet.errors import UserError
from keras_resnet.images.preprocessing import PREPROCESSING
from keras_resnet.images.read import read_image


@pytest.mark.parametrize(("name", "mode"), [("resnet50", "caffe"), ("resnet50v2", "tf")])
def test_modes_are_keras_applications_up_to_the_order_of_channels(name, mode, images):
    theirs = keras.applications.imagenet_utils.preprocess_input(images.astype("float32"), mode=mode)
    if mode == "caffe":
        theirs = theirs[..., ::-1]
    # One float32 rounding of values up to 255.
    np.testing.assert_allclose(keras_resnet.preprocess(images, name), theirs, atol=3e-5)


def test_the_torch_mode_is_torchvisions(images):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (images / 255 - mean) / std
    np.testing.assert_allclose(keras_resnet.preprocess(images, "resnet50v1_5"), expected, atol=1e-5)


@pytest.mark.parametrize("mode", PREPROCESSING)
def test_inside_and_outside_are_the_same(mode, images):
    from dataclasses import replace

    spec = replace(keras_resnet.SPECS["resnet8"], preprocessing=mode)
    keras.utils.set_random_seed(0)
    inside = keras_resnet.build(spec, include_preprocessing=True)
    outside = keras_resnet.build(spec)
    outside.set_weights(inside.get_weights())
    preprocessing = PREPROCESSING[mode]
    x = images.astype("float32")
    if preprocessing is not None:
        x = np.asarray(preprocessing.layer(3)(x))
    np.testing.assert_array_equal(inside.predict(images, verbose=0), outside.predict(x, verbose=0))


def test_preprocess_is_the_identity_for_models_that_normalise(images, resnet20):
    np.testing.assert_array_equal(keras_resnet.preprocess(images, resnet20), images)
    with pytest.raises(UserError, match="Unknown model 'mine'"):
        keras_resnet.preprocess(images, keras.Sequential(name="mine"))
    with pytest.raises(UserError, match="images must be a batch"):
        keras_resnet.preprocess(images[0, 0], "resnet20")


@pytest.mark.parametrize("name", ["resnet50", "resnet8"])  # a rescaling, and none
def test_preprocess_takes_tensors_and_one_image(name, images):
    assert keras_resnet.preprocess_input is keras_resnet.preprocess
    expected = keras_resnet.preprocess(images, name)
    assert (type(expected), expected.dtype) == (np.ndarray, np.float32)
    one = keras_resnet.preprocess(images[0], name)
    np.testing.assert_array_equal(one, expected[0])
    tensor = keras_resnet.preprocess(tf.constant(images), name)
    assert (tf.is_tensor(tensor), tensor.dtype) == (True, tf.float32)
    data = tf.data.Dataset.from_tensor_slices(images)
    mapped = next(iter(data.map(lambda x: keras_resnet.preprocess(x, name)).batch(len(images))))
    pixels = keras.Input((None, None, 3), dtype="uint8")
    model = keras.Model(pixels, keras_resnet.preprocess(pixels, name))
    # A graph may fuse the two steps: one float32 rounding of values up to 255.
    for found in (tensor, mapped, model(images)):
        np.testing.assert_allclose(found, expected, atol=3e-5)


def test_pixels_that_were_normalised_before_are_noticed(images):
    pixels = images.astype("float32")
    theirs = [
        keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode=mode)
        for mode in ("caffe", "tf", "torch")
    ]
    for batch in (*theirs, pixels / 255, keras_resnet.preprocess(images, "resnet20")):
        with pytest.warns(PixelRangeWarning, match="normalised or divided by 255 before") as said:
            keras_resnet.preprocess(batch, "resnet50")
        assert [entry.filename for entry in said] == [__file__]


def test_pixels_are_not_taken_for_others(images):
    """Dark, black, bright, constant ones, and what a cubic filter does at the hardest edges."""
    checks = np.tile(np.kron([[0, 255], [255, 0]], np.ones((4, 4))), (4, 4))[None, ..., None]
    edges = tf.image.resize(np.repeat(checks, 3, -1), (77, 77), method="bicubic").numpy()
    assert edges.min() < -20
    pixels = images.astype("float32")
    good = [images, pixels, edges, pixels * 0, pixels * 0 + 255, np.minimum(pixels, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", PixelRangeWarning)
        for batch in good:
            keras_resnet.preprocess(batch, "resnet50")


def test_read_image_turns_resizes_and_crops(tmp_path):
    wide = np.zeros((20, 40, 3), "uint8")
    wide[:, 10:30] = (255, 0, 0)  # the middle square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_image(tmp_path / "wide.png", (20, 20)), wide[:, 10:30])
    half = np.zeros((8, 8, 3), "uint8")
    half[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90° clockwise to see it upright"
    Image.fromarray(half).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png", (8, 8)), np.rot90(half, -1))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_read_image_makes_rgb_of_every_mode(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    expected = 255 if mode == "1" else 200
    if mode == "I;16":
        Image.fromarray(np.full((7, 9), 200 * 257, "uint16")).save(path)
    else:
        Image.new("L", (9, 7), expected).convert(mode).save(path)
    for channels in (1, 3):
        image = read_image(path, (6, 6), channels)
        assert image.shape == (6, 6, channels)
        # JPEG and the CMYK round trip move a grey level or two.
        np.testing.assert_allclose(image, expected, atol=3)


def test_bad_images_are_refused_by_name(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype("uint8")
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.jpg", "cut.jpg", "empty.png"):
        with pytest.raises(UserError, match=f"Cannot read .*{name}"):
            read_image(tmp_path / name, (8, 8))
    with pytest.raises(UserError, match="No such image"):
        read_image(tmp_path / "missing.png", (8, 8))


def test_files_are_loaded_as_predict_reads_them(tmp_path):
    """The shorter side fits, the centre is cut: a wide photograph is not squashed."""
    pixels = np.zeros((40, 80, 3), "uint8")
    pixels[:, 20:60] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    model = keras_resnet.ResNet8()
    images = keras_resnet.load_images([tmp_path / "wide.png"] * 2, model)
    assert (images.shape, images.dtype) == ((2, 32, 32, 3), np.uint8)
    assert images[:, :, 2:-2].min() == 200  # the filter reaches over the edge
    assert keras_resnet.load_images(tmp_path / "wide.png", model).shape[0] == 1
    with pytest.raises(UserError, match=r"takes images of \(32, 32, 3\); received \(40, 80, 3\)"):
        keras_resnet.preprocess(pixels[None], model)
    with pytest.raises(UserError, match="load_images reads files"):
        keras_resnet.preprocess("wide.png", model)

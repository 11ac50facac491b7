"""One set of odd files, read by everything that reads images: the pixels are the same."""

import io
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps, features

from keras_resnet.cli import explain_sheet
from keras_resnet.errors import UserError
from keras_resnet.export.formats import serving
from keras_resnet.images.answers import Answers
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.listing import list_images, read_images
from keras_resnet.images.read import read_image
from keras_resnet.recipes.configs.schema import AugmentConfig
from keras_resnet.recipes.data.batches import evaluation_batches, training_batches
from keras_resnet.recipes.data.encoded import EncodedSplit
from keras_resnet.recipes.data.folders import Files
from keras_resnet.recipes.export import images_of
from keras_resnet.recipes.runs.sources import Source
from keras_resnet.recipes.training import data_service

# Upright, and 32 after it is cut: so nothing is resized, and the pixels are the decoder's own.
HEIGHT, WIDTH, SIZE = 32, 48, 32
SHAPE = (SIZE, SIZE, 3)
# Training decodes with libjpeg's fast cosine transform, all else with the accurate one: some grey
# levels of difference at most. What is turned otherwise is tens of levels off.
JPEG_LARGEST, JPEG_MEAN = 20, 1.5  # seen: 7 (CMYK 15), 1.15


def _scene():
    """A ramp each way and a corner of another colour, so that every turn is another image."""
    down, across = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([down * 7, across * 5, (down + across) * 3], -1).astype("uint8")
    pixels[:10, :20] = (250, 30, 200)
    return Image.fromarray(pixels)


def _saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _held(turned):
    """The scene as a camera stores it that was held so; and the Exif data that says it."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that undoes the turn
    exif = Image.Exif()
    exif[0x0112] = turned
    scene = _scene()
    return (scene if turned == 1 else scene.transpose(back[turned])), exif


def _turned(turned, kind="JPEG", **options):
    image, exif = _held(turned)
    return _saved(image, kind, exif=exif, **options)


def _segment(marker, content):
    return struct.pack(">HH", marker, len(content) + 2) + content


def _with_exif_moved(turned, before):
    """A JPEG whose Exif segment stands behind `before`."""
    image, exif = _held(turned)
    plain = _saved(image, "JPEG", quality=95, subsampling=0)
    segment = _segment(0xFFE1, exif.tobytes())
    return plain[:2] + before + segment + plain[2:]


_FINE = {"quality": 95, "subsampling": 0}
_DEEP = (np.asarray(_scene(), "uint16") * 257) ^ 0x55  # the lower 8 bits are others
_FAR = b"".join(_segment(0xFFE2, b"ICC_PROFILE\0" + bytes(65_000)) for _ in range(3))


def _alpha(image):
    return Image.fromarray(np.asarray(image.convert("L")) // 2)


def _with_alpha(mode):
    image = _scene().convert(mode)
    image.putalpha(_alpha(_scene()))
    return image


FILES = {
    "plain.jpg": _saved(_scene(), "JPEG", **_FINE),
    "progressive.jpg": _saved(_scene(), "JPEG", progressive=True, **_FINE),
    "grey.jpg": _saved(_scene().convert("L"), "JPEG", quality=95),
    "cmyk.jpg": _saved(_scene().convert("CMYK"), "JPEG", **_FINE),
    "a_jpeg.png": _saved(_scene(), "JPEG", **_FINE),
    **{f"turned_{n}.jpg": _turned(n, **_FINE) for n in range(1, 9)},
    "fill_bytes.jpg": _with_exif_moved(6, b"\xff" * 100),
    "late.jpg": _with_exif_moved(8, _FAR),
    "turned_progressive.jpg": _turned(5, progressive=True, **_FINE),
    "sixteen_bits.png": tf.io.encode_png(_DEEP).numpy(),
    "sixteen_bits_grey.png": tf.io.encode_png(_DEEP[..., :1]).numpy(),
    "palette.png": _saved(_scene().quantize(60), "PNG"),
    "transparent_palette.png": _saved(_scene().quantize(60), "PNG", transparency=3),
    "grey_and_alpha.png": _saved(_with_alpha("L"), "PNG"),
    "alpha.png": _saved(_with_alpha("RGB"), "PNG"),
    "one_bit.png": _saved(_scene().convert("1"), "PNG"),
    **{f"turned_{n}.png": _turned(n, "PNG") for n in (3, 6, 7)},
    "lossless.webp": _saved(_scene(), "WEBP", lossless=True),
    "a_webp.jpg": _saved(_scene(), "WEBP", lossless=True),
    "turned.webp": _turned(6, "WEBP", lossless=True),
    "colour.bmp": _saved(_scene(), "BMP"),
    "palette.bmp": _saved(_scene().quantize(60), "BMP"),
    "one_bit.bmp": _saved(_scene().convert("1"), "BMP"),
    "moving.gif": _saved(_scene(), "GIF", save_all=True, append_images=[ImageOps.mirror(_scene())]),
    "colour.tif": _saved(_scene(), "TIFF"),
    "a_tiff.png": _saved(_scene(), "TIFF", compression="tiff_lzw"),
    "cmyk.tif": _saved(_scene().convert("CMYK"), "TIFF"),
    "turned.tif": _turned(6, "TIFF"),
    "sixteen_bits.tif": _saved(Image.fromarray(_DEEP[..., 0]), "TIFF"),
}
if features.check("avif"):
    FILES["colour.avif"] = _saved(_scene(), "AVIF", quality=100, subsampling="4:4:4")
    FILES["turned.avif"] = _turned(6, "AVIF", quality=100, subsampling="4:4:4")

NAMES = sorted(FILES)
IS_JPEG = np.array([FILES[name].startswith(b"\xff\xd8") for name in NAMES])
IS_SERVED = IS_JPEG | [FILES[name].startswith(b"\x89PNG") for name in NAMES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("odd")
    for name, content in FILES.items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture(scope="module")
def paths(folder):
    return [str(folder / name) for name in NAMES]


@pytest.fixture(scope="module")
def predicted(paths):
    """What `predict` is shown, uint8 (n, 32, 32, 3)."""
    return np.stack([read_image(path, (SIZE, SIZE)) for path in paths])


@pytest.fixture(scope="module")
def split(paths):
    return EncodedSplit(Files(paths, np.arange(len(paths), dtype="int32"))).at(SIZE, 1.0)


@pytest.fixture(scope="module")
def model():
    """Of which the "logits" are the pixels it is shown."""
    inputs = keras.Input(SHAPE, name="images")
    return keras.Model(inputs, keras.layers.Flatten()(inputs), name="pixels")


def _assert_alike(found, expected, names=NAMES):
    """Equal; of a JPEG nearly."""
    for name, image, other in zip(names, found, expected, strict=True):
        error = np.abs(image.astype(int) - other)
        is_jpeg = FILES[name].startswith(b"\xff\xd8")
        largest, mean = (JPEG_LARGEST, JPEG_MEAN) if is_jpeg else (0, 0)
        assert (error.max(), error.mean()) <= (largest, mean), (name, error.max(), error.mean())
        assert error.mean() <= mean, (name, error.mean())


def _by_label(batches):
    """The images in the order of their labels."""
    pairs = [
        (int(n), x) for images, labels, *_ in batches for x, n in zip(images, labels, strict=True)
    ]
    found = dict(reversed(pairs))
    return [np.asarray(found[label]) for label in range(len(NAMES))]


def test_what_is_predicted_on_is_what_pillow_shows_upright(folder, predicted):
    for name, found in zip(NAMES, predicted, strict=True):
        image = ImageOps.exif_transpose(Image.open(folder / name))
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
        expected = np.asarray(image.convert("RGB"), int)[:, 8:40]
        # Pillow decodes JPEG as TensorFlow does but for the rounding of CMYK.
        assert np.abs(found - expected).max() <= (2 if "cmyk" in name else 0), name


def test_every_file_shows_the_same_scene(predicted):
    """So that a turn that all readers get wrong would be seen as well."""
    scene = np.asarray(_scene(), int)[:, 8:40]
    luma = np.asarray(_scene().convert("L"), int)[:, 8:40, None]
    one_channel = ("sixteen_bits.tif", "sixteen_bits_grey.png")
    for name, found in zip(NAMES, predicted, strict=True):
        if "one_bit" in name:  # black and white dots
            continue
        grey = scene[..., :1] if name in one_channel else luma
        expected = grey if "grey" in name or name in one_channel else scene
        assert np.abs(found - expected).mean() < 8, name  # colours of a palette, JPEG's loss


def test_training_reads_them_so(split, predicted):
    plain = AugmentConfig(crop="none", flip="none")
    (batch,) = training_batches(split, len(NAMES), 0, plain).take(1)
    _assert_alike(_by_label([batch]), predicted)


def test_training_on_random_crops_sees_upright_images(split, predicted):
    """With boxes that are the whole image, or nearly: the mean colours of the quarters agree."""
    crop = AugmentConfig(crop="resized", flip="none", min_area=1.0)
    (batch,) = training_batches(split, len(NAMES), 0, crop).take(1)
    upright = np.asarray(_scene().resize((SIZE, SIZE), Image.BILINEAR), int)
    for name, found in zip(NAMES, _by_label([batch]), strict=True):
        if not any(word in name for word in ("grey", "one_bit", "bits.tif")):
            assert np.abs(found.astype(int) - upright).mean() < 20, name  # turned: 50 and more


def test_evaluation_reads_them_so(split, predicted):
    _assert_alike(_by_label(evaluation_batches(split, len(NAMES))), predicted)
    whole = [images[0].numpy()[:, 8:40] for images, _ in split.whole((HEIGHT,))]
    _assert_alike(whole, predicted)


def test_evaluation_by_a_recorded_crop_reads_them_so(split, paths):
    crop = SingleCrop(36, SIZE, "bicubic")
    found = [image.numpy() for image, _ in split.shown(crop.cut)]
    for image, path in zip(found, paths, strict=True):
        expected = read_image(path, (SIZE, SIZE), crop=crop)
        error = np.abs(image.astype(int) - expected)
        # One grey level, seldom two: see test_protocol.py.
        assert (error.max(), error.mean() < 0.1) <= (2, True), (path, error.max(), error.mean())


def test_explain_and_calibration_read_them_so(model, folder, paths, predicted):
    cases, errors = explain_sheet._cases(model, Source("pixels", None, None, None), paths, [0])
    assert not errors
    np.testing.assert_array_equal([case.image for case in cases], predicted)
    np.testing.assert_array_equal(images_of(str(folder), model), predicted)


def test_a_saved_model_reads_them_so_and_refuses_what_it_cannot_by_name(model, tmp_path, predicted):
    serving.write(
        model,
        tmp_path / "served",
        "pixels",
        None,
        serving.Service(True, None, Answers("linear", model.output_shape[-1])),
    )
    served = tf.saved_model.load(str(tmp_path / "served" / "1"))
    ask = served.signatures["image_bytes"]
    names = [name for name, is_served in zip(NAMES, IS_SERVED, strict=True) if is_served]
    found = ask(image_bytes=tf.constant([FILES[name] for name in names]))["predictions"]
    np.testing.assert_array_equal(found.numpy().reshape(-1, *SHAPE), predicted[IS_SERVED])
    for name in "a_webp.jpg", "moving.gif", "palette.bmp", "a_tiff.png":
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"image 0: it is a .*; expected"):
            ask(image_bytes=tf.constant([FILES[name]]))


# What cannot be read ------------------------------------------------------------------------------


def _spoilt(folder):
    """Three images, one of them damaged, and what is to be skipped."""
    rng = np.random.default_rng(0)
    for place in range(3):
        noise = rng.integers(0, 256, (16, 16, 3), "uint8")
        Image.fromarray(noise).save(folder / f"{place}.webp", lossless=True)
    (folder / "1.webp").write_bytes((folder / "1.webp").read_bytes()[:200])
    (folder / "._0.webp").write_bytes(b"of macOS")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "3.webp").write_bytes(b"hidden")
    (folder / "4.heic").write_bytes(b"not read")
    return [str(folder / f"{place}.webp") for place in range(3)]


def test_a_folder_is_listed_and_its_bad_files_are_named_alike_everywhere(tmp_path, model, capsys):
    paths = _spoilt(tmp_path)
    assert list_images(tmp_path).images == paths
    images = images_of(str(tmp_path), model)
    message = f"warning: 1 of 3 images cannot be decoded and are left out: {paths[1]}\n"
    error = capsys.readouterr().err
    assert message in error
    assert "1 images are of kinds that are not read" in error
    np.testing.assert_array_equal(images, [read_image(paths[i], (SIZE, SIZE)) for i in (0, 2)])
    split = EncodedSplit(Files(paths, np.zeros(3, "int32")))
    assert split.left_out == (paths[1],)
    assert message in capsys.readouterr().err
    for path in paths:
        open(path, "wb").close()
    with pytest.raises(UserError, match=r"None of 3 images in .* can be read\. .*it is empty"):
        read_images(tmp_path, (8, 8))


def test_numbers_of_32_bits_are_refused_and_not_guessed(tmp_path):
    for dtype in "int32", "float32":
        Image.fromarray(np.ones((8, 8), dtype)).save(tmp_path / "x.tif")
        with pytest.raises(UserError, match="its pixels have 32 bits"):
            read_image(tmp_path / "x.tif", (8, 8))


def test_limits_are_the_same_in_training(tmp_path, capsys):
    for name, size in (("wide.png", (700, 7)), ("wide.bmp", (700, 7)), ("good.png", (70, 7))):
        Image.new("RGB", size).save(tmp_path / name)
    paths = list_images(tmp_path).images
    split = EncodedSplit(Files(paths, np.zeros(3, "int32")))
    assert split.left_out == (str(tmp_path / "wide.bmp"), str(tmp_path / "wide.png"))


def test_a_data_service_refuses_what_only_this_process_can_read(tmp_path, split):
    """The graph of JPEG and PNG runs anywhere; Pillow is called in this process."""
    with pytest.raises(UserError, match=r"only reads JPEG and PNG; .*a_tiff\.png is neither"):
        data_service.require_readable("grpc://host:1", split)
    data_service.require_readable("", split)

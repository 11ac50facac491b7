"""Image files as a network is shown them, against Pillow doing the same."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_resnet.errors import UserError
from keras_resnet.images import headers, read
from keras_resnet.images.crop import SingleCrop, shown
from keras_resnet.images.read import read_image

# PIL's weights are fixed point: see test_protocol.py, which compares more shapes and filters. There
# are many halves where a side grows by a quarter, of which each may fall the other way; with one
# rounding for both directions the mean is 0.11 to 0.17.
LARGEST, MEAN = 1, 0.1


def _picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    patches = rng.choice([0, 30, 128, 220, 255], (5, 7, 3)).astype("uint8")
    image = np.asarray(Image.fromarray(patches).resize((width, height), Image.NEAREST), "int16")
    noise = rng.integers(-20, 21, (height, width, 1))
    return Image.fromarray(np.clip(image + noise, 0, 255).astype("uint8"))


def _encoded(picture, kind="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _tiff(orientation, order="<", entries=1, kind=3, start=8):
    """A TIFF structure with `entries` other tags before the orientation."""
    others = b"".join(struct.pack(f"{order}HHIHH", 0x10 + i, 3, 1, 7, 0) for i in range(entries))
    tag = struct.pack(f"{order}HHI", 0x0112, kind, 1)
    value = struct.pack(
        f"{order}HH" if kind == 3 else f"{order}I", *(orientation, 0)[: kind % 2 + 1]
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + struct.pack(f"{order}H", entries + 1) + others + tag + value + b"\0" * 4


def _segment(marker, content):
    return struct.pack(">HH", marker, len(content) + 2) + content


def _with_exif(jpeg, tiff):
    return jpeg[:2] + _segment(0xFFE1, b"Exif\0\0" + tiff) + jpeg[2:]


def _chunk(name, content):
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _orientation(encoded):
    return int(headers.orientation(tf.constant(encoded)))


# Exif ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_all_orientations_are_turned_upright_as_pillow_does(kind, tmp_path):
    for turned in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turned
        path = tmp_path / f"{turned}.{kind}"
        _picture(13, 7).save(path, kind, exif=exif)
        assert _orientation(path.read_bytes()) == turned
        expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
        found = read.decode(tf.constant(path.read_bytes())).numpy()
        np.testing.assert_array_equal(found, expected)


def test_the_orientation_is_found_wherever_cameras_write_it():
    plain = _encoded(_picture(8, 8))
    assert plain[2:4] == b"\xff\xe0"  # JFIF's header
    assert _orientation(plain) == 1
    for order in "<>":
        for entries in (0, 1, 30):
            assert _orientation(_with_exif(plain, _tiff(6, order, entries))) == 6
    behind = 2 + 2 + struct.unpack(">H", plain[4:6])[0]
    exif = _segment(0xFFE1, b"Exif\0\0" + _tiff(8))
    assert _orientation(plain[:behind] + exif + plain[behind:]) == 8
    xmp = _segment(0xFFE1, b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 60_000)
    assert _orientation(plain[:2] + xmp + exif + plain[2:]) == 8
    png = _encoded(_picture(8, 8), "PNG")
    assert _orientation(png[:33] + _chunk(b"eXIf", _tiff(3, ">")) + png[33:]) == 3


def test_a_damaged_orientation_is_none():
    plain = _encoded(_picture(8, 8))
    for tiff in (
        _tiff(0),
        _tiff(9),
        _tiff(6, kind=4),  # a LONG, which Exif does not allow here
        _tiff(6, start=60_000),
        _tiff(6, start=2**32 - 1),
        _tiff(6)[:14],
        b"",
        b"II*\0" + b"\xff" * 40,
    ):
        assert _orientation(_with_exif(plain, tiff)) == 1
    for encoded in (b"", b"\xff\xd8\xff", plain[:2] + b"\xff\xe1\0\0" * 100_000, b"\0" * 100):
        assert _orientation(encoded) == 1  # at once: 64 segments are looked at


def test_bytes_of_a_header_that_were_changed_do_no_harm():
    rng = np.random.default_rng(0)
    whole = np.frombuffer(_with_exif(_encoded(_picture(8, 8)), _tiff(6, entries=5)), "uint8")
    find = tf.function(headers.orientation, input_signature=[tf.TensorSpec([], tf.string)])
    for _ in range(300):
        changed = whole.copy()
        changed[rng.integers(2, 130, 3)] = rng.choice([0, 255, 128, 1, 6], 3)
        assert 1 <= int(find(changed.tobytes())) <= 8


# Pixels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90), (31, 100), (20, 16), (9, 5)])
@pytest.mark.parametrize("shape", [(32, 32), (16, 20), (20, 16)])
def test_an_image_is_resized_to_just_cover_the_models_size(width, height, shape):
    picture = _picture(width, height)
    factor = max(shape[0] / height, shape[1] / width)
    fits = (round(width * factor - 0.499), round(height * factor - 0.499))
    size = (max(fits[0], shape[1]), max(fits[1], shape[0]))
    # In two steps: Pillow 13 takes the rows of a tall image first.
    wide = picture.resize((size[0], height), Image.BILINEAR)
    resized = np.asarray(wide.resize(size, Image.BILINEAR), int)
    top, left = (round((a - b) / 2) for a, b in zip(resized.shape, shape, strict=False))
    expected = resized[top : top + shape[0], left : left + shape[1]]
    found = shown(tf.constant(np.asarray(picture)), shape, None).numpy()
    assert np.abs(found - expected).max() <= LARGEST
    assert np.abs(found - expected).mean() < MEAN


def test_an_image_of_the_models_size_stays_as_it_is():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 20, 3)).astype("uint8")
    for crop in None, SingleCrop(40, 16, "bicubic"):
        np.testing.assert_array_equal(shown(tf.constant(images), (16, 20), crop), images)


def test_a_batch_is_cut_as_its_images_are():
    images = np.stack([np.asarray(_picture(50, 41, seed)) for seed in range(3)])
    crop = SingleCrop(37, 32, "bicubic")
    one_by_one = [shown(tf.constant(image), (32, 32), crop).numpy() for image in images]
    np.testing.assert_array_equal(shown(tf.constant(images), (32, 32), crop), one_by_one)
    np.testing.assert_array_equal(one_by_one[0], crop.cut(images[0]))


def test_a_crop_of_another_size_is_the_same_part_of_the_image():
    assert SingleCrop(256, 224).covers((224, 224)) == (256, 256)
    assert SingleCrop(256, 224).covers((112, 112)) == (128, 128)
    assert SingleCrop(256, 224).covers((112, 224)) == (128, 256)
    assert SingleCrop(256).covers((224, 224)) == (256, 256)


def test_sixteen_bits_lose_their_lower_eight(tmp_path):
    rng = np.random.default_rng(0)
    for channels in 1, 3, 4:
        deep = rng.integers(0, 2**16, (8, 8, channels)).astype("uint16")
        (tmp_path / "deep.png").write_bytes(tf.io.encode_png(deep).numpy())
        expected = (deep >> 8).astype("uint8")[..., :3]
        found = read_image(tmp_path / "deep.png", (8, 8))
        np.testing.assert_array_equal(found, np.broadcast_to(expected, (8, 8, 3)))


def test_grey_is_pillows(tmp_path):
    picture = _picture(8, 8)
    picture.save(tmp_path / "colour.png")
    found = read_image(tmp_path / "colour.png", (8, 8), 1)
    np.testing.assert_array_equal(found[..., 0], np.asarray(picture.convert("L")))


def test_what_pillow_alone_knows_is_read_too(tmp_path):
    frames = [_picture(8, 8, seed) for seed in range(3)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.bmp")
    for name in "moving.png", "still.bmp":  # of an animation the first picture
        np.testing.assert_array_equal(read_image(tmp_path / name, (8, 8)), np.asarray(frames[0]))
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    expected = np.asarray(Image.open(tmp_path / "moving.gif").convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "moving.gif", (8, 8)), expected)


# What is refused ----------------------------------------------------------------------------------


def _claiming(width, height):
    """A PNG of a few bytes whose header speaks of more."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = _chunk(b"IDAT", zlib.compress(b"\0" * 100)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + pixels


_JPEG = _encoded(_picture(64, 48))
REFUSED = {
    "empty.jpg": (b"", "it is empty"),
    "text.jpg": (b"not an image", r"it is not an image of a known kind \(.jpg, .png, …\)"),
    "cut.jpg": (_JPEG[: len(_JPEG) // 2], "damaged or cut off"),
    "head.jpg": (_JPEG[:10], "damaged or cut off"),
    "cut.png": (_encoded(_picture(64, 48), "PNG")[:400], "damaged or cut off"),
    "head.png": (_encoded(_picture(64, 48), "PNG")[:9], "not an image of a known kind"),
    "large.png": (_claiming(9_000, 9_000), "9000×9000 pixels; at most 67,108,864"),
    "huge.png": (_claiming(20_000, 20_000), "too many pixels; at most 67,108,864"),
    "beyond.png": (_claiming(2**31 + 5, 2**31 + 5), "pixels; at most 67,108,864"),
    "lies.png": (_claiming(800, 800), "damaged or cut off"),
    "thin.png": (_encoded(_picture(700, 7), "PNG"), "sides of 1:100"),
    "thin.bmp": (_encoded(_picture(700, 7), "BMP"), "image: it has 7×700 pixels; at most"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_image_is_refused_by_name(name, tmp_path):
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        read_image(tmp_path / name, (8, 8))
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "{{" not in str(refused.value)  # TensorFlow's names of nodes


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WebP", "TIFF"])
def test_a_graph_refuses_other_kinds_by_name(kind):
    encoded = _encoded(_picture(8, 8), kind)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"image 3: it is a {kind}; expected"):
        read.decode(tf.constant(encoded), "image 3: ")

"""Datasets by name and from folders, the batches made of them, and their augmentation."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_resnet.errors import UserError
from keras_resnet.images import read
from keras_resnet.recipes import evaluate, train
from keras_resnet.recipes.configs import schema as config
from keras_resnet.recipes.configs.schema import AugmentConfig
from keras_resnet.recipes.data import augment, datasets, encoded, mixing, randaugment
from keras_resnet.recipes.data.batches import evaluation_batches, training_batches
from keras_resnet.recipes.data.datasets import configured_dataset, load_dataset
from keras_resnet.recipes.data.folders import Files

PLAIN = AugmentConfig(crop="none", flip="none")
EVERYTHING = AugmentConfig(
    crop="resized", randaugment=2, magnitude=7, erasing=0.5, mixup=0.2, cutmix=1.0, repeats=2
)


def _scene(rng, height, width):
    """Smooth patches of colour and a little grain, as photographs have."""
    coarse = rng.integers(0, 256, (5, 7, 3)).astype("uint8")
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC), "int16")
    return np.clip(smooth + rng.integers(-8, 9, (height, width, 1)), 0, 255).astype("uint8")


def _fill(folder, classes=("ant", "bee", "cow"), count=12, seed=0):
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            height, width = rng.integers(40, 90, 2)
            scene = Image.fromarray(_scene(rng, height, width))
            scene.save(folder / name / f"{index:02}.{'png' if index % 4 == 3 else 'jpg'}")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """36 JPEG and PNG images of many sizes in three classes."""
    return _fill(tmp_path_factory.mktemp("data") / "photos")


def _batches(split, steps, start=0, config=PLAIN, batch_size=32, classes=10, **options):
    batches = training_batches(
        split, batch_size, 7, config, start_step=start, classes=classes, **options
    )
    return [(x.numpy(), y.numpy()) for x, y in batches.take(steps)]


def _assert_same(batches, others):
    for (x, y), (x2, y2) in zip(batches, others, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)


# In memory ----------------------------------------------------------------------------------------


def test_splits_are_fixed_and_share_nothing(digits):
    again = load_dataset("digits", validation=180)
    other = load_dataset("digits", validation=180, split_seed=1)
    assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [1257, 180, 360]
    np.testing.assert_array_equal(digits.train.images, again.train.images)
    assert not np.array_equal(digits.validation.labels, other.validation.labels)
    everything = np.concatenate([digits.train.images, digits.validation.images, digits.test.images])
    raw = load_dataset("digits")
    assert len(everything) == 1797
    assert sorted(image.tobytes() for image in everything) == sorted(
        image.tobytes() for image in (*raw.train.images, *raw.test.images)
    )


def test_a_batch_is_a_function_of_seed_and_step(digits):
    """So a run resumed at step 50, in its second epoch, sees what it would have seen."""
    options = AugmentConfig(crop="pad", flip="alternating", erasing=0.3, mixup=0.2)
    whole = _batches(digits.train, 60, config=options)
    _assert_same(whole[50:], _batches(digits.train, 10, start=50, config=options))


def test_an_epoch_has_every_image_once_and_the_next_another_order(digits):
    per_epoch = len(digits.train) // 32
    plain = _batches(digits.train, 2 * per_epoch)
    first, second = (
        [image.tobytes() for x, _ in part for image in x]
        for part in (plain[:per_epoch], plain[per_epoch:])
    )
    known = {image.tobytes() for image in digits.train.images}
    assert len(set(first)) == len(first) == per_epoch * 32
    assert set(first) <= known
    assert first != second


def test_images_of_one_size_are_resized_when_another_is_asked_for(digits):
    larger = load_dataset("digits", validation=180, image_size=40)
    assert larger.input_shape == (40, 40, 3)
    small = larger.at(32).test.images.astype(int)
    assert np.abs(small - digits.test.images).mean() < 12  # blurred twice, but the same digits


def test_evaluation_counts_every_image_once(digits):
    weights = sum(float(tf.reduce_sum(w)) for _, _, w in evaluation_batches(digits.test, 50))
    assert weights == len(digits.test)


@pytest.mark.parametrize(
    ("name", "validation", "message"),
    [
        ("digit", 0, "'digit' is neither a folder here nor a known dataset. Did you mean 'digits'"),
        ("digits", 2000, "leaves no images to train on"),
        ("photos.tar.gz", 0, r"Unpack it \(tar -xf"),
        ("photos.ZIP", 0, r"Unpack it \(unzip"),
        ("./photos", 0, "is not a folder"),
    ],
)
def test_bad_data_is_refused(name, validation, message):
    with pytest.raises(UserError, match=message):
        load_dataset(name, validation)


def test_data_that_is_not_there_says_where_to_put_it(tmp_path, monkeypatch):
    def no_network(*_):
        raise OSError("Name or service not known")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(datasets.socket, "getaddrinfo", no_network)
    monkeypatch.setattr(datasets.urllib.request, "getproxies", dict)
    with pytest.raises(UserError, match=r"'mnist' is not under .* set TFDS_DATA_DIR"):
        load_dataset("mnist")


def _shared(name):
    folder = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser() / name
    if not folder.is_dir():
        pytest.skip(f"no {folder} (set TFDS_DATA_DIR)")
    return folder


def test_cifar10_loads_by_name():
    _shared("cifar10")
    dataset = load_dataset("cifar10", validation=5000)
    sizes = [len(s) for s in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == [45000, 5000, 10000]
    assert dataset.input_shape == (32, 32, 3)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.class_names[3] == "cat"
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10


# Folders ------------------------------------------------------------------------------------------


def test_a_folder_of_classes_gives_about_a_fifth_for_testing(photos):
    dataset = load_dataset(str(photos), validation=6, image_size=32)
    assert dataset.class_names == ("ant", "bee", "cow")
    splits = (dataset.train, dataset.validation, dataset.test)
    sizes = [len(split) for split in splits]
    assert (sum(sizes), sizes[1]) == (36, 6)
    assert 1 <= sizes[2] <= 15  # 7.2 ± 2.4, each image by itself
    paths = [path for split in splits for path in split.source.paths]
    assert len(set(paths)) == 36
    again = load_dataset(str(photos), validation=6, image_size=32)
    assert list(again.test.source.paths) == list(dataset.test.source.paths)
    classes = [dataset.class_names.index(Path(path).parent.name) for path in paths]
    assert classes == [label for split in splits for label in split.labels]


@pytest.mark.parametrize("held_back", ["val", "test"])
def test_a_folder_in_splits(tmp_path, held_back):
    _fill(tmp_path / "train", ("ant", "bee"), 3)
    _fill(tmp_path / held_back, ("ant", "bee"), 2, seed=1)
    dataset = load_dataset(str(tmp_path), image_size=32)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [6, 0, 4]
    assert dataset.test.sample(2).images.shape == (2, 32, 32, 3)


def _empty_class(folder):
    (folder / "dog").mkdir()


def _one_class(folder):
    for name in ("bee", "cow"):
        for path in (folder / name).iterdir():
            path.unlink()
        (folder / name).rmdir()


def _no_labels(folder):
    for path in list(folder.rglob("*.*")):
        path.rename(folder / f"{path.parent.name}-{path.name}")
    for path in list(folder.iterdir()):
        if path.is_dir():
            path.rmdir()


def _no_images(folder):
    for path in list(folder.rglob("*.*")):
        path.rename(path.with_suffix(".heic"))


def _no_test(folder):
    _fill(folder / "train", count=2)


def _other_classes(folder):
    _fill(folder / "train", ("ant", "bee"), 1)
    _fill(folder / "val", ("ant", "wasp"), 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_empty_class, "dog has no readable image"),
        (_one_class, "must have two or more classes; received one, 'ant'"),
        (_no_labels, "have no labels. Put each image in a folder"),
        (_no_images, "No images in the class folders"),
        (_no_test, "but no val or test folder"),
        (_other_classes, "the same classes; 'bee' is only in train"),
    ],
)
def test_folders_that_are_no_dataset_are_refused(tmp_path, spoil, message):
    spoil(_fill(tmp_path / "photos", count=3))
    with pytest.raises(UserError, match=message):
        load_dataset(str(tmp_path / "photos"))


def test_what_is_not_read_of_a_folder_is_said(tmp_path, capsys):
    folder = _fill(tmp_path / "photos", count=6)
    (folder / "ant" / "00.jpg").rename(folder / "ant" / "00.heic")
    (folder / "bee" / "00.jpg").rename(folder / "loose.jpg")
    (folder / "ant" / "notes.txt").write_text("no image")
    (folder / "ant" / "._01.jpg").write_bytes(b"what macOS puts beside files on other disks")
    dataset = load_dataset(str(folder))
    assert dataset.train.places + dataset.test.places == 16
    err = capsys.readouterr().err
    assert f"1 images are of kinds that are not read (e.g. {folder / 'ant' / '00.heic'})" in err
    assert "ignoring 1 images outside the class folders" in err


def test_images_that_vary_want_a_size(photos):
    dataset = load_dataset(str(photos))
    assert not dataset.sized
    with pytest.raises(UserError, match=r"--set data\.image_size=224"):
        _ = dataset.input_shape
    assert dataset.at(24).input_shape == (24, 24, 3)


def test_the_imagenette_subset():
    folder = _shared("../images/imagenette224_subset")
    dataset = load_dataset(str(folder), validation=50, image_size=32)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [550, 50, 400]
    ((x, y),) = _batches(dataset.train, 1, config=AugmentConfig(crop="resized"))
    assert (x.shape, x.dtype, y.shape) == ((32, 32, 32, 3), np.uint8, (32,))


# Encoded images -----------------------------------------------------------------------------------


def test_resume_at_step_k_equals_uninterrupted_with_everything_on(photos):
    dataset = load_dataset(str(photos), image_size=32)
    options = {"config": EVERYTHING, "batch_size": 8, "classes": 3, "sizes": ((0, 24), (5, 32))}
    whole = _batches(dataset.train, 9, **options)  # 3 steps an epoch
    _assert_same(whole[4:], _batches(dataset.train, 5, start=4, **options))
    assert [x.shape[1] for x, _ in whole] == [24] * 5 + [32] * 4
    assert all(x.dtype == np.uint8 and y.shape == (8, 3) for x, y in whole)
    assert not np.array_equal(whole[5][0], whole[8][0])


@pytest.mark.parametrize("crop", ["none", "pad"])
def test_every_crop_takes_encoded_images(photos, crop):
    split = load_dataset(str(photos), image_size=32).train
    count = len(split)
    ((x, y),) = _batches(split, 1, config=AugmentConfig(crop=crop, flip="none"), batch_size=count)
    assert x.shape == (count, 32, 32, 3)
    if crop == "none":  # then training sees what evaluation sees, in another order
        seen = sorted((image.tobytes(), label) for image, label in zip(x, y, strict=True))
        sample = split.sample(count)
        assert seen == sorted(
            (i.tobytes(), n) for i, n in zip(sample.images, sample.labels, strict=True)
        )


def _cut(path, side, box):
    upright = encoded.Encoded(tf.io.read_file(str(path)), 0, tf.constant(1), read.png)
    return encoded.cut(upright, tf.constant(side), box).numpy().astype(int)


def _whole(height, width):
    return 0, 0, height, width


@pytest.mark.parametrize(
    "kind", ["rgb.jpg", "rgb.png", "grey.jpg", "grey.png", "cmyk.jpg", "rgba.png", "palette.png"]
)
def test_kinds_of_files(tmp_path, kind):
    scene = Image.fromarray(_scene(np.random.default_rng(1), 48, 48))
    mode = {"grey": "L", "cmyk": "CMYK", "rgba": "RGBA", "palette": "P"}.get(kind[:-4], "RGB")
    path = tmp_path / kind
    scene.convert(mode).save(
        path, **({"quality": 95, "subsampling": 0} if kind.endswith("jpg") else {})
    )
    expected = np.asarray(Image.open(path).convert("RGB"), int)
    error = np.abs(_cut(path, 48, _whole) - expected)
    # PNG is lossless. INTEGER_FAST and plain chroma upsampling differ from PIL's by some levels.
    assert error.max() == 0 if kind.endswith("png") else error.mean() < 4


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("height", [50, 300, 700])
def test_evaluation_cuts_the_central_square(tmp_path, suffix, height):
    """Also where the JPEG is decoded at a half, a quarter or an eighth of its size."""
    scene = Image.fromarray(_scene(np.random.default_rng(2), height, 3 * height // 2))
    scene.save(tmp_path / f"x.{suffix}")
    split = encoded.EncodedSplit(Files([str(tmp_path / f"x.{suffix}")], np.zeros(1, "int32")), 40)
    side = round(0.875 * height)
    top, left = (height - side) // 2, (3 * height // 2 - side) // 2
    found = split.sample(1).images[0].astype(int)

    def error(right, down):  # against a square that lies that many pixels of the result off
        x, y = left + right * side / 40, top + down * side / 40
        expected = scene.resize((40, 40), Image.BILINEAR, box=(x, y, x + side, y + side))
        return np.abs(found - np.asarray(expected, int)).mean()

    # A scaled JPEG is cut at whole pixels of its own, less than one of the result from the place
    # that was asked for; a PNG, or a JPEG at its full size, exactly there.
    off = min(error(*shift) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    assert error(0, 0) < (off / 2 if suffix == "jpg" else off / 10)


def test_images_that_cannot_be_decoded_are_left_out_and_counted(tmp_path, capsys):
    folder = _fill(tmp_path / "photos", count=10)
    split = load_dataset(str(folder), image_size=32).train  # listed; tried when it is first used
    paths = [Path(path) for path in split.source.paths]
    count = len(paths)
    paths[0].write_bytes(paths[0].read_bytes()[:-600])  # a download that broke off
    paths[3].write_bytes(b"")
    paths[7].write_text("<html>404</html>")
    assert (len(split), split.places) == (count - 3, count)
    assert split.left_out == (str(paths[0]), str(paths[3]), str(paths[7]))
    err = capsys.readouterr().err
    assert f"3 of {count} images cannot be decoded and are left out: {paths[0]}" in err
    assert sum(len(x) for x, _ in _batches(split, 3, batch_size=5)) == 15
    assert sum(float(tf.reduce_sum(w)) for *_, w in evaluation_batches(split, 8)) == count - 3
    assert split.at(24, 1.0).left_out == split.left_out
    assert capsys.readouterr().err == ""  # said once
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(UserError, match=f"None of {count} images can be decoded"):
        len(encoded.EncodedSplit(Files(split.source.paths, np.zeros(count, "int32")), 32))


def test_a_sample_that_does_not_fit_in_memory_is_refused(photos, monkeypatch):
    monkeypatch.setattr(encoded, "IN_MEMORY_BYTES", 4 * 32 * 32 * 3)
    split = load_dataset(str(photos), image_size=32).train
    assert len(split.sample(4)) == 4
    with pytest.raises(UserError, match="Take at most 4"):
        split.sample(5)


def test_a_run_on_a_folder(tmp_path, photos, monkeypatch):
    """Trained, evaluated, resumable from elsewhere: the config has the whole path."""
    monkeypatch.chdir(photos.parent)
    changes = {
        "data.name": "photos",
        "data.image_size": 32,
        "data.validation": 6,
        "train.epochs": 1,
        "train.batch_size": 8,
        "augment.crop": "resized",
        "augment.mixup": 0.2,
    }
    run = train.run(config.load_config("debug/tiny", changes), tmp_path / "run")
    assert run.config.data.name == str(photos)
    summary = run.summary()
    dataset = configured_dataset(run.config.data)
    assert (summary["test"]["n"], summary["images_left_out"]) == (len(dataset.test), 0)
    model = keras.models.load_model(run.model)
    measured = evaluate.measure_model(model, dataset.split("test"))
    assert measured.pop("protocol") == summary["test"].pop("protocol")
    for nested in ("macro", "per_class"):
        assert measured.pop(nested) == summary["test"].pop(nested)
    assert measured == pytest.approx(summary["test"], rel=1e-5)  # float32 in another process state
    with pytest.raises(UserError, match=r"data\.image_size"):
        train.run(config.load_config("debug/tiny", changes | {"data.image_size": 0}))


# TFDS records -------------------------------------------------------------------------------------


def test_tfds_images_that_vary_are_read_from_their_records(tmp_path, monkeypatch, photos):
    """As imagenet2012: the labels of the test split are -1, so validation is tested on."""
    tfds = pytest.importorskip("tensorflow_datasets")
    files = sorted(photos.rglob("*.*"))

    class TinyPhotos(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(),
                "label": tfds.features.ClassLabel(names=["ant", "bee", "cow"]),
                "file_name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            parts = {"train": files[::2], "validation": files[1::4], "test": files[3::4]}
            return {name: self._some(part, name == "test") for name, part in parts.items()}

        def _generate_examples(self):
            raise NotImplementedError

        def _some(self, part, hidden):
            for path in part:
                label = -1 if hidden else path.parent.name
                yield str(path), {"image": str(path), "label": label, "file_name": str(path)}

    # Not by TFDS_DATA_DIR: tfds reads it when it is imported, and would write where that points.
    monkeypatch.setattr(tfds, "builder", lambda name: TinyPhotos(data_dir=tmp_path))
    monkeypatch.setattr(datasets, "_require_network", lambda: None)  # it generates its images
    dataset = load_dataset("tiny_photos", validation=4, image_size=32)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [14, 4, 9]
    assert dataset.class_names == ("ant", "bee", "cow")
    folder = encoded.EncodedSplit(
        Files([str(p) for p in files], np.repeat(np.arange(3, dtype="int32"), 12)), 32
    ).sample(36)
    known = {i.tobytes(): n for i, n in zip(folder.images, folder.labels, strict=True)}
    test = dataset.test.sample(9)
    assert [known[i.tobytes()] for i in test.images] == test.labels.tolist()
    ((x, y),) = _batches(dataset.train, 1, config=EVERYTHING, batch_size=8, classes=3)
    assert (x.shape, y.shape) == ((8, 32, 32, 3), (8, 3))
    half = load_dataset("tiny_photos[50%:]", image_size=32)
    assert [len(s) for s in (half.train, half.test)] == [9, 9]
    assert (
        half.train.identities.tolist() == load_dataset("tiny_photos").train.identities.tolist()[9:]
    )
    record = Path(dataset.test.source.shards[0])
    assert record.is_relative_to(tmp_path)
    record.write_bytes(record.read_bytes()[:-5])
    with pytest.raises(UserError, match="is cut off"):
        load_dataset("tiny_photos")


# Augmentation -------------------------------------------------------------------------------------


def test_pad_crop_cuts_from_the_padded_image():
    pixels = np.random.default_rng(0).integers(1, 256, (64, 8, 8, 3)).astype("uint8")
    augmented = augment.pad_crop(tf.constant(pixels), tf.constant([1, 2]), PLAIN).numpy()
    padded = np.pad(pixels, ((0, 0), (4, 4), (4, 4), (0, 0)))
    found = []
    for original, result in zip(padded, augmented, strict=True):
        crops = {(y, x): original[y : y + 8, x : x + 8] for y in range(9) for x in range(9)}
        found.append([where for where, crop in crops.items() if np.array_equal(crop, result)])
    assert all(found)
    assert len({where[0] for where in found}) > 20  # 64 draws of 81 places


def test_shift_does_not_mirror():
    image = np.zeros((1, 8, 8, 3), "uint8")
    image[:, :, :4] = 255
    for step in range(20):
        shifted = augment.shift(tf.constant(image), tf.constant([0, step]), PLAIN).numpy()
        assert shifted[0, 4, 0, 0] == 255
        assert shifted[0, 4, 7, 0] == 0


def test_flips():
    coins = tf.random.stateless_uniform([400], [1, 1]) < 0.5
    random = augment.mirrored("random", coins, tf.constant(0, tf.int64), tf.constant([3, 4]))
    assert 140 < int(tf.reduce_sum(tf.cast(random, tf.int32))) < 260  # 200 ± six sigma
    even, odd = (
        augment.mirrored("alternating", coins, tf.constant(epoch, tf.int64), tf.constant([3, 4]))
        for epoch in (2, 3)
    )
    assert bool(tf.reduce_all(even != odd))
    assert not np.any(augment.mirrored("none", coins, tf.constant(1, tf.int64), [3, 4]))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (64, 64), (40, 400)])
def test_random_boxes_have_the_area_and_the_ratio_they_should(height, width):
    numbers = np.random.default_rng(0).random((4000, 4)).astype("float32")
    box = augment.random_box(height, width, tf.constant(numbers), 0.08)
    top, left, rows, columns = (part.numpy().astype(float) for part in box)
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + rows).max() <= height
    assert (left + columns).max() <= width
    ratio = columns / rows
    assert ratio.min() > 0.71  # 3/4 less the rounding of a side of 18 pixels
    assert ratio.max() < 1.41
    largest = min(1.0, 4 / 3 * min(height, width) ** 2 / (height * width))
    expected = np.minimum(0.08 + 0.92 * numbers[:, 0], largest)
    # A side of 18 pixels and more is rounded by up to 1/36.
    np.testing.assert_allclose(rows * columns / (height * width), expected, rtol=0.06)
    if height == width:  # where all ratios fit (small areas) their logarithm is uniform
        small = np.log(ratio[numbers[:, 0] < 0.5])
        assert abs(small.mean()) < 0.02  # ± 0.166 / sqrt(2000), five sigma
        assert small.std() == pytest.approx(np.log(16 / 9) / 12**0.5, rel=0.05)


def test_resized_crops_in_memory_are_parts_of_the_image():
    column = np.tile(np.arange(64, dtype="uint8")[None, :, None], (64, 1, 3))
    pixels = tf.constant(np.tile(column[None], (50, 1, 1, 1)))
    cropped = augment.resized_crop(pixels, tf.constant([1, 2]), AugmentConfig()).numpy().astype(int)
    assert (np.diff(cropped, axis=2) >= 0).all()  # still a ramp, less steep
    spans = cropped[:, 0, -1, 0] - cropped[:, 0, 0, 0]
    assert spans.min() < 32 < 50 < spans.max()


def test_a_rectangle_is_erased_in_the_given_part_of_the_images():
    grey = tf.fill([400, 32, 32, 3], tf.constant(7, tf.uint8))
    erased = augment.erase(grey, tf.constant([5, 6]), 0.25).numpy()
    changed = (erased != 7).any(axis=-1)  # noise has the value 7 in all channels once in 2^24
    hit = changed.any(axis=(1, 2))
    assert 65 < hit.sum() < 135  # 100 ± four sigma
    areas = changed[hit].mean(axis=(1, 2))
    assert areas.min() > 0.01  # from 0.02, with sides of 2.5 pixels and more rounded
    assert areas.max() < 0.44
    assert 0.15 < areas.mean() < 0.27  # 0.21 ± five sigma
    for mask in changed[hit]:
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum()  # one rectangle


def _levels(count=8, side=16):
    """Images of one level each, so that a pixel says whose it is."""
    level = np.arange(count, dtype="uint8") * 30
    pixels = np.broadcast_to(level[:, None, None, None], (count, side, side, 3))
    return tf.constant(pixels), tf.eye(count)


def test_mixup_weighs_pixels_and_targets_alike():
    pixels, targets = _levels()
    mixed, soft = mixing.mixup(pixels, targets, tf.constant([1, 5]), 1.0)
    assert mixed.dtype == tf.uint8
    expected = soft.numpy() @ (np.arange(8) * 30.0)
    np.testing.assert_allclose(mixed.numpy()[:, 3, 3, 0], expected, atol=0.51)  # rounded to uint8
    np.testing.assert_allclose(soft.numpy().sum(-1), 1, atol=1e-6)
    kept = np.diag(soft)
    assert np.ptp(kept) < 1e-6
    assert 0.05 < kept[0] < 0.95


def test_cutmix_weighs_targets_by_the_pixels_exchanged():
    pixels, targets = _levels()
    fractions = []
    for step in range(20):
        mixed, soft = mixing.cutmix(pixels, targets, tf.constant([1, step]), 1.0)
        own = (mixed.numpy()[..., 0] == pixels.numpy()[..., 0]).mean(axis=(1, 2))
        np.testing.assert_allclose(own, np.diag(soft), atol=1e-6)
        np.testing.assert_allclose(soft.numpy().sum(-1), 1, atol=1e-6)
        partner = np.roll(pixels.numpy(), -1, axis=0)
        assert ((mixed == pixels) | (mixed == partner)).numpy().all()
        fractions.append(own[0])
    assert max(fractions) - min(fractions) > 0.3


def test_with_both_each_batch_draws_one():
    pixels, targets = _levels()
    kinds = []
    for step in range(40):
        mixed, _ = mixing.mix(pixels, targets, tf.constant([2, step]), 1.0, 1.0)
        kinds.append(np.ptp(mixed.numpy()[0]) == 0)  # mixup of two flat images is flat
    assert 7 < sum(kinds) < 33  # 20 ± four sigma


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 8.0])
def test_beta(alpha):
    draws = np.array(
        [float(mixing.beta(tf.constant([int(alpha * 10), k]), alpha)) for k in range(300)]
    )
    assert np.isfinite(draws).all()
    assert draws.mean() == pytest.approx(0.5, abs=0.13)  # 0.46 / sqrt(300), five sigma
    # A sample's standard deviation of 300 draws is within a quarter of the distribution's.
    assert draws.std() == pytest.approx((4 * (2 * alpha + 1)) ** -0.5, rel=0.25)


def test_repeats_show_an_image_several_times_differently(digits):
    options = AugmentConfig(crop="none", flip="none", repeats=4)
    for x, y in _batches(digits.train, 3, config=options):
        quarters = x.reshape(4, 8, 32, 32, 3)
        assert (quarters == quarters[:1]).all()
        assert (y.reshape(4, 8) == y[:8]).all()
        assert len({image.tobytes() for image in x}) == 8
    per_epoch = len(digits.train) // 32
    epoch = _batches(digits.train, per_epoch, config=options)
    assert len({image.tobytes() for x, _ in epoch for image in x}) == per_epoch * 8
    ((x, _),) = _batches(digits.train, 1, config=AugmentConfig(crop="shift", repeats=4))
    assert len({image.tobytes() for image in x}) > 16
    with pytest.raises(UserError, match=r"must be a multiple of augment\.repeats"):
        augment.check(AugmentConfig(repeats=3), 32)


# RandAugment --------------------------------------------------------------------------------------


def _operation(name, image, strength):
    apply = randaugment.OPERATIONS[name]
    return apply(tf.constant(image), tf.constant(strength, tf.float32)).numpy()


@pytest.fixture(scope="module")
def scene():
    return (_scene(np.random.default_rng(3), 40, 56) * 0.7 + 20).astype("uint8")


@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_operations_keep_shape_and_range_and_do_nothing_at_zero(name, scene):
    for image in (scene, scene[..., :1]):
        for strength in (-1.0, 0.0, 0.5, 1.0):
            result = _operation(name, image, strength)
            assert result.dtype == np.uint8
            assert result.shape == image.shape
            if name not in ("auto_contrast", "equalize", "identity"):  # these have no strength
                assert np.array_equal(result, image) == (
                    strength == 0 or (name, image.shape[-1]) == ("color", 1)
                )


@pytest.mark.parametrize(
    ("name", "strength", "peer"),
    [
        ("auto_contrast", 0.0, ImageOps.autocontrast),
        ("equalize", 0.0, ImageOps.equalize),
        ("solarize", 0.5, lambda image: ImageOps.solarize(image, 128)),
        ("posterize", 0.5, lambda image: ImageOps.posterize(image, 6)),
        ("color", 0.5, lambda image: ImageEnhance.Color(image).enhance(1.45)),
        ("contrast", -0.5, lambda image: ImageEnhance.Contrast(image).enhance(0.55)),
        ("brightness", 0.5, lambda image: ImageEnhance.Brightness(image).enhance(1.45)),
        ("sharpness", 1.0, lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
        ("rotate", 1.0, lambda image: image.rotate(30, fillcolor=(128,) * 3)),
        ("translate_x", 1.0, lambda image: _moved(image, (1, 0, 150 / 331 * 56, 0, 1, 0))),
        ("translate_y", -1.0, lambda image: _moved(image, (1, 0, 0, 0, 1, -150 / 331 * 40))),
        ("shear_x", 1.0, lambda image: _moved(image, (1, 0.3, -0.3 * 20, 0, 1, 0))),
        ("shear_y", 1.0, lambda image: _moved(image, (1, 0, 0, 0.3, 1, -0.3 * 28))),
    ],
)
def test_operations_are_those_of_pil(scene, name, strength, peer):
    """The authors used PIL's. 1 level: rounding; 2: PIL rounds grey and smoothed versions too.

    What is moved may take a neighbour where PIL's half-pixel falls the other way: 3 % of pixels.
    """
    error = np.abs(_operation(name, scene, strength).astype(int) - peer(Image.fromarray(scene)))
    if name.startswith(("rotate", "shear", "translate")):
        assert (error > 0).any(-1).mean() < 0.03
    else:
        assert error.max() <= 2


def _moved(image, matrix):
    return image.transform(image.size, Image.AFFINE, matrix, fillcolor=(128, 128, 128))


def test_randaugment_draws_for_each_image(scene):
    batch = tf.constant(np.repeat(scene[None], 60, axis=0))
    varied = randaugment.randaugment(batch, tf.constant([1, 2]), 2, 9.0).numpy()
    assert varied.dtype == np.uint8
    assert len({image.tobytes() for image in varied}) > 40
    again = randaugment.randaugment(batch, tf.constant([1, 2]), 2, 9.0).numpy()
    np.testing.assert_array_equal(varied, again)

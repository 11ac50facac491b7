"""Which split an image is in: by its content alone, whatever else there is; and what a run saw."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.recipes import train
from keras_resnet.recipes.configs import schema
from keras_resnet.recipes.data import datasets, identity
from keras_resnet.recipes.data.datasets import load_dataset
from keras_resnet.recipes.runs import seen, sources
from keras_resnet.recipes.runs.folder import Run

CLASSES = ("ant", "bee", "cow")


def _write(folder, count, seed=0, side=12):
    """`count` images of noise, so that a file's content is its own."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *folder.name.encode()])
    paths = [folder / f"{seed}_{index:03}.png" for index in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (side, side, 3), "uint8")).save(path)
    return paths


def _photos(folder, count=30, classes=CLASSES, seed=0):
    for name in classes:
        _write(folder / name, count, seed)
    return folder


def _split_of(folder, **options):
    """{a file's content: its split}."""
    dataset = load_dataset(str(folder), **options)
    splits = {name: getattr(dataset, name).source for name in ("train", "validation", "test")}
    return {
        open(path, "rb").read(): name for name, source in splits.items() for path in source.paths
    }


# By content ---------------------------------------------------------------------------------------


def test_images_that_are_added_move_no_other_into_a_held_out_split(tmp_path):
    """The test split stays to the image; of validation images some may become training images."""
    before = _split_of(_photos(tmp_path), validation=15)
    for folder in tmp_path.iterdir():
        _write(folder, 7, seed=1)
    _photos(tmp_path, classes=("dog",))  # and a class whose name shifts nothing either
    after = _split_of(tmp_path, validation=15)
    assert {"train", "test"} < set(after.values())
    for content, split in before.items():
        assert (after[content] == "test") == (split == "test")
        assert split != "train" or after[content] == "train"


def test_a_split_hangs_on_the_content_and_the_seed_and_nothing_else(tmp_path):
    before = _split_of(_photos(tmp_path / "photos"), validation=15)
    shutil.copytree(tmp_path / "photos", tmp_path / "copy")
    for place, path in enumerate(sorted((tmp_path / "copy").rglob("*.png"))):
        path.rename(path.with_name(f"{97 * place % 101}.png"))  # other names, another order
    assert _split_of(tmp_path / "copy", validation=15) == before
    other = _split_of(tmp_path / "copy", validation=15, split_seed=1)
    tests = [{x for x, split in found.items() if split == "test"} for found in (before, other)]
    assert tests[0] == tests[1]  # so that runs with other seeds compare
    assert other != before


def test_the_draws_are_uniform_and_independent():
    for identities in (
        identity.of_places("a data set", 20_000),  # neighbours
        np.random.default_rng(0).integers(0, 2**64, 20_000, "uint64"),
    ):
        draws = identity.draws(identities, "test")
        # 2000 ± 5 sigma of 42 in each tenth; correlations 0 ± 5 / sqrt(20,000).
        assert np.abs(np.histogram(draws, 10, (0, 1))[0] - 2000).max() < 212
        for other in (identity.draws(identities, "validation 0"), np.roll(draws, 1)):
            assert abs(np.corrcoef(draws, other)[0, 1]) < 0.036


def test_the_same_content_has_one_identity_and_one_bit_makes_another(tmp_path):
    for name, content in (("a", b"x" * 99_999), ("b", b"x" * 99_999), ("c", b"x" * 99_998 + b"y")):
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in ("a", "b", "c", "absent")]
    found = identity.of_files(paths)
    assert found[0] == found[1] == identity.of_bytes(b"x" * 99_999)
    assert len(set(found.tolist())) == 3


def test_a_class_that_a_split_has_nothing_of_is_named(tmp_path, capsys):
    """Of 40 classes of one image about 32 have no test image, and the others no training image."""
    names = [f"class {index:02}" for index in range(40)]
    for name in names:
        _write(tmp_path / name, 1)
    dataset = load_dataset(str(tmp_path))
    without = [n for i, n in enumerate(names) if i not in dataset.test.source.labels]
    lines = capsys.readouterr().err.splitlines()
    assert 20 < len(without) < 40  # 32 ± 2.5
    more = f"{', '.join(without[:5])} and {len(without) - 5} more"
    assert f"warning: there is no test image of {more}: " in lines[0]
    assert "warning: there is no training image of class " in lines[1]


def test_too_few_images_to_draw_from_are_refused(tmp_path):
    content = next(x for x in map(str, range(99)) if _draw(x) > 0.2)  # a training image
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_text(content)
    with pytest.raises(UserError, match="test split got none of these 2 images"):
        load_dataset(str(tmp_path))


def _draw(text):
    return identity.draws(np.array([identity.of_bytes(text.encode())], "uint64"), "test")[0]


# Layouts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "eval"])
def test_the_validation_split_has_many_names(tmp_path, name, capsys):
    for split, count in (("train", 5), (name, 3)):
        _photos(tmp_path / split, count, seed=count)
    dataset = load_dataset(str(tmp_path), validation=2)
    assert [s.places for s in (dataset.train, dataset.validation, dataset.test)] == [13, 2, 9]
    _photos(tmp_path / "test", 4, seed=4)  # now it is what chooses the best epoch
    dataset = load_dataset(str(tmp_path), validation=2)
    assert [s.places for s in (dataset.train, dataset.validation, dataset.test)] == [15, 9, 12]
    assert "using its own validation split of 9 images" in capsys.readouterr().err


def test_two_names_of_one_split_are_refused(tmp_path):
    for split in ("train", "val", "dev"):
        _photos(tmp_path / split, 2)
    with pytest.raises(
        UserError, match="has the folders val and dev, which are names of the same split"
    ):
        load_dataset(str(tmp_path))


def test_folders_beside_the_splits_are_named(tmp_path, capsys):
    for split in ("train", "test", "extra"):
        _photos(tmp_path / split, 2)
    load_dataset(str(tmp_path))
    assert "ignoring extra, because there are the splits test, train" in capsys.readouterr().err


def test_a_class_called_train(tmp_path, capsys):
    folder = _photos(tmp_path, classes=("bus", "car", "train"))
    with pytest.raises(UserError, match="If these are names of classes, use --layout classes"):
        load_dataset(str(folder))
    dataset = load_dataset(str(folder), layout="classes")
    assert dataset.class_names == ("bus", "car", "train")
    assert dataset.train.places + dataset.test.places == 90
    with pytest.raises(UserError, match=r"data\.layout 'clases'.*Did you mean 'classes'"):
        load_dataset(str(folder), layout="clases")
    with pytest.raises(UserError, match="is only for folders, and 'digits' is not a folder"):
        load_dataset("digits", layout="classes")


def test_images_below_a_class_belong_to_it(tmp_path, capsys):
    _photos(tmp_path, 10, ("cat", "dog"))
    for breed in ("siamese", "persian"):
        _write(tmp_path / "cat" / breed, 10)
    _write(tmp_path / "dog" / ".thumbnails", 10)
    (tmp_path / "cat" / "siamese" / "again").symlink_to(tmp_path / "cat")  # never to end
    dataset = load_dataset(str(tmp_path))
    labels = np.concatenate([dataset.train.source.labels, dataset.test.source.labels])
    assert np.bincount(labels).tolist() == [30, 10]
    message = "20 images are in folders below a class (e.g. cat/persian) and belong to"
    assert message in capsys.readouterr().err


def test_a_folder_a_level_too_high_is_refused(tmp_path):
    for part in ("old", "new"):
        _photos(tmp_path / part, 5, ("cat", "dog"), seed=len(part) + ord(part[0]))
    with pytest.raises(UserError, match=r"contain the same folders \(cat, dog\)"):
        load_dataset(str(tmp_path))
    assert load_dataset(str(tmp_path), layout="classes").class_names == ("new", "old")


# tensorflow-datasets ------------------------------------------------------------------------------


@pytest.fixture
def only_train(tmp_path, monkeypatch):
    """As cats_vs_dogs and tf_flowers; call it with the shape of the images."""
    tfds = pytest.importorskip("tensorflow_datasets")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (60, 12, 12, 3), "uint8")

    def prepare(shape, count=60):
        with tfds.core.registered.skip_registration():  # each call makes one of the same name

            class OnlyTrain(tfds.core.GeneratorBasedBuilder):
                VERSION = tfds.core.Version("1.0.0")

                def _info(self):
                    features = {
                        "image": tfds.features.Image(shape=shape),
                        "label": tfds.features.ClassLabel(names=list(CLASSES)),
                    }
                    return tfds.core.DatasetInfo(
                        builder=self, features=tfds.features.FeaturesDict(features)
                    )

                def _split_generators(self, dl_manager):
                    return {"train": self._generate_examples()}

                def _generate_examples(self):
                    for place in range(count):
                        yield place, {"image": pictures[place], "label": place % 3}

        folder = tmp_path / f"{shape[0]}-{count}"
        monkeypatch.setattr(tfds, "builder", lambda name: OnlyTrain(data_dir=folder))
        monkeypatch.setattr(datasets, "_require_network", lambda: None)  # it makes its images
        return tfds

    return prepare


def _contents(split):
    return {image.tobytes() for image in split.at(12, 1.0).sample(99).images}


@pytest.mark.parametrize("shape", [(12, 12, 3), (None, None, 3)])
def test_a_data_set_with_only_a_training_split_is_split_as_folders_are(only_train, shape):
    only_train(shape, 40)
    before = load_dataset("only_train", validation=5)
    only_train(shape, 60)  # as another version of it would be
    after = load_dataset("only_train", validation=5)
    assert after.train.places + after.validation.places + after.test.places == 60
    assert _contents(before.test) < _contents(after.test)
    assert not _contents(before.train) & (_contents(after.test) | _contents(after.validation))
    again = load_dataset("only_train", validation=5)
    assert _contents(again.validation) == _contents(after.validation)


def test_a_part_of_a_data_set_is_of_its_training_images(only_train, capsys):
    tfds = only_train((12, 12, 3))
    whole = load_dataset("only_train")
    part = load_dataset("only_train[:50%]")
    assert part.name == "only_train[:50%]"
    message = f"only_train[:50%]: {part.train.places} of {whole.train.places} training images; the"
    assert message in capsys.readouterr().err
    assert _contents(part.test) == _contents(whole.test)
    builder = tfds.builder("only_train")
    first = {x["image"].tobytes() for x in tfds.as_numpy(builder.as_dataset("train[:50%]"))}
    assert _contents(part.train) == first - _contents(whole.test)
    rest = load_dataset("only_train[50%:]")
    assert _contents(part.train) | _contents(rest.train) == _contents(whole.train)
    for wrong in ("[foo]", "[:200%]", "[]"):
        with pytest.raises(UserError, match=r"is not a part of a split\. Examples: NAME\[:80%\]"):
            load_dataset(f"only_train{wrong}")
    with pytest.raises(UserError, match="has no training image"):
        load_dataset("only_train[20:20]")


# What a run saw -----------------------------------------------------------------------------------


def _train(data, out, **changes):
    settings = {
        "data.name": str(data),
        "data.image_size": 32,
        "data.validation": 6,
        "train.epochs": 1,
        "train.batch_size": 8,
        **changes,
    }
    return train.run(schema.load_config("debug/tiny", settings), out)


@pytest.fixture(scope="module")
def photos_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    return _train(_photos(folder / "photos", 16), folder / "run")


def test_a_run_records_its_training_images_and_evaluate_counts_them(photos_run, tmp_path, capsys):
    source = sources.find(str(photos_run.path))
    dataset = sources.dataset_of(None, source)
    counts = {n: seen.count(source, dataset, dataset.split(n)) for n in ("train", "validation")}
    assert counts == {"train": len(dataset.train), "validation": 0}
    mixed = tmp_path / "mixed"  # as if someone put all photographs into another folder
    for name in CLASSES:
        shutil.copytree(photos_run.path.parent / "photos" / name, mixed / "test" / name)
        _write(mixed / "train" / name, 1, seed=9)
    command = ["evaluate", str(photos_run.path), "--data", str(mixed), "--json"]
    assert main(command) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["trained_on"] == len(dataset.train)
    line = f"warning: the model was trained on {len(dataset.train)} of these 48 images"
    assert output.err.count(line) == 1
    assert main(["evaluate", str(photos_run.path), "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["trained_on"] == 0
    assert "trained on" not in output.err


def test_a_run_of_before_there_was_a_record_says_that_it_is_not_known(photos_run, tmp_path, capsys):
    run = Run(tmp_path / "old")
    shutil.copytree(photos_run.path, run.path)
    (run.path / seen.FILE).unlink()
    source = sources.find(str(run.path))
    dataset = sources.dataset_of(None, source)
    assert seen.count(source, dataset, dataset.test) is None
    assert "old has no trained_on.npz, so some of these images may" in capsys.readouterr().err
    run.model.unlink()
    run.checkpoints.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=r"split .* by file names"):
        train.resume(run.path)


def test_what_is_known_by_something_else_is_not_counted(photos_run, capsys):
    """Of a data set the places are known, of files the content."""
    source = sources.find(str(photos_run.path))
    digits = load_dataset("digits")
    assert seen.count(source, digits, digits.test) is None
    bare = sources.Source("resnet8", None, None, None)
    assert seen.count(bare, digits, digits.test) is None


def test_the_record_of_a_data_set_is_small_and_says_the_part(tmp_path):
    dataset = load_dataset("digits", validation=180)
    (tmp_path / "run").mkdir()
    seen.record(Run(tmp_path / "run"), dataset)
    known = seen._read(tmp_path / "run")
    np.testing.assert_array_equal(known["place"], np.sort(dataset.train.identities))
    said = ["1,257 images: training images of digits, less 180 of validation"]
    assert known["said"].tolist() == said
    assert (tmp_path / "run" / seen.FILE).stat().st_size < 4000  # not 8 bytes an image


@pytest.mark.slow
def test_a_run_that_starts_from_another_has_seen_its_images_too(photos_run, tmp_path):
    other = _photos(tmp_path / "other", 12, seed=5)
    command = ["finetune", str(photos_run.path), "--data", str(other), "--out"]
    settings = ["--epochs", "1", "--batch-size", "8", "--set", "data.validation=0"]
    assert main([*command, str(tmp_path / "run"), *settings]) == 0
    tuned = sources.find(str(tmp_path / "run"))
    first = sources.dataset_of(None, sources.find(str(photos_run.path)))
    second = sources.dataset_of(None, tuned)
    for dataset in (first, second):
        assert seen.count(tuned, dataset, dataset.train) == len(dataset.train)
        assert seen.count(tuned, dataset, dataset.test) == 0


def test_export_says_how_many_of_its_check_images_were_trained_on(photos_run, tmp_path, capsys):
    out = tmp_path / "exports"
    command = ["export", str(photos_run.path), "--formats", "savedmodel", "--json", "--out"]
    main([*command, str(out)])
    count = len(sources.dataset_of(None, sources.find(str(photos_run.path))).test)
    origin = json.loads(capsys.readouterr().out)["origin"]
    assert origin["check images that it was trained on"] == f"0 of {count}"
    assert "check images that it was trained on: 0 of" in (out / "README.md").read_text()


def test_a_folder_that_files_are_checked_on_is_counted_too(photos_run, tmp_path, capsys):
    source = sources.find(str(photos_run.path))
    folder = photos_run.config.data.name  # of which four fifths were trained on
    command = ["export", str(photos_run.path), "--formats", "savedmodel", "--data", folder]
    main([*command, "--out", str(tmp_path / "exports"), "--json"])
    said = capsys.readouterr()
    trained_on = len(sources.dataset_of(None, source).train)
    origin = json.loads(said.out)["origin"]
    assert origin["check images that it was trained on"].startswith(f"{trained_on} of ")
    assert f"warning: the model was trained on {trained_on} of these" in said.err


def test_an_exported_file_in_a_run_is_of_that_run(photos_run):
    source = sources.Source("x", photos_run.path / "exports" / "x.tflite", None, None)
    assert source.trained_in.path == photos_run.path.resolve()
    start = sources.Source("x", photos_run.path / "start.keras", photos_run, None)
    assert start.trained_in is None  # it is what the run began with


def test_the_same_photograph_in_two_splits_is_said(tmp_path, capsys):
    for split, seed in (("train", 0), ("test", 1)):
        _photos(tmp_path / "photos" / split, 6, seed=seed)
    for path in list((tmp_path / "photos" / "train" / "bee").iterdir())[:4]:
        shutil.copy(path, tmp_path / "photos" / "test" / "bee" / f"again_{path.name}")
    run = _train(tmp_path / "photos", tmp_path / "run", **{"data.validation": 0})
    assert "4 of 22 test images are among the training images" in capsys.readouterr().err
    assert run.summary()["test_images_trained_on"] == 4

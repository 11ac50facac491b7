"""Every shipped config loads and runs two steps; a bad key says what it takes and what it got."""

import dataclasses
import inspect
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_resnet import registry
from keras_resnet.errors import UserError
from keras_resnet.recipes import compress, finetune, train
from keras_resnet.recipes.compression import filters, table, zeros_and_clusters
from keras_resnet.recipes.configs import schema
from keras_resnet.recipes.configs.schema import (
    CONFIGS,
    list_configs,
    load_config,
    parse_override,
    save_config,
)
from keras_resnet.recipes.data import augment
from keras_resnet.recipes.training import devices, losses, optimizers, schedules

RECORDS = Path(__file__).parents[1] / "benchmarks" / "results"

# Between them, the keys that the shipped configs use; the others are run in the slow tests.
REPRESENTATIVE = ("cifar10/resnet20_fast", "imagenet/resnet18_a2", "imagenet/resnet18_lars")
# Those that start from a trained network: the verb, and where it is tested.
STARTED = {
    "imagenette/resnet18d_half": "distill imagenette/resnet18d_half --teacher TEACHER",
    finetune.CONFIG: "finetune RUN --data FOLDER",  # tests/recipes/test_finetune.py
    compress.QAT: "qat RUN --data NAME|FOLDER",  # test_qat
    "compress/qat_clusters": "qat CLUSTERED --config compress/qat_clusters",  # as that
    "compress/qat_taught": "qat resnet20 --weights cifar10 --config compress/qat_taught",  # too
    "compress/prune_taught": "prune resnet20 --weights cifar10 --config compress/prune_taught",
    compress.PRUNE: "prune resnet20 --weights cifar10",  # test_pruning
    compress.CLUSTER: "cluster RUN",  # test_pruning
    # test_filters
    compress.PRUNE_FILTERS: "prune-filters resnet20 --weights cifar10 --data cifar10",
}


# A --set, and what is said of it: the key in full, what it takes, what was received.
BAD = [
    (
        "optimizer.learningrate=1",
        "config key 'optimizer.learningrate'. Did you mean 'optimizer.learning_rate'",
    ),
    ("optimiser.momentum=1", "config key 'optimiser'. Did you mean 'optimizer'? Known: augment, "),
    ("train.epochs.x=3", "config key 'train.epochs.x'. Did you mean 'train.epochs'"),
    (
        "train.epochs",
        "--set must be KEY=VALUE; received 'train.epochs'. Example: --set train.epochs=3",
    ),
    ("train=3", "train must be a section of keys; received 3."),
    (
        "model.x=3",
        "'model' has no keys inside it; received 'model.x'. Set it as a whole: --set model=",
    ),
    ("model=3", "model must be a string; received 3."),
    ("network=3", "network must be a table; received 3."),
    ("data.name=2020-01-01", "data.name must be a string; received datetime.date(2020, 1, 1)."),
    ("train.epochs=1.5", "train.epochs must be a whole number, at least 0; received 1.5."),
    ("train.epochs=true", "train.epochs must be a whole number, at least 0; received True."),
    ("train.epochs=[1,2,3,4,5,6,7]", "at least 0; received [1, 2, 3, 4, 5, 6, ...]."),
    ("train.seed=-1", "train.seed must be a whole number, from 0 to 2147483647; received -1."),
    ("optimizer.nesterov=1", "optimizer.nesterov must be true or false; received 1."),
    ("optimizer.learning_rate=fast", "must be a finite number, at least 0; received 'fast'."),
    ("optimizer.learning_rate=true", "must be a finite number, at least 0; received True."),
    ("optimizer.learning_rate=nan", "must be a finite number, at least 0; received nan."),
    ("optimizer.learning_rate=inf", "must be a finite number, at least 0; received inf."),
    (f"schedule.warmup=1{'0' * 400}", "schedule.warmup must be a finite number; received 1000"),
    ("data.crop_fraction=1.005", "must be a finite number, from 0.1 to 1; received 1.005."),
    ("train.ema=1", "train.ema must be a finite number, at least 0 and below 1; received 1.0."),
    ("train.sizes=24", "train.sizes must be a list; received 24."),
    (
        'train.sizes=[24, "x"]',
        "train.sizes[1] must be a whole number, from 0 to 8192; received 'x'.",
    ),
    ("schedule.warmup=nan", "schedule.warmup must be a finite number; received nan."),
    ("train.epochs=100000000000000000000000", "at least 0 and at most 9,007,199,254,740,992;"),
    ("data.image_size=100000000", "data.image_size must be a whole number, from 0 to 8192;"),
    ('data.name="a\\u0000b"', "data.name must be a string of visible characters; received 'a"),
    ("data.name=caf\udce9", "data.name must be a string of visible characters; received 'caf"),
    (f"network={'[' * 5000}", "network must be a table; received '[[[["),
    ("train.sizes=[16, 32]", "one item fewer than train.sizes; received 2 sizes and 0 boundaries."),
    ("compress.ramp=[0.1]", "compress.ramp must be two fractions of the run"),
    ("compress.ramp=[0.6, 0.5]", "of adding zeros; received [0.6, 0.5]. Example: [0.0, 0.5]."),
    (
        "train.epochs=0",
        "Give exactly one of train.epochs and train.steps, above 0; received epochs=0",
    ),
]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 12 images for training and 4 for the test, two classes, of several sizes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (70 + 5 * index, 90, 3)).astype("uint8")
                Image.fromarray(pixels).save(folder / split / label / f"{index}.jpg")
    return folder


@pytest.mark.parametrize("name", list_configs())
def test_every_config_names_what_there_is(name, tmp_path):
    loaded = load_config(name)
    save_config(loaded, tmp_path / "config.toml")
    assert load_config(tmp_path / "config.toml") == loaded
    registry.architecture(loaded.model)
    augment.check(loaded.augment, loaded.train.batch_size)
    optimizers.check(loaded.optimizer)
    schedules.schedule(loaded.optimizer, loaded.schedule, 1000, loaded.train.batch_size)
    opening = (CONFIGS / f"{name}.toml").read_text().split("\n\n")[0]
    assert f"keras-resnet {STARTED.get(name, f'train {name}')}\n" in f"{opening}\n"
    if "Published" in opening:
        assert "not run." in opening or "Measured" in opening


@pytest.mark.parametrize(("override", "message"), BAD)
def test_a_bad_key_says_what_it_takes_and_what_was_received(override, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load_config("debug/tiny", dict([parse_override(override)]))


def test_overrides_replace_the_other_way_to_give_the_length():
    loaded = load_config("cifar10/resnet20", {"train.epochs": 3})
    assert (loaded.train.epochs, loaded.train.steps) == (3, 0)


def test_what_is_replaced_in_a_config_is_checked_too():
    loaded = load_config("debug/tiny")
    with pytest.raises(UserError, match=r"train\.seed must be .* from 0"):
        dataclasses.replace(loaded, train=dataclasses.replace(loaded.train, seed=-1))


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*/config.toml")), ids=lambda p: p.parent.name)
def test_the_config_of_an_old_run_loads_as_it_was_saved(path):
    saved = tomllib.loads(path.read_text(encoding="utf-8"))
    loaded = json.loads(json.dumps(dataclasses.asdict(load_config(path))))  # with lists for tuples
    for name, value in saved.items():
        assert loaded[name] == (loaded[name] | value if isinstance(value, dict) else value)


def _run_two_steps(name, photos, out, **network):
    """Train as the config says, but for the images, their sizes and their number."""
    shipped = load_config(name)
    size = 64 if shipped.data.image_size else 32
    scale = size / (shipped.data.image_size or size)
    tiny = {
        "data.name": str(photos),
        "data.validation": 0,
        "data.image_size": size,
        "train.steps": 2,
        "train.batch_size": 6,
        "train.sizes": [round(side * scale) for side in shipped.train.sizes],
        "train.precision": "float32",
    }
    run = train.run(load_config(name, {**tiny, **network}), out)
    assert run.summary()["steps"] == 2
    assert run.model.is_file()


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_a_config_runs_two_steps_in_a_small_network(name, photos, tmp_path):
    _run_two_steps(name, photos, tmp_path / "run", model="resnet8")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_configs() if name not in STARTED])
def test_every_config_runs_two_steps(name, photos, tmp_path):
    _run_two_steps(name, photos, tmp_path / "run")


def test_every_key_has_its_meaning_beside_it():
    """From these comments the documentation's table of keys is made."""
    sections = {name: kind for name, kind in vars(schema).items() if name.endswith("Config")}
    for kind in sections.values():
        source = inspect.getsource(kind)
        for key in dataclasses.fields(kind):
            if key.type not in sections:
                assert re.search(rf"^    {key.name}: .+  # .+$", source, re.MULTILINE), key.name


@pytest.mark.parametrize(
    ("section", "key", "names"),
    [
        ("Augment", "crop", augment.CROPS),
        ("Augment", "flip", augment.FLIPS),
        ("Train", "precision", ("auto", *devices.PRECISIONS)),
        ("Train", "loss", losses.LOSSES),
        ("Optimizer", "name", optimizers.OPTIMIZERS),
        ("Schedule", "name", schedules.SCHEDULES),
        ("Pruning", "criterion", filters.CRITERIA),
        ("Pruning", "ranking", filters.RANKINGS),
        ("Compress", "technique", table.TECHNIQUES),
        ("Compress", "preserve", ("auto", *zeros_and_clusters.PRESERVED)),
        ("Compress", "allocation", zeros_and_clusters.ALLOCATIONS),
    ],
)
def test_the_comment_beside_a_key_lists_the_names_it_takes(section, key, names):
    source = inspect.getsource(getattr(schema, f"{section}Config"))
    comment = re.search(rf"^    {key}: .+  # (.+)$", source, re.MULTILINE)[1]
    assert sorted(re.findall(r"\w+(?: \| \w+)+", comment)[0].split(" | ")) == sorted(names)

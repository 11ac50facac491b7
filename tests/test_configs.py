"""Every shipped config: it loads, names what there is, and runs two steps on generated images."""

import dataclasses
import inspect
import re

import numpy as np
import pytest
from PIL import Image

from keras_resnet import registry
from keras_resnet.recipes import compress, finetune, prune_channels, train
from keras_resnet.recipes.configs import schema
from keras_resnet.recipes.configs.schema import CONFIGS, list_configs, load_config, save_config
from keras_resnet.recipes.data import augment
from keras_resnet.recipes.training import optimizers, schedules

# Between them, the keys that the shipped configs use; the others are run in the slow tests.
REPRESENTATIVE = ("cifar10/resnet20_fast", "imagenet/resnet18_a2", "imagenet/resnet18_lars")
# Those that start from a trained network: the verb, and where it is tested.
STARTED = {
    finetune.CONFIG: "finetune RUN --data FOLDER",  # tests/test_finetune.py
    compress.QAT: "qat RUN --data NAME|FOLDER",  # test_qat
    "compress/qat_clusters": "qat CLUSTERED --config compress/qat_clusters",  # as that
    "compress/qat_taught": "qat resnet20 --weights cifar10 --config compress/qat_taught",  # too
    "compress/prune_taught": "prune resnet20 --weights cifar10 --config compress/prune_taught",
    compress.PRUNE: "prune resnet20 --weights cifar10",  # test_pruning
    compress.CLUSTER: "cluster RUN",  # test_pruning
    # test_filter_pruning
    prune_channels.CONFIG: "prune-filters resnet20 --weights cifar10 --data cifar10",
}


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

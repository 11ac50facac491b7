"""Run folders: made by one command only."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras

from keras_resnet.errors import UserError
from keras_resnet.recipes import load_config
from keras_resnet.recipes.runs.folder import create_run, find_run


def test_of_two_commands_one_makes_the_run(tmp_path):
    """And the folder has its config, not the other's."""
    inputs = keras.Input((8, 8, 3))
    start = keras.Model(inputs, keras.layers.Flatten()(inputs))  # its file takes time to write
    started = threading.Barrier(2)

    def create(epochs):
        started.wait()
        try:
            config = load_config("debug/tiny", {"train.epochs": epochs})
            return create_run(tmp_path / "run", config, {"start": start}).config.train.epochs
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        made, refused = sorted(pool.map(create, (3, 4)), key=lambda result: isinstance(result, str))
    assert find_run(tmp_path / "run").config.train.epochs == made
    assert "already contains a run. Resume it with: keras-resnet train --resume" in refused

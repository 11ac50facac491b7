"""Run folders: made by one command only, and read with care."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import pytest

from keras_resnet.errors import UserError
from keras_resnet.recipes import load_config
from keras_resnet.recipes.runs import log
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
    assert "already contains a run" in refused or "exists and is not empty" in refused


LOG = "epoch,accuracy,step\n1,0.5,10\n2,0.75,20\n3,0.8,30\n"


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("0.75", "x", "'accuracy' of epoch 2 is not a number"),
        ("0.75", "nan", "'accuracy' of epoch 2 is not a number"),
        ("\n2,", "\n" + "9" * 5000 + ",", "'epoch' of epoch 999999999 is not a number"),
        ("0.75", "x" * 200_000, "field larger than field limit"),
        ("0.75", "\udce9", "'utf-8' codec can't decode"),
    ],
)
def test_a_damaged_log_is_a_message(tmp_path, before, after, why):
    path = tmp_path / "log.csv"
    path.write_text(LOG.replace(before, after), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=f"log.csv is damaged: {why}.*Restore it, or delete it"):
        log.read(path)


@pytest.mark.parametrize("change", [("0.8,30", "0.8e-"), ("0.8,30", "0.8,30,1"), ("\n3,", "\n²,")])
def test_the_last_row_of_a_killed_process_is_no_damage(tmp_path, change):
    path = tmp_path / "log.csv"
    path.write_text(LOG.replace(*change), encoding="utf-8")
    assert [row["accuracy"] for row in log.read(path)][:2] == ["0.5", "0.75"]

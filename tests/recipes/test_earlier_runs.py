"""Runs that an earlier version began, which counted epochs from 0, by hand."""

import csv
from pathlib import Path

import pytest
import tensorflow as tf
from helpers import ROOT
from helpers.training import epochs_in

from keras_resnet.recipes.runs import earlier, log
from keras_resnet.recipes.runs.folder import Run, list_runs

EARLIER = "epoch,accuracy,seconds,step\r\n0,0.5,60.04,10\r\n1,0.75,30.0,20\r\n2,0.875,31.0,30\r\n"
TODAY = [
    {"epoch": "1", "accuracy": "0.5", "step": "10", "training_seconds": "60.0"},
    {"epoch": "2", "accuracy": "0.75", "step": "20", "training_seconds": "90.0"},
    {"epoch": "3", "accuracy": "0.875", "step": "30", "training_seconds": "121.0"},
]


def test_an_earlier_log_is_read_as_one_of_today(tmp_path):
    path = tmp_path / "log.csv"
    assert log.read(path) == []
    path.write_text(EARLIER)
    assert log.read(path) == TODAY
    assert path.read_text() == EARLIER.replace("\r", "")  # looking changes nothing


@pytest.mark.parametrize("done", [0, 2, 3])
def test_a_log_that_goes_on_is_one_of_today(done, tmp_path):
    """Once more changes nothing: a run may be resumed several times."""
    path = tmp_path / "log.csv"
    log.keep(path, done)
    assert not path.exists()
    path.write_text(EARLIER + "3,0.9")  # and the process was killed
    for _ in range(2):
        log.keep(path, done)
        assert log.read(path) == TODAY[:done]
        assert path.exists() == (done > 0)  # a new one gets a header
    if done:
        with path.open(newline="") as file:
            assert next(csv.reader(file)) == [
                *("epoch", "accuracy", "step", "training_seconds"),  # sorted, as Keras writes on
            ]


def test_columns_that_were_never_measured_go(tmp_path):
    """Keras' own logger wrote them where there was no validation split."""
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,seconds,val_loss,val_seconds\n0,1.5,2.0,NA,NA\n1,1.25,2.0\n")
    log.keep(path, 2)
    assert path.read_text() == "epoch,loss,training_seconds\n1,1.5,2.0\n2,1.25,4.0\n"


@pytest.mark.parametrize(("then", "now"), [(0, 1), (6, 7), (-1, None)])
def test_an_earlier_summary_is_read_as_one_of_today(then, now):
    read = earlier.summary({"model": "x", "best_epoch": then, "seconds": 12.5})
    assert read == {"model": "x", "best_epoch": now, "training_seconds": 12.5}
    assert earlier.summary(read) == read


def test_the_events_of_an_earlier_run_are_renumbered_once(tmp_path):
    """Of two sittings, with figures by step, which stay."""
    files = []
    for epochs in (0, 1), (2,):
        writer = tf.summary.create_file_writer(str(tmp_path / "train"))
        with writer.as_default():
            for epoch in epochs:
                tf.summary.scalar("evaluation_loss_vs_iterations", 2.0, step=9 * epoch)
                tf.summary.scalar("epoch_loss", 1.0, step=epoch)
        writer.close()
        files += sorted(set((tmp_path / "train").iterdir()) - set(files))
    assert [epochs_in(file) for file in files] == [[0, 1], [2]]
    with files[0].open("ab") as file:
        file.write(b"\0\1")  # the process was killed while it wrote
    for _ in range(2):
        earlier.renumber_events(tmp_path)
        assert [epochs_in(file) for file in files] == [[1, 2], [3]]
        assert sorted((tmp_path / "train").iterdir()) == sorted(files)
    steps = [
        event.step
        for event in tf.compat.v1.train.summary_iterator(str(files[0]))
        if any(value.tag.endswith("iterations") for value in event.summary.value)
    ]
    assert steps == [0, 9]


def test_every_record_of_the_benchmarks_is_read():
    rows = list_runs(ROOT / "benchmarks" / "results")
    assert len(rows) > 40
    for row in rows:
        assert (row["problem"], row["state"]) == (None, "record")
        run = Run(Path(row["run"]))
        assert row["training_seconds"] == run.summary()["training_seconds"] > 0
        assert [int(line["epoch"]) for line in run.rows()] == list(range(1, row["done"] + 1))

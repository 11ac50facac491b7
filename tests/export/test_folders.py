"""The folder of an export is whole whenever the process is killed, and nothing else stays."""

import os
import resource
import signal
from contextlib import ExitStack

import pytest
from campaign import kills
from helpers.models import small_model

from keras_resnet.errors import UserError
from keras_resnet.export import export, folders, manifest
from keras_resnet.files import exchange, locked_folder


def write(out, text="new", overwrite=True):
    with folders.replacing(out, overwrite) as folder:
        (folder / manifest.MANIFEST).write_text(text)


def read(out):
    return (out / manifest.MANIFEST).read_text()


def test_two_folders_are_exchanged_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    assert exchange(tmp_path / "a", tmp_path / "b")  # the file systems that tests run on can
    assert (tmp_path / "a" / "name").read_text() == "b"
    assert (tmp_path / "b" / "name").read_text() == "a"
    with pytest.raises(FileNotFoundError, match="absent"):
        exchange(tmp_path / "absent", tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("exchanges", [True, False])
def test_a_kill_at_every_call_leaves_the_older_or_the_new_export(exchanges, tmp_path):
    for at in range(200):
        (tmp_path / str(at)).mkdir()
        out = tmp_path / str(at) / "model"
        kills._write(out, 0, overwrite=False)
        code = kills.kill_at(at, out, 1, exchanges)
        there = kills._version(out)
        between = not exchanges and not out.exists()
        assert there in (0, 1) or (between and kills._version(folders._aside(out)) == 0)
        assert kills._ends_well(out, 0 if between else there, 2, overwrite=at % 2 == 0) is None
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert at > 20  # files, folders, renames and deletions


def test_what_killed_exports_left_is_deleted_or_named(tmp_path, capsys):
    names = [".model-partial-12345678", ".other-partial-12345678", ".model-partial-inuse678"]
    for name in names:
        (tmp_path / name / "savedmodel").mkdir(parents=True)
    with locked_folder(tmp_path / names[2]):  # an export that still works
        write(tmp_path / "model")
    assert sorted(os.listdir(tmp_path)) == [names[2], names[1], "model"]
    expected = f"warning: a killed export left {names[1]} in {tmp_path}. Delete it.\n"
    assert capsys.readouterr().err == expected


def test_an_export_of_another_process_meanwhile_is_not_replaced_unasked(tmp_path):
    out = tmp_path / "model"
    with ExitStack() as stack:
        folder = stack.enter_context(folders.replacing(out, overwrite=False))
        (folder / manifest.MANIFEST).write_text("mine")
        write(out, "theirs", overwrite=False)
        with pytest.raises(UserError, match=r"exists\. Add --overwrite"):
            stack.close()
    assert read(out) == "theirs"
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_that_cannot_be_renamed_is_a_message(tmp_path, monkeypatch):
    """As a mount point, for example a volume of a container."""

    def busy(one, other):
        raise OSError(16, os.strerror(16), str(one))

    write(tmp_path / "model", "old")
    monkeypatch.setattr(folders, "exchange", busy)
    with pytest.raises(UserError, match=r"model: Device or resource busy\. Give another --out"):
        write(tmp_path / "model")
    assert read(tmp_path / "model") == "old"
    assert os.listdir(tmp_path) == ["model"]


def test_a_disk_that_is_full_is_a_message(tmp_path):
    """TensorFlow has errors of its own for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(UserError, match=r"Cannot write savedmodel: .*File too large"):
            export(small_model(), ["savedmodel"], out=tmp_path / "model", verbose=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []

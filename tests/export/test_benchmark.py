"""`keras-resnet benchmark`: files in processes of their own; the arithmetic on figures made up."""

import errno
import json
import os
import shutil
import sys

import numpy as np
import pytest
from helpers import run_python
from helpers.litert_js import small_litert_js

from keras_resnet.cli import main
from keras_resnet.display import figures
from keras_resnet.errors import UserError
from keras_resnet.export import export, manifest
from keras_resnet.export.measure import benchmark


@pytest.fixture(scope="module")
def exports(resnet20, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    kinds = ["savedmodel", "tflite-float32", "tflite-int8", "micro", "web"]
    with small_litert_js(folder / "litert_js"):
        export(resnet20, kinds, out=folder / "exports", calibration=images, verbose=False)
    return folder / "exports"


@pytest.fixture(scope="module")
def record(exports):
    """The command on an export folder: what it printed, with the files it wrote."""
    arguments = ["benchmark", exports, "--threads", "1,2", "--rounds", "3", "--runs", "4", "--json"]
    arguments += ["--batch", "8", "--out", exports, "--picture", exports.parent / "x.svg"]
    code = "import sys; from keras_resnet.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return json.loads(run_python(code, *arguments).stdout)


def test_every_file_is_timed_with_every_number_of_threads(record, exports):
    files = ["saved_model", "resnet20-float32.tflite", "resnet20-int8.tflite"]
    files += ["resnet20-micro", "resnet20-web"]
    assert [(r["file"], r["threads"]) for r in record["rows"]] == [
        (file, threads) for threads in (1, 2) for file in files
    ]
    for row in record["rows"]:
        assert row["bytes"] == manifest.size(exports / row["file"])
        assert row["image"] == [32, 32, 3]
        assert row["batch"] == 8
        assert row["latency_ms"]["n"] == 3 * 4
        assert 0 < row["latency_ms"]["least"] <= row["latency_ms"]["median"]
        assert row["latency_ms"]["median"] <= row["latency_ms"]["p95"] <= row["latency_ms"]["most"]
        assert row["images_per_second"]["median"] > 0
        assert row["load_ms"] > 0
    assert record["reference"] == "resnet20-float32.tflite"
    without = [row["file"] for row in record["rows"] if row["ratio"] is None]
    assert without == ["resnet20-float32.tflite"] * 2  # itself, for either number of threads


def _measured(reference, *rows):
    ratios = [
        None if ratio is None else {"median": ratio, "most": most} for *_, ratio, most in rows
    ]
    names = [dict(zip(("file", "format", "threads"), row, strict=False)) for row in rows]
    told = [name | {"ratio": ratio} for name, ratio in zip(names, ratios, strict=True)]
    return benchmark.Measurement(told, {"reference": reference})


def test_a_faster_float_file_of_another_runtime_is_named():
    """Not one that was faster in some rounds only, and not an int8 file."""
    rows = [
        ("a.tflite", "tflite-float32", 1, None, None),
        ("a.onnx", "onnx", 1, 0.89, 0.95),
        ("saved_model", "savedmodel", 1, 0.95, 1.02),
        ("a-int8.tflite", "tflite-int8", 1, 0.3, 0.4),
    ]
    (line,) = _measured("a.tflite", *rows).advice()
    assert line.startswith("a.onnx ran faster than a.tflite on this machine, with 1 thread: 0.89 ")
    assert _measured("a-int8.tflite", *rows).advice() == []


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_is_that_of_the_runtime_alone(record):
    """LiteRT takes tens of MiB with Python and NumPy; TensorFlow some hundred more."""
    rows = {row["file"]: row for row in record["rows"] if row["threads"] == 1}
    lite = [rows.pop(f"resnet20-{kind}") for kind in ("int8.tflite", "micro", "web")]
    assert all(10 < row["peak_memory_mib"] < 150 for row in lite)
    assert rows["saved_model"]["peak_memory_mib"] > 2 * max(row["peak_memory_mib"] for row in lite)
    assert all(row["memory_before_mib"] <= row["peak_memory_mib"] for row in record["rows"])
    # LiteRT comes in before the file in all three: a few MiB are chance.
    before = [row["memory_before_mib"] for row in lite]
    assert max(before) - min(before) <= 5


def test_of_bare_files_the_float32_one_is_the_reference(exports, tmp_path):
    files = [exports / f"resnet20-{kind}" for kind in ("int8.tflite", "micro", "float32.tflite")]
    arguments = ["--rounds", "1", "--runs", "1", "--batch", "1", "--out", str(tmp_path / "x.json")]
    assert main.main(["benchmark", *map(str, files), *arguments]) == 0
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["reference"] == str(files[-1])
    assert [row["ratio"] is None for row in found["rows"]] == [False, False, True]
    assert found["left_out"] == []
    (without, *_) = benchmark.find(files[:2])
    assert benchmark._reference(benchmark.find(files[:2]), None) == without  # the first


def test_files_of_one_name_are_told_apart_by_their_folders(exports, tmp_path):
    others = [tmp_path / "a" / "exports", tmp_path / "a" / "older"]
    for other in others:
        shutil.copytree(exports, other)
    folders = [exports, *others]
    found = [file for file in benchmark.find(folders) if file.path.name == "saved_model"]
    assert [file.name for file in found] == [
        f"{exports.parent.name}/exports/saved_model",
        "a/exports/saved_model",
        "older/saved_model",
    ]
    assert [file.path for file in found] == [folder / "saved_model" for folder in folders]
    link = tmp_path / "link"
    link.symlink_to(exports)
    for twice in ([exports, exports], [exports, link], [exports, exports / "resnet20-int8.tflite"]):
        with pytest.raises(UserError, match=r"only once; received twice: .*resnet20-int8\.tflite"):
            benchmark.find(twice)


def test_what_a_picture_needs_is_asked_for_before_measuring(tmp_path, monkeypatch, capsys):
    """Measuring this file would end in another error."""
    (tmp_path / "torn.tflite").write_bytes(b"not a model at all")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = ["benchmark", str(tmp_path / "torn.tflite"), "--picture"]
    for picture, message in (("x.jpg", "as .svg, .png or .pdf"), ("x.png", "[report]")):
        assert main.main([*arguments, str(tmp_path / picture)]) == 2
        assert message in capsys.readouterr().err


def test_a_picture_that_fails_loses_no_figures(exports, tmp_path, capsys, monkeypatch):
    def full(drawing, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(figures, "save", full)
    arguments = ["--rounds", "1", "--runs", "1", "--batch", "1", "--picture"]
    file = str(exports / "resnet20-int8.tflite")
    assert main.main(["benchmark", file, *arguments, str(tmp_path / "x.svg"), "--json"]) == 2
    said = capsys.readouterr()
    assert [row["file"] for row in json.loads(said.out)["rows"]] == [file]
    assert "No space left on device" in said.err


def test_a_picture_that_cannot_be_is_refused_before_anything_is_timed(exports, tmp_path, capsys):
    (tmp_path / "x.svg").mkdir()
    file = str(exports / "resnet20-int8.tflite")
    assert main.main(["benchmark", file, "--picture", str(tmp_path / "x.svg")]) == 2
    assert "--picture" in capsys.readouterr().err


def test_the_record_lies_beside_the_manifest(record, exports):
    written = json.loads((exports / "benchmark.json").read_text())
    assert written == record
    assert written["schema"] == 1
    assert {"created", "machine", "versions", "rounds", "runs", "load_average"} <= set(written)
    assert manifest.read(exports)  # still an export folder, whose hashes hold
    benchmark.find([exports])
    picture = (exports.parent / "x.svg").read_text()
    assert "resnet20-int8.tflite, 2 thr." in picture


def turn(ms, images_per_second=10.0):
    return {
        "ms": ms,
        "median_ms": float(np.median(ms)),
        "images_per_second": images_per_second,
        "peak_memory_mib": 50,
    }


def test_ratios_are_between_turns_of_one_round(tmp_path):
    """A machine twice as slow in the second round changes the times, not the ratios."""
    (tmp_path / "a.tflite").write_bytes(b"1234")
    a = benchmark.File("a", tmp_path / "a.tflite")
    answers = {
        "a, 1 thread": [turn([1.0, 1.0, 9.0]), turn([2.0, 2.0, 2.0], 20.0)],
        "b, 1 thread": [turn([4.0, 4.0, 4.0]), turn([8.0, 8.0, 8.0])],
    }
    facts = {"load_ms": 3.0, "memory_before_mib": 40, "batch": 8, "image": [8, 8, 3]}
    row = benchmark._row(a, 1, facts, answers, "b, 1 thread")
    assert row["ratio"] == {"median": 0.25, "least": 0.25, "most": 0.25}
    assert row["latency_ms"]["median"] == 2.0
    assert row["latency_ms"]["p95"] == 7.25  # NumPy's, of 1 1 2 2 2 9: a quarter from 2 to 9
    assert row["images_per_second"] == {"median": 15.0, "least": 10.0, "most": 20.0}
    assert row["bytes"] == 4
    settings = {"reference": "b", "machine": "here", "instruction_sets": ["avx2"]}
    text = benchmark.Measurement([row], settings).table()
    assert "0.25 (0.25 to 0.25)" in text


def test_the_bin_of_an_openvino_file_counts(tmp_path):
    (tmp_path / "x.xml").write_bytes(b"12")
    (tmp_path / "x.bin").write_bytes(b"12345")
    assert benchmark._bytes(tmp_path / "x.xml") == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.tflite"], "No such file"),
        (["torn.tflite", "--against", "other"], "received 'other'. Files: torn.tflite"),
        (["torn.tflite", "torn.tflite"], "received twice"),
        (["torn.tflite", "--threads", "0"], "1 or more"),
        (["torn.tflite", "--out", "no/where.json"], "No such folder: no"),
        (["torn.tflite", "--picture", "no/where.svg"], "No such folder: no"),
        (["torn.tflite"], "LiteRT cannot load torn.tflite"),  # said by the worker
    ],
)
def test_bad_arguments_are_refused(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn.tflite").write_bytes(b"not a model at all")
    assert main.main(["benchmark", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_changed_file_is_not_timed(exports, tmp_path):
    copy = shutil.copytree(exports, tmp_path / "copy")
    (copy / "resnet20-int8.tflite").write_bytes(b"other")
    with pytest.raises(UserError, match=r"int8\.tflite is not the file that was exported"):
        benchmark.find([copy])

"""The command, as people and scripts call it."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import ROOT, run_python
from PIL import Image

import keras_resnet
from keras_resnet import files
from keras_resnet.cli.export import FORMATS as HELP_FORMATS
from keras_resnet.cli.main import main
from keras_resnet.cli.parser import _DEFINED, GROUPS, parsers
from keras_resnet.errors import UserError
from keras_resnet.export import FORMATS
from keras_resnet.recipes import quickstart
from keras_resnet.recipes.configs.schema import load_config
from keras_resnet.recipes.export import USUAL
from keras_resnet.recipes.runs import classify, sources
from keras_resnet.recipes.runs.folder import Run, list_runs, locked


def _json(capsys, *arguments):
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_every_verb_is_in_one_group_of_the_help():
    assert sorted(_DEFINED) == sorted(name for group in GROUPS.values() for name in group)


@pytest.fixture(scope="session")
def exports(tiny_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "exports"
    arguments = ["--formats", "savedmodel,tflite-int8", "--out", str(out)]
    assert main(["export", str(tiny_run.path), *arguments]) == 0
    return out


@pytest.fixture(scope="session")
def picture(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    Image.fromarray(digits.test.images[0]).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--help", "quickstart"),
        ("train --list", "cifar10/resnet20"),
        ("tran", "Did you mean 'train'?"),
        ("train --epoch 3", "Did you mean '--epochs'?"),
        ("train cifar10/resnet2O", "Did you mean 'cifar10/resnet20'?"),
        ("train cifar10/resnet20 --set train.epoch=3", "Did you mean 'train.epochs'?"),
        ("train cifar10/resnet20 --set epochs=3", "Did you mean 'train.epochs'?"),
        ("train debug/tiny --set name=x", "'data.name' or 'optimizer.name' or 'schedule.name'?"),
        ("train cifar10/resnet20 --epochs 3 --resume RUN", "received both"),
        ("train --resume RUN --epochs 3", "takes no other options"),
        ("quickstart --set tran.epochs=3", "Did you mean 'train'?"),
        ("distill cifar10/resnet20", "names no teacher"),
        ("finetune RUN --data digits --config finetune/defalt", "mean 'finetune/default'?"),
        ("qat RUN --set train.learning_rate=1", "Did you mean 'optimizer.learning_rate'?"),
        ("prune RUN --config compress/qat", "is for 'keras-resnet qat'"),
        ("cluster RUN --set compress.cluster=4", "mean 'compress.clusters'?"),
        ("prune-filters RUN --data digits --keep 2", "pruning.keep"),
    ],
)
def test_help_and_wrong_arguments_do_not_wait_for_tensorflow(line, said):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "keras_resnet", *line.split()],
        capture_output=True,
        text=True,
    )
    assert result.returncode == (0 if line in ("--help", "train --list") else 2)
    assert said in result.stdout + result.stderr
    assert "tensorflow" not in result.stderr.partition("error:")[0]


FAULT = """
import sys
from dataclasses import replace
from keras_resnet.cli import main
from keras_resnet.cli.parser import VERBS

def fault(_):
    raise RuntimeError("out of luck")

VERBS["weights"] = replace(VERBS["weights"], run=fault)
sys.exit(main.program(["weights", "list"]))
"""


def test_what_nobody_foresaw_is_no_failed_check():
    result = run_python(FAULT, check=False)
    assert result.returncode == 70
    assert "RuntimeError: out of luck" in result.stderr
    assert result.stderr.endswith("error: this is a bug in keras-resnet; please report it\n")


SPEAKING = """
import logging, os, subprocess, sys, warnings
from keras_resnet.display.console import own_terminal
from keras_resnet.errors import ZooWarning, warn
own_terminal()
os.write(2, b"C++\\n")
subprocess.run([sys.executable, "-c", "import os; os.write(2, b'C++ of a child')"])
warnings.warn("another library's")
logging.getLogger("tensorflow").error("logged")
warn("ours")
print("error: ours", file=sys.stderr)
"""


def test_the_terminal_shows_what_we_say_and_no_library():
    def said(**environment):
        return run_python(SPEAKING, env=environment).stderr

    assert said(TF_CPP_MIN_LOG_LEVEL="3") == "warning: ours\nerror: ours\n"
    wanted = said(TF_CPP_MIN_LOG_LEVEL="0")  # the user's own value wins
    for text in ("C++\n", "C++ of a child", "another library's", "logged", "ZooWarning: ours"):
        assert text in wanted


@pytest.mark.slow  # a process with TensorFlow for each line
def test_no_library_speaks_to_the_terminal_of_a_command(tiny_run, exports, picture, tmp_path):
    """The value of TF_CPP_MIN_LOG_LEVEL is the command's own here, as it is for users."""
    damaged = tmp_path / "damaged.jpg"
    Image.open(picture).resize((300, 300)).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:3000])
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    ours = re.compile(
        r"(warning|error): |epoch +\d|[\w-]+: written in |\S*/(new|qat): resnet8 on |  .*: warm$"
        r"|  round \d of \d$"
    )
    for line in (
        ["show", "resnet20"],
        ["predict", tiny_run.path, picture, damaged],
        ["check", exports],
        ["benchmark", exports, "--rounds", "2"],
        ["export", tiny_run.path, "--formats", "tflite-int8,onnx-int8", "--out", tmp_path / "e"],
        ["train", "debug/tiny", "--epochs", "1", "--devices", "cpu:2", "--out", tmp_path / "new"],
        ["qat", tiny_run.path, "--epochs", "1", "--out", tmp_path / "qat"],
    ):
        result = subprocess.run(
            [sys.executable, "-m", "keras_resnet", *map(str, line)],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert result.returncode in (0, 1, 2), result.stderr
        foreign = [said for said in result.stderr.splitlines() if not ours.match(said)]
        assert foreign == [], line


def test_the_quickstart_checks_the_config_that_it_trains():
    assert parsers()[1]["quickstart"].get_default("config") == quickstart.CONFIG


def test_the_formats_of_the_help_are_the_formats():
    assert HELP_FORMATS.split(", ") == list(FORMATS)
    export = "".join(parsers()[1]["export"].format_help().split())
    assert f"default{','.join(USUAL)}(" in export


def test_list_and_show(capsys):
    code, listed = _json(capsys, "list", "resnetv2_*")
    assert code == 0
    assert {entry["name"] for entry in listed["models"]} == set(
        keras_resnet.list_models("resnetv2_*")
    )
    code, card = _json(capsys, "show", "resnet50")
    assert (card["parameters_trainable"], card["parameters_total"]) == (25_557_032, 25_610_152)
    assert "resnet50v1_5" in card["summary"]
    assert card["function"] == "keras_resnet.ResNet50"
    assert main(["show", "resnet20"]) == 0
    shown = capsys.readouterr().out
    assert "269,722 trainable, 271,098 with BN statistics" in shown
    assert "build          keras_resnet.ResNet20()\n" in shown
    assert main(["show", "resnet20_bn_after_add"]) == 0
    assert 'build          keras_resnet.create_model("resnet20_bn_after_add")\n' in (
        capsys.readouterr().out
    )
    assert _json(capsys, "show", "test_vgg")[1]["function"] is None


def test_runs_are_listed(capsys, tiny_run, tmp_path):
    code, listed = _json(capsys, "runs", str(tiny_run.path.parent))
    assert code == 0
    (row,) = [row for row in listed["runs"] if row["run"] == str(tiny_run.path)]
    assert (row["model"], row["data"], row["state"]) == ("resnet8", "digits", "finished")
    assert (row["done"], row["total"], row["unit"]) == (8, 8, "epochs")
    assert row["test"] == tiny_run.summary()["test"]["accuracy"]
    assert row["validation"] == tiny_run.summary()["validation"]["accuracy"]
    assert row["training_seconds"] == tiny_run.summary()["training_seconds"]
    assert main(["runs", str(tiny_run.path.parent)]) == 0
    assert "8/8 epochs" in capsys.readouterr().out
    assert main(["runs", str(tmp_path)]) == 2
    assert "No runs in" in capsys.readouterr().err


def test_tables_of_runs_are_narrow(capsys, tiny_run, tmp_path):
    """The folder that all have in common is said once; `--json` keeps whole paths."""
    for name in ("resnet20-20261130-101500", "finetune-resnet20-20261130-101501"):
        shutil.copytree(tiny_run.path, tmp_path / "runs" / name)
    assert main(["runs", str(tmp_path / "runs")]) == 0
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title == f"Runs in {tmp_path / 'runs'}"
    assert {row.split()[0] for row in rows} == {path.name for path in (tmp_path / "runs").iterdir()}
    assert max(map(len, rows)) <= 100
    first = ["compare", *map(str, sorted((tmp_path / "runs").iterdir()))]
    assert main(first) == 0
    printed = capsys.readouterr().out
    assert " ".join(printed.split()).startswith(f"Files in {tmp_path / 'runs'}. Recorded ")
    rows = [line for line in printed.splitlines() if "model.keras" in line]
    assert rows[0].split()[0] == "finetune-resnet20-20261130-101501/model.keras"
    assert len({row.index("%") for row in rows}) == 1  # the figures are aligned
    compared = _json(capsys, *first)[1]
    assert compared["models"][0]["name"] == f"{first[1]}/model.keras"


@pytest.mark.parametrize(
    ("paths", "folder", "rest"),
    [
        (["runs/x/m", "runs/x/exports/f", "runs/y/m"], "runs", ["x/m", "x/exports/f", "y/m"]),
        (["a/b/c"], "a/b", ["c"]),
        (["/t/a", "b/y"], "", ["/t/a", "b/y"]),
        (["a", "b"], "", ["a", "b"]),
    ],
)
def test_the_common_folder_is_cut(paths, folder, rest):
    assert files.without_common_folder(paths) == (folder, rest)


def test_listing_runs_looks_and_does_not_write(tiny_run, tmp_path):
    """What it finds: a training, one that ended early, and what was kept as a record."""
    without = {
        "training": ("model.keras", "summary.json"),
        "ended": ("model.keras", ".lock"),  # while it wrote what came out
        "record": ("model.keras", "checkpoints", ".lock"),
    }
    for name, left_out in without.items():
        ignore = shutil.ignore_patterns(*left_out)
        shutil.copytree(tiny_run.path, tmp_path / name, ignore=ignore)
    with locked(Run(tmp_path / "training")):
        before = sorted(tmp_path.rglob("*"))
        states = {Path(row["run"]).name: row["state"] for row in list_runs(tmp_path)}
    assert sorted(tmp_path.rglob("*")) == before
    assert states == {"training": "running", "ended": "interrupted", "record": "record"}


@pytest.mark.parametrize(
    ("verb", "steps"),
    [
        ("train debug/tiny --epochs 3", 3 * 9),
        ("distill debug/tiny --epochs 3 --teacher MODEL", 3 * 9),
        ("finetune MODEL --data digits --epochs 2", 2 * 40),
        ("qat MODEL --epochs 2", 2 * 9),
        ("prune MODEL --epochs 1", 9),
        ("cluster MODEL --epochs 1", 9),
        ("prune-filters MODEL --data digits --epochs 1", 11),
    ],
)
def test_a_dry_run_shows_the_training_and_writes_nothing(
    verb, steps, capsys, tiny_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments = [str(tiny_run.path) if word == "MODEL" else word for word in verb.split()]
    code, facts = _json(capsys, *arguments, "--dry-run")
    assert code == 0
    assert facts["steps"] == steps
    assert facts["run"].startswith("runs/")
    assert main([*arguments, "--dry-run", "--out", "mine"]) == 0
    shown = capsys.readouterr().out
    assert "\n# Dry run: nothing was trained or written. The config is above.\n" in shown
    assert "\n# run      mine\n" in shown
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "shown.toml").write_text(shown)
    assert json.loads(json.dumps(asdict(load_config("shown.toml")))) == facts["config"]


def test_a_dry_run_refuses_what_the_training_would_refuse(capsys, tiny_run):
    assert main(["train", "debug/tiny", "--dry-run", "--out", str(tiny_run.path)]) == 2
    assert "already contains a run" in capsys.readouterr().err
    assert main(["train", "--resume", str(tiny_run.path), "--dry-run"]) == 2
    assert "takes no other options" in capsys.readouterr().err


def test_finetune_writes_a_run_and_a_profile(capsys, tiny_run, tmp_path):
    """Of a split without validation images, whose log has no validation columns to show."""
    code, summary = _json(
        capsys,
        *("finetune", str(tiny_run.path), "--data", "digits", "--epochs", "1", "--profile"),
        *("--set", "augment.crop=shift", "--set", "data.validation=0"),
        *("--out", str(tmp_path / "run")),
    )
    assert code == 0
    assert summary["validation"] is None
    assert list((tmp_path / "run").glob("tensorboard/**/*.xplane.pb"))
    code, listed = _json(capsys, "runs", str(tmp_path))
    assert listed["runs"][0]["validation"] is None


def test_train_lists_its_configs(capsys):
    code, listed = _json(capsys, "train", "--list")
    assert code == 0
    assert "cifar10/resnet20" in listed["configs"]
    assert main(["train", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert all(re.match(r"[a-z0-9]+/\w+ +[A-Z][-a-z]+ \S", line) for line in lines)
    assert [line.split()[0] for line in lines] == listed["configs"]


def test_evaluate_a_run_and_a_file(capsys, tiny_run, exports, tmp_path):
    code, of_run = _json(capsys, "evaluate", str(tiny_run.path), "--out", str(tmp_path / "e.json"))
    assert code == 0
    assert of_run["n"] == 360
    assert of_run["accuracy"] == tiny_run.summary()["test"]["accuracy"]
    assert json.loads((tmp_path / "e.json").read_text()) == of_run
    file = str(exports / "resnet8-int8.tflite")
    code, of_file = _json(capsys, "evaluate", file, "--data", "digits")
    # int8 moves single predictions of this barely trained net: 11 of 360 images.
    assert abs(of_file["accuracy"] - of_run["accuracy"]) < 0.03
    code, validation = _json(capsys, "evaluate", str(tiny_run.path), "--split", "validation")
    assert validation["n"] == 180


def test_check_prints_and_returns_one_report(capsys, exports):
    code, report = _json(capsys, "check", str(exports))
    assert [entry["format"] for entry in report["files"]] == ["savedmodel", "tflite-int8"]
    assert code == 0
    assert report["passed"]
    assert main(["check", str(exports)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the 64 images stored with the export (from the 360 test images of digits)" in printed


def test_check_against_another_model_fails_with_1(capsys, exports, tmp_path):
    other = keras_resnet.ResNet8()
    other.save(tmp_path / "other.keras")
    code, report = _json(capsys, "check", str(exports), "--against", str(tmp_path / "other.keras"))
    assert code == 1
    assert not report["passed"]


def test_check_on_images_of_ones_own(capsys, tiny_run, exports, picture, tmp_path):
    """The Keras model then answers anew: a dataset's test images, or a folder's."""
    run = str(tiny_run.path)
    code, report = _json(capsys, "check", str(exports), "--against", run, "--data", "digits")
    assert code == 0
    assert report["check"] == {"n": 360, "images": "from the 360 test images of digits"}
    assert report["model"]["accuracy"] == tiny_run.summary()["test"]["accuracy"]
    assert [entry["n"] for entry in report["files"]] == [360, 360]
    (tmp_path / "photos").mkdir()
    shutil.copy(picture, tmp_path / "photos")
    photos = ["--data", str(tmp_path / "photos")]
    assert main(["check", str(exports), "--against", run, *photos]) == 0
    printed = capsys.readouterr().out
    assert "Checked on 1 images" in printed
    assert run in printed  # a row for the Keras model
    assert main(["check", str(exports), *photos]) == 2
    assert "give the model: --against RUN" in capsys.readouterr().err
    shutil.copytree(tiny_run.path, tmp_path / "run")
    shutil.copytree(exports, tmp_path / "run" / "exports")
    assert main(["check", str(tmp_path / "run" / "exports"), *photos]) == 0


def test_predict_gives_the_same_from_every_kind_of_file(capsys, tiny_run, exports, picture):
    answers = []
    for model in (
        tiny_run.path,
        tiny_run.model,
        exports / "saved_model",
        exports / "resnet8-int8.tflite",
    ):
        code, answer = _json(capsys, "predict", str(model), picture, "--top", "10")
        assert code == 0
        top = answer["predictions"][0]["top"]
        answers.append([p["probability"] for p in sorted(top, key=lambda p: p["label"])])
        assert {p["label"] for p in top} == set("0123456789")
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-6)
    np.testing.assert_allclose(answers[2], answers[0], atol=1e-5)
    np.testing.assert_allclose(answers[3], answers[0], atol=0.1)  # 8 bits


def test_predict_goes_on_after_a_bad_image(capsys, tiny_run, picture, tmp_path):
    (tmp_path / "bad.jpg").write_text("no")
    bad = str(tmp_path / "bad.jpg")
    assert main(["predict", str(tiny_run.path), bad, "missing.png", picture, "--top", "1"]) == 2
    captured = capsys.readouterr()
    assert "bad.jpg" in captured.err
    assert "missing.png" in captured.err
    assert picture in captured.out


@pytest.fixture(scope="session")
def album(digits, tmp_path_factory):
    """70 pictures in two folders, and one that is damaged."""
    folder = tmp_path_factory.mktemp("album")
    for place, image in enumerate(digits.test.images[:70]):
        path = folder / ("a" if place < 40 else "b") / f"{place:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    (folder / "b" / "bad.png").write_text("no")
    return folder


def test_predict_writes_the_answers_to_a_folder_of_images(capsys, tiny_run, album, tmp_path):
    model, lines, table = str(tiny_run.path), tmp_path / "all.jsonl", tmp_path / "all.csv"
    assert main(["predict", model, str(album), "--top", "2", "--out", str(lines)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("error:") == 1
    assert "bad.png" in captured.err
    assert captured.out.startswith(f"{lines}: 71 images\n")
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(found) == 71
    _, one_by_one = _json(capsys, "predict", model, found[0]["image"], found[69]["image"])
    for whole, single in zip((found[0], found[69]), one_by_one["predictions"], strict=True):
        assert [e["label"] for e in whole["top"]] == [e["label"] for e in single["top"][:2]]
        for ours, alone in zip(whole["top"], single["top"], strict=False):
            # A batch of 32 against one image: another order of the same sums.
            assert ours["probability"] == pytest.approx(alone["probability"], abs=1e-5)
    assert main(["predict", model, str(album / "a" / "*.png"), "--out", str(table)]) == 0
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [entry["image"] for entry in found[:40]]
    assert [row["label 1"] for row in rows] == [entry["top"][0]["label"] for entry in found[:40]]
    assert float(rows[0]["probability 1"]) == pytest.approx(
        found[0]["top"][0]["probability"], abs=1e-5
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "all.jsonl"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_file_names_that_are_no_utf_8_are_written(capsys, tiny_run, picture, tmp_path, ending):
    folder, out = tmp_path / "latin", tmp_path / f"all.{ending}"
    folder.mkdir()
    shutil.copy(picture, os.fsencode(folder) + b"/caf\xe9.png")
    assert main(["predict", str(tiny_run.path), str(folder), "--out", str(out)]) == 0
    assert "caf\\udce9.png" in out.read_text()


def test_predict_reads_images_as_it_needs_them(tiny_run, album, monkeypatch):
    """So that a folder of any size fits in memory: three batches of 32 at most."""
    read = []
    original = classify.image_or_error
    monkeypatch.setattr(
        classify, "image_or_error", lambda path, **how: read.append(path) or original(path, **how)
    )
    images = classify.find_images([str(album / "a")] * 10)
    classifier = classify.Classifier(sources.find(str(tiny_run.path)))
    results = classifier.classify(images, 1)
    assert [next(results)["image"] for _ in range(2)] == images[:2]
    time.sleep(0.5)  # the threads finish what they were given
    assert len(read) == 3 * 32
    results.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nix/*.png"], "No file matches 'nix/*.png'"),
        (["nix.png", "nox.png"], "No such image: nix.png, nox.png"),
        ([".", "--out", "all.txt"], "--out must end in .csv or .jsonl; received 'all.txt'"),
        (["."], "No images"),
    ],
)
def test_predict_refuses_what_it_cannot_find_or_write(
    capsys, tiny_run, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    if "--out" in arguments:
        Image.new("RGB", (32, 32)).save("a.png")
    assert main(["predict", str(tiny_run.path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_predict_takes_a_name_with_weights_and_refuses_one_without(capsys, picture, tmp_path):
    keras_resnet.ResNet8().save_weights(tmp_path / "w.weights.h5")
    arguments = ["predict", "resnet8", picture]
    assert main([*arguments, "--weights", str(tmp_path / "w.weights.h5")]) == 0
    assert main(arguments) == 2
    assert "untrained network, so its answers are random" in capsys.readouterr().err


def test_export_a_keras_file_with_a_folder_of_images(capsys, digits, tiny_run, tmp_path):
    shutil.copy(tiny_run.model, tmp_path / "mine.keras")
    (tmp_path / "photos").mkdir()
    for index in range(20):
        Image.fromarray(digits.train.images[index]).save(tmp_path / "photos" / f"{index}.png")
    code, report = _json(
        capsys,
        "export",
        str(tmp_path / "mine.keras"),
        *("--formats", "tflite-int8", "--data", str(tmp_path / "photos")),
        *("--calibration-method", "percentile:99.9"),
        *("--out", str(tmp_path / "out")),
    )
    assert code == 0
    assert report["calibration_images"] == 20
    assert report["calibration_method"] == "percentile:99.9"
    assert "20 calibration images are few" in report["warnings"][0]
    assert (tmp_path / "out" / "mine-int8.tflite").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "resnet5O"], "Did you mean 'resnet50'"),
        (["lst"], "Did you mean 'list'"),
        (["--jsn", "list"], "Options come after the command"),
        (["list", "vit*"], "No model matches"),
        (["train", "cifar10/resnett20"], "Did you mean 'cifar10/resnet20'"),
        (["train"], "Give either a config"),
        (["train", "debug/tiny", "--resume", "x"], "Give either a config"),
        (["train", "--resume", "nowhere"], "not a run folder"),
        (["train", "debug/tiny", "--precision", "bf16"], "Unknown precision 'bf16'"),
        (["train", "debug/tiny", "--epochs", "x"], "error: --epochs must be a whole number"),
        (["train", "debug/tiny", "--seed", "x"], "--seed must be a whole number; received 'x'"),
        (["finetune", "x", "--data", "y", "--lr", "z"], "--lr must be a number; received 'z'"),
        (["weights"], "required: list|info|fetch|verify|import"),
        (["runs"], "there is no folder 'runs'. Train one"),
        (["train", "debug/tiny", "--set", "model=resnet21"], "Unknown model 'resnet21'"),
        (["evaluate", "resnet50"], "untrained"),
        (["evaluate", "nowhere/run"], "No such file or folder"),
        (["export", "nowhere.keras"], "No such file or folder"),
        (["check", "."], "not an export folder"),
        (["check"], "required"),
        (["train", "debug/tiny", "--seed", "-1"], "train.seed must be a whole number, from 0"),
        (["train", "debug/tiny", "--set", "optimizer.momentum=2"], "and below 1; received 2.0"),
        (["train", "--resume", "x", "--epochs", "3"], "takes no other options"),
        (["train", "debug/tiny", "--data", "cifar10:9.9.9"], "dataset. Did you mean 'cifar10'"),
        (["train", "debug/tiny", "--data", "a/b/c/d"], "'a/b/c/d' is neither a folder here nor"),
        (["export", "x", "--check-images", "-1"], "1 or more"),
        (["export", "x", "--formats", "onnx web"], "separated by commas, e.g. onnx,web; received"),
        (["predict", ".", "a.png"], ". is not a run folder (it has no config.toml)"),
        (["predict", "nowhere.tflite", "a.png"], "No such file or folder"),
        (["predict", "cat.jpg", "RUN"], "cat.jpg is an image, not a model. The model comes first"),
    ],
)
def test_what_the_user_can_mend_exits_2_without_a_traceback(
    capsys, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_and_an_export_folder_say_what_to_do(capsys, tiny_run, exports, tmp_path):
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    shutil.copy(tiny_run.path / "config.toml", unfinished)
    assert main(["evaluate", str(unfinished)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["predict", str(exports), "x.png"]) == 2
    assert "resnet8-int8.tflite" in capsys.readouterr().err
    for file in (exports, exports / "resnet8-int8.tflite"):
        assert main(["profile", str(file)]) == 2
        assert "This command reads Keras models: give a run folder" in capsys.readouterr().err


def test_files_are_not_mistaken_for_their_neighbours(capsys, tiny_run, digits, tmp_path):
    run = shutil.copytree(tiny_run.path, tmp_path / "run")
    keras_resnet.ResNet8(classes=3).save(run / "other.keras")
    assert main(["export", str(run / "other.keras"), "--formats", "savedmodel"]) == 2
    assert "10 class names for a model with 3 classes" in capsys.readouterr().err
    arguments = ["--formats", "savedmodel", "--out", ""]
    assert main(["export", str(run), *arguments]) == 2
    assert "--out needs a value; received ''" in capsys.readouterr().err
    assert not (run / "exports").exists()


def test_a_model_without_its_normalisation_is_warned_about(capsys, picture, tmp_path):
    keras_resnet.ResNet20().save(tmp_path / "bare.keras")
    assert main(["predict", str(tmp_path / "bare.keras"), picture]) == 0
    assert "warning: 'resnet20' was built without its normalisation" in capsys.readouterr().err


@pytest.mark.slow
def test_the_import_is_whole_in_modules_run_with_m(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import keras_resnet\n")
    (tmp_path / "mine" / "run.py").write_text(
        "import keras_resnet\nprint(keras_resnet.ResNet8.__name__)\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "mine.run"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.stdout == "ResNet8\n", result.stderr


def test_a_recipe_runs_by_its_path(tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "train.py"), "--list"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "cifar10/resnet20" in result.stdout.split()


def test_a_missing_extra_says_how_to_install_it():
    result = run_python(
        "import sys\n"
        "sys.modules['ai_edge_litert'] = None\n"
        "from keras_resnet.cli.main import main\n"
        "sys.exit(main(['quickstart']))",
        check=False,
    )
    assert result.returncode == 2
    assert """Run in the checkout: pip install -e ".[all]" (elsewhere""" in result.stderr
    assert 'pip install "keras-resnet-zoo[all]"' in result.stderr


def test_file_errors_of_the_system_have_no_traceback(capsys, tiny_run, tmp_path):
    out = str(tmp_path / "missing" / "e.json")
    assert main(["evaluate", str(tiny_run.path), "--out", out]) == 2
    assert "No such folder" in capsys.readouterr().err
    assert main(["evaluate", str(tiny_run.path), "--out", str(tmp_path)]) == 2
    assert f"--out wants a file; {tmp_path} is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("require", [files.require_file_target, files.require_folder_target])
def test_where_there_is_no_permission_nothing_is_begun(require, tmp_path, monkeypatch):
    require(tmp_path / "new")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match=f"--out: there is no permission to write to {tmp_path}"):
        require(tmp_path / "new")


def test_a_closed_pipe_ends_quietly():
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_resnet", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 141)


@pytest.mark.slow
def test_quickstart_end_to_end(tmp_path, capsys, monkeypatch):
    """Shortened; the bars of accuracy and time: .ci/run and benchmarks/quickstart.py."""
    monkeypatch.chdir(tmp_path)
    assert main(["quickstart", "--epochs", "5"]) == 0
    text = capsys.readouterr().out
    for word in ("model.keras", "saved_model", "resnet8-float32.tflite", "resnet8-int8.tflite"):
        assert word in text
    assert {path.name for path in (tmp_path / "quickstart").iterdir()} == {
        "run",
        "exports",
        "images",
    }
    command = text.strip().splitlines()[-1].removeprefix("Try: keras-resnet ")
    assert main(command.split()) == 0
    capsys.readouterr()
    code, again = _json(capsys, "quickstart")  # finds the finished run and exports anew
    assert code == 0
    assert again["files"][2]["n"] == 360
    assert again["model"]["accuracy"] > 0.8  # it learned; chance is 0.1
    assert main(["quickstart", "--epochs", "2"]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert keras.models.load_model(tmp_path / "quickstart" / "run" / "model.keras")


# The house ----------------------------------------------------------------------------------------


def test_import_keras_resnet_loads_no_optional_package():
    run_python(
        "import sys, keras\n"  # which itself takes PIL and scikit-learn where they are
        "before = set(sys.modules)\n"
        "import keras_resnet\n"
        "optional = {'tensorflow_datasets', 'tensorflow_model_optimization', 'tf_keras_vis',"
        " 'onnx', 'tf_keras', 'ai_edge_litert', 'sklearn', 'PIL', 'tomli_w', 'tensorboard'}\n"
        "loaded = optional & {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert not loaded, loaded"
    )


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == keras_resnet.__version__

"""The benchmarks' arithmetic and their turns; what they measure is no matter for a test."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, cifar10_or_skip

from keras_resnet.errors import UserError
from keras_resnet.export.measure.turns import Peer, take_turns, workers

BENCHMARKS = ROOT / "benchmarks"

# A peer without a framework: its turns go to a file that all write to.
TOY = """
import sys
sys.path.insert(0, {peers!r})
from turns import Turns
turns = Turns()
print("not an answer")  # frameworks print what they like
if turns.options["dies"]:
    sys.exit("out of luck")
turns.answer(parameters=1)
while steps := turns.wait():
    with open(turns.options["log"], "a") as log:
        log.write(turns.options["name"])
    turns.report(ms=[1.0] * steps)
"""


@pytest.fixture
def training(monkeypatch):
    """benchmarks/training.py as a module, as if it were run from its folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("training")
    del sys.modules["training"]


def turn(**figures):
    return {"peak_memory_mib": 100, "idle_cpu_s": 0.0, **figures}


def test_ratios_are_between_turns_of_one_round(training):
    """A machine that is twice as slow in the second round changes the times, not the ratios."""
    answers = {
        "ours": [turn(ms=[10.0, 11.0, 90.0]), turn(ms=[22.0, 22.0, 22.0])],
        "torch": [turn(ms=[22.0, 22.0, 22.0]), turn(ms=[44.0, 40.0, 48.0], peak_memory_mib=300)],
    }
    ours, torch = training.step_rows(answers)
    assert ours["ms"] == {"median": 16.5, "least": 11.0, "most": 22.0}  # of the rounds' medians
    assert ours["ratio"] is None
    assert torch["ratio"] == {"median": 2.0, "least": 2.0, "most": 2.0}
    assert torch["peak_memory_mib"] == 300
    assert torch["n"] == 6
    assert torch["rounds"][1]["ms"] == [44.0, 40.0, 48.0]


def test_epochs_compare_images_per_second(training):
    """The first epoch may lack the warm-up's images, so seconds alone do not compare."""
    answers = {
        "ours": [turn(images=1000, seconds=2.0, stall_s=0.1, input_wait=0.02)],
        "keras-fit": [turn(images=900, seconds=3.6, stall_s=0.2, input_wait=None)],
    }
    ours, fit = training.epoch_rows(answers)
    assert ours["images_per_second"]["median"] == 500
    assert ours["input_wait"]["median"] == 0.02
    assert fit["ratio"]["median"] == 2.0
    assert fit["input_wait"] is None


def test_a_printed_table_has_every_figure(training, capsys):
    answers = {"ours": [turn(ms=[1000.0])], "keras-fit": [turn(ms=[1500.0])]}
    shared = {"model": "resnet20", "precision": "float32", "batch_size": 128}
    rows = [{**shared, **row} for row in training.step_rows(answers)]
    left_out = {"model": "resnet20", "precision": "float32", "peer": "torch", "reason": "no torch"}
    training._print(training.Record(rows, [left_out]))
    printed = capsys.readouterr().out
    assert "1500.0 (1500.0 to 1500.0)  1.50 (1.50 to 1.50)" in printed
    assert "left out: resnet20, float32, torch: no torch" in printed


def test_peers_take_turns_in_processes_of_their_own(training, tmp_path):
    script, log = tmp_path / "toy.py", tmp_path / "log"
    script.write_text(TOY.format(peers=str(BENCHMARKS / "peers")))
    peers = [
        Peer(name, (sys.executable, str(script)), {"name": name, "log": str(log), "dies": ""})
        for name in "abc"
    ]
    with workers(peers) as started:
        answers = take_turns(started, rounds=3, steps=2)
    assert log.read_text() == "abcbcacab"
    assert [t["ms"] for t in answers["b"]] == [[1.0, 1.0]] * 3
    # A Python process with nothing imported takes some MiB, this one with TensorFlow hundreds.
    assert all(4 < t["peak_memory_mib"] < 100 for turns in answers.values() for t in turns)
    assert all(worker.process.returncode is not None for worker in started)


def test_a_peer_that_dies_ends_the_run_with_its_last_words(training, tmp_path):
    script = tmp_path / "toy.py"
    script.write_text(TOY.format(peers=str(BENCHMARKS / "peers")))
    peer = Peer("toy", (sys.executable, str(script)), {"dies": "yes"})
    died = pytest.raises(UserError, match=r"'toy' died\. Its last output: .*out of luck")
    with died, workers([peer]):
        pass
    peer = Peer("toy", peer.command, {"name": "a", "log": str(tmp_path / "log"), "dies": ""})
    with workers([peer]) as (worker,):
        worker.process.kill()
        worker.process.wait()
        with pytest.raises(UserError, match="'toy' died"):
            worker.turn(1)


def test_peers_of_different_networks_are_not_compared(training):
    assert training._same_parameters({"ours": 5, "torch": 5}) == 5
    with pytest.raises(SystemExit, match=r"same network.*'torch': 6"):
        training._same_parameters({"ours": 5, "torch": 6})


def test_a_peer_that_is_not_there_is_left_out_with_the_reason(training, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["training.py", "--torch-python", "/bin/false"])
    options = training._parse()
    peers, left_out = training._peers(options, {"precision": "mixed_bfloat16"})
    assert [peer.name for peer in peers] == [
        "ours",
        "ours-float32",
        "ours-remat",
        "ours-fit",
        "keras-fit",
    ]
    assert [entry["peer"] for entry in left_out] == ["torch", "torch-compiled"]
    assert "--torch-python" in left_out[0]["reason"]


def test_epochs_are_of_one_network(training, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["training.py", "--epoch", "--model", "resnet50"])
    with pytest.raises(SystemExit):
        training._parse()
    assert "--epoch is of resnet20" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("mode", [["--steps", "2"], ["--epoch", "--images", "512"]])
def test_training_runs_for_real(mode, tmp_path):
    """Ours and stock Keras, one round; PyTorch is no dependency of this repository."""
    record = tmp_path / "record.json"
    command = [sys.executable, BENCHMARKS / "training.py", "--model", "resnet20", "--rounds", "1"]
    command += ["--precision", "float32", "--peers", "keras-fit", "--json", record, *mode]
    path = os.pathsep.join([str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    content = json.loads(record.read_text())
    ours, fit = content["rows"]
    assert (ours["peer"], fit["peer"]) == ("ours", "keras-fit")
    assert ours["parameters"] == fit["parameters"] == 269_722
    assert math.isfinite(fit["ratio"]["median"])
    assert fit["ratio"]["median"] > 0
    if "--epoch" in mode:
        # 512 images are 4 steps, the first epoch's first two are the warm-up.
        assert ours["rounds"][0]["images"] == fit["rounds"][0]["images"] == 256
        assert 0 <= ours["input_wait"]["median"] < 1


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("bars")
    del sys.modules["bars"]


def test_every_bar_is_asked_of_a_program_that_is_run(bars):
    programs = importlib.import_module("all").PROGRAMS
    assert {bar.program for bar in bars.BARS} == set(programs)
    assert all((BENCHMARKS / f"{name}.py").is_file() for name in programs)
    assert len({bar.what for bar in bars.BARS}) == len(bars.BARS)
    assert all((bar.least is None) != (bar.most is None) for bar in bars.BARS)
    del sys.modules["all"]


@pytest.mark.parametrize(("median", "said"), [(0.9, "reached"), (0.89, "not reached")])
def test_a_bar_is_judged_by_the_median(bars, median, said):
    at_least = bars.Bar("pace", "start", lambda record: None, least=0.9)
    found = {"median": median, "least": 0.5, "most": 2.0}
    assert bars.judged(at_least, found) == said
    at_most = at_least._replace(least=None, most=median - 0.01)
    assert bars.judged(at_most, found) == "not reached"
    assert bars.text(found) == f"{median} (0.5 to 2)"


def test_a_training_is_compared_with_pytorchs_faster_mode_round_by_round(bars):
    def row(peer, *rounds):
        ms = {"median": sorted(rounds)[len(rounds) // 2]}
        times = [{"ms": [value]} for value in rounds]
        return {
            "model": "resnet20",
            "precision": "float32",
            "peer": peer,
            "ms": ms,
            "rounds": times,
        }

    rows = [row("ours", 10, 20, 10), row("torch", 30, 60, 30), row("torch-compiled", 15, 20, 12)]
    found = bars._over("torch", "ours", "resnet20", "float32")({"rows": rows})
    assert found == {"median": 1.2, "least": 1.0, "most": 1.5}
    assert bars._over("keras-fit", "ours", "resnet20", "float32")({"rows": rows}) is None


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("tables")
    del sys.modules["tables"]


def test_the_pages_have_the_figures_of_the_records(tables):
    for page, makers in tables.TABLES.items():
        text = (BENCHMARKS.parent / page).read_text(encoding="utf-8")
        assert tables.with_tables(text, (make() for make in makers)) == text, (
            f"{page}: run python benchmarks/tables.py"
        )


def test_a_table_takes_the_place_of_the_one_with_its_first_line(tables):
    page = "Before.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\nAfter.\n"
    assert tables.with_tables(page, ["| a | b |\n|---|---|\n| 5 | \\6 |"]) == (
        "Before.\n\n| a | b |\n|---|---|\n| 5 | \\6 |\n\nAfter.\n"
    )
    with pytest.raises(ValueError, match="0 tables begin with"):
        tables.with_tables(page, ["| c |\n|---|"])


def test_a_loss_beyond_its_bar_is_bold(tables):
    row = tables.COMPRESSED[0]
    lost = -0.09  # 92.77 and 92.68 % of one record each
    assert tables._compressed(row._replace(bar=0.1)).endswith(f"| {lost:+.2f} |")
    assert tables._compressed(row._replace(bar=0.08)).endswith(f"| **{lost:+.2f}** |")


@pytest.fixture
def quantized(monkeypatch):
    """benchmarks/quantized_imagenet.py as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("quantized_imagenet")
    del sys.modules["quantized_imagenet"]


@pytest.mark.parametrize("name", ["test_vgg", "seresnet20"])
def test_random_weights_are_settled_as_training_would(quantized, name, digits):
    """With and without BN in front of what has biases; a random network's logits would vanish."""
    model = quantized.settled(name, digits.train, 10)
    images = digits.train.sample(quantized.TRAIN // 2).images.astype("float32")
    logits = np.asarray(model(images, training=False))
    # Folding the scale into the kernel is float32 arithmetic on sums of some hundred terms.
    np.testing.assert_allclose(logits.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(logits.std(axis=0), 1, rtol=1e-3)


@pytest.mark.slow
def test_every_family_is_all_int8_trained_quantized_or_not(tmp_path):
    """Tiny relatives of the networks that the benchmark is about, and one that is refused."""
    record = tmp_path / "record.json"
    names = ["test_vgg", "test_googlenet", "test_densenet", "test_seresnextd"]
    names += ["test_resnet", "test_resnetv2", "no_network"]
    command = [sys.executable, BENCHMARKS / "quantized_imagenet.py", *names, "--json", record]
    path = os.pathsep.join([str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [*command, "--data", "digits", "--size", "32"],
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    rows = json.loads(record.read_text())["rows"]
    assert [row["network"] for row in rows] == names
    for row in rows[:-1]:
        for found in (row["ptq"], row["qat"]):
            assert found["in_float"] == []
            assert found["snr_db"] >= 15  # the weights alone leave about 35 dB
    assert "code" in rows[-1]["ptq"]["error"]


def _script(name, *arguments):
    path = os.pathsep.join([str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, BENCHMARKS / name, *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})


@pytest.mark.slow
def test_runtimes_runs_for_real(tmp_path):
    """The network, the calibration and the rounds are tiny; engines not installed are left out."""
    small = ["--size", 32, "--classes", 10, "--calibration", 4, "--rounds", 2]
    record = tmp_path / "record.json"
    small += ["--runs", 3, "--threads", 1, "--network", "ResNet50V2", "--json", record]
    _script("runtimes.py", *small)
    found = json.loads(record.read_text())["networks"]["ResNet50V2"]
    ratios = {entry["format"]: entry["ratio"]["median"] for entry in found["against_stock"]}
    assert list(ratios) == ["tflite-float32", "tflite-int8"]
    assert all(ratio > 0 for ratio in ratios.values())
    names = [row["file"] for row in found["rows"]]
    assert names[:2] == ["stock-float32", "stock-int8"]
    assert "resnet50v2-int8.tflite" in names
    assert found["left_out"]  # PyTorch's network is another


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("KERAS_RESNET_REFERENCE"),
    reason="KERAS_RESNET_REFERENCE names the folder with MLPerf Tiny's files",
)
def test_mlperf_tiny_runs_for_real(tmp_path):
    cifar10_or_skip()
    folder = Path(os.environ["KERAS_RESNET_REFERENCE"]) / "mlperf_tiny"
    files = [folder / "pretrainedResnet.tflite", folder / "pretrainedResnet_quant.tflite"]
    record = tmp_path / "record.json"
    _script("mlperf_tiny.py", *files, "--images", 500, "--rounds", 2, "--json", record)
    accuracy = json.loads(record.read_text())["accuracy"]
    # Published: 87.21 and 86.99 % of all test images; of 500 the standard error is 1.5 points.
    assert accuracy["mlperf-float32"] == pytest.approx(0.872, abs=0.045)
    assert accuracy["resnet8-int8.tflite"] == pytest.approx(0.892, abs=0.045)

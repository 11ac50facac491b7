"""The learning-rate finder: what it suggests trains, and nothing is left behind."""

import json

import numpy as np
import pytest

from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.recipes import load_config, train
from keras_resnet.recipes.training.rate_finder import Finding, find_rate


def test_the_loss_falls_and_then_grows(tmp_path):
    planned = train.plan(load_config("debug/tiny"), tmp_path / "run")
    found = find_rate(planned)
    lowest = found.losses.argmin()
    assert 10 < lowest < len(found.losses) - 2
    assert found.losses[lowest] < 0.8 * found.losses[0]
    assert found.losses[-1] > 1.2 * found.losses[lowest]
    np.testing.assert_allclose(found.rates[:3], 1e-6 * 10 ** (0.07 * np.arange(3)), rtol=1e-4)
    # The rate by which debug/tiny trains was chosen by hand: 0.05.
    assert 0.05 / 10 < found.suggestion < 0.05 * 10
    assert list(tmp_path.iterdir()) == []


def test_the_suggestion_is_a_tenth_of_the_best_rate():
    found = Finding(np.array([1e-3, 1e-2, 0.123, 1.0]), np.array([3.0, 2.0, 1.0, 4.0]))
    assert found.suggestion == 0.012


def test_a_fine_tuning_trains_all_its_layers(tiny_run, tmp_path, capsys):
    picture = tmp_path / "rates.svg"
    arguments = ["finetune", str(tiny_run.path), "--data", "digits", "--image-size", "32"]
    assert main([*arguments, "--find-lr", str(picture), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["learning_rate"] == pytest.approx(
        result["rates"][int(np.argmin(result["losses"]))] / 10, rel=0.05
    )
    assert "suggested: " in picture.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["rates.svg"]


@pytest.mark.slow
def test_the_command_says_what_to_do_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "debug/tiny", "--find-lr", "rates.png"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("rates.png: the loss at learning rates from 1e-06 to ")
    assert "\nNext: train with --set optimizer.learning_rate=" in out
    assert [path.name for path in tmp_path.iterdir()] == ["rates.png"]
    assert main(["train", "debug/tiny", "--find-lr", "rates.txt"]) == 2
    assert "written as .svg, .png or .pdf" in capsys.readouterr().err


def test_a_loss_that_is_never_finite_is_said(tmp_path):
    planned = train.plan(load_config("debug/tiny"), tmp_path / "run")
    build = planned.job.trainee.build

    def poisoned(job, shape):
        model = build(job, shape)
        kernel = model.get_layer("head").kernel
        kernel.assign(np.full(kernel.shape, np.nan))
        return model

    planned.job.trainee.build = poisoned
    with pytest.raises(UserError, match="not finite at the learning rate 1e-06 already"):
        find_rate(planned)

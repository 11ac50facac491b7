"""Magnitude pruning and clustering: which weights, what is kept, and the whole chain to a file."""

import importlib.util
import json
import sys

import keras
import numpy as np
import pytest
from helpers import run_python

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export import export
from keras_resnet.recipes import compress
from keras_resnet.recipes.compression import process, table, zeros_and_clusters
from keras_resnet.recipes.configs import schema
from keras_resnet.recipes.runs.folder import Run, find_run

DIGITS = {"data.name": "digits", "data.validation": 0, "augment.crop": "shift"}
DIGITS |= {"augment.flip": "none"}
SETTINGS = [part for key, value in DIGITS.items() for part in ("--set", f"{key}={value}")]


def _with_kernels(model, change):
    for layer in model.layers:
        if layer.name in zeros_and_clusters.find(model):
            kernel, *others = layer.get_weights()
            layer.set_weights([change(kernel), *others])
    return model


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    return keras_resnet.create_model("resnet8", include_preprocessing=True)


def _halves(kernel):
    return np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel)


def _smallest(share):
    """The change by which this share of a kernel becomes 0."""
    return lambda kernel: np.where(np.abs(kernel) < np.quantile(np.abs(kernel), share), 0, kernel)


def _dead_filters(kernel):
    """A fifth of the filters at 0, as weight decay leaves those whose ReLU never fires."""
    return np.where(np.arange(kernel.shape[-1]) % 5 == 0, 0, kernel)


def _two_values(kernel):
    return np.sign(kernel) * np.abs(kernel).mean()


# What is there -----------------------------------------------------------------------------------


def test_kernels_are_those_of_convolutions_and_dense_layers_but_the_first(network):
    found = zeros_and_clusters.find(network)
    assert "stem_conv" not in found
    assert {"stage1_block1_conv1", "stage2_block1_shortcut_conv", "head"} <= set(found)
    weighted = (keras.layers.Conv2D, keras.layers.Dense)
    assert len(found) == sum(isinstance(layer, weighted) for layer in network.layers) - 1


def test_the_report_counts_zeros_and_values(network):
    assert zeros_and_clusters.report(network)["zeros"] == 0
    report = zeros_and_clusters.report(_with_kernels(network, _halves))
    assert report["zeros"] == pytest.approx(0.5, abs=1e-3)  # odd kernels keep their median
    assert zeros_and_clusters.report(_with_kernels(network, np.sign)) == {
        "zeros": report["zeros"],
        "distinct_values": 3,
    }


def test_a_network_of_one_kernel_was_neither_pruned_nor_clustered():
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    alone = keras.Sequential(layers)
    assert zeros_and_clusters.zeros(zeros_and_clusters.find(alone)) == 0
    assert zeros_and_clusters.preserved(alone, "auto") == (False, False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda kernel: kernel, (False, False)),
        (_halves, (True, False)),
        (_smallest(0.25), (True, False)),
        (_smallest(0.01), (True, False)),
        (_dead_filters, (False, False)),
        (_two_values, (False, True)),
        (lambda kernel: np.sign(_halves(kernel)), (True, True)),
    ],
)
def test_what_is_there_is_kept(network, change, expected):
    assert zeros_and_clusters.preserved(_with_kernels(network, change), "auto") == expected
    assert zeros_and_clusters.preserved(network, "none") == (False, False)


def test_any_zeros_are_kept_when_asked_for(network):
    dead = _with_kernels(network, _dead_filters)
    assert zeros_and_clusters.preserved(dead, "sparsity") == (True, False)


def test_what_is_not_there_cannot_be_kept(network):
    with pytest.raises(UserError, match=r"no weight .* of 'resnet8' is zero.*prune"):
        zeros_and_clusters.preserved(network, "sparsity")
    with pytest.raises(UserError, match=r"are not clustered .*keras-resnet cluster"):
        zeros_and_clusters.preserved(network, "clusters")
    with pytest.raises(UserError, match=r"Did you mean 'sparsity'\?"):
        zeros_and_clusters.preserved(network, "sparsty")


# How zeros are shared out ------------------------------------------------------------------------


def test_lamp_scores_a_weight_against_those_of_its_layer_not_smaller():
    """By hand: squares 1, 4, 4 give 1/9, 4/8, 4/4; squares 9, 16 give 9/25 and 1."""
    found = {"a": np.array([1.0, -2.0, 2.0]), "b": np.array([[3.0, -4.0]])}
    assert zeros_and_clusters.shares(found, 0.2, "lamp") == {"a": pytest.approx(1 / 3), "b": 0}
    assert zeros_and_clusters.shares(found, 0.4, "lamp") == {"a": pytest.approx(1 / 3), "b": 0.5}
    assert zeros_and_clusters.shares(found, 0.4, "uniform") == {"a": 0.4, "b": 0.4}


def test_lamp_gives_the_share_of_all_and_leaves_every_layer_a_weight():
    rng = np.random.default_rng(0)
    found = {str(n): rng.normal(size=n) * 2.0 ** -(n % 7) for n in (1, 10, 100, 1000)}
    goals = zeros_and_clusters.shares(found, 0.95, "lamp")
    pruned = sum(round(goals[name] * kernel.size) for name, kernel in found.items())
    assert pruned == round(0.95 * 1111)
    assert all(goal < 1 for goal in goals.values())


def test_an_unknown_allocation_is_refused():
    with pytest.raises(UserError, match=r"compress\.allocation 'lam'. Did you mean 'lamp'"):
        zeros_and_clusters.shares({"a": np.ones(3)}, 0.5, "lam")


# The process of its own --------------------------------------------------------------------------


def test_the_techniques_are_known_without_their_package():
    """Its import would turn `tf.keras` into tf_keras in every program that trains."""
    code = """
import sys
from keras_resnet.recipes.compression.table import TECHNIQUES
print(sorted(TECHNIQUES), {"tensorflow_model_optimization", "tf_keras"} & set(sys.modules))
"""
    assert run_python(code).stdout.strip() == "['cluster', 'prune', 'qat'] set()"


# Refused before anything is written --------------------------------------------------------------


@pytest.mark.parametrize("verb", ["prune", "cluster"])
def test_averaged_weights_are_refused(network, tmp_path, verb):
    loaded = schema.load_config(f"compress/{verb}", DIGITS | {"train.ema": 0.9})
    with pytest.raises(UserError, match=r"train\.ema averages weights"):
        compress.run(network, loaded, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ramp", [(0.9, 0.1), (-0.1, 0.5), (0.5, 1.5), (1.0, 1.0), (0.5,)])
def test_a_ramp_that_does_not_rise_in_the_run_is_refused(network, ramp, tmp_path):
    with pytest.raises(UserError, match=r"compress\.ramp must be two fractions of the run"):
        compress.prune_weights(network, data="digits", out=tmp_path / "run", compress__ramp=ramp)


def test_several_machines_are_refused(network, monkeypatch):
    workers = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
    with pytest.raises(UserError, match="trains on one machine"):
        compress.qat(network, "digits")


def test_a_missing_tfmot_is_named_with_the_command(network, monkeypatch):
    real = importlib.util.find_spec
    absent = {"tensorflow_model_optimization"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in absent else real(name, *a)
    )
    with pytest.raises(UserError, match=r"'tensorflow_model_optimization'.*\[compress\]"):
        compress.qat(network, "digits")


# A Python that lacks what {lacks} says, and cannot train.
_OTHER_PYTHON = """#!/bin/sh
case "$2" in
  *find_spec*) echo {lacks} ;;
  *) echo "I train here."; exit 2 ;;
esac
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the other Python is a shell script")
@pytest.mark.parametrize(
    ("lacks", "message"),
    [("", "^I train here.$"), ("tf_keras", r"has no tf_keras\. Run: .*python -m pip install")],
)
def test_another_python_can_train(network, tmp_path, monkeypatch, lacks, message):
    python = tmp_path / "python"
    python.write_text(_OTHER_PYTHON.format(lacks=lacks))
    python.chmod(0o755)
    monkeypatch.setenv("KERAS_RESNET_COMPRESS_PYTHON", str(python))
    with pytest.raises(UserError, match=message):
        compress.prune_weights(network, 0.5, "digits", out=tmp_path / "run")


def test_another_python_that_is_not_there_is_named(network, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_RESNET_COMPRESS_PYTHON", "/no/python")
    with pytest.raises(UserError, match="Cannot start KERAS_RESNET_COMPRESS_PYTHON=/no/python"):
        compress.qat(network, "digits")
    with pytest.raises(UserError, match="Cannot start KERAS_RESNET_COMPRESS_PYTHON=/no/python"):
        process.train_apart(Run(tmp_path))  # as to resume a run


def test_fine_tuning_a_pruned_network_warns(network, tmp_path, capsys):
    from keras_resnet.recipes import finetune

    finetune._warn_of_zeros(network)
    assert not capsys.readouterr().err
    finetune._warn_of_zeros(_with_kernels(network, _halves))
    assert "was pruned or clustered" in capsys.readouterr().err


def test_clustered_weights_are_not_averaged(network, capsys):
    loaded = schema.load_config(compress.QAT, {"train.ema": 0.9})
    trainee = table.technique(loaded)
    assert trainee(network).ema(loaded) == 0.9
    assert trainee(_with_kernels(network, _two_values)).ema(loaded) == 0.0
    assert "train.ema is ignored" in capsys.readouterr().err


# The chain ---------------------------------------------------------------------------------------


def _zeros_stay(before, after):
    """Where `before` has zeros, `after` has."""
    old, new = zeros_and_clusters.find(before), zeros_and_clusters.find(after)
    return all((new[name][old[name] == 0] == 0).all() for name in old)


@pytest.fixture(scope="module")
def pruned(tiny_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("pruned") / "run"
    command = ["prune", str(tiny_run.path), "--sparsity", "0.7", "--epochs", "3"]
    assert main([*command, "--out", str(out), "--set", "train.batch_size=32", *SETTINGS]) == 0
    return find_run(out)


def test_a_pruned_run_has_its_zeros_and_a_smaller_archive(pruned, tiny_run, digits, tmp_path):
    summary = pruned.summary()
    assert summary["technique"] == "prune"
    assert summary["kernels"]["zeros"] == pytest.approx(0.7, abs=1e-3)
    # Three epochs: it still knows what it knew, within 36 of 360 images.
    assert summary["test"]["accuracy"] >= tiny_run.summary()["test"]["accuracy"] - 0.1
    sizes = [
        export(
            keras.models.load_model(run.model),
            ["tflite-int8"],
            out=tmp_path / run.path.name,
            calibration=digits.train.images[:64],
            about=None,  # names of classes, which are known of a run of this process
        ).manifest["files"][0]
        for run in (tiny_run, pruned)
    ]
    assert sizes[0]["bytes"] == sizes[1]["bytes"]
    assert sizes[1]["bytes_gzipped"] < 0.7 * sizes[0]["bytes_gzipped"]


@pytest.mark.slow
@pytest.mark.parametrize("cores", [1, 2])
def test_two_of_four(tiny_run, tmp_path, cores):
    """In a process as the command has, where devices can still be chosen."""
    out = tmp_path / "run"
    command = ["prune", tiny_run.path, "--pattern", "2:4", "--epochs", "1"]
    options = ["--devices", f"cpu:{cores}", "--out", out]
    code = "import sys; from keras_resnet.cli.main import main; sys.exit(main(sys.argv[1:]))"
    run_python(code, *command, *options, *SETTINGS)
    found = zeros_and_clusters.find(keras.models.load_model(find_run(out).model))
    for kernel in found.values():
        if kernel.ndim == 4:
            groups = np.moveaxis(kernel, 2, -1).reshape(-1, 4)
            assert ((groups != 0).sum(axis=1) <= 2).all()


@pytest.mark.slow
@pytest.mark.parametrize("biased", [True, False])
def test_clusters_and_zeros_survive_quantization(pruned, tiny_run, tmp_path, biased):
    """Pruned, clustered or both → quantized: PQAT, CQAT and PCQAT in tfmot's words.

    ResNet-8's convolutions have biases; those of most networks have none.
    """
    settings = {"train__epochs": 1} | {key.replace(".", "__"): v for key, v in DIGITS.items()}
    settings.pop("data__name")
    if biased:
        whole, sparse = (keras.models.load_model(run.model) for run in (tiny_run, pruned))
    else:
        whole = keras_resnet.create_model(
            "test_resnet", classes=10, input_shape=(32, 32, 3), include_preprocessing=True
        )
        sparse = compress.prune_weights(whole, 0.7, "digits", tmp_path / "pruned", **settings)
    both = compress.cluster_weights(sparse, 8, "digits", tmp_path / "clustered", **settings)
    assert zeros_and_clusters.report(both)["distinct_values"] <= 8
    assert _zeros_stay(sparse, both)
    clustered = compress.cluster_weights(whole, 8, "digits", tmp_path / "values", **settings)
    assert zeros_and_clusters.preserved(clustered, "auto") == (False, True)
    settings["optimizer__learning_rate"] = 0.02  # far enough that a zero would leave its step
    for name, start in [("pqat", sparse), ("cqat", clustered), ("pcqat", both)]:
        quantized = compress.qat(start, "digits", tmp_path / name, **settings)
        assert _zeros_stay(start, quantized)
        if name != "pqat":
            assert zeros_and_clusters.report(quantized)["distinct_values"] <= 8
        assert export(quantized, ["tflite-int8"], out=tmp_path / f"{name}-exports").passed
    free = compress.qat(sparse, "digits", tmp_path / "q", compress__preserve="none", **settings)
    assert not _zeros_stay(sparse, free)

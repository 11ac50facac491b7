"""The verb doctor: versions, extras, devices and faults of this installation."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.util import find_spec
from typing import Any

from keras_resnet import onednn
from keras_resnet.cli import collision
from keras_resnet.cli.options import Parser, Verb
from keras_resnet.display.console import print_json, print_lines, print_table
from keras_resnet.errors import MissingExtraError
from keras_resnet.lazy import quiet_import
from keras_resnet.weights import download

# For each extra: the modules that it installs, and what needs them.
EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "recipes": (
        ("tensorflow_datasets", "tensorboard", "sklearn", "tomli_w"),
        "quickstart, train, finetune, distill, evaluate, and data sets by name",
    ),
    "export": (
        ("ai_edge_litert", "ai_edge_quantizer"),
        "export, check, benchmark, layers, .tflite",
    ),
    "compress": (("tensorflow_model_optimization", "tf_keras"), "qat, prune, cluster"),
    "explain": (("tf_keras_vis",), "explain"),
    "report": (("matplotlib",), "report, and every --picture"),
    "onnx": (("onnx", "tf2onnx", "onnxruntime"), "the formats onnx and onnx-int8"),
    "openvino": (("openvino",), "the format openvino"),
    "micro": (("tflite_micro",), "the arena of the format micro"),
    "hub": (("huggingface_hub",), "push, from_hub, weights from hf://USER/NAME"),
    "npu": (("ethosu",), "export --npu, check --on"),
    "completion": (("shtab",), "completion"),
}


def _doctor(options: argparse.Namespace) -> int:
    found = report()
    if options.json:
        return print_json(found, not found["problems"])
    lines = [f"{name:<24} {version}" for name, version in found["versions"].items()]
    devices = [f"{name:<24} {value}" for name, value in found["devices"].items()]
    print_lines((*lines, "", *devices, ""))
    rows = [
        [name, _state(row["missing"]), row["needed_by"], row["install"] or "–"]
        for name, row in found["extras"].items()
    ]
    print_table("", ("extra", "state", "needed by", "to install"), rows, text_columns=4)
    print_lines(("", *(f"problem: {text}" for text in found["problems"])))
    return 1 if found["problems"] else 0


def _state(missing: list[str]) -> str:
    return f"missing: {', '.join(missing)}" if missing else "installed"


def report() -> dict[str, Any]:
    """Return what an issue report needs: versions, devices, extras and problems."""
    manifest = quiet_import("keras_resnet.export.manifest")
    environment = manifest.environment()
    return {
        "versions": environment["versions"],
        "devices": {"machine": environment["machine"], **_devices()},
        "extras": {name: _extra(name) for name in EXTRAS},
        "problems": list(filter(None, (collision.problem(), _backend()))),
    }


def _devices() -> dict[str, Any]:
    tensorflow = quiet_import("tensorflow")
    sets = onednn.instruction_sets(onednn.read_cpuinfo())
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "instruction sets": ", ".join(sets) or "unknown",
        "GPUs": len(tensorflow.config.list_physical_devices("GPU")),
        "cache of weights": str(download.cache_home()),
    }


def _extra(name: str) -> dict[str, Any]:
    modules, needed_by = EXTRAS[name]
    missing = [module for module in modules if find_spec(module) is None]
    install = MissingExtraError(missing[0], name).command if missing else None
    return {"missing": missing, "needed_by": needed_by, "install": install}


def _backend() -> str | None:
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend == "tensorflow":
        return None
    return (
        f"KERAS_BACKEND is '{backend}'. The recipes and the export need TensorFlow: unset "
        "KERAS_BACKEND, or set it to tensorflow"
    )


def _options(sub: Parser) -> None:
    """Add nothing: the verb has no options of its own."""


VERBS = {
    "doctor": Verb(
        "show versions, extras, devices and faults",
        "doctor",
        _options,
        _doctor,
    ),
}

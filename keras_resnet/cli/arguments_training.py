"""Verbs of `keras-resnet` that train; nothing here loads TensorFlow."""

from __future__ import annotations

import argparse

from keras_resnet.cli.options import add_model, natural


def _quickstart(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", metavar="FOLDER", default="quickstart", help="default ./quickstart")
    _training(sub)


def _train(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("config", nargs="?", help="a shipped config (see --list) or a .toml file")
    sub.add_argument("--list", action="store_true", help="list the shipped configs")
    sub.add_argument("--resume", metavar="RUN", help="go on with an interrupted run")
    sub.add_argument("--out", metavar="FOLDER", help="default runs/NAME-DATE-TIME")
    sub.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="digits, a name of tensorflow-datasets, or a folder of images",
    )
    sub.add_argument(
        "--data-service", metavar="grpc://HOST:PORT", help="a 'keras-resnet data-service'"
    )
    _recipe(sub)


def _distill(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("config", help="a shipped config (see 'train --list') or a .toml file")
    sub.add_argument(
        "--teacher",
        metavar="MODEL",
        help="whom to learn from: a run folder, a .keras file, or NAME --weights; default the "
        "config's",
    )
    sub.add_argument("--weights", metavar="TAG|FILE", help="of a teacher that is a NAME")
    sub.add_argument("--out", metavar="FOLDER", help="default runs/NAME-DATE-TIME")
    sub.add_argument("--data", metavar="NAME|FOLDER", help="as of 'train'")
    _recipe(sub)


def _qat(sub: argparse.ArgumentParser) -> None:
    _compressing(sub, "qat")
    sub.add_argument(
        "--preserve", help="auto (default), none, sparsity, clusters or both: what stays as it is"
    )


def _prune(sub: argparse.ArgumentParser) -> None:
    _compressing(sub, "prune")
    sub.add_argument("--sparsity", type=float, metavar="PART", help="of the weights, e.g. 0.8")
    sub.add_argument("--pattern", help="2:4 for two zeros in every four input channels")


def _cluster(sub: argparse.ArgumentParser) -> None:
    _compressing(sub, "cluster")
    sub.add_argument("--clusters", type=natural, metavar="N", help="values of a kernel, e.g. 16")


def _compressing(sub: argparse.ArgumentParser, verb: str) -> None:
    add_model(sub, "the trained network to start from: a run folder, a .keras file")
    sub.add_argument(
        "--data", metavar="NAME|FOLDER", help="default what the run or the weights were trained on"
    )
    sub.add_argument("--config", default=f"compress/{verb}", help="default %(default)s")
    sub.add_argument(
        "--distill", action="store_true", help="learn the answers of the network as it was, too"
    )
    sub.add_argument("--out", metavar="FOLDER", help=f"default runs/{verb}-NAME-DATE-TIME")
    _training(sub)


def _finetune(sub: argparse.ArgumentParser) -> None:
    add_model(sub, "the trained network to start from: a run folder, a .keras file")
    sub.add_argument("--data", metavar="NAME|FOLDER", required=True, help="what to train on")
    sub.add_argument("--config", default="finetune/default", help="default %(default)s")
    sub.add_argument("--out", metavar="FOLDER", help="default runs/finetune-NAME-DATE-TIME")
    _recipe(sub)


def _prune_filters(sub: argparse.ArgumentParser) -> None:
    add_model(sub, "the trained network: a run folder, a .keras file")
    sub.add_argument(
        "--data", metavar="NAME|FOLDER", required=True, help="what to train on: the same classes"
    )
    sub.add_argument(
        "--keep",
        type=float,
        metavar="PART",
        help="of the multiply-adds, e.g. 0.5; default the config's",
    )
    sub.add_argument("--criterion", help="what filters are judged by: l1 (default) or gamma")
    sub.add_argument("--config", default="compress/prune_filters", help="default %(default)s")
    sub.add_argument("--out", metavar="FOLDER", help="default runs/prune-filters-NAME-DATE-TIME")
    _recipe(sub)


def _runs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", nargs="?", default="runs", help="where to look (default ./runs)")


def _report(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", help="the folder of a finished run")
    sub.add_argument("--out", metavar="FILE.html", help="default RUN/report.html")


def _compare(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("models", nargs="+", help="run folders, export folders and exported files")
    sub.add_argument("--picture", metavar="FILE.svg", help="draw accuracy against bytes and ms")


def _recipe(sub: argparse.ArgumentParser) -> None:
    _training(sub)
    sub.add_argument(
        "--profile",
        action="store_true",
        help="write a TensorFlow profiler trace of ten steps for TensorBoard",
    )


def _data_service(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--port",
        type=natural,
        metavar="N",
        default=5050,
        help="where trainings ask (default 5050); the batches come from the port after it",
    )
    sub.add_argument(
        "--host", help="name or address by which they reach this machine (default its host name)"
    )


def _training(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--epochs", type=natural, metavar="N")
    sub.add_argument("--batch-size", type=natural, metavar="N", help="global, over all devices")
    sub.add_argument("--seed", type=int, metavar="N")
    sub.add_argument("--devices", help="auto, cpu, gpu, cpu:N (logical devices), gpu:N")
    sub.add_argument(
        "--precision",
        help="auto, float32 (qat, prune, cluster: only that), mixed_bfloat16, mixed_float16",
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the config"
    )


# What each is for, an example, and the function that adds its options.
VERBS = {
    "quickstart": (
        "train ResNet-8 on handwritten digits, export it, check every file (a minute or two)",
        "quickstart --out quickstart",
        _quickstart,
    ),
    "train": ("train a config", "train cifar10/resnet20 --epochs 3", _train),
    "distill": (
        "train a config on the labels and on a trained network's answers",
        "distill cifar10/resnet20_fast --teacher RUN",
        _distill,
    ),
    "qat": (
        "train a trained network on as its int8 file will compute",
        "qat RUN --epochs 4",
        _qat,
    ),
    "prune": (
        "make the smallest weights of a trained network zeros while it is trained on",
        "prune resnet20 --weights cifar10 --sparsity 0.8",
        _prune,
    ),
    "cluster": (
        "give the weights of a trained network a few values while it is trained on",
        "cluster RUN --clusters 16",
        _cluster,
    ),
    "finetune": (
        "train a trained network on other classes",
        "finetune RUN --data FOLDER",
        _finetune,
    ),
    "prune-filters": (
        "remove a trained network's least important filters and train it on",
        "prune-filters resnet20 --weights cifar10 --data cifar10 --keep 0.5",
        _prune_filters,
    ),
    "runs": ("list the runs of a folder", "runs", _runs),
    "report": ("one page about a finished run, with pictures", "report RUN", _report),
    "compare": (
        "accuracy, size and speed of several runs and exports side by side",
        "compare RUN1 RUN2 --picture frontier.svg",
        _compare,
    ),
    "data-service": (
        "prepare batches for trainings on other machines, until Ctrl-C",
        "data-service --port 5050",
        _data_service,
    ),
}

"""Verbs and options of `keras-resnet`; nothing here loads TensorFlow."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NoReturn

from keras_resnet import arguments_explain, arguments_weights
from keras_resnet.errors import UnknownNameError, UserError

FORMATS = (
    "savedmodel, tflite-float32, tflite-float16, tflite-dynamic, tflite-int8, tflite-int16x8, "
    "tflite-int4, onnx, onnx-int8, openvino, micro, web"
)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise UserError(f"{message}. See: {self.prog} --help")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; `verb` of the result is the command.

    Raises:
        UserError: an unknown command or option (with the nearest one), a bad value.
    """
    whole, verbs = parsers()
    arguments = arguments or ["--help"]
    if not arguments[0].startswith("-") and arguments[0] not in verbs:
        raise UnknownNameError("command", arguments[0], verbs, "See: keras-resnet --help")
    options, unknown = whole.parse_known_args(arguments)
    if unknown:
        known = [name for name in _option_names(verbs[arguments[0]]) if len(name) > 2]
        see = f"See: keras-resnet {arguments[0]} --help"
        raise UnknownNameError("argument", unknown[0], known, see)
    return options


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """Return the command's parser, and that of each verb by name."""
    from keras_resnet import __version__

    parser = Parser(
        prog="keras-resnet",
        description="Residual networks: train, export, and check every file against its model.",
        epilog="Start with: keras-resnet quickstart",
    )
    parser.add_argument("--version", action="version", version=f"keras-resnet {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    return parser, {name: _verb(subparsers, name, *about) for name, about in _VERBS.items()}


def _option_names(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Of a verb and of what comes below it."""
    yield from parser._option_string_actions
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _option_names(below)


def _verb(
    subparsers: argparse._SubParsersAction[Parser],
    name: str,
    about: str,
    example: str,
    add_options: Callable[[Parser], None],
) -> Parser:
    sub = subparsers.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"Example: keras-resnet {example}",
        allow_abbrev=False,
    )
    sub.set_defaults(verb=name)
    sub.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    add_options(sub)
    return sub


def _natural(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wants a whole number, 1 or more; received '{text}'")
    return int(text)


def _naturals(text: str) -> tuple[int, ...]:
    return tuple(_natural(part.strip()) for part in text.split(","))


def _quickstart(sub: Parser) -> None:
    sub.add_argument("--out", metavar="FOLDER", default="quickstart", help="default ./quickstart")
    _training(sub)


def _train(sub: Parser) -> None:
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


def _distill(sub: Parser) -> None:
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


def _qat(sub: Parser) -> None:
    _compressing(sub, "qat")
    sub.add_argument(
        "--preserve", help="auto (default), none, sparsity, clusters or both: what stays as it is"
    )


def _prune(sub: Parser) -> None:
    _compressing(sub, "prune")
    sub.add_argument("--sparsity", type=float, metavar="PART", help="of the weights, e.g. 0.8")
    sub.add_argument("--pattern", help="2:4 for two zeros in every four input channels")


def _cluster(sub: Parser) -> None:
    _compressing(sub, "cluster")
    sub.add_argument("--clusters", type=_natural, metavar="N", help="values of a kernel, e.g. 16")


def _compressing(sub: Parser, verb: str) -> None:
    _model(sub, "the trained network to start from: a run folder, a .keras file")
    sub.add_argument(
        "--data", metavar="NAME|FOLDER", help="default what the run or the weights were trained on"
    )
    sub.add_argument("--config", default=f"compress/{verb}", help="default %(default)s")
    sub.add_argument(
        "--distill", action="store_true", help="learn the answers of the network as it was, too"
    )
    sub.add_argument("--out", metavar="FOLDER", help=f"default runs/{verb}-NAME-DATE-TIME")
    _training(sub)


def _finetune(sub: Parser) -> None:
    _model(sub, "the trained network to start from: a run folder, a .keras file")
    sub.add_argument("--data", metavar="NAME|FOLDER", required=True, help="what to train on")
    sub.add_argument("--config", default="finetune/default", help="default %(default)s")
    sub.add_argument("--out", metavar="FOLDER", help="default runs/finetune-NAME-DATE-TIME")
    _recipe(sub)


def _prune_filters(sub: Parser) -> None:
    _model(sub, "the trained network: a run folder, a .keras file")
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


def _runs(sub: Parser) -> None:
    sub.add_argument("folder", nargs="?", default="runs", help="where to look (default ./runs)")


def _report(sub: Parser) -> None:
    sub.add_argument("run", help="the folder of a finished run")
    sub.add_argument("--out", metavar="FILE.html", help="default RUN/report.html")


def _compare(sub: Parser) -> None:
    sub.add_argument("models", nargs="+", help="run folders, export folders and exported files")
    sub.add_argument("--picture", metavar="FILE.svg", help="draw accuracy against bytes and ms")


def _completion(sub: Parser) -> None:
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _recipe(sub: Parser) -> None:
    _training(sub)
    sub.add_argument(
        "--profile",
        action="store_true",
        help="write a TensorFlow profiler trace of ten steps for TensorBoard",
    )


def _data_service(sub: Parser) -> None:
    sub.add_argument(
        "--port",
        type=_natural,
        metavar="N",
        default=5050,
        help="where trainings ask (default 5050); the batches come from the port after it",
    )
    sub.add_argument(
        "--host", help="name or address by which they reach this machine (default its host name)"
    )


def _training(sub: Parser) -> None:
    sub.add_argument("--epochs", type=_natural, metavar="N")
    sub.add_argument("--batch-size", type=_natural, metavar="N", help="global, over all devices")
    sub.add_argument("--seed", type=int, metavar="N")
    sub.add_argument("--devices", help="auto, cpu, gpu, cpu:N (logical devices), gpu:N")
    sub.add_argument("--precision", help="auto, float32, mixed_bfloat16, mixed_float16")
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the config"
    )


def _model(
    sub: Parser,
    what: str = "a run folder, a file (.keras, SavedModel folder, .tflite, .onnx, OpenVINO)",
) -> None:
    sub.add_argument("model", help=f"{what}, or NAME --weights")
    sub.add_argument(
        "--weights",
        metavar="TAG|FILE",
        help="for a NAME: imagenet, cifar10, … (see 'keras-resnet weights list') or a .weights.h5",
    )


def _ensemble(sub: Parser) -> None:
    sub.add_argument("models", nargs="+", metavar="MODEL", help="run folders or .keras files")
    sub.add_argument("--out", metavar="FILE", required=True, help="the .keras file to write")


def _evaluate(sub: Parser) -> None:
    _model(sub)
    sub.add_argument(
        "--data",
        metavar="NAME",
        help="dataset; default what the run or the weights were trained on",
    )
    sub.add_argument("--split", default="test", help="train, validation or test (default)")
    sub.add_argument(
        "--crops",
        type=_natural,
        default=1,
        metavar="1|10",
        help="the central crop (default), or corners, centre and their mirror images, averaged",
    )
    sub.add_argument(
        "--scales",
        type=_naturals,
        default=(),
        metavar="N,N,…",
        help="average over whole images with the shorter side at each of these pixels; "
        "He et al. 2015: 224,256,384,480,640",
    )
    sub.add_argument(
        "--resize",
        type=_natural,
        metavar="N",
        help="the shorter side of the whole image before its centre is cut out, as torchvision and "
        "timm do to the grey level; slower than the default",
    )
    sub.add_argument("--interpolation", help="of --resize: bilinear (default) or bicubic")
    sub.add_argument("--out", metavar="FILE", help="also write the result as JSON")


def _export(sub: Parser) -> None:
    _model(sub, "a run folder, a .keras file")
    sub.add_argument(
        "--formats",
        default="savedmodel,tflite-float32,tflite-float16,tflite-int8",
        help=f"comma-separated, of: {FORMATS}; default %(default)s",
    )
    sub.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="a dataset (calibration on its training, check on its test images) or a folder of "
        "images (for both); default what the run or the weights were trained on",
    )
    sub.add_argument(
        "--calibration",
        metavar="NAME|FOLDER",
        help="calibrate on the training images of this dataset, or on a folder of images, instead",
    )
    sub.add_argument(
        "--calibration-method",
        default="min-max",
        metavar="METHOD",
        help="how the ranges of the int8 file come from the images: min-max (default), "
        "percentile, percentile:99.9, moving-average or moving-average:0.9",
    )
    sub.add_argument(
        "--input-type",
        default="uint8",
        help="input and output of the int8 file: uint8 (default), int8 or float32",
    )
    sub.add_argument(
        "--keep-float",
        metavar="LAYER,…",
        default="",
        help="layers that stay float32 in the int8 file, e.g. stem_conv,head (see the command "
        "layers)",
    )
    sub.add_argument(
        "--preprocessing",
        metavar="MODE",
        help="put this normalisation inside a model that lacks it: tf, caffe, torch or cifar",
    )
    sub.add_argument(
        "--check-images",
        type=_natural,
        default=1000,
        metavar="N",
        help="how many of a dataset's test images to check on (default 1000)",
    )
    sub.add_argument(
        "--batch",
        choices=("1", "any"),
        default="1",
        help="images at once in TFLite files: 1 (default), or any, by LiteRT's interpreter",
    )
    sub.add_argument(
        "--about",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="author, license, version or description for the metadata of TFLite files",
    )
    sub.add_argument(
        "--no-metadata", action="store_true", help="write TFLite files without metadata and labels"
    )
    sub.add_argument("--out", metavar="FOLDER", help="default RUN/exports, or NAME-exports")
    sub.add_argument("--overwrite", action="store_true", help="replace an earlier export")


def _check(sub: Parser) -> None:
    sub.add_argument("exports", help="a folder that 'export' wrote")
    sub.add_argument(
        "--against", metavar="MODEL", help="compare with this run or .keras, not with the record"
    )
    sub.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="on the test images of a dataset, or on a folder of images, instead of the recorded "
        "ones; the Keras model is --against, or that of the run which the folder lies in",
    )
    sub.add_argument(
        "--check-images",
        type=_natural,
        default=1000,
        metavar="N",
        help="how many of a dataset's test images (default 1000)",
    )


def _benchmark(sub: Parser) -> None:
    sub.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a folder that 'export' wrote, or files (.tflite, .onnx, .keras, a SavedModel's or "
        "OpenVINO's folder)",
    )
    sub.add_argument(
        "--threads",
        type=_naturals,
        default=(1,),
        metavar="N,N,…",
        help="how many threads to run on, each measured (default 1)",
    )
    sub.add_argument(
        "--against",
        metavar="FILE",
        help="the file that ratios are against (default the float32 .tflite of an export, else the "
        "first)",
    )
    for name, default, about in (
        ("--rounds", 10, "turns of every file"),
        ("--runs", 20, "single images in a turn, if two seconds allow"),
        ("--batch", 32, "images of which the throughput is measured, if two seconds allow"),
    ):
        sub.add_argument(
            name, type=_natural, default=default, metavar="N", help=f"{about} (default {default})"
        )
    sub.add_argument(
        "--out",
        metavar="FILE|FOLDER",
        help="also write the record as JSON; in a folder, such as the export's, as benchmark.json",
    )
    sub.add_argument("--picture", metavar="FILE", help="draw the figures: .svg, or .png")


def _layers(sub: Parser) -> None:
    sub.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a folder that 'export' wrote, or a float32 .tflite and the quantized one",
    )
    sub.add_argument(
        "--images",
        metavar="FOLDER|NAME|.npz",
        help="images for the files: of a folder, a dataset's training images, or an array 'images' "
        "as the float file takes them; default the reference.npz of the export",
    )
    sub.add_argument(
        "--count", type=_natural, default=32, metavar="N", help="how many of them (default 32)"
    )
    sub.add_argument(
        "--format", default="tflite-int8", help="which file of the folder (default %(default)s)"
    )
    sub.add_argument("--worst", action="store_true", help="the layers that add most error first")
    sub.add_argument("--picture", metavar="FILE", help="draw the errors: .svg, or .png")


def _predict(sub: Parser) -> None:
    _model(sub)
    sub.add_argument("images", nargs="+", metavar="IMAGE")
    sub.add_argument(
        "--top", type=_natural, default=5, metavar="K", help="classes to show (default 5)"
    )


def _explain(sub: Parser) -> None:
    _model(sub, "a run folder, a .keras file")
    arguments_explain.add_options(sub)


def _list(sub: Parser) -> None:
    sub.add_argument("pattern", nargs="?", default="*", help="shell pattern (default all)")


def _show(sub: Parser) -> None:
    sub.add_argument("name", help="a name of 'keras-resnet list'")


def _profile(sub: Parser) -> None:
    sub.add_argument("model", help="a name of 'keras-resnet list', a run folder or a .keras file")
    sub.add_argument(
        "--input-shape",
        type=_shape,
        metavar="H,W,C",
        help="e.g. 224,224,3; default the network's own",
    )
    sub.add_argument(
        "--multiply-add",
        type=int,
        choices=(1, 2),
        default=1,
        help="count a multiplication with its addition as 1 (default) or as 2 (FLOP)",
    )
    sub.add_argument("--csv", metavar="FILE", help="write a line per layer")
    sub.add_argument("--picture", metavar="FILE", help="draw the account: .svg, or .png")


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"wants height, width and channels, e.g. 224,224,3; received '{text}'"
        )
    return tuple(int(part) for part in parts)


# What each is for, an example, and the function that adds its options.
_VERBS = {
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
    "completion": (
        "print the completion of commands and options for a shell",
        "completion bash > ~/.local/share/bash-completion/completions/keras-resnet",
        _completion,
    ),
    "data-service": (
        "prepare batches for trainings on other machines, until Ctrl-C",
        "data-service --port 5050",
        _data_service,
    ),
    "ensemble": (
        "average the probabilities of several models in one file",
        "ensemble RUN1 RUN2 --out ensemble.keras",
        _ensemble,
    ),
    "evaluate": ("accuracy and loss on a labelled split", "evaluate RUN --split test", _evaluate),
    "export": (
        "write model files and check each against the model",
        "export RUN --formats savedmodel,tflite-int8",
        _export,
    ),
    "check": (
        "compare the files of an export folder with their Keras model again",
        "check RUN/exports --data cifar10",
        _check,
    ),
    "benchmark": (
        "latency, throughput, memory and bytes of files, side by side",
        "benchmark RUN/exports --threads 1,2 --out RUN/exports",
        _benchmark,
    ),
    "layers": (
        "which layer of a quantized .tflite loses the signal",
        "layers RUN/exports --worst",
        _layers,
    ),
    "predict": ("classify images", "predict RUN/exports/resnet20-int8.tflite cat.jpg", _predict),
    "explain": (
        "heat maps of what speaks for a class in images",
        "explain resnet20 --weights cifar10 cat.jpg --methods gradcam,smoothgrad",
        _explain,
    ),
    "list": ("list the networks", "list 'resnetv2_*'", _list),
    "weights": (
        "trained weights: list, info, fetch, verify, import",
        "weights list 'resnet50*'",
        arguments_weights.add_options,
    ),
    "show": ("what a network is", "show resnet50", _show),
    "profile": (
        "memory, parameters and multiply-adds, layer by layer",
        "profile resnet50 --picture resnet50.svg",
        _profile,
    ),
}

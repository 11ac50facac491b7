"""Verbs of `keras-resnet` that make, check and run files; nothing here loads TensorFlow."""

from __future__ import annotations

import argparse

from keras_resnet.cli.options import add_model, names, natural, naturals

FORMATS = (
    "savedmodel, tflite-float32, tflite-float16, tflite-dynamic, tflite-int8, tflite-int16x8, "
    "tflite-int4, onnx, onnx-int8, openvino, micro, web"
)


def _ensemble(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("models", nargs="+", metavar="MODEL", help="run folders or .keras files")
    sub.add_argument("--out", metavar="FILE", required=True, help="the .keras file to write")


def _evaluate(sub: argparse.ArgumentParser) -> None:
    add_model(sub)
    sub.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="dataset or folder of images; default what the run or the weights were trained on",
    )
    sub.add_argument("--split", default="test", help="train, validation or test (default)")
    sub.add_argument(
        "--crops",
        type=natural,
        default=1,
        metavar="1|10",
        help="the central crop (default), or corners, centre and their mirror images, averaged",
    )
    sub.add_argument(
        "--scales",
        type=naturals,
        default=(),
        metavar="N,N,…",
        help="average over whole images with the shorter side at each of these pixels; "
        "He et al. 2015: 224,256,384,480,640",
    )
    sub.add_argument(
        "--resize",
        type=natural,
        metavar="N",
        help="the shorter side of the whole image before its centre is cut out, as torchvision and "
        "timm do to the grey level; slower than the default",
    )
    sub.add_argument("--interpolation", help="of --resize: bilinear (default) or bicubic")
    sub.add_argument("--out", metavar="FILE", help="also write the result as JSON")


def _export(sub: argparse.ArgumentParser) -> None:
    add_model(sub, "a run folder, a .keras file")
    sub.add_argument(
        "--formats",
        type=names,
        default="",
        help=f"comma-separated, of: {FORMATS}; default savedmodel,tflite-float32,tflite-float16,"
        "tflite-int8, and of a network that was trained quantized savedmodel,tflite-int8",
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
        type=natural,
        default=1000,
        metavar="N",
        help="how many images of --data to check on, evenly spaced (default 1000)",
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


def _check(sub: argparse.ArgumentParser) -> None:
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
        type=natural,
        default=1000,
        metavar="N",
        help="how many images of --data, evenly spaced (default 1000)",
    )


def _benchmark(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a folder that 'export' wrote, or files (.tflite, .onnx, .keras, a SavedModel's or "
        "OpenVINO's folder)",
    )
    sub.add_argument(
        "--threads",
        type=naturals,
        default=(1,),
        metavar="N,N,…",
        help="how many threads to run on, each measured (default 1)",
    )
    sub.add_argument(
        "--against",
        metavar="FILE",
        help="the file that ratios are against (default the float32 .tflite, else the first file)",
    )
    for name, default, about in (
        ("--rounds", 10, "turns of every file"),
        ("--runs", 20, "single images in a turn, if two seconds allow"),
        ("--batch", 32, "images of which the throughput is measured, if two seconds allow"),
    ):
        sub.add_argument(
            name, type=natural, default=default, metavar="N", help=f"{about} (default {default})"
        )
    sub.add_argument(
        "--out",
        metavar="FILE|FOLDER",
        help="also write the record as JSON; in a folder, such as the export's, as benchmark.json",
    )
    sub.add_argument("--picture", metavar="FILE", help="draw the figures: .svg, or .png")


def _layers(sub: argparse.ArgumentParser) -> None:
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
        "--count", type=natural, default=32, metavar="N", help="how many of them (default 32)"
    )
    sub.add_argument(
        "--format", default="tflite-int8", help="which file of the folder (default %(default)s)"
    )
    sub.add_argument("--worst", action="store_true", help="the layers that add most error first")
    sub.add_argument("--picture", metavar="FILE", help="draw the errors: .svg, or .png")


def _predict(sub: argparse.ArgumentParser) -> None:
    add_model(sub)
    sub.add_argument("images", nargs="+", metavar="IMAGE")
    sub.add_argument(
        "--top", type=natural, default=5, metavar="K", help="classes to show (default 5)"
    )


# What each is for, an example, and the function that adds its options.
VERBS = {
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
}

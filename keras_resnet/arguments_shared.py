"""What options of several verbs of `keras-resnet` have in common; nothing here loads TensorFlow."""

from __future__ import annotations

import argparse


def natural(text: str) -> int:
    """Parse a number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wants a whole number, 1 or more; received '{text}'")
    return int(text)


def naturals(text: str) -> tuple[int, ...]:
    """Parse such numbers, separated by commas."""
    return tuple(natural(part.strip()) for part in text.split(","))


def add_model(
    sub: argparse.ArgumentParser,
    what: str = "a run folder, a file (.keras, SavedModel folder, .tflite, .onnx, OpenVINO)",
) -> None:
    """Add the model that a verb is about, and the weights of a NAME."""
    sub.add_argument("model", help=f"{what}, or NAME --weights")
    sub.add_argument(
        "--weights",
        metavar="TAG|FILE",
        help="for a NAME: imagenet, cifar10, … (see 'keras-resnet weights list') or a .weights.h5",
    )

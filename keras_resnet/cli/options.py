"""What options of several verbs of `keras-resnet` have in common; nothing here loads TensorFlow."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_resnet.cli.parser import Parser


def add_verb(
    subparsers: argparse._SubParsersAction[Parser],
    dest: str,
    name: str,
    about: str,
    example: str,
    add_options: Callable[[Parser], None],
) -> Parser:
    """Add the parser of a word: its help, `--json` and options; `dest` will hold the word."""
    sub = subparsers.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"Example: keras-resnet {example}",
        allow_abbrev=False,
    )
    sub.set_defaults(**{dest: name})
    sub.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    add_options(sub)
    return sub


def natural(text: str) -> int:
    """Parse a number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wants a whole number, 1 or more; received '{text}'")
    return int(text)


def naturals(text: str) -> tuple[int, ...]:
    """Parse such numbers, separated by commas."""
    return tuple(natural(part.strip()) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Parse names, none of which has a space, separated by commas."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in found:
        if len(words := name.split()) > 1:
            raise argparse.ArgumentTypeError(
                f"wants names separated by commas, e.g. {','.join(words)}; received '{text}'"
            )
    return found


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

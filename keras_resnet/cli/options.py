"""The parser of the command line, and what options of several verbs have in common.

Nothing here loads TensorFlow, and no module of this package does before its verb runs: `--help` and
a mistyped option are answered at once.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from keras_resnet.errors import UserError

_FILES = {"FILE", "FOLDER", "IMAGE", "MODEL", "MODELS", "RUN", "EXPORTS", "CONFIG"}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise UserError(f"{message}. See: {self.prog} --help")


@dataclass(frozen=True)
class Verb:
    """A word of the command line.

    Attributes:
        summary: what it does, for the help.
        example: a command line, without `keras-resnet`.
        add_options: adds its options to its parser.
        run: does it and returns the exit code.
        check: refuses wrong options that can be found without TensorFlow, so that the user does
            not wait for its import.
    """

    summary: str
    example: str
    add_options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]
    check: Callable[[argparse.Namespace], object] | None = None


def add_verb(
    subparsers: argparse._SubParsersAction[Parser], dest: str, name: str, verb: Verb
) -> Parser:
    """Add the parser of a word: its help, `--json` and options; `dest` will hold the word."""
    sub = subparsers.add_parser(
        name,
        help=verb.summary,
        description=verb.summary,
        epilog=f"Example: keras-resnet {verb.example}",
        allow_abbrev=False,
    )
    sub.set_defaults(**{dest: name})
    sub.add_argument("--json", action="store_true", help="print the result as one JSON object")
    verb.add_options(sub)
    return sub


def walk(parser: Parser, name: str = "") -> Iterator[tuple[str, Parser]]:
    """Yield a parser and those below it, with the words that lead there, e.g. "weights list"."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from walk(below, f"{name} {word}".lstrip())


def file_actions(parser: Parser) -> Iterator[argparse.Action]:
    """Yield every argument whose name in the help says that it can be a file or a folder."""
    for _, below in walk(parser):
        for action in below._actions:
            if _FILES & set(re.split(r"\W", str(action.metavar or action.dest).upper())):
                yield action


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


def add_activation(sub: argparse.ArgumentParser) -> None:
    """Add the activation of a model's outputs, for files that do not record it."""
    sub.add_argument(
        "--activation",
        metavar="NAME",
        help="activation of the model's outputs, if the file does not record it: softmax, sigmoid "
        "(binary or multi-label) or linear (logits)",
    )


def add_layout(sub: argparse.ArgumentParser) -> None:
    """Add how the folder of --data is read."""
    sub.add_argument(
        "--layout",
        help="how to read a --data folder: splits (it has train and val or test folders), classes "
        "(one folder per class, even if one is named train) or auto (default)",
    )


def add_model(
    sub: argparse.ArgumentParser,
    what: str = "a run folder, or a file (.keras, SavedModel folder, .tflite, .onnx, OpenVINO)",
) -> None:
    """Add the model that a verb is about, and the weights of a NAME."""
    sub.add_argument("model", help=f"{what}; or a network NAME with --weights")
    sub.add_argument(
        "--weights",
        metavar="TAG|FILE",
        help="weights for NAME: a tag such as imagenet or cifar10 (see 'keras-resnet weights "
        "list'), or a .weights.h5 file",
    )

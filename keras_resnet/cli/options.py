"""The parser of the command line, and the options that several verbs share.

No module of this package loads TensorFlow before its verb runs, so `--help` and a mistyped option
are answered immediately.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from keras_resnet.errors import UserError

_EXAMPLE = "Example: "
_FILES = {"FILE", "FOLDER", "IMAGE", "MODEL", "MODELS", "RUN", "EXPORTS", "CONFIG"}


class Parser(argparse.ArgumentParser):
    """An argument parser that raises our errors."""

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError` instead of printing the usage."""
        message = re.sub(r"^argument (\S+): must", r"\1 must", message)
        raise UserError(f"{message}. See: {self.prog} --help")


class _Formatter(argparse.HelpFormatter):
    """The help's layout. A command to paste keeps its lines, which argparse would wrap."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLE) else super()._fill_text(text, width, indent)


@dataclass(frozen=True)
class Verb:
    """A command of the command line.

    Attributes:
        summary: description for the help.
        example: an example command line, without `keras-resnet`.
        add_options: adds the command's options to its parser.
        run: runs the command and returns the exit code.
        check: refuses wrong options that can be found without TensorFlow, so that the user does not
            have to wait for its import.
        more: further sentences for the help of the command itself.
        before: a command line to run before the example.
    """

    summary: str
    example: str
    add_options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]
    check: Callable[[argparse.Namespace], object] | None = None
    more: str = ""
    before: str = ""


def add_verb(
    subparsers: argparse._SubParsersAction[Parser], dest: str, name: str, verb: Verb
) -> Parser:
    """Add the parser of a command: its help, `--json` and options. `dest` will hold the command."""
    lines = [verb.before, f"keras-resnet {verb.example}"]
    sub = subparsers.add_parser(
        name,
        help=verb.summary,
        description=f"{verb.summary}. {verb.more}" if verb.more else verb.summary,
        epilog=_EXAMPLE + f"\n{' ' * len(_EXAMPLE)}".join(filter(None, lines)),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    sub.set_defaults(**{dest: name})
    sub.add_argument("--json", action="store_true", help="print the result as one JSON object")
    verb.add_options(sub)
    return sub


def walk(parser: Parser, name: str = "") -> Iterator[tuple[str, Parser]]:
    """Yield a parser and those below it, with the words that lead to it, e.g. "weights list"."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from walk(below, f"{name} {word}".lstrip())


def file_actions(parser: Parser) -> Iterator[argparse.Action]:
    """Yield every argument that can be a file or a folder, according to its name in the help."""
    for _, below in walk(parser):
        for action in below._actions:
            if _FILES & set(re.split(r"\W", str(action.metavar or action.dest).upper())):
                yield action


def natural(text: str) -> int:
    """Parse a whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more; received '{text}'")
    return int(text)


def integer(text: str) -> int:
    """Parse a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number; received '{text}'") from None


def real(text: str) -> float:
    """Parse a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number; received '{text}'") from None


def naturals(text: str) -> tuple[int, ...]:
    """Parse whole numbers, 1 or more, separated by commas."""
    return tuple(natural(part.strip()) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Parse names without spaces, separated by commas."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in found:
        if len(words := name.split()) > 1:
            raise argparse.ArgumentTypeError(
                f"must be names separated by commas, e.g. {','.join(words)}; received '{text}'"
            )
    return found


def add_activation(sub: argparse.ArgumentParser) -> None:
    """Add the option for the activation of a model's outputs."""
    sub.add_argument(
        "--activation",
        metavar="NAME",
        help="activation of the model's outputs, if the file does not record it: softmax, sigmoid "
        "(binary or multi-label) or linear (logits)",
    )


def add_trust(sub: argparse.ArgumentParser) -> None:
    """Add the option to open a SavedModel with any operations."""
    sub.add_argument(
        "--trust",
        action="store_true",
        help="run all operations of a SavedModel, also on files: only for a maker whom you trust",
    )


def add_layout(sub: argparse.ArgumentParser) -> None:
    """Add the option for the layout of the --data folder."""
    sub.add_argument(
        "--layout",
        help="how to read a --data folder: splits (it has train and val or test folders), classes "
        "(one folder per class, even if one is named train) or auto (default)",
    )


def add_model(
    sub: argparse.ArgumentParser,
    what: str = "a run folder, or a file (.keras, SavedModel folder, .tflite, .onnx, OpenVINO)",
) -> None:
    """Add the model of a command, and the weights for a NAME."""
    sub.add_argument("model", help=f"{what}; or a network NAME with --weights")
    sub.add_argument(
        "--weights",
        metavar="TAG|FILE",
        help="weights for NAME: a tag such as imagenet or cifar10 (see 'keras-resnet weights "
        "list'), or a .weights.h5 file",
    )

"""Verbs and options of `keras-resnet`; nothing here loads TensorFlow."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import NoReturn

from keras_resnet.cli import (
    arguments_explain,
    arguments_files,
    arguments_training,
    arguments_weights,
)
from keras_resnet.cli.options import add_model, add_verb
from keras_resnet.errors import UnknownNameError, UserError

EXIT_CODES = (
    "Exit codes: 0 done; 1 a file failed its check; 2 something that can be mended (one line on "
    "stderr says what); 70 a fault of this program; 130 interrupted; 141 the pipe that it wrote to "
    "was closed."
)
_FILES = {"FILE", "FOLDER", "IMAGE", "MODEL", "MODELS", "RUN", "EXPORTS", "CONFIG"}


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
        found = [set(below._option_string_actions) for _, below in walk(verbs[options.verb])]
        known = [name for name in set.union(*found) if len(name) > 2]
        see = f"Options come after the command. See: keras-resnet {options.verb} --help"
        raise UnknownNameError("argument", unknown[0], known, see)
    return options


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """Return the command's parser, and that of each verb by name."""
    from keras_resnet import __version__

    parser = Parser(
        prog="keras-resnet",
        description="Residual networks: train, export, and check every file against its model.",
        epilog=f"Start with: keras-resnet quickstart. {EXIT_CODES}",
    )
    parser.add_argument("--version", action="version", version=f"keras-resnet {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    verbs = {name: add_verb(subparsers, "verb", name, *row) for name, row in _VERBS.items()}
    return parser, verbs


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


def _completion(sub: Parser) -> None:
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _explain(sub: Parser) -> None:
    add_model(sub, "a run folder, a .keras file")
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
    **arguments_training.VERBS,
    **arguments_files.VERBS,
    "completion": (
        "print the completion of commands and options for a shell",
        "completion bash > ~/.local/share/bash-completion/completions/keras-resnet "
        "(first: mkdir -p ~/.local/share/bash-completion/completions)",
        _completion,
    ),
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

"""Every verb of `keras-resnet`, and the parser made of them."""

from __future__ import annotations

import argparse
import os

from keras_resnet.cli import (
    completion,
    compress,
    explain,
    export,
    measure,
    networks,
    predict,
    runs,
    train,
    weights,
)
from keras_resnet.cli.options import Parser, Verb, add_verb, walk
from keras_resnet.errors import UnknownNameError

EXIT_CODES = (
    "Exit codes: 0 done; 1 a file failed its check; 2 something that can be mended (one line on "
    "stderr says what); 70 a fault of this program; 130 interrupted; 141 the pipe that it wrote to "
    "was closed."
)

# In the order of the help.
VERBS: dict[str, Verb] = {
    **train.VERBS,
    **compress.VERBS,
    **runs.VERBS,
    **predict.VERBS,
    **export.VERBS,
    **measure.VERBS,
    **completion.VERBS,
    **explain.VERBS,
    **networks.VERBS,
    **weights.VERBS,
}


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
    for key, value in vars(options).items():  # shells expand `--out ~/x`, but not `--out=~/x`
        if isinstance(value, str) and value.startswith("~"):
            setattr(options, key, os.path.expanduser(value))
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
    verbs = {name: add_verb(subparsers, "verb", name, verb) for name, verb in VERBS.items()}
    return parser, verbs

"""All commands of `keras-resnet`, and their parser."""

from __future__ import annotations

import argparse
import os

from keras_resnet.cli import (
    completion,
    compress,
    doctor,
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
from keras_resnet.errors import UnknownNameError, UserError

EXIT_CODES = (
    "Exit codes: 0 success; 1 a file failed its check; 2 an error that you can fix (the message "
    "says how); 70 a bug in keras-resnet; 130 interrupted by Ctrl-C; 141 output pipe closed."
)

# The groups of the help, by task. The most used come first.
GROUPS = {
    "start": ("quickstart", "predict", "list", "weights", "completion", "doctor"),
    "train": ("train", "finetune", "distill", "data-service"),
    "shrink a trained network": ("qat", "prune-filters", "prune", "cluster"),
    "export": ("export", "check", "push", "benchmark", "layers", "ensemble"),
    "inspect": ("evaluate", "compare", "runs", "report", "explain", "show", "profile"),
}
_DEFINED: dict[str, Verb] = {
    **train.VERBS,
    **compress.VERBS,
    **runs.VERBS,
    **predict.VERBS,
    **export.VERBS,
    **measure.VERBS,
    **completion.VERBS,
    **doctor.VERBS,
    **explain.VERBS,
    **networks.VERBS,
    **weights.VERBS,
}
VERBS = {name: _DEFINED[name] for group in GROUPS.values() for name in group}


class _Command(Parser):
    """The parser of `keras-resnet`. Its help lists the verbs in groups."""

    def format_help(self) -> str:
        """Return the help. argparse itself can only make one list of verbs, without groups."""
        text = self.formatter_class(prog=self.prog)
        text.add_usage(self.usage, self._actions, ())
        text.add_text(self.description)
        sections: dict[str, list[argparse.Action]] = {
            title: [argparse.Action([], name, help=VERBS[name].summary) for name in names]
            for title, names in GROUPS.items()
        }
        sections["options"] = [action for action in self._actions if action.option_strings]
        for title, actions in sections.items():
            text.start_section(title)
            text.add_arguments(actions)
            text.end_section()
        text.add_text(self.epilog)
        return text.format_help()


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line. `verb` of the result is the command.

    Raises:
        UserError: the command or an option is unknown (the message has the nearest one), or a value
            is wrong.
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
    _require_values(options, verbs[options.verb])
    for key, value in vars(options).items():  # shells expand `--out ~/x`, but not `--out=~/x`
        if isinstance(value, str) and value.startswith("~"):
            setattr(options, key, os.path.expanduser(value))
    return options


def _require_values(options: argparse.Namespace, verb: Parser) -> None:
    """Refuse empty texts: they would mean the current folder, or that an option was not given."""
    for action in (action for _, below in walk(verb) for action in below._actions):
        given = getattr(options, action.dest, None)
        texts = (given or [[]]) if isinstance(given, list) else [given]
        name = action.option_strings[-1] if action.option_strings else action.dest
        for text in texts if given != action.default else ():
            if text == []:  # argparse before Python 3.12 drops the value of `--option=--`
                raise UserError(f"{name} needs a value; received '--'.")
            if isinstance(text, str) and not text.strip():
                raise UserError(f"{name} needs a value; received {text!r}.")
            if isinstance(text, str) and "\0" in text:
                raise UserError(f"{name} must not contain the character NUL; received '{text}'.")


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser of the command line, and the parser of each verb by name."""
    from keras_resnet import __version__

    parser = _Command(
        prog="keras-resnet",
        description="Train, shrink and export residual networks. Every exported file is checked "
        "against its Keras model.",
        epilog=f"Help for a command: keras-resnet COMMAND --help. {EXIT_CODES}",
    )
    parser.add_argument("--version", action="version", version=f"keras-resnet {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    verbs = {name: add_verb(subparsers, "verb", name, verb) for name, verb in VERBS.items()}
    return parser, verbs

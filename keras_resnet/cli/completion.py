"""Tab completion of files, and of the names of networks, configs, methods and formats."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from keras_resnet.cli.explain import METHODS
from keras_resnet.cli.export import FORMATS
from keras_resnet.cli.options import Parser, Verb, file_actions, walk
from keras_resnet.display.console import print_json, print_lines
from keras_resnet.errors import require

# Completion by the argument's destination: a shell function below, or shtab's own for files.
_NETWORK, _MODEL, _CONFIG, _METHODS, _FORMATS = (
    f"_keras_resnet_{kind}" for kind in ("network", "model", "config", "methods", "formats")
)
_NAMES = {
    "name": _NETWORK,
    "pattern": _NETWORK,
    "model": _MODEL,
    "config": _CONFIG,
    "methods": _METHODS,
    "formats": _FORMATS,
}


def script(shell: str, shtab: Any) -> str:
    """Return the completion script for `shell`: "bash", "zsh" or "tcsh" (files only)."""
    from keras_resnet.cli.parser import parsers  # not at the top: it imports this module

    whole, _ = parsers()
    for action in file_actions(whole):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    for action in _named(whole) if shell in _FUNCTIONS else ():
        action.complete = {shell: _NAMES[action.dest]}  # type: ignore[attr-defined]
    functions = _FUNCTIONS[shell]() if shell in _FUNCTIONS else ""
    text: str = shtab.complete(whole, shell, preamble=functions)
    return text


def _named(parser: Parser) -> Iterable[argparse.Action]:
    for _, below in walk(parser):
        for action in below._actions:
            # --pattern of `prune` is 2:4, not a name.
            if action.dest in _NAMES and action.option_strings != ["--pattern"]:
                yield action


def _words() -> dict[str, str]:
    """Return the words that each function completes, as one string."""
    from keras_resnet import registry
    from keras_resnet.recipes.configs.schema import list_configs

    networks = " ".join(registry.list_models())
    return {
        _NETWORK: networks,
        _MODEL: networks,
        _CONFIG: " ".join(list_configs()),
        _METHODS: METHODS.replace(",", ""),
        _FORMATS: FORMATS.replace(",", ""),
    }


def _functions(of_list: str, of_one: str, or_file: str) -> str:
    """Return the shell functions of all kinds. WORDS in the texts stands for the completions."""
    texts = {
        **dict.fromkeys((_METHODS, _FORMATS), of_list),
        **dict.fromkeys((_MODEL, _CONFIG), f"{of_one}\n  {or_file}"),
        _NETWORK: of_one,
    }
    return "\n".join(
        f"{name}() {{\n  {texts[name].replace('WORDS', words)}\n}}"
        for name, words in _words().items()
    )


def _bash() -> str:
    ahead = 'local ahead=""; [[ $1 == *,* ]] && ahead="${1%,*},"'  # names before the last comma
    return _functions(
        f'{ahead}\n  compgen -P "$ahead" -W "WORDS" -- "${{1##*,}}"',
        'compgen -W "WORDS" -- "$1"',
        'compgen -f -- "$1"',
    )


def _zsh() -> str:
    return _functions("_values -s , name WORDS", "compadd -- WORDS", "_files")


_FUNCTIONS = {"bash": _bash, "zsh": _zsh}


def _completion(options: argparse.Namespace) -> int:
    text = script(options.shell, require("shtab", "completion"))
    return print_json({"script": text}) if options.json else print_lines([text])


def _completion_options(sub: Parser) -> None:
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="your shell")


VERBS = {
    "completion": Verb(
        "print tab completion for bash, zsh or tcsh",
        "completion bash > ~/.local/share/bash-completion/completions/keras-resnet",
        _completion_options,
        _completion,
        before="mkdir -p ~/.local/share/bash-completion/completions",
    ),
}

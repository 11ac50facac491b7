"""What users lean on: names, commands, config keys and file formats, as the code has them now.

    python tests/golden/contract.py    # write contract.json anew

tests/package/test_contract.py compares the code with that list. Write it anew when something was
added on purpose, and read what changed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_resnet
import keras_resnet.export
import keras_resnet.recipes

# Where these lie is no promise: these lines follow when they move.
from keras_resnet._public import __all__ as PUBLIC
from keras_resnet.cli.options import walk
from keras_resnet.cli.parser import parsers
from keras_resnet.recipes.configs.schema import list_configs, load_config, save_config

RECORD = Path(__file__).with_name("contract.json")

Contract = dict[str, list[str]]  # by what they are

# What the pages and notebooks import: `from MODULE import NAME`, and then NAME.MORE.
PATHS = (
    "keras_resnet:__version__",
    "keras_resnet:export",
    "keras_resnet:insight",
    "keras_resnet:recipes",
    "keras_resnet.export:benchmark.find",
    "keras_resnet.export:benchmark.measure",
    "keras_resnet.export:check.FileCheck",
    "keras_resnet.export:check.Reference",
    "keras_resnet.export:check.check_folder",
    "keras_resnet.export:check.left_out",
    "keras_resnet.export:check.recorded_reference",
    "keras_resnet.export:layer_errors.LayerError",
    "keras_resnet.export:layer_errors.LayerErrors",
    "keras_resnet.export:layer_errors.measure",
    "keras_resnet.export:manifest.read",
    "keras_resnet.export:manifest.verify_hashes",
    "keras_resnet.export:metadata.About",
    "keras_resnet.recipes:compare.rows",
    "keras_resnet.recipes:distill",
    "keras_resnet.recipes:evaluate.measure",
    "keras_resnet.recipes:evaluate.measure_model",
    "keras_resnet.recipes:finetune.run",
    "keras_resnet.recipes:report.write",
    "keras_resnet.recipes:sources.find",
    "keras_resnet.recipes:train.resume",
    "keras_resnet.recipes:train.run",
)


def collect() -> Contract:
    """The contract of the code as it is."""
    return {
        "names": sorted(_names()),
        "paths": [path for path in PATHS if _is_there(path)],
        "networks": sorted(keras_resnet.list_models()),
        "commands": sorted(_commands()),
        "config keys": sorted(_config_keys()),
        "shipped configs": sorted(list_configs()),
        "export formats": [f"{name}: {row.file}" for name, row in _formats().items()],
        "manifest keys": sorted(_keys(_schema(), "")),
    }


def load() -> Contract:
    """The contract as it is on disk."""
    contract: Contract = json.loads(RECORD.read_text(encoding="utf-8"))
    return contract


def _names() -> Iterator[str]:
    yield from (f"keras_resnet.{name}" for name in PUBLIC if hasattr(keras_resnet, name))
    for module in (keras_resnet.export, keras_resnet.recipes):
        yield from (f"{module.__name__}.{n}" for n in module.__all__ if hasattr(module, n))


def _is_there(path: str) -> bool:
    """Whether `from MODULE import NAME` finds it, be it an attribute or a module."""
    module, _, names = path.partition(":")
    first, *more = names.split(".")
    try:
        found = getattr(__import__(module, fromlist=[first]), first)
        for name in more:
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return False
    return True


def _commands() -> Iterator[str]:
    whole, _ = parsers()
    for words, parser in walk(whole):
        command = f"keras-resnet {words}".rstrip()
        yield command
        for place, action in enumerate(_positionals(parser)):
            yield f"{command} [{place}] {action.dest}: {_details(action)}"
        for action in parser._actions:
            if action.option_strings:
                yield f"{command} {', '.join(action.option_strings)}: {_details(action)}"


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
    ]


def _details(action: argparse.Action) -> str:
    """What a user can tell of an argument, without its help; what is usual is left out."""
    kind = type(action).__name__.strip("_").removesuffix("Action").lower()
    found = {
        "dest": action.dest,
        "nargs": action.nargs,
        "default": action.default,
        "choices": None if action.choices is None else list(action.choices),
        "required": action.required or None,
    }
    return " ".join([kind, *(f"{k}={v!r}" for k, v in found.items() if v is not None)])


def _config_keys() -> Iterator[str]:
    """Every key with its default, as a run's config.toml has them, but for the epochs."""
    with tempfile.TemporaryDirectory() as folder:
        least, whole = Path(folder) / "least.toml", Path(folder) / "whole.toml"
        least.write_text('model = "resnet8"\n[train]\nepochs = 1\n')
        save_config(load_config(least), whole)
        yield from _leaves(tomllib.loads(whole.read_text(encoding="utf-8")), "")


def _leaves(table: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} = {value!r}"


def _formats() -> dict[str, Any]:
    return dict(keras_resnet.export.FORMATS)


def _schema() -> dict[str, Any]:
    path = Path(keras_resnet.export.__file__).with_name("manifest.schema.json")
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def _keys(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    """The paths of the fields that a JSON Schema describes; `[]` is each item of a list."""
    for key, below in schema.get("properties", {}).items():
        required = " (required)" if key in schema.get("required", ()) else ""
        yield f"{prefix}{key}{required}"
        yield from _keys(below, f"{prefix}{key}.")
    if "items" in schema:
        yield from _keys(schema["items"], f"{prefix.removesuffix('.')}[].")


def main() -> None:
    contract = collect()
    if gone := set(PATHS) - set(contract["paths"]):
        sys.exit(f"Not there: {', '.join(sorted(gone))}. Mend PATHS or the code.")
    RECORD.write_text(json.dumps(contract, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

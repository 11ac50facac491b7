"""The verbs about networks: list, show, profile."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from keras_resnet.cli.options import Parser, Verb, natural
from keras_resnet.display.console import print_json, print_lines
from keras_resnet.errors import UserError
from keras_resnet.files import require_file_target

_COLUMNS = (
    'Columns: "field" is the size of the image area that a value depends on; "jump" is the '
    'distance between the areas of neighbouring values, both in pixels; "all" is the whole image.'
)


def _list(options: argparse.Namespace) -> int:
    from keras_resnet import registry

    names = registry.list_models(options.pattern)
    if not names:
        raise UserError(f"No model matches '{options.pattern}'. Try '*50*'.")
    entries = [registry.architecture(name) for name in names]
    if options.json:
        return print_json({"models": [{"name": e.name, "summary": e.summary} for e in entries]})
    width = max(len(name) for name in names)
    return print_lines(f"{entry.name:<{width}} {entry.summary}" for entry in entries)


def _show(options: argparse.Namespace) -> int:
    from keras_resnet import registry

    card = registry.describe(options.name)
    card["weights"] = registry.list_weights(card["name"]).get(card["name"], [])
    if options.json:
        return print_json(card)
    height, width, channels = card["input"]
    function = card["function"]
    build = f"{function}()" if function else f'keras_resnet.create_model("{card["name"]}")'
    return print_lines(
        (
            f"{card['name']}: {card['summary']}",
            f"paper          {card['source']}",
            f"build          {build}",
            f"parameters     {card['parameters_trainable']:,} trainable, "
            f"{card['parameters_total']:,} with BN statistics",
            f"input          {height}×{width}×{channels}, preprocessing '{card['preprocessing']}'",
            f"classes        {card['classes']}",
            f"weights        {', '.join(card['weights']) or 'none'}",
        )
    )


def _profile(options: argparse.Namespace) -> int:
    from keras_resnet import registry
    from keras_resnet.analysis import profile
    from keras_resnet.display import figures

    if options.csv:
        require_file_target(Path(options.csv), "--csv")
    if options.picture:
        figures.require_writable(Path(options.picture))
    model: Any = options.model
    path = Path(model)
    is_path = path.exists() or path.suffix == ".keras" or len(path.parts) > 1
    if is_path and model not in registry.list_models():
        from keras_resnet.export.runtimes.keras import load_keras
        from keras_resnet.recipes.runs import sources

        source = sources.find(model, keras=True)
        model = load_keras(source.path or path)  # any model, not only classifiers
    account = profile.profile(model, options.input_shape, multiply_add=options.multiply_add)
    if options.csv:
        account.to_csv(options.csv)
    if options.picture:
        account.picture(options.picture)
    print(account.to_json() if options.json else f"{account}\n\n{_COLUMNS}")
    return 0


# Options ------------------------------------------------------------------------------------------


def _list_options(sub: Parser) -> None:
    sub.add_argument(
        "pattern", nargs="?", default="*", help="shell pattern, e.g. 'resnetv2_*' (default: all)"
    )


def _show_options(sub: Parser) -> None:
    sub.add_argument("name", help="a network from 'keras-resnet list'")


def _profile_options(sub: Parser) -> None:
    sub.add_argument(
        "model", help="a network from 'keras-resnet list', a run folder or a .keras file"
    )
    sub.add_argument(
        "--input-shape",
        type=_shape,
        metavar="H,W,C",
        help="e.g. 224,224,3 (default: the network's own)",
    )
    sub.add_argument(
        "--multiply-add",
        type=natural,
        choices=(1, 2),
        default=1,
        help="count a multiply-add as 1 (default) or 2 operations (FLOPs)",
    )
    sub.add_argument("--csv", metavar="FILE", help="write one line per layer")
    sub.add_argument("--picture", metavar="FILE", help="plot the profile: .svg, .png or .pdf")


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be height, width and channels, e.g. 224,224,3; received '{text}'"
        )
    return tuple(int(part) for part in parts)


VERBS = {
    "list": Verb(
        "list the network names (trained weights: 'weights list')",
        "list 'resnetv2_*'",
        _list_options,
        _list,
    ),
    "show": Verb(
        "show a network's paper, size, input and weights",
        "show resnet50",
        _show_options,
        _show,
    ),
    "profile": Verb(
        "count parameters, multiply-adds and memory of each layer",
        "profile resnet50 --picture resnet50.svg",
        _profile_options,
        _profile,
        more=_COLUMNS,
    ),
}

"""The verbs about networks: list, show, profile."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_resnet.analysis import networks
from keras_resnet.cli.options import Parser, Verb, natural
from keras_resnet.display import figures
from keras_resnet.display.console import print_json, print_lines
from keras_resnet.errors import UserError
from keras_resnet.files import require_file_target
from keras_resnet.lazy import quiet_import

_COLUMNS = (
    'Columns: "field" is the size of the image area that a value depends on; "jump" is the '
    'distance between the areas of neighbouring values, both in pixels; "all" is the whole image.'
)


def _list(options: argparse.Namespace) -> int:
    if options.csv:
        require_file_target(Path(options.csv), "--csv")
    if options.picture:
        figures.require_writable(Path(options.picture))
    rows = networks.chosen(options.pattern)
    chosen = networks.NetworkTable(row for row in rows if _is_wanted(row, options))
    if not chosen:
        raise UserError(_nothing(options))
    if options.sort:
        chosen.sort(key=networks.SORTS[options.sort])
    if options.csv:
        chosen.to_csv(options.csv)
    if options.picture:
        chosen.picture(options.picture)
    if options.json:
        return print_json({"models": [asdict(row) for row in chosen]})
    machines = sorted({row.machine for row in chosen if row.machine})
    notes = [f"int8 ms: one image, one thread, on {' or '.join(machines)}."] if machines else []
    return print_lines((str(chosen), "", networks.NOTES, *notes))


def _is_wanted(row: networks.Row, options: argparse.Namespace) -> bool:
    most = options.max_params, options.max_macs
    sizes = row.trainable, row.multiply_adds
    return (
        all(limit is None or size <= limit for size, limit in zip(sizes, most, strict=True))
        and (options.min_top1 is None or (row.top1 or 0.0) >= options.min_top1)
        and (options.weights is None or (row.weights or "").startswith(options.weights))
        and (options.family is None or row.family == options.family)
    )


def _nothing(options: argparse.Namespace) -> str:
    if not networks.chosen(options.pattern):
        return f"No model matches '{options.pattern}'. Try '*50*'."
    limits = ("max_params", "max_macs", "min_top1", "weights", "family")
    given = {limit: getattr(options, limit) for limit in limits}
    shown = [f"--{key.replace('_', '-')} {value}" for key, value in given.items() if value]
    return (
        f"No network matches '{options.pattern}' with {' '.join(shown)}. Leave something out, or "
        "see all: keras-resnet list"
    )


def _show(options: argparse.Namespace) -> int:
    networks.require_known(options.name)
    registry = quiet_import("keras_resnet.registry")
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
    sub.add_argument("--sort", choices=networks.SORTS, help="smallest or most accurate first")
    sub.add_argument(
        "--max-params", type=_amount, metavar="N", help="at most N parameters, e.g. 5M"
    )
    sub.add_argument(
        "--max-macs", type=_amount, metavar="N", help="at most N multiply-adds, e.g. 500M or 4.1G"
    )
    sub.add_argument(
        "--min-top1", type=_amount, metavar="PERCENT", help="weights of at least this accuracy"
    )
    sub.add_argument(
        "--weights", metavar="DATA", help="only with weights of this data: imagenet or cifar10"
    )
    sub.add_argument("--family", choices=networks.families(), help="only this kind of network")
    sub.add_argument("--csv", metavar="FILE", help="also write the table, with all its columns")
    sub.add_argument(
        "--picture", metavar="FILE", help="plot top-1 against multiply-adds: .svg, .png or .pdf"
    )


_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


def _amount(text: str) -> float:
    """Read a number with an optional unit: 5000000, 5M, 4.1G."""
    unit = _UNITS.get(text[-1:].lower(), 1.0)
    try:
        value = float(text if unit == 1.0 else text[:-1]) * unit
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a number above 0, with K, M or G for its unit; received '{text}'"
        )
    return value


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
        "list the networks with their sizes and accuracies",
        "list --weights imagenet --max-params 12M --sort top1",
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

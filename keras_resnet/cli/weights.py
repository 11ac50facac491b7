"""The verb `weights`: list, download, verify and import trained weights."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_resnet.cli.options import Parser, Verb, add_verb
from keras_resnet.display.console import print_json, print_table
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.weights import catalog
from keras_resnet.weights.catalog import Accuracy, Entry


def _weights(options: argparse.Namespace) -> int:
    """Run the action and return the exit code."""
    return _ACTIONS[options.action].run(options)


def _list(options: argparse.Namespace) -> int:
    from keras_resnet.weights import cache

    found = _matching(options.pattern)
    if options.json:
        return print_json({"weights": [_card(entry) for entry in found]})
    header = ("network", "weights", "top-1 %", "top-5 %", "pixels", "MiB", "licence", "here")
    rows = [
        [
            entry.model,
            entry.tag + (" (default)" if entry.default else ""),
            _percent(entry.published, "top1"),
            _percent(entry.published, "top5"),
            str(entry.evaluation.size),
            f"{entry.megabytes:.1f}",
            entry.license,
            "yes" if cache.cached_path(entry).is_file() else "–",
        ]
        for entry in found
    ]
    title = "Accuracy: measured by us for keras_resnet's own weights, as published for all others"
    print_table(title, header, rows, text_columns=2)
    return 0


def _info(options: argparse.Namespace) -> int:
    entry = _chosen(options)
    card = _card(entry)
    if options.json:
        return print_json(card)
    protocol, accuracy = entry.evaluation, entry.published
    figures = "not published"
    if accuracy is not None:
        verb = "measured" if not entry.url else "published"
        top5 = "" if accuracy.top5 is None else f", top-5 {accuracy.top5} %"
        figures = f"top-1 {accuracy.top1} %{top5}, {verb} ({accuracy.source})"
    print(f"{entry.model} {entry.tag}{' (default)' if entry.default else ''}")
    for key, value in (
        ("from", f"{entry.source}, {entry.peer}"),
        ("address", entry.url or "in this package"),
        ("hash", entry.hash),
        ("size", f"{entry.megabytes:.1f} MiB"),
        ("licence", f"{entry.license} (of the weights; not of the images they were trained on)"),
        ("variant", entry.variant or "–"),
        ("trained on", entry.data),
        ("preprocessing", entry.preprocessing),
        ("accuracy", figures),
        (
            "protocol",
            f"shorter side {protocol.resize}, central crop of {protocol.size}, "
            f"{protocol.interpolation}",
        ),
        ("here", card["path"] if card["here"] else "no; it would be " + card["path"]),
    ):
        print(f"{key:<14} {value}")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from keras_resnet.weights import cache

    entry = _chosen(options)
    path = cache.fetch(entry)
    if options.json:
        return print_json(_card(entry))
    print(path)
    return 0


def _verify(options: argparse.Namespace) -> int:
    """Check every file that is here. Name the broken ones; then the exit code is 1."""
    from keras_resnet.weights import cache, download

    here = [e for e in _matching(options.pattern) if cache.cached_path(e).is_file()]
    rows = [{"weights": str(entry), "problem": cache.fault(entry)} for entry in here]
    broken = [row for row in rows if row["problem"]]
    if options.json:
        return print_json({"verified": rows}, not broken)
    for row in rows:
        print(f"{'BROKEN' if row['problem'] else 'ok':<7} {row['weights']}")
    for row in broken:
        print(f"error: {row['problem']}", file=sys.stderr)
    if not rows:
        print(f"No weights in {download.cache_home()}.", file=sys.stderr)
    return 1 if broken else 0


def _import(options: argparse.Namespace) -> int:
    from keras_resnet.importing import files
    from keras_resnet.recipes.configs.schema import parse_override

    arguments = (options.file, options.name, options.out)
    if Path(options.file).is_dir():
        if options.preprocessing or options.data or options.set or options.state_dict:
            raise UserError(
                "--preprocessing, --data, --set and --state-dict are for files of other libraries, "
                "not for a run folder."
            )
        report = files.import_run(*arguments, overwrite=options.overwrite)
    else:
        report = files.import_file(
            *arguments,
            overwrite=options.overwrite,
            preprocessing=options.preprocessing,
            data=options.data,
            options=dict(parse_override(text, "depths=[6,6,6]") for text in options.set),
            state_dict=options.state_dict,
        )
    if options.json:
        return print_json(report.to_dict())
    print(report)
    return 0


def _matching(pattern: str) -> list[Entry]:
    found = [entry for entry in catalog.entries() if fnmatch.fnmatch(entry.model, pattern)]
    if not found:
        raise UserError(f"No network with weights matches '{pattern}'. Try '*50*'.")
    return found


def _chosen(options: argparse.Namespace) -> Entry:
    mine = catalog.of_model(options.name)
    if not mine:
        known = {entry.model for entry in catalog.entries()}
        see = "Run 'keras-resnet weights list' to see all."
        raise UnknownNameError("network with weights", options.name, known, see)
    return catalog.find(options.name, options.weights) if options.weights else mine[0]


def _card(entry: Entry) -> dict[str, Any]:
    from keras_resnet.weights import cache  # not at the top: it imports requests

    path = cache.cached_path(entry)
    return {**asdict(entry), "path": str(path), "here": path.is_file()}


def _percent(accuracy: Accuracy | None, key: str) -> str:
    value = getattr(accuracy, key, None)
    return "–" if value is None else f"{value:.2f}"


# Options ------------------------------------------------------------------------------------------


def _weights_options(sub: Parser) -> None:
    """Add the actions of the verb and their options."""
    actions = sub.add_subparsers(metavar="|".join(_ACTIONS), required=True)
    for name, action in _ACTIONS.items():
        add_verb(actions, "action", name, action)


def _matching_options(sub: Parser) -> None:
    sub.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="shell pattern for the network's name (default: all)",
    )


def _of_options(sub: Parser) -> None:
    sub.add_argument("name", help="a network from 'keras-resnet weights list'")
    sub.add_argument(
        "--weights",
        metavar="TAG",
        help="e.g. imagenet/torchvision_v2 (default: the network's first)",
    )


def _import_options(sub: Parser) -> None:
    sub.add_argument(
        "file",
        help="weights from PyTorch (.pth, .safetensors) or Keras (.h5, .keras), a run folder, or "
        "an address such as hf://timm/resnet50d.ra2_in1k",
    )
    sub.add_argument(
        "--as",
        dest="name",
        required=True,
        metavar="NAME",
        help="the network that the weights are for",
    )
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a field of the network, for variants without a name, e.g. --as resnet20 --set "
        "depths=[6,6,6]",
    )
    sub.add_argument(
        "--state-dict",
        metavar="KEY",
        help="which state dict to read if a checkpoint has several, e.g. model_ema",
    )
    sub.add_argument("--out", metavar="FILE", help="file to write (default NAME.weights.h5)")
    sub.add_argument(
        "--preprocessing",
        metavar="MODE",
        help="normalisation used in training: tf, caffe, torch, … (default: as published)",
    )
    sub.add_argument(
        "--data", metavar="NAME", help="training dataset, e.g. cifar10; gives the class names"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace an existing file")


_ACTIONS = {
    "list": Verb(
        "list trained weights: source, accuracy, size and licence",
        "weights list 'resnet50*'",
        _matching_options,
        _list,
    ),
    "info": Verb(
        "show everything known about one set of weights",
        "weights info resnet50 --weights imagenet/torchvision_v2",
        _of_options,
        _info,
    ),
    "fetch": Verb(
        "download weights into the cache",
        "weights fetch resnet50",
        _of_options,
        _fetch,
    ),
    "verify": Verb(
        "check the hashes of downloaded weights",
        "weights verify 'resnet50*'",
        _matching_options,
        _verify,
    ),
    "import": Verb(
        "convert a weights file of another library",
        "weights import resnet50d.pth --as resnet50d",
        _import_options,
        _import,
    ),
}


VERBS = {
    "weights": Verb(
        "list, download, verify or import trained weights",
        "weights list 'resnet50*'",
        _weights_options,
        _weights,
    ),
}

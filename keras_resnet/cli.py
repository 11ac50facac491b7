"""The command `keras-resnet`: verbs, options, and what they print.

Results go to stdout (`--json`: one object), progress and errors to stderr. Exit codes: 0 done,
1 an exported file failed its check, 2 something the user can mend, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from keras_resnet.console import print_table, quiet_stderr
from keras_resnet.errors import UnknownNameError, UserError

FORMATS = "savedmodel, tflite-float32, tflite-float16, tflite-dynamic, tflite-int8, tflite-int16x8"
MODEL_HELP = "NAME with --weights, a run folder, or a file (.keras, SavedModel folder, .tflite)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parse(arguments)
        _import_quietly()
        return int(options.verb(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:  # training gives the folder of its run
        hint = f"; go on with: keras-resnet train --resume {error}" if error.args else ""
        print(f"interrupted{hint}", file=sys.stderr)
        return 130


def _import_quietly() -> None:
    """TensorFlow greets on stderr when it is imported and when it first looks for devices."""
    with quiet_stderr():
        import tensorflow as tf

        import keras_resnet._public  # noqa: F401  (fills the registry)

        tf.config.list_physical_devices()


# Verbs ------------------------------------------------------------------------------------------


def _quickstart(options: argparse.Namespace) -> int:
    from keras_resnet.recipes import quickstart

    result = quickstart.run(options.out, _overrides(options))
    if options.json:
        return _print_json(result, result["passed"])
    model = result["model"]
    keras_row = [model["file"], f"{model['bytes']:,}", _number(model["accuracy"], ".2%")]
    _print_checks(result["files"], f"Test accuracy on {model['n']} images", [keras_row])
    print(f"\nrun      {result['run']}\nexports  {result['exports']}\nimages   {result['images']}")
    int8 = next(row["file"] for row in result["files"] if row["format"] == "tflite-int8")
    sample = Path(result["images"]) / "3.png"
    print(f"\nTry: keras-resnet predict {Path(result['exports']) / int8} {sample}")
    return 0 if result["passed"] else 1


def _train(options: argparse.Namespace) -> int:
    from keras_resnet.recipes import config, train

    if options.list:
        names = config.list_configs()
        return _print_json({"configs": names}) if options.json else _print_lines(names)
    if (options.config is None) == (options.resume is None):
        raise UserError("Give a config (see --list) or --resume RUN, e.g. cifar10/resnet20.")
    if options.resume:
        run = train.resume(options.resume)
    else:
        loaded = config.load_config(options.config, _overrides(options))
        name = Path(options.config).with_suffix("").as_posix().replace("/", "-")
        run = train.run(loaded, options.out, name=name)
    summary = run.summary()
    if options.json:
        return _print_json({"run": str(run.path), **summary})
    test = summary["test"]
    print(f"test accuracy {test['accuracy']:.2%} on {test['n']} images · {run.model}")
    print(f"Next: keras-resnet export {run.path}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from keras_resnet.recipes import evaluate, runs, sources

    source = sources.find(options.model, options.weights)
    dataset = _dataset(options.data, source)
    split = dataset.split(options.split)
    result = {
        "model": options.model,
        "data": dataset.name,
        "split": options.split,
        **evaluate.measure(source.runtime(), split),
    }
    if options.out:
        runs.write_json(Path(options.out), result)
    if options.json:
        return _print_json(result)
    print(
        f"{options.model}: accuracy {result['accuracy']:.2%}, loss {result['loss']:.4f} "
        f"on {result['n']} images ({dataset.name}, {options.split})"
    )
    return 0


def _export(options: argparse.Namespace) -> int:
    from keras_resnet.export import export
    from keras_resnet.recipes import exporting, sources

    source = sources.find(options.model, options.weights)
    formats = tuple(part.strip() for part in options.formats.split(",") if part.strip())
    if source.run:
        out = Path(options.out or source.run.path / "exports")
        report = exporting.export_run(
            source.run,
            _dataset(options.data, source),
            formats,
            out,
            input_type=options.input_type,
            check_count=options.check_images,
            overwrite=options.overwrite,
        )
    else:
        model = source.keras_model()
        calibration = _calibration(options.data, model.input_shape[1:])
        report = export(
            model,
            formats,
            out=options.out or f"{source.name}-exports",
            calibration=calibration,
            input_type=options.input_type,
            name=source.name,
            labels=source.labels,
            overwrite=options.overwrite,
        )
    if options.json:
        return _print_json(report.manifest, report.passed)
    _print_checks(report.manifest["files"], f"Checked on {report.manifest['check']['images']}")
    print(f"\n{report.folder}")
    return 0 if report.passed else 1


def _check(options: argparse.Namespace) -> int:
    from keras_resnet.export import check, manifest
    from keras_resnet.recipes import sources

    model = sources.find(options.against).keras_model() if options.against else None
    checks = check.check_folder(options.exports, model)
    folder = Path(options.exports)
    rows = [{"bytes": manifest.size(folder / item.file), **item.to_dict()} for item in checks]
    passed = all(item.passed for item in checks)
    if options.json:
        return _print_json({"exports": options.exports, "passed": passed, "files": rows}, passed)
    _print_checks(rows, f"Checked on {manifest.read_reference(folder).source}")
    return 0 if passed else 1


def _predict(options: argparse.Namespace) -> int:
    from keras_resnet.export import runtimes
    from keras_resnet.preprocessing import read_image
    from keras_resnet.recipes import sources

    source = sources.find(options.model, options.weights)
    runtime = source.runtime()
    height, width, channels = runtime.input_shape
    names = source.labels or tuple(f"class {index}" for index in range(runtime.classes))
    results: list[dict[str, Any]] = []
    for path in options.images:
        try:
            image = read_image(path, (height or 224, width or 224), channels or 3)
        except UserError as error:  # one bad image does not lose the others
            results.append({"image": path, "error": str(error)})
            continue
        scores = runtimes.probabilities(runtime.predict(image[None]))[0]
        best = scores.argsort()[::-1][: options.top]
        top = [{"label": names[index], "probability": float(scores[index])} for index in best]
        results.append({"image": path, "top": top})
    failed = [result for result in results if "error" in result]
    if options.json:
        _print_json({"model": options.model, "predictions": results})
    for result in [] if options.json else results:
        for index, entry in enumerate(result.get("top", ())):
            shown = result["image"] if index == 0 else ""
            bar = "█" * round(20 * entry["probability"])
            print(f"{shown:<32} {entry['probability']:>7.2%}  {entry['label']:<16} {bar}")
    for result in failed:
        print(f"error: {result['error']}", file=sys.stderr)
    return 2 if failed else 0


def _list(options: argparse.Namespace) -> int:
    from keras_resnet import registry

    names = registry.list_models(options.pattern)
    if not names:
        raise UserError(f"No model matches '{options.pattern}'. Try '*50*'.")
    entries = [registry.architecture(name) for name in names]
    if options.json:
        return _print_json({"models": [{"name": e.name, "summary": e.summary} for e in entries]})
    return _print_lines(f"{entry.name:<16} {entry.summary}" for entry in entries)


def _show(options: argparse.Namespace) -> int:
    from keras_resnet import registry

    card = registry.describe(options.name)
    if options.json:
        return _print_json(card)
    height, width, channels = card["input"]
    return _print_lines(
        (
            f"{card['name']}: {card['summary']}",
            f"source         {card['source']}",
            f"build          {card['function']}()",
            f"parameters     {card['parameters_trainable']:,} trainable, "
            f"{card['parameters_total']:,} with BN statistics",
            f"input          {height}×{width}×{channels}, preprocessing '{card['preprocessing']}'",
            f"classes        {card['classes']}",
            "weights        none in this version",
        )
    )


# What verbs share -------------------------------------------------------------------------------


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The options that stand for config keys, and every --set."""
    from keras_resnet.recipes.config import parse_override

    short = {
        "train.epochs": options.epochs,
        "train.batch_size": options.batch_size,
        "train.seed": options.seed,
        "train.devices": options.devices,
        "train.precision": options.precision,
        "data.name": options.data,
    }
    given = {key: value for key, value in short.items() if value is not None}
    return given | dict(parse_override(text) for text in options.set)


def _dataset(name: str | None, source: Any) -> Any:
    """The dataset of --data, or the one the run was trained on (with its own split)."""
    from keras_resnet.recipes.data import load_dataset

    config = source.run.config.data if source.run else None
    if config is not None and name in (None, config.name):
        return load_dataset(config.name, config.validation, config.split_seed)
    if name is None:
        raise UserError("Give --data, the name of a dataset, e.g. --data cifar10.")
    return load_dataset(name)


def _calibration(data: str | None, shape: tuple[int | None, int | None, int]) -> Any:
    """Up to 256 images of a folder or of a dataset's training split, evenly spaced."""
    if data is None:
        return None
    if not Path(data).is_dir():
        from keras_resnet.recipes.data import load_dataset

        return load_dataset(data).train.sample(256).images
    import numpy as np

    from keras_resnet.preprocessing import read_image

    suffixes = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"}
    paths = sorted(path for path in Path(data).rglob("*") if path.suffix.lower() in suffixes)
    if not paths:
        raise UserError(f"No images (.jpg, .png, …) in {data}.")
    chosen = paths[:: -(-len(paths) // 256)]
    height, width, channels = shape
    return np.stack([read_image(p, (height or 224, width or 224), channels) for p in chosen])


def _print_json(content: dict[str, Any], passed: bool = True) -> int:
    print(json.dumps(content, indent=2, ensure_ascii=False))
    return 0 if passed else 1


def _print_lines(lines: Any) -> int:
    print("\n".join(lines))
    return 0


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _print_checks(
    files: Sequence[dict[str, Any]], title: str, rows: Sequence[list[str]] = ()
) -> None:
    """One row per file and, under the table, what is wrong with any."""
    header = ("file", "bytes", "accuracy", "agreement", "largest error", "ms/image", "check")
    table = [[*row, *["–"] * (len(header) - len(row))] for row in rows]
    for item in files:
        table.append(
            [
                item["file"],
                f"{item['bytes']:,}",
                _number(item["accuracy"], ".2%"),
                _number(item["agreement"], ".2%"),
                _number(item["largest_error"], ".1e"),
                _number(item["latency_ms"], ".3f"),
                "passed" if item["passed"] else "FAILED",
            ]
        )
    print_table(title, header, table)
    for item in files:
        for problem in item["problems"]:
            print(f"{item['file']}: {problem}")


# Parsing ----------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See: {self.prog} --help")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser, verbs = _parser()
    if not arguments:
        arguments = ["--help"]
    if not arguments[0].startswith("-") and arguments[0] not in verbs:
        raise UnknownNameError("command", arguments[0], verbs, "See: keras-resnet --help")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [name for name in verbs[arguments[0]]._option_string_actions if len(name) > 2]
        see = f"See: keras-resnet {arguments[0]} --help"
        raise UnknownNameError("argument", unknown[0], known, see)
    return options


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    from keras_resnet import __version__

    parser = _Parser(
        prog="keras-resnet",
        description="Residual networks: train, export, and check every file against its model.",
        epilog="Start with: keras-resnet quickstart",
    )
    parser.add_argument("--version", action="version", version=f"keras-resnet {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    verbs: dict[str, _Parser] = {}

    def verb(
        name: str, function: Callable[[argparse.Namespace], int], about: str, example: str
    ) -> _Parser:
        sub = subparsers.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"Example: keras-resnet {example}",
            allow_abbrev=False,
        )
        sub.set_defaults(verb=function)
        sub.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        verbs[name] = sub
        return sub

    sub = verb(
        "quickstart",
        _quickstart,
        "train ResNet-8 on handwritten digits, export it, check every file (minutes)",
        "quickstart --out quickstart",
    )
    _training_options(sub)
    sub.set_defaults(out="quickstart")

    sub = verb("train", _train, "train a config", "train cifar10/resnet20 --epochs 3")
    sub.add_argument("config", nargs="?", help="a shipped config (see --list) or a .toml file")
    sub.add_argument("--list", action="store_true", help="list the shipped configs")
    sub.add_argument("--resume", metavar="RUN", help="go on with an interrupted run")
    _training_options(sub)

    sub = verb(
        "evaluate", _evaluate, "accuracy and loss on a labelled split", "evaluate RUN --split test"
    )
    _model_options(sub)
    sub.add_argument("--data", metavar="NAME", help="dataset; default the run's")
    sub.add_argument("--split", default="test", help="train, validation or test (default)")
    sub.add_argument("--out", metavar="FILE", help="also write the result as JSON")

    sub = verb(
        "export",
        _export,
        "write model files and check each against the model",
        "export RUN --formats savedmodel,tflite-int8",
    )
    _model_options(sub)
    sub.add_argument(
        "--formats",
        default="savedmodel,tflite-float32,tflite-float16,tflite-int8",
        help=f"comma-separated, of: {FORMATS}; default %(default)s",
    )
    sub.add_argument(
        "--data", metavar="NAME|FOLDER", help="calibration images; default the run's training data"
    )
    sub.add_argument(
        "--input-type",
        default="uint8",
        choices=("uint8", "int8", "float32"),
        help="input and output of the int8 file (default uint8)",
    )
    sub.add_argument(
        "--check-images",
        type=int,
        default=1000,
        metavar="N",
        help="test images to check a run's files on (default 1000)",
    )
    sub.add_argument("--out", metavar="FOLDER", help="default RUN/exports")
    sub.add_argument("--overwrite", action="store_true", help="replace an earlier export")

    sub = verb("check", _check, "check an export folder again", "check RUN/exports")
    sub.add_argument("exports", help="a folder that 'export' wrote")
    sub.add_argument(
        "--against", metavar="MODEL", help="compare with this run or .keras instead of the record"
    )

    sub = verb(
        "predict", _predict, "classify images", "predict RUN/exports/resnet20-int8.tflite cat.jpg"
    )
    _model_options(sub)
    sub.add_argument("images", nargs="+", metavar="IMAGE")
    sub.add_argument("--top", type=int, default=5, metavar="K", help="classes to show (default 5)")

    sub = verb("list", _list, "list the networks", "list 'resnetv2_*'")
    sub.add_argument("pattern", nargs="?", default="*", help="shell pattern (default all)")

    sub = verb("show", _show, "what a network is", "show resnet50")
    sub.add_argument("name")
    return parser, verbs


def _model_options(sub: _Parser) -> None:
    sub.add_argument("model", help=MODEL_HELP)
    sub.add_argument("--weights", metavar="FILE", help="weights (.weights.h5) for a NAME")


def _training_options(sub: _Parser) -> None:
    sub.add_argument("--out", metavar="FOLDER", help="default runs/NAME-DATE-TIME")
    sub.add_argument("--epochs", type=int, metavar="N")
    sub.add_argument("--batch-size", type=int, metavar="N", help="global, over all devices")
    sub.add_argument("--seed", type=int, metavar="N")
    sub.add_argument("--data", metavar="NAME", help="digits, or a name of tensorflow-datasets")
    sub.add_argument("--devices", help="auto, cpu, gpu, cpu:N (logical devices), gpu:N")
    sub.add_argument("--precision", help="auto, float32, mixed_bfloat16, mixed_float16")
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the config"
    )

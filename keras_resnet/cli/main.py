"""The command `keras-resnet`: verbs, options, and what they print.

Results go to stdout (`--json`: one object), progress and errors to stderr. Exit codes: 0 done,
1 an exported file failed its check, 2 something the user can mend, 70 a fault of ours, 130
interrupted, 141 nobody reads stdout any more.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_resnet.cli import parser, train
from keras_resnet.display.console import print_checks, print_json, print_lines, quiet_stderr
from keras_resnet.errors import UserError, require
from keras_resnet.files import require_file_target


def program() -> int:
    """`main` as a process. Python's own 1 for what nobody foresaw would say: a failed check."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()  # here, and not at Python's end, a closed pipe can be told
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 and the number of SIGPIPE, as 130 has that of Ctrl-C's
    except Exception:
        traceback.print_exc()
        print("error: this is a fault of keras-resnet; please report it", file=sys.stderr)
        return 70  # EX_SOFTWARE of sysexits.h


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        options = parser.parse(list(sys.argv[1:] if argv is None else argv))
        if not _needs_no_tensorflow(options):
            _import_quietly()
        return _VERBS[options.verb](options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # no error of the file that was worked on; see `program`
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:  # training gives the folder of its run
        hint = f"; go on with: keras-resnet train --resume {error}" if error.args else ""
        print(f"interrupted{hint}", file=sys.stderr)
        return 130


def _needs_no_tensorflow(options: argparse.Namespace) -> bool:
    return options.verb == "weights" and options.action != "import"


def _import_quietly() -> None:
    """TensorFlow greets on stderr when it is imported and when it first looks for devices."""
    with quiet_stderr():
        import tensorflow as tf

        import keras_resnet._public  # noqa: F401  (fills the registry)

        tf.config.list_physical_devices()


# Verbs ------------------------------------------------------------------------------------------


def _quickstart(options: argparse.Namespace) -> int:
    from keras_resnet.recipes import quickstart

    result = quickstart.run(options.out, train.overrides(options))
    if options.json:
        return print_json(result, result["passed"])
    model = result["model"]
    print_checks(result["files"], f"Accuracy on {model['n']} test images", model)
    pictures = [Path(path) for path in result["images"]]
    print(
        f"\nrun      {result['run']}\nexports  {result['exports']}\nimages   {pictures[0].parent}"
    )
    int8 = next(row["file"] for row in result["files"] if row["format"] == "tflite-int8")
    print(f"\nTry: keras-resnet predict {Path(result['exports']) / int8} {pictures[-1]}")
    return 0 if result["passed"] else 1


def _ensemble(options: argparse.Namespace) -> int:
    from keras_resnet.recipes.runs import ensemble

    model = ensemble.write(options.models, Path(options.out))
    result = {
        "file": options.out,
        "members": options.models,
        "classes": model.output_shape[-1],
        "parameters_total": model.count_params(),
    }
    if options.json:
        return print_json(result)
    print(
        f"{options.out}: {len(options.models)} members, {result['classes']} classes, "
        f"{result['parameters_total']:,} parameters"
    )
    print(f"Next: keras-resnet evaluate {options.out} --data NAME")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from keras_resnet.recipes import evaluate
    from keras_resnet.recipes.data.protocol import Protocol, describe
    from keras_resnet.recipes.runs import sources
    from keras_resnet.recipes.runs.folder import write_json

    source = sources.find(options.model, options.weights)
    protocol = Protocol(options.crops, options.scales, _single_crop(options, source))
    out = None if options.out is None else Path(options.out)
    if out is not None:
        require_file_target(out)
    runtime = source.runtime(protocol.single.size or None if protocol.single else None)
    dataset = sources.dataset_of(options.data, source, runtime, whole=protocol.whole)
    source.warn_of_other_classes(dataset)
    split = dataset.split(options.split)
    result = {
        "model": options.model,
        "data": dataset.name,
        "split": options.split,
        **evaluate.measure(runtime, split, protocol),
    }
    if out is not None:
        write_json(out, result)
    if options.json:
        return print_json(result)
    top5 = f", top-5 {result['top5']:.2%}" if "top5" in result else ""
    print(
        f"{options.model}: accuracy {result['accuracy']:.2%}{top5}, loss {result['loss']:.4f} "
        f"on {result['n']} images ({dataset.name}, {options.split}; "
        f"{describe(result['protocol'])})"
    )
    return 0


def _export(options: argparse.Namespace) -> int:
    from keras_resnet.export.formats import metadata
    from keras_resnet.recipes.export import export_source
    from keras_resnet.recipes.runs import sources

    source = sources.find(options.model, options.weights)
    source.require_keras()
    beside = source.run.path / "exports" if source.run else Path(f"{source.name}-exports")
    shared: dict[str, Any] = {
        "formats": options.formats,
        "out": beside if options.out is None else options.out,
        "calibration_method": options.calibration_method,
        "input_type": options.input_type,
        "keep_float": _names(options.keep_float),
        "preprocessing": options.preprocessing,
        "about": None if options.no_metadata else metadata.About.parse(options.about),
        "batch": 1 if options.batch == "1" else None,
        "overwrite": options.overwrite,
    }
    report = export_source(
        source,
        _export_data(options, source),
        **shared,
        calibration=options.calibration,
        check_count=options.check_images,
    )
    if options.json:
        return print_json(report.manifest, report.passed)
    checked = report.manifest["check"]
    print_checks(report.manifest["files"], f"Checked on {checked['n']} images: {checked['images']}")
    print(f"\n{report.folder}")
    if report.passed:
        print(f"Next: keras-resnet predict {Path(shared['out']) / report.checks[-1].file} IMAGE")
        return 0
    if checked["n"] < _FEW_IMAGES:
        print(
            f"{checked['n']} images are few to judge by: a single one that differs weighs. Give "
            "more, or a dataset (--data)."
        )
    return 1


def _export_data(options: argparse.Namespace, source: Any) -> Any:
    """What an export is calibrated and checked on; None for what --calibration names."""
    from keras_resnet.recipes.runs import sources

    if options.data is not None and Path(options.data).is_dir():
        return Path(options.data)
    try:
        return sources.dataset_of(options.data, source)
    except UserError as error:
        if options.data is not None:
            raise
        if options.calibration is None:
            raise UserError(f"{error} Or give --calibration with a folder of images.") from error
        print("Checked on the calibration images, as there is no --data.", file=sys.stderr)
        return None


_FEW_IMAGES = 100


def _check(options: argparse.Namespace) -> int:
    from keras_resnet.cli import export

    return export.check(options)


def _benchmark(options: argparse.Namespace) -> int:
    from keras_resnet.cli import export

    return export.benchmark(options)


def _predict(options: argparse.Namespace) -> int:
    from keras_resnet.images.read import read_image
    from keras_resnet.recipes.runs import sources

    source = sources.find(options.model, options.weights)
    if not any(Path(path).exists() for path in options.images):  # before weights are fetched
        raise UserError(f"No such image: {', '.join(options.images)}")
    runtime = source.runtime()
    height, width, channels = runtime.input_shape
    size, crop = (height or 224, width or 224), source.crop
    names = source.labels or tuple(f"class {index}" for index in range(runtime.classes))
    results: list[dict[str, Any]] = []
    for path in options.images:
        try:
            with quiet_stderr():  # the libraries' own words on damaged files
                image = read_image(path, size, channels or 3, crop)
        except UserError as error:  # one bad image does not lose the others
            results.append({"image": path, "error": str(error)})
            continue
        scores = runtime.probabilities(image[None])[0]
        best = scores.argsort()[::-1][: options.top]
        top = [{"label": names[index], "probability": float(scores[index])} for index in best]
        results.append({"image": path, "top": top})
    failed = [result for result in results if "error" in result]
    if options.json:
        print_json({"model": options.model, "predictions": results})
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
        return print_json({"models": [{"name": e.name, "summary": e.summary} for e in entries]})
    width = max(len(name) for name in names)
    return print_lines(f"{entry.name:<{width}} {entry.summary}" for entry in entries)


def _show(options: argparse.Namespace) -> int:
    from keras_resnet import registry
    from keras_resnet.weights import catalog

    tags = [entry.tag for entry in catalog.of_model(options.name)]
    card = {**registry.describe(options.name), "weights": tags}
    if options.json:
        return print_json(card)
    height, width, channels = card["input"]
    function = card["function"]
    build = f"{function}()" if function else f'keras_resnet.create_model("{card["name"]}")'
    return print_lines(
        (
            f"{card['name']}: {card['summary']}",
            f"source         {card['source']}",
            f"build          {build}",
            f"parameters     {card['parameters_trainable']:,} trainable, "
            f"{card['parameters_total']:,} with BN statistics",
            f"input          {height}×{width}×{channels}, preprocessing '{card['preprocessing']}'",
            f"classes        {card['classes']}",
            f"weights        {', '.join(tags) or 'none'}",
        )
    )


def _weights(options: argparse.Namespace) -> int:
    from keras_resnet.cli import weights

    return weights.run(options)


def _layers(options: argparse.Namespace) -> int:
    from keras_resnet.cli import layers

    return layers.run(options)


def _explain(options: argparse.Namespace) -> int:
    from keras_resnet.cli import explain

    return explain.run(options)


def _profile(options: argparse.Namespace) -> int:
    from keras_resnet import registry
    from keras_resnet.analysis import profile
    from keras_resnet.display import charts

    if options.csv:
        require_file_target(Path(options.csv), "--csv")
    if options.picture:
        charts.require_writable(Path(options.picture))
    model: Any = options.model
    path = Path(model)
    is_path = path.exists() or path.suffix == ".keras" or len(path.parts) > 1
    if is_path and model not in registry.list_models():
        from keras_resnet.export.runtimes.keras import load_keras
        from keras_resnet.recipes.runs import sources

        source = sources.find(model)
        source.require_keras()
        model = load_keras(source.path or path)  # not only classifiers
    account = profile.profile(model, options.input_shape, multiply_add=options.multiply_add)
    if options.csv:
        account.to_csv(options.csv)
    if options.picture:
        account.picture(options.picture)
    print(account.to_json() if options.json else account)
    return 0


# What verbs share -------------------------------------------------------------------------------


def _single_crop(options: argparse.Namespace, source: Any) -> Any:
    """The crop that --resize asks for, or by which the accuracy of the weights was measured."""
    from keras_resnet.images.crop import SingleCrop

    if options.resize is not None:
        return SingleCrop(options.resize, interpolation=options.interpolation or "bilinear")
    if options.interpolation is not None:
        raise UserError("--interpolation goes with --resize, e.g. --resize 256.")
    if source.entry is not None and options.crops == 1 and not options.scales:
        return source.crop
    return None


def _completion(options: argparse.Namespace) -> int:
    from keras_resnet.cli import completion

    script = completion.script(options.shell, require("shtab", "completion"))
    return print_json({"script": script}) if options.json else print_lines([script])


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_VERBS = {
    "quickstart": _quickstart,
    "train": train.train,
    "distill": train.distill,
    "qat": train.compress,
    "prune": train.compress,
    "cluster": train.compress,
    "finetune": train.finetune,
    "prune-filters": train.prune_filters,
    "runs": train.list_runs,
    "report": train.report,
    "compare": train.compare,
    "completion": _completion,
    "data-service": train.data_service,
    "ensemble": _ensemble,
    "evaluate": _evaluate,
    "export": _export,
    "check": _check,
    "benchmark": _benchmark,
    "layers": _layers,
    "predict": _predict,
    "explain": _explain,
    "list": _list,
    "weights": _weights,
    "show": _show,
    "profile": _profile,
}

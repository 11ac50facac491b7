"""The verbs that write model files and check them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.cli.options import (
    Parser,
    Verb,
    add_activation,
    add_model,
    add_trust,
    names,
    natural,
)
from keras_resnet.display.console import print_checks, print_json, print_lines
from keras_resnet.errors import UserError

if TYPE_CHECKING:
    from keras_resnet.export.reference import Reference
    from keras_resnet.recipes.runs import sources

_FEW_IMAGES = 100
FORMATS = (
    "savedmodel, tflite-float32, tflite-float16, tflite-dynamic, tflite-int8, tflite-int16x8, "
    "tflite-int4, onnx, onnx-int8, openvino, micro, web"
)


def _export(options: argparse.Namespace) -> int:
    from keras_resnet.export import budget, check
    from keras_resnet.export.formats.tflite import metadata
    from keras_resnet.export.npu.report import in_words
    from keras_resnet.recipes.export import export_source
    from keras_resnet.recipes.runs import sources

    source = sources.find(options.model, options.weights, options.activation, keras=True)
    beside = source.run.path / "exports" if source.run else Path(f"{source.name}-exports")
    shared: dict[str, Any] = {
        "formats": options.formats,
        "out": beside if options.out is None else options.out,
        "calibration_method": options.calibration_method,
        "input_type": options.input_type,
        "keep_float": _names(options.keep_float),
        "max_drop": options.max_drop,
        "npu": options.npu,
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
    if tried := report.manifest.get("budget"):
        print(budget.table(tried["tried"], tried["max_drop"]), end="\n\n")
    print_checks(report.manifest["files"], f"Checked on {checked['n']} images: {checked['images']}")
    if npu := report.manifest.get("npu"):
        print()
        print_lines(in_words(npu))
    print(f"\n{report.folder}")
    if report.passed:
        print(f"Next: keras-resnet predict {Path(shared['out']) / report.checks[-1].file} IMAGE")
        return 0
    if checked["n"] < _FEW_IMAGES:
        print(
            f"{checked['n']} images are few for a check: a single difference counts much. Give "
            "more images, or a dataset (--data)."
        )
    print_lines(check.advice(report.manifest["files"]))
    return 1


def _export_data(options: argparse.Namespace, source: Any) -> Any:
    """Return the data for calibration and check; None if --calibration gives all images."""
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
        print("The check uses the calibration images, because there is no --data.", file=sys.stderr)
        return None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _check(options: argparse.Namespace) -> int:
    from keras_resnet.export import check, manifest
    from keras_resnet.export.runtimes.locate import located
    from keras_resnet.recipes import export as exporting
    from keras_resnet.recipes.runs import sources

    folder = Path(options.exports)
    if options.on:
        return _check_on(folder, options)
    is_model = folder.is_file() or located(folder) != (folder.suffix, folder)
    if is_model and not (folder / manifest.MANIFEST).is_file():
        return _check_any(options)
    left_out = check.left_out(folder)  # before loading the model, which takes seconds
    if options.data:
        source = _source(folder, options.against)
        data = Path(options.data) if Path(options.data).is_dir() else options.data
        recorded = manifest.read(folder)
        reference = exporting.reference(source, data, options.check_images, recorded)
    else:
        model = sources.find(options.against, keras=True).keras_model() if options.against else None
        reference = check.recorded_reference(folder, model)
    checks = check.check_folder(folder, reference)
    rows = [{**manifest.sizes(folder / item.file), **item.to_dict()} for item in checks]
    title = f"Checked on {len(reference.images)} images: {reference.source}"
    if not options.data:
        title = (
            f"Checked on the {len(reference.images)} images stored with the export "
            f"({reference.source}). To check on more: --data NAME|FOLDER"
        )
    return _print_checked(options, rows, reference, title, left_out)


def _check_on(path: Path, options: argparse.Namespace) -> int:
    """Tell what an NPU can run of a file, or of the int8 files of an export."""
    from keras_resnet.export import manifest, npu_report
    from keras_resnet.export.npu.report import FORMATS as FOR_NPUS
    from keras_resnet.export.npu.report import in_words

    if options.against or options.data:
        raise UserError("--on runs no images. Remove --against and --data, or --on.")
    files = [path]
    if (path / manifest.MANIFEST).is_file():
        recorded = manifest.read(path)
        manifest.verify_hashes(path, recorded)
        files = [path / x["file"] for x in recorded["files"] if x["format"] in FOR_NPUS]
        if not files:
            raise UserError(
                f"{path} has no int8 file for {options.on}. Export again with --formats tflite-int8"
            )
    reports = [npu_report(file, options.on).to_dict() for file in files]
    ready = all(report["ready"] for report in reports)
    if options.json:
        return print_json({"exports": options.exports, "ready": ready, "files": reports}, ready)
    print_lines(line for report in reports for line in in_words(report))
    return 0 if ready else 1


def _check_any(options: argparse.Namespace) -> int:
    """Check a file without a manifest, such as one that another program wrote."""
    from keras_resnet.export import check_file, manifest
    from keras_resnet.export.runtimes.trial import open_given
    from keras_resnet.recipes import export as exporting
    from keras_resnet.recipes.runs import sources

    path = Path(options.exports)
    file = open_given(path)
    if not (options.against and options.data):
        raise UserError(
            f"{path} has no manifest beside it, so the check needs the model and images: "
            f"keras-resnet check {path} --against MODEL.keras --data NAME|FOLDER"
        )
    source = sources.find(options.against)
    data = Path(options.data) if Path(options.data).is_dir() else options.data
    images, labels, text = exporting.images_for_check(
        source, data, file.input_shape, options.check_images
    )
    found, reference = check_file(
        file, source.runtime(), images, labels, preprocessing=options.preprocessing, source=text
    )
    rows = [{**manifest.sizes(path), **found.to_dict()}]
    title = f"{found.format}, checked on {len(images)} images: {text}"
    return _print_checked(options, rows, reference, title, left_out=[])


def _print_checked(
    options: argparse.Namespace,
    rows: list[dict[str, Any]],
    reference: Reference,
    title: str,
    left_out: list[dict[str, str]],
) -> int:
    """Print the checked files and the model they were compared with; return the exit code."""
    from keras_resnet.export import check

    model = {
        "file": options.against or "Keras model",
        "bytes": None,
        "bytes_gzipped": None,
        "accuracy": reference.accuracy,
        "latency_ms": None,
    }
    passed = all(row["passed"] for row in rows)
    if options.json:
        checked = {"images": reference.source, "n": len(reference.images)}
        content = {"exports": options.exports, "passed": passed, "check": checked}
        content |= {"model": model, "files": rows, "left_out": left_out}
        return print_json(content, passed)
    print_checks(rows, title, model)
    print_lines(check.advice(rows))
    return 0 if passed else 1


def _source(folder: Path, against: str | None) -> sources.Source:
    """Return the model to compare the files with on the user's own images."""
    from keras_resnet.recipes.runs import sources
    from keras_resnet.recipes.runs.folder import is_run

    if against is None and not is_run(folder.resolve().parent):
        raise UserError(
            f"{folder} records the Keras model's outputs for its own images only. For other images "
            "give the model: --against RUN, or --against FILE.keras."
        )
    return sources.find(against or str(folder.resolve().parent), keras=True)


def _push(options: argparse.Namespace) -> int:
    from keras_resnet.recipes.push import push

    pinned = push(options.source, options.address, options.private)
    if options.json:
        return print_json({"address": pinned})
    print(pinned)
    return 0


# Options ------------------------------------------------------------------------------------------


def _export_options(sub: Parser) -> None:
    add_model(sub, "a run folder or a .keras file")
    add_activation(sub)
    sub.add_argument(
        "--formats",
        type=names,
        default="",
        help=f"comma-separated, from: {FORMATS} (micro: a C array for microcontrollers; web: a "
        "page for the browser); default savedmodel,tflite-float32,tflite-float16,tflite-int8 "
        "(after qat: savedmodel,tflite-int8)",
    )
    sub.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="images for calibration and check: a dataset (its training and its test images) or a "
        "folder (the same images for both); default: what the model was trained on",
    )
    sub.add_argument(
        "--calibration",
        metavar="NAME|FOLDER",
        help="calibrate on other images than --data: a dataset's training images, or a folder",
    )
    sub.add_argument(
        "--calibration-method",
        default="min-max",
        metavar="METHOD",
        help="how to choose the int8 ranges: min-max (default), percentile, percentile:99.9, "
        "moving-average or moving-average:0.9",
    )
    sub.add_argument(
        "--input-type",
        default="uint8",
        help="input and output type of the int8 file: uint8 (default), int8 or float32",
    )
    sub.add_argument(
        "--keep-float",
        metavar="LAYER,…",
        default="",
        help="layers to keep in float32 in the int8 file, e.g. stem_conv,head (see 'keras-resnet "
        "layers')",
    )
    sub.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="accuracy that the int8 file may lose on the check images, e.g. 0.5; export then "
        "searches the calibration method, the layers to keep in float32, and 16-bit activations",
    )
    sub.add_argument(
        "--npu",
        metavar="NPU",
        help="accelerator for the int8 file: edge-tpu, or an Ethos-U such as ethos-u55-128, for "
        "which Vela compiles it",
    )
    sub.add_argument(
        "--preprocessing",
        metavar="MODE",
        help="add this normalisation to a model without one: tf, caffe, torch or cifar",
    )
    sub.add_argument(
        "--check-images",
        type=natural,
        default=1000,
        metavar="N",
        help="number of images for the check, evenly spaced (default 1000)",
    )
    sub.add_argument(
        "--batch",
        choices=("1", "any"),
        default="1",
        help="batch size of TFLite files: 1 (default), or any (LiteRT's Interpreter resizes it)",
    )
    sub.add_argument(
        "--about",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="metadata for TFLite files: author, license, version or description",
    )
    sub.add_argument(
        "--no-metadata", action="store_true", help="leave metadata and labels out of TFLite files"
    )
    sub.add_argument(
        "--out", metavar="FOLDER", help="output folder (default RUN/exports or NAME-exports)"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace an existing export")


def _check_options(sub: Parser) -> None:
    sub.add_argument("exports", help="an export folder, or any model file with --against")
    sub.add_argument(
        "--against",
        metavar="MODEL",
        help="compare with this run or model file instead of the recorded outputs",
    )
    sub.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="check on a dataset's test images or a folder of images instead of the recorded "
        "images; needs --against, unless the export lies in its run",
    )
    sub.add_argument(
        "--check-images",
        type=natural,
        default=1000,
        metavar="N",
        help="number of images of --data, evenly spaced (default 1000)",
    )
    sub.add_argument(
        "--preprocessing",
        default="raw",
        metavar="MODE",
        help="form of the images for a file without a manifest: raw (RGB 0...255, the default), "
        "tf, torch, cifar, or caffe (BGR, as in keras.applications)",
    )
    sub.add_argument(
        "--on",
        metavar="NPU",
        help="tell instead which operations of the int8 file this accelerator can run: edge-tpu, "
        "or an Ethos-U such as ethos-u55-128",
    )
    add_trust(sub)


def _push_options(sub: Parser) -> None:
    sub.add_argument(
        "source", metavar="RUN|EXPORTS", help="a run with exports, or an export folder"
    )
    sub.add_argument("address", metavar="hf://USER/NAME", help="the model on the Hugging Face Hub")
    sub.add_argument(
        "--private", action="store_true", help="if the model is new, show it to its owner only"
    )


VERBS = {
    "export": Verb(
        "convert to TFLite, ONNX and more, and check every file",
        "export RUN --formats savedmodel,tflite-int8",
        _export_options,
        _export,
    ),
    "check": Verb(
        "check exported files, or any model file against its model",
        "check RUN/exports --data cifar10",
        _check_options,
        _check,
    ),
    "push": Verb(
        "upload an export with its model card to the Hugging Face Hub",
        "push RUN hf://USER/NAME --private",
        _push_options,
        _push,
    ),
}

"""The verbs that measure files: speed and memory, and the error of each layer."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from keras_resnet.cli.options import Parser, Verb, add_trust, natural, naturals
from keras_resnet.display.console import print_json
from keras_resnet.errors import UserError
from keras_resnet.files import read_arrays, require_file_target

if TYPE_CHECKING:
    import numpy as np

    from keras_resnet.export.measure import layer_errors

_COLUMNS = (
    'Columns: "dB" is the signal-to-noise ratio of the quantized file against the float file; '
    'higher is better. "so far" counts all errors up to this layer, "own" the error that this '
    'layer adds, "weights" the error of its kernel. "range" is the used part of the output\'s '
    'number range; "clipped" is the share of values outside it.'
)


def _benchmark(options: argparse.Namespace) -> int:
    from keras_resnet.display.figures import require_writable
    from keras_resnet.export.measure import benchmark
    from keras_resnet.recipes.runs.folder import write_json

    files = benchmark.find(options.files)
    out = None if options.out is None else Path(options.out)
    if out is not None and not out.is_dir():
        require_file_target(out)
    picture = Path(options.picture) if options.picture else None
    if picture is not None:
        require_writable(picture)
    measured = benchmark.measure(
        files,
        options.threads,
        against=options.against,
        rounds=options.rounds,
        runs=options.runs,
        batch=options.batch,
    )
    if out is not None:
        write_json(out / benchmark.RECORD if out.is_dir() else out, measured.to_dict())
    if options.json:
        print_json(measured.to_dict())
    else:
        print(measured.table())
    if picture is not None:
        measured.picture(picture)
    return 0


def _layers(options: argparse.Namespace) -> int:
    from keras_resnet.display.figures import require_writable
    from keras_resnet.export.measure import layer_errors

    pair = _pair(options)
    if options.picture:
        require_writable(Path(options.picture))
    images = _images(options, pair[0])
    errors = layer_errors.measure(*pair, images)
    if options.picture:
        errors.picture(options.picture)
    if options.json:
        return print_json(errors.to_dict())
    worst = errors.worst()
    print(errors.table(worst if options.worst else errors.layers))
    print(f"\n{_COLUMNS}")
    if errors.unmatched:
        print(f"Layers without a counterpart in {pair[1]}: {', '.join(errors.unmatched)}")
    # For two single files the model is unknown, and an operation's name need not be a layer's.
    of_export = len(options.files) == 1
    if of_export and options.format == "tflite-int8" and worst[0].own_snr_db < math.inf:
        _advise(worst[0])
    return 0


def _advise(row: layer_errors.LayerError) -> None:
    if row.operation == "INPUT":
        print("\nQuantizing the images adds the largest error: see --input-type of export.")
        return
    layers = ",".join([row.layer, *row.read_by])
    print(
        f"\n{row.layer} adds the largest error. To keep it and its readers in float32:\n"
        f"keras-resnet export MODEL --formats tflite-float32,tflite-int8 --keep-float {layers}"
    )


def _pair(options: argparse.Namespace) -> tuple[Path, Path]:
    """Return the float file and the quantized file."""
    from keras_resnet.export import manifest

    paths = [Path(path) for path in options.files]
    if len(paths) == 2:
        return paths[0], paths[1]
    if len(paths) != 1 or not paths[0].is_dir():
        raise UserError(
            "Give an export folder, or a float32 .tflite and the quantized one: keras-resnet "
            f"layers FLOAT.tflite QUANTIZED.tflite. Received {' '.join(options.files)}."
        )
    content = manifest.read(paths[0])
    manifest.verify_hashes(paths[0], content)
    files = {entry["format"]: paths[0] / entry["file"] for entry in content["files"]}
    for kind in ("tflite-float32", options.format):
        if kind not in files:
            raise UserError(
                f"{paths[0]} has no {kind} file; it has {', '.join(files)}. Export again: "
                f"keras-resnet export MODEL --formats tflite-float32,{options.format} --overwrite "
                "(a quantization-aware model has no float file)"
            )
    return files["tflite-float32"], files[options.format]


def _images(options: argparse.Namespace, float_file: Path) -> np.ndarray:
    """Return the first --count images of --images, or of the export's reference."""
    from keras_resnet.export import manifest
    from keras_resnet.export.reference import REFERENCE
    from keras_resnet.export.runtimes.trial import open_given
    from keras_resnet.recipes.export import images_of

    beside = float_file.parent / REFERENCE
    source = options.images or (str(beside) if beside.is_file() else None)
    if source is None:
        raise UserError("Give --images: a folder of images, a dataset, or an .npz with 'images'.")
    if source.endswith(".npz"):
        return _archived(Path(source))[: options.count]
    if (float_file.parent / manifest.MANIFEST).is_file():
        _warn_of_range(manifest.read(float_file.parent)["input"])
    shape = open_given(float_file).input_shape
    return images_of(source, SimpleNamespace(input_shape=(None, *shape)), options.count)


def _warn_of_range(made_for: dict[str, Any]) -> None:
    if not made_for["raw_pixels"] and made_for["range"][1] < 128:
        low, high = made_for["range"]
        print(
            f"warning: the files need images with values {low:g}…{high:g}, but these are RGB "
            "0…255. Give normalised images as an .npz with an array 'images'.",
            file=sys.stderr,
        )


def _archived(path: Path) -> np.ndarray:
    try:
        images: np.ndarray = read_arrays(path)["images"]
    except (UserError, KeyError) as error:
        raise UserError(f"{path} is no .npz file with an array 'images': {error}") from error
    if images.dtype.kind not in "uif":
        raise UserError(f"{path} is no .npz file with an array 'images': it holds no numbers")
    return images


# Options ------------------------------------------------------------------------------------------


def _benchmark_options(sub: Parser) -> None:
    sub.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="an export folder, or files (.tflite, .onnx, .keras, a SavedModel or OpenVINO folder)",
    )
    sub.add_argument(
        "--threads",
        type=naturals,
        default=(1,),
        metavar="N,N,…",
        help="measure with each of these numbers of threads (default 1)",
    )
    sub.add_argument(
        "--against",
        metavar="FILE",
        help="baseline for the ratios (default the float32 .tflite, else the first file)",
    )
    for name, default, about in (
        ("--rounds", 10, "rounds over all files"),
        ("--runs", 20, "single images per round, for at most two seconds"),
        ("--batch", 32, "batch size for throughput, for at most two seconds"),
    ):
        sub.add_argument(
            name, type=natural, default=default, metavar="N", help=f"{about} (default {default})"
        )
    sub.add_argument(
        "--out",
        metavar="FILE|FOLDER",
        help="also write the result as JSON; into a folder as benchmark.json",
    )
    sub.add_argument("--picture", metavar="FILE", help="plot the result: .svg, .png or .pdf")
    add_trust(sub)


def _layers_options(sub: Parser) -> None:
    sub.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="an export folder, or a float32 .tflite and the quantized one",
    )
    sub.add_argument(
        "--images",
        metavar="FOLDER|NAME|.npz",
        help="images to run: a folder, a dataset's training images, or an .npz with an array "
        "'images' as the float file takes them (default: the export's reference.npz)",
    )
    sub.add_argument(
        "--count", type=natural, default=32, metavar="N", help="number of images (default 32)"
    )
    sub.add_argument(
        "--format",
        default="tflite-int8",
        help="which file of an export folder (default %(default)s)",
    )
    sub.add_argument("--worst", action="store_true", help="sort by 'own dB', lowest first")
    sub.add_argument("--picture", metavar="FILE", help="plot the errors: .svg, .png or .pdf")


VERBS = {
    "benchmark": Verb(
        "measure latency, throughput, memory and size of files",
        "benchmark RUN/exports --threads 1,2 --out RUN/exports",
        _benchmark_options,
        _benchmark,
    ),
    "layers": Verb(
        "compare a quantized file with its float file, layer by layer",
        "layers RUN/exports --worst",
        _layers_options,
        _layers,
        more=_COLUMNS,
    ),
}

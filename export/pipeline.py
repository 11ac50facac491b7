"""Export a Keras model to other formats and check every file: `export(model, formats, ...)`.

TFLite needs `pip install "keras-resnet-zoo[export]"`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.arguments import checked
from keras_resnet.display.console import CHECK_HEADER, check_cells
from keras_resnet.display.notebook import html_table
from keras_resnet.errors import UserError, require_tensorflow, warn
from keras_resnet.export import budget, check, folders, manifest, model_card
from keras_resnet.export.calibration import hints as calibration_hints
from keras_resnet.export.calibration import images_of, require_images
from keras_resnet.export.formats import serving
from keras_resnet.export.formats.table import FORMATS, Source, known
from keras_resnet.export.formats.tflite import metadata, ranges
from keras_resnet.export.formats.tflite.options import Quantization
from keras_resnet.export.npu.report import for_manifest, require_npu
from keras_resnet.export.reference import Reference, write_reference
from keras_resnet.export.rewrites import prepare
from keras_resnet.export.runtimes.base import INPUT, OUTPUT
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.export.write_errors import WRITE_ERRORS, why_not_written
from keras_resnet.files import expanded, plain_name
from keras_resnet.images.answers import LINEAR, Answers, agreed, names_of, told_by
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.labels import LABELS, known_of, require_class_names
from keras_resnet.images.preprocessing import has_preprocessing

_COLORS = {1: "grey", 3: "RGB"}  # keyed by the number of channels


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        folder: the folder with the files.
        manifest: the content of its manifest.json.
        checks: one per file, in the order of the requested formats.
        keras_accuracy: the Keras model's accuracy on the check images; None without labels.
        keras_latency_ms: the Keras model's median latency for batch 1.
    """

    folder: Path
    manifest: dict[str, Any]
    checks: list[check.FileCheck]
    keras_accuracy: float | None
    keras_latency_ms: float

    @property
    def passed(self) -> bool:
        """True if every file passed its check."""
        return all(item.passed for item in self.checks)

    def __repr__(self) -> str:
        """Return one line, and a second one if a file failed its check."""
        failed = [item.file for item in self.checks if not item.passed]
        verdict = "all passed their check" if self.passed else f"{len(failed)} FAILED the check"
        first = f"ExportReport: {len(self.checks)} files in {self.folder}, {verdict}"
        return first if self.passed else f"{first}\nfailed: {', '.join(failed)}"

    def _repr_html_(self) -> str:
        rows = [check_cells(item) for item in self.manifest["files"]]
        problems = [(item.file, text) for item in self.checks for text in item.problems]
        table = html_table(CHECK_HEADER, rows, f"Files in {self.folder}")
        failed = html_table(("failed", "why"), problems, text_columns=2) if problems else ""
        return table + failed


@checked
def export(
    model: keras.Model,
    formats: Sequence[str] = ("savedmodel", "tflite-float32", "tflite-int8"),
    *,
    out: str | Path,
    calibration: Any = None,
    calibration_method: str = ranges.MIN_MAX,
    input_type: str = "uint8",
    keep_float: Sequence[str] = (),
    max_drop: float | None = None,
    npu: str | None = None,
    preprocessing: str | None = None,
    name: str | None = None,
    labels: Sequence[object] | None = None,
    activation: str | None = None,
    crop: SingleCrop | None = None,
    check_images: np.ndarray | None = None,
    check_labels: np.ndarray | None = None,
    check_source: str = "the given check images",
    origin: Mapping[str, Any] | None = None,
    about: metadata.About | None = metadata.UNSAID,
    batch: int | None = 1,
    overwrite: bool = False,
    verbose: bool = True,
) -> ExportReport:
    """Write `model` in each of `formats` to the folder `out` and check every file against it.

    A file takes the same input as the model. If the model normalises its input itself, that is RGB
    0...255. It does so if it was built with `include_preprocessing=True`, has a `Rescaling` layer,
    or gets `preprocessing=` here. Then give `calibration` as uint8, so that the int8 file takes
    bytes.

    Args:
        model: a functional Keras 3 image classifier, from (batch, height, width, channels) to
            (batch, classes). Any dtype policy; it is rebuilt in float32.
        formats: keys of `FORMATS`.
        out: the output folder. It gets a temporary name first and is renamed when complete.
        calibration: some hundred training images, as the model takes them. Needed for int8 and
            int16x8. An array (n, height, width, channels), a folder, a `tf.data.Dataset` (batched
            or not, with or without labels), a generator, or a function that returns one, like
            TFLite's representative datasets. A folder gives 256 images, evenly spaced by name. A
            dataset or generator gives its first 512.
        calibration_method: the method that sets the ranges of the int8 file: "min-max",
            "percentile", "percentile:99.9", "moving-average" or "moving-average:0.9"; see
            `ranges.parse`.
        input_type: input and output type of the int8 file: "uint8", "int8" or "float32".
        keep_float: names of layers that stay float32 in the int8 file, for example the layers with
            the largest errors (`export.layer_errors`).
        max_drop: the accuracy that the int8 file may lose on the check images, in points. Then the
            options of the file are searched: the calibration methods, then float32 for some layers,
            then 16-bit activations (the file is then tflite-int16x8). Without labels, it is the
            percentage of images that may get another answer than the Keras model's.
        npu: an accelerator for the int8 file, see `npu_report`. The manifest gets the report; for
            an Ethos-U the folder also gets the file that Vela compiles, which no check runs.
        preprocessing: put this normalisation in front ("tf", "caffe", "torch", "cifar").
        name: prefix of the file names, as in `NAME-int8.tflite`; default the model's name. File
            names keep letters, digits, ".", "_" and "-". Accents are dropped, and any other
            character becomes "-".
        labels: class names, for labels.txt and the SavedModel; default the names known for the
            model, see `keras_resnet.labels.labels_of`. A model with one sigmoid takes two names,
            or only the name of the class for a probability above 1/2.
        activation: activation of the outputs: "softmax", "sigmoid" or "linear" (logits). Default:
            read from the graph, or else inferred from the outputs for the check images.
        crop: the crop for images of another size, in the SavedModel, the web page and classify.py.
            Default: the crop of the catalog's weights or of the run. If neither is known, the
            image is scaled to cover the model's size.
        check_images: images to compare on (uint8 or as the model takes them); default the
            calibration images, or random noise without them.
        check_labels: classes (n,) of the check images, to report accuracies. For several sigmoids
            also 0 or 1 for every class, (n, classes).
        check_source: a description of the check images, for the manifest.
        origin: facts about the model's origin for the model card, as {name: text}, e.g. {"licence
            of the weights": "Apache-2.0"}.
        about: author, license, ... for the metadata of TFLite files; None leaves the metadata out.
        batch: 1, or None. With None, LiteRT's Interpreter can resize the batch of TFLite files;
            other runtimes need 1.
        overwrite: replace `out` if it exists.
        verbose: print progress on stderr.

    Returns:
        The report. A file that fails its check is kept; the report and the manifest say so.

    Raises:
        UserError: unknown format, a model or images that do not fit, no calibration images, or
            `out` exists or cannot be written.
    """
    require_tensorflow("export")
    formats = require_arguments(formats, out, input_type, overwrite, calibration_method)
    if batch not in (1, None):
        raise UserError(f"batch must be 1, or None for any batch size; received {batch!r}.")
    quantization = Quantization(calibration_method, input_type, keep_float)
    quantization.require_formats(formats)
    if npu is not None:
        require_npu(npu, formats)
    about_model = known_of(model)
    crop = about_model.crop if crop is None else crop
    calibration = None if calibration is None else images_of(calibration, model, crop)
    hints = calibration_hints(model, preprocessing, calibration, formats)
    for hint in hints:
        warn(hint)
    size = None if calibration is None else calibration.shape[1:]
    prepared = prepare.prepare(model, preprocessing, size)
    quantization.require_model(prepared, formats)
    budget.require(max_drop, formats, ranges.has_ranges(prepared))
    names = _checked_labels(about_model.labels if labels is None else labels, prepared)
    source = KerasRuntime(prepared)
    source.activation = agreed(activation, source.activation)
    reference = _reference(source, calibration, check_images, check_labels, check_source)
    require_images(calibration, formats)
    is_raw = _is_raw(prepared, reference, calibration)
    with (
        tempfile.TemporaryDirectory(prefix="keras-resnet-") as scratch,
        folders.replacing(out, overwrite) as folder,
    ):
        written = Source(
            model=prepared,
            name=" ".join((name or model.name).split()),
            labels=names,
            service=serving.Service(is_raw, crop, reference.answers),
            input=_input_entry(reference, calibration, crop, is_raw),
            about=about,
            batch=batch,
            calibration=calibration,
            quantization=quantization,
            scratch=Path(scratch),
        )
        trials = [] if max_drop is None else budget.search(written, reference, max_drop)
        if trials:
            formats = _with_choice(written, formats, budget.best(trials))
        paths = _write_files(written, formats, folder, verbose)
        files = {path.name: (kind, open_file(path)) for kind, path in paths.items()}
        checks = check.compare(files, reference, written.quantization.keep_float)
        if max_drop is not None:
            checks = budget.judged(checks, reference, max_drop)
        (keras_latency,) = check.median_latency([source], reference.images[:1])
        content = {
            "model": written.name,
            "labels": written.labels,
            "origin": dict(origin or {}),
            "about": asdict(about) if about else None,
            "warnings": hints,
            **manifest.of_quantization(written.quantization, paths, written.has_ranges),
            **({} if max_drop is None else {"budget": budget.for_manifest(trials, max_drop)}),
            **({} if npu is None else {"npu": for_manifest(paths, npu)}),
            "rewrites": written.rewrites,
            "preprocessing": preprocessing,
            "input": written.input,
            **_content(folder, written, reference, checks, keras_latency),
        }
        _write_about(folder, content, reference, formats)
    for failure in manifest.failures(content) if verbose else ():
        print(failure, file=sys.stderr)
    return ExportReport(expanded(out).resolve(), content, checks, reference.accuracy, keras_latency)


def _with_choice(source: Source, formats: Sequence[str], chosen: budget.Trial) -> tuple[str, ...]:
    """Set the chosen options in `source`; return the formats with the chosen one."""
    source.quantization = replace(
        source.quantization, method=chosen.method, keep_float=chosen.keep_float
    )
    return tuple(dict.fromkeys(chosen.format if x == budget.INT8 else x for x in formats))


def _write_about(
    folder: Path, content: dict[str, Any], reference: Reference, formats: Sequence[str]
) -> None:
    """Write the companion files: reference, labels, script, manifest, model card."""
    write_reference(folder, reference)
    if content["labels"] is not None:
        text = "\n".join(content["labels"]) + "\n"
        (folder / LABELS).write_text(text, encoding="utf-8")
    folders.add_script(folder, formats)
    manifest.write(folder, content)
    (folder / "README.md").write_text(model_card.card(content), encoding="utf-8")


@checked
def require_arguments(
    formats: Sequence[str],
    out: str | Path,
    input_type: str = "uint8",
    overwrite: bool = False,
    calibration_method: str = ranges.MIN_MAX,
) -> tuple[str, ...]:
    """Check the arguments that need no model; return the formats without duplicates.

    `out`, `input_type`, `overwrite` and `calibration_method` are the arguments of `export`.

    Raises:
        UserError: see `export`.
    """
    formats = known(formats)
    Quantization(calibration_method, input_type).require_formats(formats)
    folders.free(out, overwrite)
    for fetch in filter(None, (FORMATS[kind].fetch for kind in formats)):
        fetch()
    return formats


def _reference(
    model: KerasRuntime,
    calibration: np.ndarray | None,
    images: np.ndarray | None,
    labels: np.ndarray | None,
    source: str,
) -> Reference:
    if images is None and calibration is not None:
        images, source = calibration, "the calibration images"
    elif images is None:
        shape = tuple(size or 0 for size in (32, *model.input_shape))  # no size is None here
        images = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
        source = "random noise: neither calibration nor check images were given"
    outputs = model.predict(images)
    if calibration is not None:
        model.require_images(calibration)
    answers = Answers(model.activation or told_by(outputs), model.outputs)
    if labels is not None:
        labels = np.asarray(labels)
        _require_labels(labels, len(images), answers)
    return Reference(images, outputs, labels, source, answers.activation)


def _require_labels(labels: np.ndarray, images: int, answers: Answers) -> None:
    if len(labels) != images:
        raise UserError(
            f"check_labels must have one entry per check image; received {len(labels)} labels for "
            f"{images} images."
        )
    shapes: list[tuple[int, ...]] = [(images,)]
    if answers.independent:
        shapes.append((images, answers.classes))
    if labels.shape not in shapes:
        raise UserError(
            f"check_labels must have the shape {' or '.join(map(str, shapes))}; received "
            f"{labels.shape}."
        )


def _checked_labels(labels: Sequence[object] | None, model: keras.Model) -> list[str] | None:
    names = names_of(labels, model.output_shape[-1])
    require_class_names(names or ())
    return None if names is None else list(names)


def _write_files(
    source: Source, formats: Sequence[str], folder: Path, verbose: bool
) -> dict[str, Path]:
    """Write every format; return {format: path}."""
    paths = {}
    for kind in formats:
        began = time.perf_counter()
        paths[kind] = folder / FORMATS[kind].file.format(name=plain_name(source.name))
        try:
            FORMATS[kind].write(source, paths[kind])
        except WRITE_ERRORS as error:  # a full disk, in the words of TensorFlow
            raise UserError(
                f"Cannot write {kind}: {why_not_written(error)}. Free some space in "
                f"{folder.parent} and, for temporary files, in {source.scratch.parent}."
            ) from error
        if verbose:
            print(f"{kind}: written in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return paths


def _content(
    folder: Path,
    source: Source,
    reference: Reference,
    checks: list[check.FileCheck],
    keras_latency: float,
) -> dict[str, Any]:
    """Return the manifest's part on the files, their making and their check."""
    answers = reference.answers
    return {
        "created": manifest.now(),
        "passed": all(item.passed for item in checks),
        "classes": answers.classes,
        **manifest.cost(source.model),
        "output": {
            "name": OUTPUT,
            "is": "scores" if answers.activation == LINEAR else "probabilities",
            "activation": answers.activation,
            "size": answers.outputs,
        },
        "calibration_images": 0 if source.calibration is None else len(source.calibration),
        "check": {
            "images": reference.source,
            "n": len(reference.images),
            "keras_accuracy": reference.accuracy,
            "keras_latency_ms": keras_latency,
        },
        "files": [_file_entry(folder, item) for item in checks],
        **manifest.environment(),
    }


def _is_raw(model: keras.Model, reference: Reference, calibration: np.ndarray | None) -> bool:
    """Return True if the model takes RGB 0...255: its images are bytes, or it normalises them."""
    given = [reference.images] if calibration is None else [reference.images, calibration]
    if all(images.dtype == np.uint8 for images in given):
        return True
    in_range = all(images.min() >= 0 and 2 < images.max() < 255.5 for images in given)
    return in_range and has_preprocessing(model)


def _input_entry(
    reference: Reference, calibration: np.ndarray | None, crop: SingleCrop | None, is_raw: bool
) -> dict[str, Any]:
    pixels = reference.images if calibration is None else calibration
    channels = reference.images.shape[-1]
    return {
        "name": INPUT,
        "shape": list(reference.images.shape[1:]),
        "color": _COLORS.get(channels, f"{channels} channels"),
        "raw_pixels": is_raw,
        "range": [0, 255] if is_raw else [float(pixels.min()), float(pixels.max())],
        "crop": None if crop is None else asdict(crop),
    }


def _file_entry(folder: Path, item: check.FileCheck) -> dict[str, Any]:
    path = folder / item.file
    return {**manifest.sizes(path), "sha256": manifest.sha256(path), **item.to_dict()}

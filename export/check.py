"""Compare exported files with the Keras model they came from: names, shapes, values, latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet.arguments import checked
from keras_resnet.display.console import number, print_left_out, verdict
from keras_resnet.errors import UserError, missing
from keras_resnet.export import manifest
from keras_resnet.export.formats.table import FORMATS
from keras_resnet.export.formats.tflite import int4
from keras_resnet.export.formats.tflite.keep_float import INT8_FORMATS
from keras_resnet.export.formats.tflite.keep_float import problems as keep_float_problems
from keras_resnet.export.formats.tolerance import Tolerance
from keras_resnet.export.reference import Reference, read_reference
from keras_resnet.export.rewrites import prepare
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.base import INPUT, OUTPUT, NotFiniteError, Runtime
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.export.runtimes.litert import TFLiteRuntime
from keras_resnet.export.runtimes.missing import left_out_files, missing_engine
from keras_resnet.export.runtimes.onnx import OnnxRuntime
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.export.runtimes.trial import require_survived
from keras_resnet.files import expanded

if TYPE_CHECKING:
    import keras

_ROUNDS, _RUNS = 20, 5
_SECONDS = 1.0  # time limit per file; slow files get fewer rounds


@dataclass(frozen=True)
class FileCheck:
    """The result of checking one file.

    A file with a wrong interface or wrong operations is not compared: `n` is 0, and the
    measurements are None.

    Attributes:
        file: the file's name in the export folder.
        format: a key of `FORMATS`.
        input_dtype: type of the file's input.
        output_dtype: type of the file's output.
        n: number of images compared.
        largest_error: largest absolute error of any output.
        logit_error: largest error of the logits, relative to the largest |logit|; float formats
            only.
        snr_db: signal-to-noise ratio of the outputs, in decibels; None if they are equal bit for
            bit.
        agreement: share of images where the file and the Keras model give the same answer; for
            independent classes, the share of (image, class) pairs.
        accuracy: share of correct answers, counted in the same way; None without labels.
        latency_ms: median for batch 1, on one thread; TensorFlow uses all threads.
        operations: for a TFLite file, the number of operations of each kind.
        problems: a sentence for each fault of the file.
        notes: a sentence for each point that this check does not cover.
    """

    file: str
    format: str
    input_dtype: str
    output_dtype: str
    n: int = 0
    largest_error: float | None = None
    logit_error: float | None = None
    snr_db: float | None = None
    agreement: float | None = None
    accuracy: float | None = None
    latency_ms: float | None = None
    operations: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True if the check found no problem."""
        return not self.problems

    def __repr__(self) -> str:
        """Return one line, and a second one with the problems if there are any."""
        said = f"FileCheck {self.file}: {verdict(asdict(self) | {'passed': self.passed})}"
        said += f", agreement {number(self.agreement, '.2%')} on {self.n:,} images"
        return f"{said}\n{'; '.join(self.problems)}" if self.problems else said

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for the manifest and `--json`."""
        lists = {"problems": list(self.problems), "notes": list(self.notes)}
        return {**asdict(self), **lists, "passed": self.passed}


def compare(
    files: dict[str, tuple[str, Runtime]], reference: Reference, keep_float: Sequence[str] = ()
) -> list[FileCheck]:
    """Check opened files ({name: (format, runtime)}) against the reference.

    `keep_float`: the layers of an int8 file that must be in float32.
    """
    checks = [_compare_one(name, *opened, reference, keep_float) for name, opened in files.items()]
    checks = [_with_blame(item, files[item.file][1], reference) for item in checks]
    fitting = [name for name, item in zip(files, checks, strict=True) if item.n]
    latency = median_latency([files[name][1] for name in fitting], reference.images[:1])
    measured = dict(zip(fitting, latency, strict=True))
    return [replace(item, latency_ms=measured.get(item.file)) for item in checks]


def _compare_one(
    name: str, kind: str, runtime: Runtime, reference: Reference, keep_float: Sequence[str]
) -> FileCheck:
    problems = _interface_problems(kind, runtime, reference)
    problems += _operation_problems(kind, runtime, keep_float)
    found = unmeasured(name, kind, runtime, problems)
    if problems:  # outputs of another shape cannot be compared
        return found
    return values(found, FORMATS[kind].tolerance, runtime, reference)


def unmeasured(name: str, kind: str, runtime: Runtime, problems: Sequence[str]) -> FileCheck:
    """Return the check of an opened file without measurements."""
    return FileCheck(
        file=name,
        format=kind,
        input_dtype=runtime.input_dtype,
        output_dtype=runtime.output_dtype,
        operations=runtime.operations if isinstance(runtime, TFLiteRuntime) else {},
        problems=tuple(problems),
        notes=runtime.notes,
    )


def values(
    found: FileCheck,
    tolerance: Tolerance,
    runtime: Runtime,
    reference: Reference,
    latency_ms: float | None = None,
) -> FileCheck:
    """Return the check `found` with the measurements of the file's outputs."""
    try:
        outputs = runtime.predict(reference.images)
    except NotFiniteError as error:
        return replace(found, problems=(str(error),))
    problems, answers = [], reference.answers
    pair, one = (outputs, reference.outputs), reference.one_class
    agreement = float(answers.same_up_to_ties(*pair, runtime.output_step, one=one).mean())
    snr_db = _signal_to_noise(*pair)
    logit_error = _logit_error(answers.logits(outputs), answers.logits(reference.outputs))
    if tolerance.logits is not None and not logit_error <= tolerance.logits:
        problems.append(
            f"the logits differ by {logit_error:.2g} of the largest logit; rounding explains at "
            f"most {tolerance.logits:g}"
        )
    if snr_db is not None and not snr_db >= tolerance.snr_db:
        problems.append(
            f"signal-to-noise {snr_db} dB, below {tolerance.snr_db:g} dB: the outputs are too far "
            "from the Keras model's"
        )
    spread = (tolerance.agreement * (1 - tolerance.agreement) / len(outputs)) ** 0.5
    if agreement < (least := tolerance.agreement - 2 * spread):
        problems.append(
            f"top-1 agreement {agreement:.2%}, below {least:.2%}: the file and the Keras model "
            f"name different classes for too many of the {len(outputs):,} images"
        )
    labels = reference.labels
    return replace(
        found,
        n=len(outputs),
        largest_error=float(np.abs(outputs - reference.outputs).max()),
        logit_error=logit_error if tolerance.logits is not None else None,
        snr_db=snr_db,
        agreement=float(answers.same(*pair, one=one).mean()),
        accuracy=None if labels is None else answers.accuracy(outputs, labels),
        latency_ms=latency_ms,
        problems=tuple(problems),
    )


def advice(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to try, in order, if quantized files differ too much; else nothing.

    `files` are entries of a manifest, or `FileCheck.to_dict()`.
    """
    inexact = (item for item in files if item["n"] and not item["passed"])
    if not any(item["format"] in _QUANTIZED for item in inexact):
        return []
    return [
        "To make the quantized files more accurate, try in this order:",
        "1. use more calibration images, from the training data: export --calibration FOLDER",
        "2. ignore outliers in the ranges: export --calibration-method percentile",
        "3. find the layers with the largest errors: keras-resnet layers EXPORTS --worst",
        "4. keep those layers in float32: export --keep-float LAYER,… (tflite-int8)",
        "5. quantization-aware training: keras-resnet qat MODEL, then export its run",
    ]


_QUANTIZED = (*INT8_FORMATS, "tflite-int4", "tflite-int16x8", "tflite-dynamic", "onnx-int8")
_SATURATES = (
    "the file itself is correct: it passes without ONNX Runtime's optimizations (ORT_DISABLE_ALL). "
    "The int8 kernels of this CPU saturate. That happens with 8-bit weights on x86 CPUs without "
    "VNNI. Export the file again, or run it with the session option "
    '"session.x64quantprecision" set to "1"'
)


def _with_blame(found: FileCheck, runtime: Runtime, reference: Reference) -> FileCheck:
    """Add a note if an ONNX int8 file is correct and only this CPU computes it wrongly."""
    if found.passed or not (found.format == "onnx-int8" and isinstance(runtime, OnnxRuntime)):
        return found
    if not _compare_one(found.file, found.format, runtime.unoptimized(), reference, ()).passed:
        return found
    return replace(found, problems=(*found.problems, _SATURATES))


def _interface_problems(kind: str, runtime: Runtime, reference: Reference) -> list[str]:
    problems = []
    if (runtime.input_name, runtime.output_name) != (INPUT, OUTPUT):
        found = f"{runtime.input_name} → {runtime.output_name}"
        problems.append(f"signature {found}, expected {INPUT} → {OUTPUT}")
    return problems + shape_problems(runtime, reference)


def shape_problems(runtime: Runtime, reference: Reference) -> list[str]:
    """Return a sentence for each shape that differs from the reference's."""
    problems = []
    shape, expected = runtime.input_shape, reference.images.shape[1:]
    if any(s is not None and s != e for s, e in zip(shape, expected, strict=True)):
        problems.append(f"input shape {shape}, expected {expected}")
    if runtime.outputs != reference.outputs.shape[-1]:
        problems.append(f"{runtime.outputs} outputs, expected {reference.outputs.shape[-1]}")
    return problems


def _operation_problems(kind: str, runtime: Runtime, keep_float: Sequence[str]) -> list[str]:
    if kind == "onnx-int8" and isinstance(runtime, OnnxRuntime):
        left = float_kernels(runtime)
        return [f"operations left in float: {', '.join(left[:5])}"] if left else []
    if not isinstance(runtime, TFLiteRuntime):
        return []
    flex = [name for name in runtime.operations if name.startswith("Flex")]
    problems = [f"operations that plain LiteRT does not have: {flex}"] if flex else []
    if kind in INT8_FORMATS:
        problems += keep_float_problems(runtime.graph, keep_float, runtime.input_dtype == "float32")
    elif kind == "tflite-int16x8":
        inner = [item for item in runtime.graph if item.kind not in tflite_graph.BORDERS]
        left = sorted({item.kind for item in inner if item.in_float})
        problems += [f"operations without 16-bit code, left in float: {left}"] if left else []
    elif kind == "tflite-int4":
        problems += int4.problems(runtime.graph)
    return problems


def _logit_error(logits: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of the logits, relative to the largest |logit|.

    Probabilities near 0 or 1 would hide errors.
    """
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def _signal_to_noise(outputs: np.ndarray, expected: np.ndarray) -> float | None:
    noise = float(np.square(outputs - expected, dtype="float64").sum())
    signal = float(np.square(expected, dtype="float64").sum())
    return None if noise == 0 else round(10 * float(np.log10(signal / noise)), 1)


def median_latency(files: Sequence[Runtime], image: np.ndarray) -> list[float]:
    """Return the median milliseconds per image of each file.

    The files of one runtime take turns in rounds. Different runtimes do not: TensorFlow's idle
    threads keep spinning and double the time of a small LiteRT model that runs right after it. For
    the same reason the first run of a file in each round is not timed.
    """
    medians: dict[int, float] = {}
    for kind in dict.fromkeys(map(type, files)):
        group = [runtime for runtime in files if type(runtime) is kind]
        samples: dict[int, list[float]] = {id(runtime): [] for runtime in group}
        began = time.perf_counter()
        for _ in range(_ROUNDS):
            for runtime in group:
                runtime.run_one(image)
                for _ in range(_RUNS):
                    start = time.perf_counter()
                    runtime.run_one(image)
                    samples[id(runtime)].append((time.perf_counter() - start) * 1e3)
            if time.perf_counter() - began > _SECONDS * len(group):
                break
        medians |= {key: round(statistics.median(times), 3) for key, times in samples.items()}
    return [medians[id(runtime)] for runtime in files]


@checked
def recorded_reference(folder: Path, model: keras.Model | None = None) -> Reference:
    """Read the images of an export folder, with the recorded answers or those of `model`.

    `model` gets the normalisation that the export put in front (`prepare.as_exported`).

    Raises:
        UserError: the record is missing or damaged, or `model` has a different number of classes.
    """
    reference = read_reference(folder)
    if model is None:
        return reference
    exported = prepare.as_exported(model, manifest.read(folder))
    outputs = KerasRuntime(exported).predict(reference.images)
    if outputs.shape != reference.outputs.shape:
        raise UserError(
            f"The model has {outputs.shape[-1]} outputs; the exported files have "
            f"{reference.outputs.shape[-1]}. Check the folder with the model it was exported from."
        )
    return replace(reference, outputs=outputs)


@checked
def left_out(folder: Path) -> list[dict[str, str]]:
    """List the files of an export folder that cannot be run because an engine is not installed.

    Returns:
        A {"file", "reason"} for each.

    Raises:
        UserError: no file can be run, or there is no manifest.
    """
    return left_out_files(
        {
            entry["file"]: missing_engine(folder / entry["file"])
            or (missing("onnx", "onnx") if entry["format"] == "onnx-int8" else None)
            for entry in manifest.read(folder)["files"]
        }
    )


@checked
def check_folder(folder: str | Path, reference: Reference | None = None) -> list[FileCheck]:
    """Check an export folder: first the hashes, then every file against the Keras model's answers.

    A file is skipped, with a line on stderr, if its engine is not installed; see `left_out`.

    Args:
        folder: the folder that `export` wrote.
        reference: images with the answers to compare with. The default is the record in the
            folder, so no model is needed.

    Returns:
        A `FileCheck` for each file that was run, in the manifest's order.

    Raises:
        UserError: no manifest, a missing file, a hash that differs from the manifest, or no engine
            for any file.
    """
    folder = expanded(folder)
    recorded = manifest.read(folder)
    manifest.verify_hashes(folder, recorded)
    without = left_out(folder)
    print_left_out(without)
    absent = {item["file"] for item in without}
    reference = reference or recorded_reference(folder)
    present = [entry["file"] for entry in recorded["files"] if entry["file"] not in absent]
    require_survived([folder / name for name in present])
    files = {
        entry["file"]: (entry["format"], open_file(folder / entry["file"]))
        for entry in recorded["files"]
        if entry["file"] in present
    }
    return compare(files, reference, recorded.get("keep_float", ()))


_KERNELS = ("Conv", "Gemm", "MatMul")


def float_kernels(runtime: OnnxRuntime) -> list[str]:
    """Return the names of an ONNX file's convolutions and dense layers that compute in float."""
    made_by = {output: node.op_type for node in runtime.nodes for output in node.output}
    return [
        node.name
        for node in runtime.nodes
        if node.op_type in _KERNELS and made_by.get(node.input[0]) != "DequantizeLinear"
    ]

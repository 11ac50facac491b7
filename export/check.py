"""Compare exported files with the Keras model they came from: names, shapes, values, latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.display.console import number, print_left_out, verdict
from keras_resnet.errors import UserError, missing
from keras_resnet.export import manifest
from keras_resnet.export.formats import int4
from keras_resnet.export.formats.keep_float import INT8_FORMATS
from keras_resnet.export.formats.keep_float import problems as keep_float_problems
from keras_resnet.export.formats.table import FORMATS
from keras_resnet.export.reference import Reference, read_reference
from keras_resnet.export.rewrites import prepare
from keras_resnet.export.runtimes.base import INPUT, OUTPUT, NotFiniteError, Runtime
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.export.runtimes.litert import TFLiteRuntime
from keras_resnet.export.runtimes.missing import left_out_files, missing_engine
from keras_resnet.export.runtimes.onnx import OnnxRuntime
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.files import expanded

_ROUNDS, _RUNS = 20, 5
_SECONDS = 1.0  # for each file; slow ones then get fewer rounds


@dataclass(frozen=True)
class FileCheck:
    """What was found out about one file.

    Where its interface or its operations are not as they should be, nothing is compared: `n` is 0,
    and what is measured is None.

    Attributes:
        file: its name in the export folder.
        format: a key of `FORMATS`.
        input_dtype: of what it takes.
        output_dtype: of what it gives.
        n: images that it was compared on.
        largest_error: of any output.
        logit_error: relative to the largest |logit|; float formats only.
        snr_db: signal-to-noise ratio of the outputs, in decibels; None for bit-equal ones.
        agreement: share of images for which its answer is the Keras model's; of independent
            classes the share of (image, class) pairs.
        accuracy: share of right answers, likewise; None without labels.
        latency_ms: median, batch 1; on one thread, in TensorFlow on all.
        operations: of a TFLite file, how often each kind stands in it.
        problems: what is wrong with it, in words.
        notes: what the check leaves open, in words.
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
        """Whether nothing is wrong with it."""
        return not self.problems

    def __repr__(self) -> str:
        """One line, and one more for what is wrong."""
        said = f"FileCheck {self.file}: {verdict(asdict(self) | {'passed': self.passed})}"
        said += f", agreement {number(self.agreement, '.2%')} on {self.n:,} images"
        return f"{said}\n{'; '.join(self.problems)}" if self.problems else said

    def to_dict(self) -> dict[str, Any]:
        """For the manifest and `--json`."""
        lists = {"problems": list(self.problems), "notes": list(self.notes)}
        return {**asdict(self), **lists, "passed": self.passed}


def compare(
    files: dict[str, tuple[str, Runtime]], reference: Reference, keep_float: Sequence[str] = ()
) -> list[FileCheck]:
    """Check opened files ({name: (format, runtime)}) against the reference.

    `keep_float` are the layers of an int8 file that are to be in float32.
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
    found = FileCheck(
        file=name,
        format=kind,
        input_dtype=runtime.input_dtype,
        output_dtype=runtime.output_dtype,
        operations=runtime.operations if isinstance(runtime, TFLiteRuntime) else {},
        problems=tuple(problems),
        notes=runtime.notes,
    )
    if problems:  # values of another shape cannot be compared
        return found
    try:
        outputs = runtime.predict(reference.images)
    except NotFiniteError as error:
        return replace(found, problems=(str(error),))
    tolerance, answers = FORMATS[kind].tolerance, reference.answers
    pair, one = (outputs, reference.outputs), reference.one_class
    agreement = float(answers.same_up_to_ties(*pair, runtime.output_step, one=one).mean())
    snr_db = _signal_to_noise(*pair)
    logit_error = _logit_error(answers.logits(outputs), answers.logits(reference.outputs))
    if tolerance.logits is not None and not logit_error <= tolerance.logits:
        problems.append(
            f"error of the logits {logit_error:.2g} of the largest logit; at most "
            f"{tolerance.logits:g} is allowed for rounding"
        )
    if snr_db is not None and not snr_db >= tolerance.snr_db:
        problems.append(
            f"signal-to-noise {snr_db} dB, below {tolerance.snr_db:g} dB: the outputs are too far "
            "from the Keras model's"
        )
    spread = (tolerance.agreement * (1 - tolerance.agreement) / len(outputs)) ** 0.5
    if agreement < (least := tolerance.agreement - 2 * spread):
        problems.append(
            f"top-1 agreement {agreement:.2%}, below {least:.2%}: on too many of the "
            f"{len(outputs):,} images the file and the Keras model name different classes"
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
        "1. more calibration images, like the training images: export --calibration FOLDER",
        "2. ranges without outliers: export --calibration-method percentile",
        "3. find the layers that lose most: keras-resnet layers EXPORTS --worst",
        "4. keep those layers in float32: export --keep-float LAYER,… (tflite-int8)",
        "5. quantization-aware training: keras-resnet qat MODEL, then export its run",
    ]


_QUANTIZED = (*INT8_FORMATS, "tflite-int4", "tflite-int16x8", "tflite-dynamic", "onnx-int8")
_SATURATES = (
    "the file itself is right: without ONNX Runtime's optimizations (ORT_DISABLE_ALL) it passes. "
    "This CPU's int8 kernels saturate, as x86 CPUs without VNNI do with 8-bit weights. Export the "
    'file again, or run it with the session option "session.x64quantprecision" set to "1"'
)


def _with_blame(found: FileCheck, runtime: Runtime, reference: Reference) -> FileCheck:
    """Say so where an ONNX int8 file is right, and only what this CPU makes of it is wrong."""
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
    problems = [f"operations the plain runtime lacks: {flex}"] if flex else []
    if kind in INT8_FORMATS:
        problems += keep_float_problems(runtime.graph, keep_float, runtime.input_dtype == "float32")
    elif kind == "tflite-int4":
        problems += int4.problems(runtime.graph)
    return problems


def _logit_error(logits: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of the logits, relative to the largest |logit|.

    Probabilities hide errors where they saturate.
    """
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def _signal_to_noise(outputs: np.ndarray, expected: np.ndarray) -> float | None:
    noise = float(np.square(outputs - expected, dtype="float64").sum())
    signal = float(np.square(expected, dtype="float64").sum())
    return None if noise == 0 else round(10 * float(np.log10(signal / noise)), 1)


def median_latency(files: Sequence[Runtime], image: np.ndarray) -> list[float]:
    """Milliseconds per image of each, in rounds interleaved among the files of one runtime.

    Not among all: TensorFlow's idle threads go on spinning and double the time of a small LiteRT
    model that runs right after it. For the same reason a file's first run in a round is not timed.
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


def recorded_reference(folder: Path, model: Any = None) -> Reference:
    """The images that lie in an export folder, with the answers of its model, or of `model`.

    `model` gets the normalisation that the export put in front (`prepare.as_exported`).

    Raises:
        UserError: the record is missing or damaged, or `model` has other classes.
    """
    reference = read_reference(folder)
    if model is None:
        return reference
    exported = prepare.as_exported(model, manifest.read(folder))
    outputs = KerasRuntime(exported).predict(reference.images)
    if outputs.shape != reference.outputs.shape:
        raise UserError(f"The model has {outputs.shape[-1]} classes, the files have others.")
    return replace(reference, outputs=outputs)


def left_out(folder: Path) -> list[dict[str, str]]:
    """Which files of an export folder lack their engine here: a {"file", "reason"} for each.

    Raises:
        UserError: all of them, or no manifest.
    """
    return left_out_files(
        {
            entry["file"]: missing_engine(folder / entry["file"])
            or (missing("onnx", "onnx") if entry["format"] == "onnx-int8" else None)
            for entry in manifest.read(folder)["files"]
        }
    )


def check_folder(folder: str | Path, reference: Reference | None = None) -> list[FileCheck]:
    """Check an export folder: hashes first, then every file against the Keras model's answers.

    A file whose engine is not installed is left out, with a line on stderr; see `left_out`.

    Args:
        folder: what `export` wrote.
        reference: images with the answers to compare with; by default those recorded in the
            folder, so that this needs no model.

    Returns:
        A `FileCheck` of each file whose engine is installed, in the manifest's order.

    Raises:
        UserError: no manifest, a missing file, one whose hash is not the manifest's, or no file
            whose engine is installed.
    """
    folder = expanded(folder)
    recorded = manifest.read(folder)
    manifest.verify_hashes(folder, recorded)
    without = left_out(folder)
    print_left_out(without)
    absent = {item["file"] for item in without}
    reference = reference or recorded_reference(folder)
    files = {
        entry["file"]: (entry["format"], open_file(folder / entry["file"]))
        for entry in recorded["files"]
        if entry["file"] not in absent
    }
    return compare(files, reference, recorded.get("keep_float", ()))


_KERNELS = ("Conv", "Gemm", "MatMul")


def float_kernels(runtime: OnnxRuntime) -> list[str]:
    """The convolutions and dense layers of an ONNX file that compute in float."""
    made_by = {output: node.op_type for node in runtime.nodes for output in node.output}
    return [
        node.name
        for node in runtime.nodes
        if node.op_type in _KERNELS and made_by.get(node.input[0]) != "DequantizeLinear"
    ]

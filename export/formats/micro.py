"""int8 TFLite → C++ for TensorFlow Lite for Microcontrollers (TFLM): the model as an array, a main.

The arena is TFLM's working memory. TFLM's own Python interpreter measures its size, if it is
installed: `pip install "keras-resnet-zoo[micro]"`.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from keras_resnet.errors import MissingExtraError, UserError, require, warn
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.locate import ARRAY, ARRAY_START, HEADER
from keras_resnet.images.answers import LINEAR, Answers, numbered
from keras_resnet.lazy import quiet_stderr

_TEMPLATES = Path(__file__).parents[1] / "edge" / "micro"
_LARGEST = 64 * 2**20  # bytes; more than any microcontroller has
_PER_LINE = 16
_IRREGULAR = {"PADV2": "PadV2"}  # TFLM's names that do not follow the rule

_HEADER = Template("""\
// $name: an int8 TFLite file for TensorFlow Lite for Microcontrollers.

#ifndef MODEL_DATA_H_
#define MODEL_DATA_H_

#include <cstddef>

namespace model {

constexpr int kHeight = $height, kWidth = $width, kChannels = $channels;
// One output stands for two classes: above the threshold it is the second.
constexpr int kOutputs = $outputs, kClasses = $classes;
constexpr float kThreshold = $threshold;

// real value = (int8 - zero point) * scale
constexpr float kInputScale = ${input_scale}f, kOutputScale = ${output_scale}f;
constexpr int kInputZeroPoint = $input_zero, kOutputZeroPoint = $output_zero;

// Working memory. $arena
constexpr std::size_t kArenaBytes = $arena_bytes;

constexpr std::size_t kModelBytes = $bytes;
alignas(16) extern const unsigned char kModel[kModelBytes];
extern const char* const kLabels[kClasses];

}  // namespace model

#endif  // MODEL_DATA_H_
""")


def write(
    folder: Path, data: bytes, name: str, labels: Sequence[str] | None, answers: Answers
) -> None:
    """Write model_data.h, model_data.cc, main.cc and README.md.

    Args:
        folder: the folder to create.
        data: a TFLite file with int8 input and output.
        name: the model's name.
        labels: the class names; None for "class 0", ...
        answers: the rules for reading the outputs.

    Raises:
        UserError: TFLM is installed and cannot run the model.
    """
    (image,), (scores,) = _ends(data)
    _, height, width, channels = (int(size) for size in image.shape)
    kinds = sorted({item.kind for item in tflite_graph.operations(tflite_graph.read(data))})
    names = numbered(labels, answers.classes)
    values = {
        "name": name,
        "bytes": len(data),
        "height": height,
        "width": width,
        "channels": channels,
        "outputs": answers.outputs,
        "threshold": "0.0f" if answers.activation == LINEAR else "0.5f",
        "classes": len(names),
        **_quantization("input", image),
        **_quantization("output", scores),
        **_arena(data),
        "count": len(kinds),
        "operations": "\n".join(f"  TF_LITE_ENSURE_STATUS(resolver.{_adder(x)}());" for x in kinds),
    }
    folder.mkdir()
    (folder / HEADER).write_text(_HEADER.substitute(values), encoding="utf-8")
    (folder / ARRAY).write_text(_source(data, names), encoding="utf-8")
    for file in sorted(_TEMPLATES.iterdir()):
        text = Template(file.read_text(encoding="utf-8")).substitute(values)
        (folder / file.name).write_text(text, encoding="utf-8")


def measure_arena(data: bytes) -> int:
    """Return the smallest working memory, in bytes, in which TFLM's reference kernels run a file.

    Raises:
        MissingExtraError: tflite-micro is not installed.
        UserError: TFLM cannot run the file.
    """
    runtime = require("tflite_micro", "micro").runtime

    def suffices(size: int) -> bool:
        try:
            with quiet_stderr():  # TFLM prints every failure
                runtime.Interpreter.from_bytes(data, arena_size=size)
        except RuntimeError:
            return False
        return True

    if not suffices(_LARGEST):
        kinds = sorted({item.kind for item in tflite_graph.operations(tflite_graph.read(data))})
        raise UserError(
            "TensorFlow Lite for Microcontrollers cannot run this model. Either it lacks one of "
            f"the operations ({', '.join(kinds)}), or {_LARGEST // 2**20} MiB are not enough. "
            "Use a smaller model, or another format."
        )
    low, high = 0, _LARGEST
    while high - low > 16:  # TFLM's alignment
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _arena(data: bytes) -> dict[str, Any]:
    """Return the size of the arena, rounded up to KiB, and a note on its measurement."""
    try:
        used = measure_arena(data)
    except MissingExtraError as error:
        warn(
            "The working memory of the format micro was not measured, so main.cc does not compile "
            f"until kArenaBytes is set. To measure it, run: {error.command}, and export again."
        )
        return {"arena_bytes": 0, "arena": f"Not measured. {error.command},\n// and export again."}
    version = importlib.metadata.version("tflite-micro")
    how = f"{used} bytes by tflite-micro {version} on {platform.machine()}, with reference kernels"
    return {"arena_bytes": -(-used // 1024) * 1024, "arena": f"{how};\n// rounded up to KiB."}


def _ends(data: bytes) -> tuple[list[Any], list[Any]]:
    """Return the input tensors and the output tensors."""
    (graph,) = tflite_graph.read(data).subgraphs
    return [graph.tensors[i] for i in graph.inputs], [graph.tensors[i] for i in graph.outputs]


def _quantization(end: str, tensor: Any) -> dict[str, Any]:
    quantization = tensor.quantization
    scale, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    return {f"{end}_scale": repr(scale), f"{end}_zero": zero}


def _adder(kind: str) -> str:
    """Return the resolver's method, e.g. AddDepthwiseConv2D for DEPTHWISE_CONV_2D."""
    return "Add" + _IRREGULAR.get(kind, kind.title().replace("_", ""))


def _source(data: bytes, labels: Sequence[str]) -> str:
    rows = (data[start : start + _PER_LINE] for start in range(0, len(data), _PER_LINE))
    lines = "".join(f"    {', '.join(f'0x{byte:02x}' for byte in row)},\n" for row in rows)
    names = "".join(f"    {_quoted(label)},\n" for label in labels)
    return (
        '#include "model_data.h"\n\nnamespace model {\n\n'
        f"{ARRAY_START}{lines}}};\n\n"
        f"const char* const kLabels[kClasses] = {{\n{names}}};\n\n"
        "}  // namespace model\n"
    )


def _quoted(text: str) -> str:
    """Return a C++ string literal, with three-digit octal escapes for all but plain ASCII."""
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(x) if x in plain else f"\\{x:03o}" for x in text.encode()) + '"'

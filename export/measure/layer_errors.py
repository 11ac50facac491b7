"""Measure the error of each layer in a quantized TFLite file: `measure(float, int8, images)`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.arguments import checked
from keras_resnet.display import figures
from keras_resnet.display.bars import progress
from keras_resnet.display.console import table_text
from keras_resnet.display.notebook import html_table
from keras_resnet.errors import UserError
from keras_resnet.export.measure.probe import Primed, Probe
from keras_resnet.export.runtimes.tflite_graph import Operation
from keras_resnet.export.runtimes.trial import require_survived
from keras_resnet.files import expanded


@dataclass(frozen=True)
class LayerError:
    """The effect of quantization on the output of one operation.

    An SNR is infinite if both outputs are equal bit for bit.

    Attributes:
        layer: the Keras layer, as the file names it; the input, if that is quantized.
        operation: the operation in the file, with everything fused into it: CONV_2D, ADD, ...
        snr_db: signal-to-noise ratio of the output against the float file: the error so far.
        own_snr_db: the same, but the float operation reads the quantized file's inputs. It
            measures only the error that the quantized operation adds, by its weights, its sums and
            the grid of its output.
        weight_snr_db: the SNR of its kernel; None without a kernel.
        range_used: range of the values (of the float operation on the quantized file's inputs)
            divided by the range of the output's grid; None if the output is float.
        clipped: the share of those values outside the grid.
        read_by: the layers that read the output. Integer layers read it from the grid. So a layer
            gains little from float32 unless these layers are float32 too.
    """

    layer: str
    operation: str
    snr_db: float
    own_snr_db: float
    weight_snr_db: float | None
    range_used: float | None
    clipped: float | None
    read_by: tuple[str, ...] = ()


_HEADER = ("layer", "operation", "so far dB", "own dB", "weights dB", "range", "clipped")


def _cells(row: LayerError) -> list[str]:
    return [
        row.layer,
        row.operation,
        _decibels(row.snr_db),
        _decibels(row.own_snr_db),
        _decibels(row.weight_snr_db),
        "–" if row.range_used is None else f"{row.range_used:.0%}",
        "–" if row.clipped is None else f"{row.clipped:.2%}",
    ]


@dataclass(frozen=True)
class LayerErrors:
    """The errors of all layers in a pair of files; `str()` is a table.

    Attributes:
        float_file: the float32 file's name.
        quantized_file: the quantized file's name.
        n: number of images.
        layers: one per operation that both files have, in the order they run.
        unmatched: layers of the float file without a counterpart in the quantized file.
    """

    float_file: str
    quantized_file: str
    n: int
    layers: tuple[LayerError, ...]
    unmatched: tuple[str, ...]

    def worst(self) -> list[LayerError]:
        """Return the layers, sorted by the error they add, largest first."""
        return sorted(self.layers, key=lambda item: item.own_snr_db)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON.

        An infinite ratio is null, and `exact` lists the layers that add no error.
        """
        content = asdict(self)
        content["exact"] = [row.layer for row in self.layers if row.own_snr_db == math.inf]
        content["layers"] = [
            {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in row.items()}
            for row in content["layers"]
        ]
        return content

    def table(self, rows: Sequence[LayerError]) -> str:
        """Return `rows` as a text table."""
        return table_text(self._title(), _HEADER, [_cells(row) for row in rows], text_columns=2)

    def __repr__(self) -> str:
        """Return two lines: the files compared, and the layer that adds most to the error."""
        said = f"LayerErrors: {self._title()}, {len(self.layers)} layers"
        if not self.layers:
            return said
        worst = self.worst()[0]
        return f"{said}\nworst: {worst.layer}, own error {_decibels(worst.own_snr_db)} dB"

    def _repr_html_(self) -> str:
        return html_table(_HEADER, map(_cells, self.layers), self._title(), text_columns=2)

    def _title(self) -> str:
        return f"{self.quantized_file} against {self.float_file} on {self.n} images"

    def __str__(self) -> str:
        """Return the table, in the order the operations run."""
        return self.table(self.layers)

    def picture(self, path: str | Path) -> None:
        """Draw the errors as bars to a `.svg`, `.png` or `.pdf`, in percent of the signal.

        Raises:
            UserError: see `figures.require_writable`.
            MissingExtraError: matplotlib is not installed.
        """
        fields: dict[str, Sequence[float | None]] = {
            "error so far": [row.snr_db for row in self.layers],
            "the layer's own": [row.own_snr_db for row in self.layers],
            "of its weights": [row.weight_snr_db for row in self.layers],
        }
        columns = [
            figures.Column(title, [_percent(snr) for snr in values], "{:.1f} %".format)
            for title, values in fields.items()
        ]
        title = f"{self.quantized_file}: error in percent of the signal, on {self.n} images"
        drawn = figures.bars(title, [row.layer for row in self.layers], columns)
        figures.save(drawn, expanded(path))


@dataclass(frozen=True)
class _Pair:
    """The same result in both files: its tensor in the float and in the quantized file."""

    layer: str
    operation: str
    tensors: tuple[int, int]
    kernels: tuple[int, int] | None = None


@checked
def measure(float_file: str | Path, quantized_file: str | Path, images: np.ndarray) -> LayerErrors:
    """Compare two files on `images`, operation by operation.

    Both files run on LiteRT's own kernels, because their intermediate results can be read.
    Normally files run on XNNPACK, which may round some results differently.

    Args:
        float_file: a float32 `.tflite`.
        quantized_file: the same network in int8, int16x8, float16, dynamic or int4. It may come
            from another tool: operations without a common name are matched by kind, shape and
            order.
        images: (n, height, width, channels) as the float file takes them.

    Returns:
        `LayerErrors`: a `LayerError` for the input, if that is quantized, and for each operation
        that both files have.

    Raises:
        UserError: files of different networks or weights, images of another size, or outputs that
            are NaN.
    """
    images = np.asarray(images)
    require_survived([expanded(float_file), expanded(quantized_file)])
    files = Probe(float_file), Probe(quantized_file)
    _require_float(files[0])
    for file in files:
        file.runtime.require_images(images)
        file.runtime.predict(images[:1])  # refuses NaN
    matched = _match(*files)
    if len(matched) < len(files[0].operations) / 2:
        raise UserError(
            f"{quantized_file} is not a quantized version of {float_file}: only {len(matched)} of "
            f"{len(files[0].operations)} operations have a counterpart. Give two files of one "
            "model."
        )
    pairs = _pairs(files, matched)
    sums = _run(files, pairs, images)  # before the kernels: some are dequantized during the run
    kernels = [_kernel_snr(files, pair) for pair in pairs]
    _require_same_weights(files, [snr for snr in kernels if snr is not None])
    layers = [
        LayerError(
            pair.layer,
            pair.operation,
            *total.ratios(),
            snr,
            *total.range(),
            read_by=_readers(files[0], pair.tensors[0]),
        )
        for pair, total, snr in zip(pairs, sums, kernels, strict=True)
    ]
    found = {id(item) for item, _ in matched}
    missing = dict.fromkeys(x.layer for x in files[0].operations if id(x) not in found)
    names = files[0].path.name, files[1].path.name
    return LayerErrors(*names, len(images), tuple(layers), tuple(missing))


def _require_float(file: Probe) -> None:
    integers = {item.kernel for item in file.operations} - {"", "FLOAT32"}
    if integers or file.runtime.input_dtype != "float32":
        raise UserError(
            f"The first file must be float32; {file.path} is quantized. Give the float32 file "
            "first, then the quantized one."
        )


def _require_same_weights(files: tuple[Probe, Probe], kernels: list[float]) -> None:
    if kernels and float(np.median(kernels)) < 0:  # even 4-bit weights have more than 15 dB
        raise UserError(
            f"{files[1].path} has the same operations as {files[0].path}, but different weights. "
            "Give two files of one model."
        )


def _match(first: Probe, second: Probe) -> list[tuple[Operation, Operation]]:
    """Match operations by unique names; match the others by kind, shape and order."""
    both = [[(x.kind, x.layer, file.shape(x)) for x in file.operations] for file in (first, second)]
    once = [{key for key, count in Counter(keys).items() if count == 1} for keys in both]
    common = once[0] & once[1]
    found = {both[0].index(key): both[1].index(key) for key in common}
    left = [[i for i, key in enumerate(keys) if key not in common] for keys in both]
    kinds = [[both[k][i][::2] for i in left[k]] for k in (0, 1)]
    for block in SequenceMatcher(None, kinds[0], kinds[1], autojunk=False).get_matching_blocks():
        for k in range(block.size):
            found[left[0][block.a + k]] = left[1][block.b + k]
    return [(first.operations[i], second.operations[j]) for i, j in sorted(found.items())]


def _pairs(files: tuple[Probe, Probe], matched: list[tuple[Operation, Operation]]) -> list[_Pair]:
    pairs = []
    if files[1].grid(files[1].input):
        name = files[0].runtime.input_name
        pairs.append(_Pair(name, "INPUT", (files[0].input, files[1].input)))
    for mine, theirs in matched:
        kernels = (mine.inputs[1], theirs.inputs[1]) if mine.kernel and theirs.kernel else None
        tensors = (mine.outputs[0], theirs.outputs[0])
        pairs.append(_Pair(mine.layer, mine.kind, tensors, kernels))
    return pairs


def _readers(file: Probe, tensor: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(x.layer for x in file.operations if tensor in x.inputs))


class _Sums:
    """Sums of squares and extreme values of one result, over all images."""

    def __init__(self, grid: tuple[float, float, float] | None) -> None:
        self._grid = grid
        self._signal = self._noise = self._own_signal = self._own_noise = 0.0
        self._least, self._most = math.inf, -math.inf
        self._beyond = self._count = 0

    def add(self, expected: np.ndarray, found: np.ndarray, own: np.ndarray) -> None:
        """Add one image's results.

        Args:
            expected: the float file's result.
            found: the quantized file's result.
            own: the float operation's result on the quantized file's inputs.
        """
        self._signal += _energy(expected)
        self._noise += _energy(expected - found)
        self._own_signal += _energy(own)
        self._own_noise += _energy(own - found)
        self._least = min(self._least, float(own.min()))
        self._most = max(self._most, float(own.max()))
        if self._grid is not None:
            low, high, step = self._grid
            self._beyond += int(((own < low - step / 2) | (own > high + step / 2)).sum())
            self._count += own.size

    def ratios(self) -> tuple[float, float]:
        """Return the SNR so far and the operation's own SNR, in decibels."""
        return _ratio(self._signal, self._noise), _ratio(self._own_signal, self._own_noise)

    def range(self) -> tuple[float | None, float | None]:
        """Return the used part of the grid, and the share of values outside it."""
        if self._grid is None:
            return None, None
        low, high, _ = self._grid
        return (self._most - self._least) / (high - low), self._beyond / self._count


def _run(files: tuple[Probe, Probe], pairs: list[_Pair], images: np.ndarray) -> list[_Sums]:
    inputs = files[0].input, files[1].input
    places = dict([inputs, *(pair.tensors for pair in pairs)])
    primed = Primed(files[0].data, places)
    sums = [_Sums(files[1].grid(pair.tensors[1])) for pair in pairs]
    with progress("images", len(images)) as advance:
        for image in images:
            for file in files:
                file.run(image)
            found = {mine: files[1].value(theirs) for mine, theirs in places.items()}
            own = primed.run(found)
            for pair, total in zip(pairs, sums, strict=True):
                expected = files[0].value(pair.tensors[0])
                total.add(expected, found[pair.tensors[0]], own.get(pair.tensors[0], expected))
            advance(1)
    return sums


def _kernel_snr(files: tuple[Probe, Probe], pair: _Pair) -> float | None:
    if pair.kernels is None:
        return None
    mine, theirs = (file.value(i) for file, i in zip(files, pair.kernels, strict=True))
    return _ratio(_energy(mine), _energy(mine - theirs)) if mine.shape == theirs.shape else None


def _energy(values: np.ndarray) -> float:
    return float(np.square(values, dtype="float64").sum())


def _ratio(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _decibels(ratio: float | None) -> str:
    return "–" if ratio is None else "exact" if ratio == math.inf else f"{ratio:.1f}"


def _percent(ratio: float | None) -> float:
    """Return noise over signal, as amplitudes in percent; at most 100."""
    return 0.0 if ratio is None else min(100.0, 100 * 10 ** (-ratio / 20))

"""Count the memory, the parameters and the multiply-adds of a network, layer by layer.

All counts follow from the layers' configs and shapes; the network does not run. The conventions:

- **Multiply-adds** are those of convolutions and dense layers. One multiplication with its addition
  counts as 1 (`multiply_add=2` shows FLOP, twice that). Biases, BN, activations, pooling, additions
  and the scaling by a gate do not count. He 2015 ("FLOPs (multiply-adds)"), torchvision's model
  table ("GFLOPS") and timm ("GMACs") count the same way; fvcore also counts BN and pooling.
- **Parameters** are Keras' parameters. They include BN's moving statistics, as not trainable.
  (PyTorch calls these buffers and does not count them.) A shared layer has its parameters in its
  first call only.
- **Activation bytes** are those of the new tensor that a layer writes for one image, in the dtype
  that it writes. Elementwise layers with one input (BN, activations, dropout, reshapes, ...)
  overwrite the input if nothing else reads it, and then count 0. So it does not matter whether a
  ReLU is a layer or part of another, and a BN that folds into a convolution costs nothing. Training
  keeps more tensors.
- **Peak activation bytes** are the largest sum of tensors that are live at the same time, in the
  order in which Keras runs the layers. A tensor lives from the layer that writes it to the last
  layer that reads it, so the inputs and outputs of a layer are live together (the image, too). A
  microcontroller's runtime needs at least this for its arena, in its own dtype (int8: a quarter).
- **The receptive field** is the extent of the pixels that a value depends on, along the longest
  path. It includes padding, so it may be larger than the image. None means the whole image. `jump`
  is the distance between the fields of neighbouring values.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_resnet import registry
from keras_resnet.analysis.graph import Count, Graph, InputShape, LayerCount
from keras_resnet.analysis.layer_rules import Pair
from keras_resnet.arguments import checked
from keras_resnet.display import figures
from keras_resnet.display.console import table_text
from keras_resnet.display.notebook import html_table
from keras_resnet.errors import UserError
from keras_resnet.files import expanded, replacing, require_file_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHART_ROWS = 60  # most bars in a picture: layers, or if there are more, blocks, or stages


@dataclass(frozen=True)
class Profile:
    """The counts of one network. `str()` returns a table of its layers.

    Attributes:
        model: name of the network.
        input_shape: (height, width, channels).
        multiply_add: the number, 1 or 2, that one multiply-add counts in everything shown. The
            `multiply_adds` of the counts are always multiply-adds.
        layers: counts of the layers, in the order in which Keras runs them.
        stages: sums over the layers of each stage.
        total: sum over all layers.
        peak_activation_bytes: most memory that one image's tensors need at the same time.
    """

    model: str
    input_shape: tuple[int, ...]
    multiply_add: int
    layers: tuple[LayerCount, ...]
    stages: tuple[Count, ...]
    total: Count
    peak_activation_bytes: int

    def __str__(self) -> str:
        """Return the tables of all layers, of the stages, and of the sum."""
        return "\n\n".join((self._layer_table(), self._stage_table()))

    def __repr__(self) -> str:
        """Return two lines: the cost of the network, and how to see each layer."""
        return f"{self._summary()}\nprint() shows each layer, .figure() draws them."

    def _repr_html_(self) -> str:
        note = "<p><code>print()</code> shows each layer, <code>.figure()</code> draws them.</p>"
        return self.stage_html(self._summary()) + note

    def stage_html(self, caption: str = "") -> str:
        """Return the HTML table of the stages and their sum."""
        return html_table(("stage", *self._headings()), self._stage_rows(), caption)

    def _stage_rows(self) -> list[list[str]]:
        return [[stage.name, *self._cells(stage)] for stage in (*self.stages, self.total)]

    def _summary(self) -> str:
        operations = figures.decimal(self.total.multiply_adds * self.multiply_add)
        return (
            f"Profile of {self.model} on {_flat(self.input_shape)}: {self.total.parameters:,} "
            f"parameters, {operations} {self._headings()[2]}, peak activations "
            f"{figures.binary(self.peak_activation_bytes)}"
        )

    def to_csv(self, path: str | Path) -> None:
        """Write one line per layer, shapes as 56x56x64.

        Raises:
            UserError: see `require_file_target`.
        """
        rows = [self._shown(layer) for layer in self.layers]
        path = expanded(path)
        require_file_target(path, "--csv")
        with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow({key: _flat(value) for key, value in row.items()})

    def to_json(self) -> str:
        """Return one JSON object: model, input_shape, multiply_add, peak, total, stages, layers."""
        content = {
            "model": self.model,
            "input_shape": self.input_shape,
            "multiply_add": self.multiply_add,
            "peak_activation_bytes": self.peak_activation_bytes,
            "total": self._shown(self.total),
            "stages": [self._shown(stage) for stage in self.stages],
            "layers": [self._shown(layer) for layer in self.layers],
        }
        return json.dumps(content, indent=2)

    def picture(self, path: str | Path) -> None:
        """Write the `figure` to a `.svg`, `.png` or `.pdf`.

        Raises:
            UserError: see `figures.require_writable`.
            MissingExtraError: matplotlib is not installed.
        """
        figures.save(self.figure(), expanded(path))

    def figure(self) -> Figure:
        """Draw bars of activation memory, parameters and multiply-adds.

        A bar is a layer with a kernel and the layers after it, up to the next layer with a kernel.
        If there are more than 60, a bar is a residual unit, or a stage. The bars of a column sum to
        its total.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        peak = figures.binary(self.peak_activation_bytes)
        operations = "multiply-adds" if self.multiply_add == 1 else "FLOP"
        columns = [
            self._column(f"activations (peak {peak})", "activation_bytes", figures.binary),
            self._column("parameters", "parameters", figures.decimal),
            self._column(operations, "multiply_adds", figures.decimal, self.multiply_add),
        ]
        names = [row.name for row in self._bars()]
        return figures.bars(f"{self.model}, {_flat(self.input_shape)}", names, columns)

    def _column(
        self, title: str, field: str, label: Callable[[int], str], times: int = 1
    ) -> figures.Column:
        values = [times * getattr(row, field) for row in self._bars()]
        return figures.Column(f"{label(sum(values))} {title}", values, label)

    def _bars(self) -> list[Count]:
        for key in ("follows", "block"):
            rows = _sums(self.layers, key)
            if len(rows) <= _CHART_ROWS:
                return rows
        return list(self.stages)

    def _shown(self, count: Count) -> dict[str, Any]:
        """Return the fields of a count. If one multiply-add counts 2, `multiply_adds` is `flop`."""
        row = asdict(count)
        if isinstance(count, LayerCount):
            row = {"name": row.pop("name"), "type": row.pop("type"), "stage": count.stage, **row}
        if self.multiply_add == 1:
            return row
        renamed = {"multiply_adds": "flop"}
        row["multiply_adds"] *= self.multiply_add
        return {renamed.get(key, key): value for key, value in row.items()}

    def _layer_table(self) -> str:
        header = ("layer", "type", "output", *self._headings(), "field", "jump")
        rows = [
            [
                *(layer.name, layer.type, _flat(layer.output_shape), *self._cells(layer)),
                *(_side(layer.receptive_field), _side(layer.jump, "–")),
            ]
            for layer in self.layers
        ]
        title = f"{self.model} on {_flat(self.input_shape)}, one image"
        return table_text(title, header, rows, text_columns=2)

    def _stage_table(self) -> str:
        table = table_text("Per stage", ("stage", *self._headings()), self._stage_rows())
        return f"{table}\n\nPeak of live activations: {self.peak_activation_bytes / 1024:,.1f} KiB"

    def _headings(self) -> tuple[str, ...]:
        operations = "multiply-adds" if self.multiply_add == 1 else "FLOP"
        return "parameters", "not trainable", operations, "KiB"

    def _cells(self, count: Count) -> list[str]:
        operations = count.multiply_adds * self.multiply_add
        numbers = (count.parameters, count.non_trainable, operations)
        return [*(f"{number:,}" for number in numbers), f"{count.activation_bytes / 1024:,.1f}"]


@checked
def profile(
    model_or_name: keras.Model | str,
    input_shape: InputShape | None = None,
    *,
    multiply_add: int = 1,
) -> Profile:
    """Count the parameters, operations and memory of every layer, without running the network.

    Args:
        model_or_name: any functional or sequential Keras model for images, or a registry name.
        input_shape: (height, width, channels). The default is the model's own.
        multiply_add: 1 or 2: the number that a multiplication with its addition counts. 2 gives
            FLOP.

    Returns:
        The `Profile` for one image: a `LayerCount` for each layer, a `Count` for each stage and for
        the total, and the peak of the activation memory.

    Raises:
        UnknownNameError: there is no network with that name.
        UserError: the model has no fixed image size and there is no `input_shape`, the model does
            not take that shape, it is subclassed or nested, or a layer has no rule.
    """
    if multiply_add not in (1, 2):
        raise UserError(f"multiply_add must be 1 or 2; received {multiply_add!r}.")
    if isinstance(model_or_name, str):
        shape = None if input_shape is None else tuple(input_shape)
        model = registry.create_model(model_or_name, weights=None, input_shape=shape)
        graph = Graph(model)
    else:
        model = model_or_name
        graph = Graph(model, input_shape)
    layers = tuple(graph.count())
    return Profile(
        model=model.name,
        input_shape=graph.input_shape,
        multiply_add=multiply_add,
        layers=layers,
        stages=tuple(_sums(layers, "stage")),
        total=_sum("total", layers),
        peak_activation_bytes=graph.peak_bytes(),
    )


# Sums and text ------------------------------------------------------------------------------------


def _sum(name: str, counts: Iterable[Count]) -> Count:
    counts = list(counts)
    fields = ("trainable", "non_trainable", "multiply_adds", "activation_bytes")
    return Count(name, *(sum(getattr(count, field) for count in counts) for field in fields))


def _sums(layers: Sequence[LayerCount], key: str) -> list[Count]:
    """Sum the layers that share an attribute, in the order of their first layer."""
    names = list(dict.fromkeys(getattr(layer, key) for layer in layers))
    ordered = sorted(layers, key=lambda layer: names.index(getattr(layer, key)))
    return [_sum(name, group) for name, group in groupby(ordered, lambda x: getattr(x, key))]


def _flat(value: Any) -> Any:
    """Return a shape or a pair as text for one cell, e.g. 56x56x64."""
    return "x".join(map(str, value)) if isinstance(value, (tuple, list)) else value


def _side(pair: Pair | None, missing: str = "all") -> str:
    if pair is None:
        return missing
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"

"""How a float model becomes an int8 file: one value, handed from the call to the converter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.export.formats import int8_ranges, keep_float

INPUT_TYPES = ("uint8", "int8", "float32")


@dataclass(frozen=True)
class Quantization:
    """The choices of an int8 conversion.

    Attributes:
        method: how the ranges of the activations come from the calibration images; see
            `int8_ranges.parse`.
        input_type: type of the file's input and output, one of `INPUT_TYPES`.
        keep_float: layers that stay in float32, by name.
    """

    method: str = int8_ranges.MIN_MAX
    input_type: str = "uint8"
    keep_float: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check what can be checked without a model.

        Raises:
            UserError: an impossible value of the method, or a string in place of a list of layers.
            UnknownNameError: an unknown method or input type; the message has the nearest one.
        """
        int8_ranges.parse(self.method)
        if self.input_type not in INPUT_TYPES:
            raise UnknownNameError("input type", self.input_type, INPUT_TYPES, "")
        if isinstance(self.keep_float, str):
            raise UserError(f"keep_float is a list of layers' names; received {self.keep_float!r}.")

    @property
    def measures_min_max(self) -> bool:
        """Whether TensorFlow's converter alone can do it: it knows this method and no layers."""
        return self.method == int8_ranges.MIN_MAX and not self.keep_float

    def require_formats(self, formats: Sequence[str]) -> None:
        """Refuse choices that none of `formats` has a use for.

        Raises:
            UserError: there is no int8 file among them.
        """
        if not set(keep_float.INT8_FORMATS).isdisjoint(formats):
            return
        for option, chosen in (
            ("calibration_method", self.method != int8_ranges.MIN_MAX),
            ("keep_float", bool(self.keep_float)),
        ):
            if chosen:
                raise UserError(
                    f"{option} is for {' and '.join(keep_float.INT8_FORMATS)}; the formats are "
                    f"{', '.join(formats)}."
                )

    def require_model(self, model: Any, formats: Sequence[str]) -> None:
        """Refuse what does not fit the Keras model.

        Raises:
            UserError: `model` was trained quantized, and a format or a choice is not for such.
            UnknownNameError: `keep_float` has an unknown layer; the message has the nearest one.
        """
        keep_float.require_layers(self.keep_float, model)
        if not int8_ranges.has_ranges(model):
            return
        others = [kind for kind in formats if kind not in int8_ranges.TRAINED_FORMATS]
        if others:
            raise UserError(
                f"'{model.name}' was trained for int8 and rounds as such a file does; formats are "
                f"{', '.join(int8_ranges.TRAINED_FORMATS)}; received {others[0]}. Export the float "
                "model it was made from for the others."
            )
        if not self.measures_min_max:
            raise UserError(
                f"'{model.name}' was trained for int8 with ranges of its own; drop keep_float and "
                "calibration_method."
            )


DEFAULT = Quantization()

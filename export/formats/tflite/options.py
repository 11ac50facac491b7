"""The options of an int8 conversion, passed as one value from `export` to the converter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.export.formats.tflite import keep_float, ranges

INPUT_TYPES = ("uint8", "int8", "float32")


@dataclass(frozen=True)
class Quantization:
    """The options of an int8 conversion.

    Attributes:
        method: the method that sets the ranges of the activations from the calibration images;
            see `ranges.parse`.
        input_type: type of the file's input and output, one of `INPUT_TYPES`.
        keep_float: names of layers that stay in float32.
    """

    method: str = ranges.MIN_MAX
    input_type: str = "uint8"
    keep_float: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the options that can be checked without a model.

        Raises:
            UserError: a value that the method does not allow, or a string instead of a list of
                layers.
            UnknownNameError: an unknown method or input type; the message suggests the nearest.
        """
        ranges.parse(self.method)
        if self.input_type not in INPUT_TYPES:
            raise UnknownNameError("input type", self.input_type, INPUT_TYPES, "")
        if isinstance(self.keep_float, str):
            raise UserError(
                f"keep_float must be a list of layer names; received the string "
                f"{self.keep_float!r}. Write keep_float=[{self.keep_float!r}]."
            )

    def require_formats(self, formats: Sequence[str]) -> None:
        """Refuse options that none of `formats` can use.

        Raises:
            UserError: an option is set, but no int8 format is requested.
        """
        if not set(keep_float.INT8_FORMATS).isdisjoint(formats):
            return
        for option, chosen in (
            ("calibration_method", self.method != ranges.MIN_MAX),
            ("keep_float", bool(self.keep_float)),
        ):
            if chosen:
                raise UserError(
                    f"{option} applies only to {' and '.join(keep_float.INT8_FORMATS)}; received "
                    f"the formats {', '.join(formats)}. Add one of them, or drop {option}."
                )

    def require_model(self, model: Any, formats: Sequence[str]) -> None:
        """Refuse formats and options that do not fit the Keras model.

        Raises:
            UserError: `model` is quantization-aware, and a format or an option does not allow that.
            UnknownNameError: `keep_float` has an unknown layer; the message suggests the nearest.
        """
        keep_float.require_layers(self.keep_float, model)
        if not ranges.has_ranges(model):
            return
        others = [kind for kind in formats if kind not in ranges.TRAINED_FORMATS]
        if others:
            raise UserError(
                f"'{model.name}' is a quantization-aware model, so its formats are limited to "
                f"{', '.join(ranges.TRAINED_FORMATS)}; received {others[0]}. For other "
                "formats, export the float model that it was trained from."
            )
        if self.method != ranges.MIN_MAX or self.keep_float:
            raise UserError(
                f"'{model.name}' is a quantization-aware model with trained ranges; drop "
                "keep_float and calibration_method."
            )


DEFAULT = Quantization()

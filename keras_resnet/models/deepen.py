"""The constructed solution: a deeper network that computes what a shallower one does.

"There exists a solution by construction to the deeper model: the added layers are identity mapping,
and the other layers are copied from the learned shallower model" (He 2015, arXiv:1512.03385,
section 1). In a residual network an added unit is the identity once the last weights of F are zero.
"""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np

from keras_resnet import keras_compat
from keras_resnet.errors import UserError
from keras_resnet.models.network import allow_recursion

# What a unit y = f(x + F(x)) is made of, by the names of its layers; gates, scales and the BN after
# an addition make another y.
_RESIDUAL = re.compile(r"(conv|bn|relu|pad|drop)\d|drop_path|se_\w+|add|out_relu")
_SHORTCUT = re.compile(r"shortcut_(conv|bn|pool|pad|subsample)")
_PLAIN = ["conv1", "bn1", "relu1", "conv2", "bn2", "out_relu"]


def deepen(model: keras.Model, stage: int, units: int = 1) -> keras.Model:
    """Return a copy of `model` with `units` more units in `stage`, and the same outputs.

    It is the solution by construction of He 2015 (arXiv:1512.03385, section 1): the added layers
    are identity mappings, the others copies. The new units stand at the end of the stage (before
    the unit that strides, where that is the last: Keras Applications' v2). They are like the last
    one, with identity shortcuts. F(x) = 0, for the gamma and beta of its last BN are zero or, in
    pre-activation, its last kernel is; its other weights are new. The first training step changes
    those zeros, later ones the rest too.

    In a plain network the new layers copy their input: kernels of a single 1, and a BN whose
    statistics change nothing. That holds in inference only, training takes the batch's statistics.

    Args:
        model: a residual or plain network of this zoo, also one loaded from a file.
        stage: 1, 2, ...
        units: how many to add.

    Returns:
        A model of the same name, inputs and outputs, its layers named as if it had been built so
        deep.

    Raises:
        UserError: not such a network, no such stage, or units that cannot be identities.
    """
    if units < 1:
        raise UserError(f"units is 1 or more; received {units}.")
    all_units = _units(model)
    numbers = [number for found, number in all_units if found == stage]
    if not numbers:
        stages = ", ".join(map(str, sorted({found for found, _ in all_units})))
        raise UserError(f"'{model.name}' has the stages {stages}; received {stage!r}.")
    end, last = numbers[-1], numbers[-1]
    if _strides(all_units[stage, last]) and any(
        _strides(unit) for (found, _), unit in all_units.items() if found == 1
    ):
        if len(numbers) == 1:
            raise UserError(
                f"The only unit of stage {stage} halves the resolution at its end, so none can "
                "stand before it. Choose another stage."
            )
        end = numbers[-2]
    allow_recursion(len(all_units) + units)
    return _grown(model, all_units[stage, end], stage, range(end + 1, end + units + 1), last)


def _units(model: keras.Model) -> dict[tuple[int, int], dict[str, Any]]:
    """The units by stage and number; a unit is its layers by the rest of their names."""
    units: dict[tuple[int, int], dict[str, Any]] = {}
    for layer in model.layers:
        if match := re.fullmatch(r"stage(\d+)_block(\d+)_(\w+)", layer.name):
            units.setdefault((int(match[1]), int(match[2])), {})[match[3]] = layer
    if not units:
        raise UserError(
            f"'{model.name}' has no layers of residual units (stage1_block1_conv1, ...), so none "
            "can be added."
        )
    return dict(sorted(units.items()))


def _strides(unit: dict[str, Any]) -> bool:
    return any(max(getattr(layer, "strides", (1,))) > 1 for layer in unit.values())


def _template(unit: dict[str, Any]) -> dict[str, Any]:
    """The layers of a unit that a new one copies: all but those of its shortcut.

    Raises:
        UserError: such a unit cannot be the identity and learn.
    """
    kept = {kind: layer for kind, layer in unit.items() if not _SHORTCUT.fullmatch(kind)}
    for kind, layer in kept.items():
        if not _RESIDUAL.fullmatch(kind):
            raise UserError(
                f"Identity units are y = x + F(x) with F(x) = 0; '{layer.name}' makes this "
                "another unit."
            )
    kinds, (conv, _) = list(kept), _last(kept)
    if "add" not in kept:
        if [kind for kind in kinds if not kind.startswith("pad")] != _PLAIN:
            raise UserError(f"'{kept[conv].name}' is in no unit that can be the identity.")
    elif conv.replace("conv", "relu") in kinds[kinds.index(conv) :]:
        raise UserError(
            f"F ends in the ReLU '{kept[conv.replace('conv', 'relu')].name}', which passes no "
            "gradient at F(x) = 0: the new units could not learn."
        )
    return kept


def _last(unit: dict[str, Any]) -> tuple[str, str | None]:
    """The last convolution of a unit and, if one follows, its BN."""
    kinds = list(unit)
    conv = max(kind for kind in kinds if re.fullmatch(r"conv\d", kind))
    bn = conv.replace("conv", "bn")
    return conv, bn if bn in kinds[kinds.index(conv) :] else None


def _grown(
    model: keras.Model, unit: dict[str, Any], stage: int, numbers: range, last: int
) -> keras.Model:
    """Copy `model`, with units of those numbers behind `unit`.

    If that is not the `last`, the last is renamed to come after them.
    """
    template = _template(unit)
    end = list(template.values())[-1].name
    before, after = f"stage{stage}_block{last}_", f"stage{stage}_block{last + len(numbers)}_"
    renames = last in numbers

    def new_name(name: str) -> str:
        return name.replace(before, after) if renames else name

    def rebuild(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "name": new_name(layer.name)})

    def call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        x = layer(*arguments, **keywords)
        for number in numbers if layer.name == end else ():
            x = _identity_unit(x, template, f"stage{stage}_block{number}_")
        return x

    deeper = keras.models.clone_model(model, clone_function=rebuild, call_function=call)
    for layer in model.layers:
        deeper.get_layer(new_name(layer.name)).set_weights(layer.get_weights())
    return deeper


def _identity_unit(x: Any, template: dict[str, Any], prefix: str) -> Any:
    """Call copies of the template's layers on `x`, at stride 1, and make them the identity."""
    outputs: dict[int, Any] = {}  # by the operation they are copies of; all else is the unit's x
    copies: dict[str, Any] = {}
    y = x
    for kind, layer in template.items():
        tensors = keras_compat.calls_of(layer)[0].inputs
        inputs = [outputs.get(id(keras_compat.producer(tensor)), x) for tensor in tensors]
        if kind == "add":
            inputs[0] = x  # h(x), where the template's may be an activation or a projection
        config = {**layer.get_config(), "name": prefix + kind}
        if isinstance(layer, keras.layers.Conv2D):
            config["strides"] = 1
        copies[kind] = type(layer).from_config(config)
        y = outputs[id(layer)] = copies[kind](inputs if len(inputs) > 1 else inputs[0])
    if "add" in copies:
        _zero(copies)
    else:
        _copy_input(copies)
    return y


def _zero(unit: dict[str, Any]) -> None:
    """F(x) = 0."""
    conv, bn = _last(unit)
    if bn is None:
        unit[conv].set_weights([np.zeros(weight.shape) for weight in unit[conv].weights])
    else:
        gamma, beta, *statistics = unit[bn].get_weights()
        unit[bn].set_weights([0 * gamma, 0 * beta, *statistics])


def _copy_input(unit: dict[str, Any]) -> None:
    """Let convolutions and BN pass what they get; the ReLUs do, for it is not negative."""
    for kind, layer in unit.items():
        if kind.startswith("conv"):
            kernel, *bias = layer.get_weights()
            kernel[:] = 0
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = np.eye(kernel.shape[2])
            layer.set_weights([kernel, *(0 * b for b in bias)])
        elif kind.startswith("bn"):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([0 * gamma + 1, 0 * beta, 0 * mean, 0 * variance + 1 - layer.epsilon])

"""Make a network deeper without changing its outputs.

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
from keras_resnet.arguments import checked
from keras_resnet.errors import UserError
from keras_resnet.models.network import allow_recursion

# The layers of a unit y = f(x + F(x)), by the rest of their names. A unit with gates, scales or a
# BN after the addition computes something else.
_RESIDUAL = re.compile(r"(conv|bn|relu|pad|drop)\d|drop_path|se_\w+|add|out_relu")
_SHORTCUT = re.compile(r"shortcut_(conv|bn|pool|pad|subsample)")
_PLAIN = ["conv1", "bn1", "relu1", "conv2", "bn2", "out_relu"]


@checked
def deepen(model: keras.Model, stage: int, units: int = 1) -> keras.Model:
    """Return a copy of `model` with `units` more units in `stage` and the same outputs.

    This is the solution by construction of He 2015 (arXiv:1512.03385, section 1): the added layers
    are identity mappings and the other layers are copies. The new units come at the end of the
    stage. If the last unit has the stride, as in Keras Applications' v2, they come before it.

    The new units have the same layers as the unit before them, with identity shortcuts. They start
    with F(x) = 0: the gamma and beta of the last BN are zero, or in pre-activation the last
    kernel. Their other weights are random. The first training step changes only the zeros; later
    steps change the other weights too.

    In a plain network the new layers copy their input: each kernel has a single 1, and the BN
    statistics change nothing. This holds in inference only, because training uses the statistics
    of the batch.

    Args:
        model: a residual or plain network of this package, new or loaded from a file.
        stage: number of the stage, from 1.
        units: number of units to add.

    Returns:
        A model with the same name, inputs and outputs. Its layers have the names of a network built
        with that depth.

    Raises:
        UserError: the model is not such a network, the stage does not exist, or its units cannot be
            identities.
    """
    if units < 1:
        raise UserError(f"units must be 1 or more; received {units}.")
    all_units = _units(model)
    numbers = [number for found, number in all_units if found == stage]
    if not numbers:
        stages = ", ".join(map(str, sorted({found for found, _ in all_units})))
        raise UserError(f"The stages of '{model.name}' are {stages}; received {stage!r}.")
    end, last = numbers[-1], numbers[-1]
    if _strides(all_units[stage, last]) and any(
        _strides(unit) for (found, _), unit in all_units.items() if found == 1
    ):
        if len(numbers) == 1:
            raise UserError(
                f"The only unit of stage {stage} halves the resolution at its end, so no unit can "
                "be added before it. Choose another stage."
            )
        end = numbers[-2]
    allow_recursion(len(all_units) + units)
    return _grown(model, all_units[stage, end], stage, range(end + 1, end + units + 1), last)


def _units(model: keras.Model) -> dict[tuple[int, int], dict[str, Any]]:
    """Return the units by stage and number. A unit maps the end of each layer's name to it."""
    units: dict[tuple[int, int], dict[str, Any]] = {}
    for layer in model.layers:
        if match := re.fullmatch(r"stage(\d+)_block(\d+)_(\w+)", layer.name):
            units.setdefault((int(match[1]), int(match[2])), {})[match[3]] = layer
    if not units:
        raise UserError(
            f"'{model.name}' has no residual units (layers named stage1_block1_conv1, ...), so no "
            "unit can be added."
        )
    return dict(sorted(units.items()))


def _strides(unit: dict[str, Any]) -> bool:
    return any(max(getattr(layer, "strides", (1,))) > 1 for layer in unit.values())


def _template(unit: dict[str, Any]) -> dict[str, Any]:
    """Return the layers that a new unit copies: all of `unit` except its shortcut.

    Raises:
        UserError: a copy of this unit could not start as the identity and learn.
    """
    kept = {kind: layer for kind, layer in unit.items() if not _SHORTCUT.fullmatch(kind)}
    for kind, layer in kept.items():
        if not _RESIDUAL.fullmatch(kind):
            raise UserError(
                "An added unit must start as the identity y = x + F(x) with F(x) = 0. The layer "
                f"'{layer.name}' prevents that."
            )
    kinds, (conv, _) = list(kept), _last(kept)
    if "add" not in kept:
        if [kind for kind in kinds if not kind.startswith("pad")] != _PLAIN:
            raise UserError(
                f"The unit of '{kept[conv].name}' cannot be the identity, so it cannot be copied."
            )
    elif conv.replace("conv", "relu") in kinds[kinds.index(conv) :]:
        raise UserError(
            f"F ends in the ReLU '{kept[conv.replace('conv', 'relu')].name}', which has no "
            "gradient at F(x) = 0. The new units could not learn."
        )
    return kept


def _last(unit: dict[str, Any]) -> tuple[str, str | None]:
    """Return the last convolution of a unit and the BN after it, if there is one."""
    kinds = list(unit)
    conv = max(kind for kind in kinds if re.fullmatch(r"conv\d", kind))
    bn = conv.replace("conv", "bn")
    return conv, bn if bn in kinds[kinds.index(conv) :] else None


def _grown(
    model: keras.Model, unit: dict[str, Any], stage: int, numbers: range, last: int
) -> keras.Model:
    """Copy `model` and add units with the given numbers after `unit`.

    If `unit` is not the `last` unit of the stage, the last unit is renumbered to stay the last.
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
    outputs: dict[int, Any] = {}  # by the original operation; any other input is the unit's x
    copies: dict[str, Any] = {}
    y = x
    for kind, layer in template.items():
        tensors = keras_compat.calls_of(layer)[0].inputs
        inputs = [outputs.get(id(keras_compat.producer(tensor)), x) for tensor in tensors]
        if kind == "add":
            inputs[0] = x  # h(x); in the template it may be an activation or a projection
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
    """Set the last weights to zero, so that F(x) = 0."""
    conv, bn = _last(unit)
    if bn is None:
        unit[conv].set_weights([np.zeros(weight.shape) for weight in unit[conv].weights])
    else:
        gamma, beta, *statistics = unit[bn].get_weights()
        unit[bn].set_weights([0 * gamma, 0 * beta, *statistics])


def _copy_input(unit: dict[str, Any]) -> None:
    """Make convolutions and BN return their input. ReLUs do, because it is not negative."""
    for kind, layer in unit.items():
        if kind.startswith("conv"):
            kernel, *bias = layer.get_weights()
            kernel[:] = 0
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = np.eye(kernel.shape[2])
            layer.set_weights([kernel, *(0 * b for b in bias)])
        elif kind.startswith("bn"):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([0 * gamma + 1, 0 * beta, 0 * mean, 0 * variance + 1 - layer.epsilon])

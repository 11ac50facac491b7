"""Check the arguments of public functions by their annotations, with errors for people."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from keras_resnet.errors import UserError

_P = ParamSpec("_P")
_R = TypeVar("_R")


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Refuse arguments of the wrong type, before the function runs.

    Numbers, strings, paths, models, lists and dictionaries are checked; of a list only its items'
    type. Annotations of other kinds are left to the function.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        _require(function, args, kwargs)
        return function(*args, **kwargs)

    return call


def require_fields(instance: Any) -> None:
    """Refuse the fields of a dataclass that are not of their annotated type.

    Raises:
        UserError: the message has the field, what it must be, and what it is.
    """
    names = sys.modules[type(instance).__module__].__dict__
    for field in dataclasses.fields(instance):
        hint, value = eval(str(field.type), names), getattr(instance, field.name)
        if not _fits(hint, value):
            raise UserError(f"{field.name} must be {_described(hint)}; received {_shown(value)}.")


def _require(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    signature, hints = _signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:  # the call itself has this error, in Python's own words
        return
    for name, hint in hints.items():
        value = given.get(name, signature.parameters[name].default)
        if value is not signature.parameters[name].default and not _fits(hint, value):
            more = _OPENS if _is_model(hint) and isinstance(value, str | Path) else ""
            if isinstance(value, str) and _described(hint) == "a list of strings":
                more = f" Write {name}=[{value!r}]."
            raise UserError(f"{name} must be {_described(hint)}; received {_shown(value)}.{more}")


_OPENS = " keras.models.load_model opens a file."


@functools.cache
def _signature(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    """Return a function's signature, and the annotation of each single argument."""
    signature, hints = inspect.signature(function), {}
    names = dict(inspect.unwrap(function).__globals__)
    if "keras" not in names and "keras." in str(signature):  # imported for type checkers only
        import keras

        names["keras"] = keras
    for name, parameter in signature.parameters.items():
        several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if several or parameter.annotation is parameter.empty:
            continue
        hint = parameter.annotation
        try:
            hints[name] = eval(hint, names) if isinstance(hint, str) else hint
        except NameError:  # a type of ours that is imported for type checkers only
            continue
    return signature, hints


def _options(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _is_model(hint: Any) -> bool:
    return any(getattr(option, "__name__", "") == "Model" for option in _options(hint))


def _fits(hint: Any, value: Any) -> bool:
    return any(_fits_one(option, value) for option in _options(hint))


# Python's types, and what is taken for them.
_TAKEN: dict[Any, tuple[type, ...]] = {
    bool: (bool, np.bool_),
    int: (numbers.Integral,),
    float: (numbers.Real,),
}
_KINDS = {int: "iu", float: "iuf", str: "U"}  # of arrays that are taken for lists
_MANY = (collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)


def _fits_one(hint: Any, value: Any) -> bool:
    if hint is Any:
        return True
    if isinstance(value, np.ndarray) and value.ndim == 0 and hint in (bool, int, float):
        value = value[()]  # a number, as some functions of NumPy give it
    if hint is None or hint is type(None):
        return value is None
    kind = typing.get_origin(hint) or hint
    if kind is typing.Literal:
        return value in typing.get_args(hint)
    if _is_model(kind):  # also of tf_keras, which quantization-aware training uses
        return any(base.__name__ == "Model" for base in type(value).__mro__)
    if kind in (int, float) and isinstance(value, bool | np.bool_):
        return False
    if kind is np.ndarray and isinstance(value, list | tuple):
        return _is_regular(value)
    if kind is np.ndarray and hasattr(value, "__array__"):
        return True
    if kind in (*_MANY, list, tuple):
        items = typing.get_args(hint)
        if items and type(None) in _options(items[0]):  # a shape; the function names its parts
            return True
        return _is_many(kind, items, value)
    return not isinstance(kind, type) or isinstance(value, _TAKEN.get(kind, kind))


def _is_regular(value: Any) -> bool:
    """Return True if a list is an array: its rows have one length, and its items are no objects."""
    try:
        return np.asarray(value).dtype.kind != "O"
    except (ValueError, TypeError):
        return False


def _is_many(kind: Any, items: tuple[Any, ...], value: Any) -> bool:
    if isinstance(value, str | bytes | Mapping):  # not a list of letters or of keys
        return False
    if type(value).__name__ == "KerasTensor":  # only seems to be a list
        return False
    if isinstance(value, range):
        value = list(value[:1])  # all its items are of one type
    if isinstance(value, np.ndarray):
        taken = "OUSbiuf" if items[:1] == (object,) else _KINDS.get((items or (None,))[0], "")
        return value.ndim > 0 and value.dtype.kind in taken
    if not isinstance(value, list | tuple if kind in (list, tuple) else kind):
        return False
    same = len(items) == 1 or items[1:] == (...,)
    return not same or not isinstance(value, list | tuple) or all(_fits(items[0], x) for x in value)


_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
    np.ndarray: "an array",
    dict: "a dictionary",
    collections.abc.Mapping: "a dictionary",
}
_ITEMS = {str: "strings", int: "whole numbers", float: "numbers", Path: "paths"}


def _described(hint: Any) -> str:
    named = [_word(option) for option in _options(hint) if option not in (None, type(None))]
    return " or ".join(dict.fromkeys(named))


def _word(hint: Any) -> str:
    kind = typing.get_origin(hint) or hint
    if kind is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if kind in (*_MANY, list, tuple):
        items = [_item(option) for option in _options((typing.get_args(hint) or (object,))[0])]
        return f"a list of {' or '.join(items)}"
    if kind in _WORDS:
        return _WORDS[kind]
    return "a Keras model" if _is_model(kind) else f"a {getattr(kind, '__name__', kind)}"


def _item(hint: Any) -> str:
    kind = typing.get_origin(hint) or hint
    return "Keras models" if _is_model(kind) else _ITEMS.get(kind, "values")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | str | Path):
        shown = repr(str(value)) if isinstance(value, Path) else repr(value)
        return shown if len(shown) < 80 else f"{shown[:80]}…"
    if isinstance(value, list | tuple) and value and not isinstance(value[0], list | tuple):
        return f"a {type(value).__name__} of {type(value[0]).__name__}"
    return f"a {type(value).__name__}"

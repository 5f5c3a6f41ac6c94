"""Turns frozen dataclasses into JSON values and back, strictly: every field present, none superfluous, all of its type.

Knows dataclasses, lists, tuples, dicts with string keys, str, int, float, bool and None; knows no file.
"""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

_MAX_DEPTH = 64


def encode(value: Any) -> Any:
    """Returns what `json.dumps` can write.

    Raises:
        ValueError: A number is not finite: JSON has none, so such a file could not be read back.
        TypeError: A value is of a kind that JSON does not have.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [encode(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} cannot be written as JSON")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def decode(kind: Any, value: Any, where: str, problems: list[str], depth: int = 0) -> Any:
    """Returns `value` as an instance of `kind`; what does not fit is added to `problems`, one sentence each.

    The result means nothing unless `problems` is still empty.
    """
    if depth > _MAX_DEPTH:
        problems.append(f"{where} is nested too deeply")
        return None
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return decode(kind, value, where, problems, depth + 1)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where, problems, depth)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list):
            problems.append(f"{where} should be a list and is {_kind_of(value)}")
            return None
        entries = [decode(arguments[0], entry, f"{where}[{i}]", problems, depth + 1) for i, entry in enumerate(value)]
        return tuple(entries) if origin is tuple else entries
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            problems.append(f"{where} should be an object and is {_kind_of(value)}")
            return None
        return {key: decode(arguments[1], entry, f"{where}.{key}", problems, depth + 1) for key, entry in value.items()}
    return _decode_scalar(kind, value, where, problems)


def _decode_dataclass(kind: Any, value: Any, where: str, problems: list[str], depth: int) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{where} should be an object and is {_kind_of(value)}")
        return None
    hints = _hints_of(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    problems += [f"{where}.{name} is missing" for name in names if name not in value]
    problems += [f"{where}.{name} is not a field of this format" for name in value if name not in names]
    if problems:
        return None
    fields = {name: decode(hints[name], value[name], f"{where}.{name}", problems, depth + 1) for name in names}
    return None if problems else kind(**fields)


def _decode_scalar(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            problems.append(f"{where} is too large for a number")
            return None
    if type(value) is not kind:
        problems.append(f"{where} should be {kind.__name__} and is {_kind_of(value)}")
    return value


@cache
def _hints_of(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _kind_of(value: Any) -> str:
    return "null" if value is None else type(value).__name__

"""Reads the options of a fit from "field=value" texts. Knows dataclasses with simple fields; knows no fit.

A field may carry `metadata={"low": ..., "high": ...}`: both ends are allowed values.
"""

import dataclasses
import math
import types
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from trainer.errors import TrainerError

T = TypeVar("T")

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class OptionsError(TrainerError):
    """Options that a fit does not have or cannot take; the message lists all of them and those that exist."""


def parse_options(kind: type[T], texts: Sequence[str]) -> T:
    """Returns the options with defaults for what the texts do not name.

    Raises:
        OptionsError: A text is not "field=value", names no field, or has a value of another type or out of range.
    """
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    problems = []
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            problems.append(f"{text!r} is not of the form field=value")
        elif name not in fields:
            problems.append(f"there is no option {name!r}")
        elif name in values:
            problems.append(f"option {name!r} is set twice")
        else:
            try:
                values[name] = _parse(hints[name], value.strip(), fields[name].metadata)
            except ValueError as error:
                problems.append(f"{name}: {value.strip()!r} is not {error}")
    if problems:
        known = ", ".join(f"{name} ({_describe(hints[name])}, {fields[name].default!r})" for name in fields)
        raise OptionsError(f"{'; '.join(problems)}. The options with their defaults are: {known}")
    try:
        return kind(**values)
    except ValueError as error:
        raise OptionsError(str(error)) from error


def _parse(hint: Any, text: str, bounds: Any) -> Any:
    """Returns the value, or raises ValueError that says what it should have been."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if text.lower() in ("none", ""):
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _parse(hint, text, bounds)
    if origin is Literal:
        for choice in arguments:
            if str(choice) == text:
                return choice
        raise ValueError(_describe(hint))
    if hint is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ValueError("true or false")
        return text.lower() in _TRUE
    if hint is str:
        return text
    return _parse_number(hint, text, bounds.get("low", -math.inf), bounds.get("high", math.inf))


def _parse_number(hint: Any, text: str, low: float, high: float) -> Any:
    expected = "a whole number" if hint is int else "a number"
    if low > -math.inf or high < math.inf:
        expected += f" from {low:g} to {high:g}"
    try:
        value = hint(text)
    except ValueError:
        raise ValueError(expected) from None
    if not low <= value <= high or not math.isfinite(value):
        raise ValueError(expected)
    return value


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "|".join(str(choice) for choice in get_args(hint))
    return getattr(hint, "__name__", str(hint))

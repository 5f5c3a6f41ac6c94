"""Says which options of a fit are worth searching, and over which range. Knows dataclasses and ranges; knows no search.

A range that a person gives goes first, then the one suggested here for the model. A model of which nothing is suggested
is searched over a quarter to four times the default of each number, and over all values of each choice.
"""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from trainer.fits.options import OptionsError

_NEVER = ("threads", "epochs", "patience", "validation_share")
"""Change the time, or what the others are judged by; searched only if a person says so."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; drawn evenly by logarithm if `log`."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return "|".join(str(value) for value in self.values)


Space = Mapping[str, Range | Choice]

# Around the recipe's values and those of docs/experiments.md, as far as validation was seen to be anything but flat.
_SUGGESTED: Mapping[str, Space] = {
    "marquee": {
        "tower_weight_decay": Range(5e-5, 1e-3, log=True),
        "input_dropout": Range(0.1, 0.7),
        "side_scale": Range(1.0, 16.0, log=True),
        "prior_spread": Range(0.5, 4.0, log=True),
        "noise_share": Range(0.5, 1.2),
        "implicit_ridge": Range(1.0, 100.0, log=True),
        "ranking_learning_rate": Range(1e-3, 1e-2, log=True),
        "ranking_weight_decay": Range(1e-6, 1e-4, log=True),
        "history_dropout": Range(0.0, 0.6),
        "short_decay": Range(1.0, 5.0),
        "long_decay": Range(5.0, 40.0, log=True),
        "flat_gain": Range(0.01, 0.5, log=True),
    },
    "two-tower-history": {
        "optimiser": Choice(("sgd", "adam", "rmsprop")),
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "epochs": Range(1, 10),
        "batch_size": Range(32, 512, log=True),
        "target": Choice(("stars", "unit")),
        "history_length": Range(5, 100, log=True),
        "unknown_rate": Range(0.0, 0.1),
    },
    "two-tower": {
        "learning_rate": Range(5e-4, 1e-2, log=True),
        "weight_decay": Range(1e-7, 1e-3, log=True),
        "ranking_size": Range(64, 256, log=True),
        "history_dropout": Range(0.0, 0.6),
        "user_unknown_rate": Range(0.0, 0.6),
        "rating_weight": Range(0.1, 10.0, log=True),
        "rating_l2": Range(0.01, 1.0, log=True),
    },
}


def search_space(model: str, options_class: type[Any], texts: Sequence[str] = ()) -> Space:
    """Returns what to search.

    Args:
        model: Name of the model.
        options_class: Its options.
        texts: Of a person: "field=low:high", "field=low:high:log" or "field=value,value,..."; if there are any, nothing
            else is searched.

    Raises:
        OptionsError: A text names no option, or a range that the option does not allow; the message lists the options.
    """
    hints = get_type_hints(options_class)
    fields = {field.name: field for field in dataclasses.fields(options_class)}
    if texts:
        space: dict[str, Range | Choice] = {}
        for text in texts:
            name, equals, stated = text.partition("=")
            name = name.strip().replace("-", "_")
            if not equals or name not in fields:
                known = ", ".join(fields)
                raise OptionsError(f"--search {text}: should be OPTION=LOW:HIGH[:log] or OPTION=VALUE,VALUE; {known}")
            space[name] = _parse(text, stated, hints[name], fields[name].metadata)
        return space
    suggested = _SUGGESTED.get(model)
    if suggested is None:
        found = {name: _around_default(hints[name], field) for name, field in fields.items() if name not in _NEVER}
        return {name: each for name, each in found.items() if each is not None}
    return {
        name: dataclasses.replace(each, whole=_plain(hints[name]) is int) if isinstance(each, Range) else each
        for name, each in suggested.items()
    }


def _around_default(hint: Any, field: "dataclasses.Field[Any]") -> Range | Choice | None:
    kind, default = _plain(hint), field.default
    if get_origin(kind) is Literal:
        return Choice(get_args(kind))
    if kind is bool:
        return Choice((False, True))
    if kind not in (int, float) or not isinstance(default, int | float):
        return None
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is None or high is None:
        return None
    if default > 0:
        return Range(max(low, default / 4), min(high, default * 4), log=True, whole=kind is int)
    # A rate that is off by default.
    return Range(0.0, 0.6) if kind is float and low == 0 and 0.6 <= high <= 1 else None


def _parse(text: str, stated: str, hint: Any, bounds: Mapping[str, Any]) -> Range | Choice:
    kind = _plain(hint)
    try:
        if ":" in stated and kind in (int, float):
            low, high, *scale = stated.split(":")
            found = Range(float(low), float(high), log=bool(scale), whole=kind is int)
            inside = bounds.get("low", found.low) <= found.low < found.high <= bounds.get("high", found.high)
            if not inside or scale not in ([], ["log"]) or (scale and found.low <= 0):
                raise ValueError
            return found
        values = tuple(_value(kind, value.strip()) for value in stated.split(","))
        if len(values) < 2:
            raise ValueError
        return Choice(values)
    except ValueError:
        allowed = f"from {bounds['low']:g} to {bounds['high']:g}" if "low" in bounds and "high" in bounds else str(hint)
        raise OptionsError(
            f"--search {text}: should be OPTION=LOW:HIGH[:log], or OPTION=VALUE,VALUE; the option allows {allowed}"
        ) from None


def _value(kind: Any, text: str) -> Any:
    if get_origin(kind) is Literal:
        values = {str(choice): choice for choice in get_args(kind)}
    elif kind is bool:
        values = {"true": True, "false": False}
    else:
        return kind(text)
    if text not in values:
        raise ValueError
    return values[text]


def _plain(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(each for each in get_args(hint) if each is not type(None))
    return hint

"""Refuses what no call could carry, naming the argument, before it shares a call with others. Knows no RPC."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

from google.protobuf.message import Message

_MessageT = TypeVar("_MessageT", bound=Message)
_LONGEST_S = 365 * 86400.0
"""What gRPC can still count as a time from now on; more than that is no limit to anybody."""


def require_text(name: str, value: object) -> None:
    """Refuses what is no text, or none that UTF-8 can hold.

    Raises:
        TypeError: It is of another type.
        ValueError: It has lone surrogates, as half of a letter beyond the basic plane has.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text (str), not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not UTF-8: it has half of a surrogate pair") from None


def require_list(name: str, values: object) -> None:
    """Refuses one text where texts are meant: each of its letters would be taken for one. Raises `TypeError`."""
    if isinstance(values, str | bytes):
        raise TypeError(f"{name} must be a list of texts, not one text")


def pairs_of(pairs: object) -> list[tuple[str, str]]:
    """Returns pairs of user and movie ids, each checked before any is asked about.

    Raises:
        TypeError: They are no pairs, or an id is of another type; names the pair by its place, from 0 on.
        ValueError: An id is not UTF-8.
    """
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        raise TypeError(f"pairs must be a list of (user_id, movie_id), not {type(pairs).__name__}")
    checked = []
    for place, pair in enumerate(pairs):
        # A text of two letters can be taken apart too, and was hardly meant as two ids.
        parts = tuple(pair) if isinstance(pair, Iterable) and not isinstance(pair, str | bytes) else None
        if parts is None or len(parts) != 2:
            found = f"{len(parts)} values" if parts is not None else type(pair).__name__
            raise TypeError(f"pairs[{place}] must be (user_id, movie_id), two texts, not {found}")
        require_text(f"user_id of pairs[{place}]", parts[0])
        require_text(f"movie_id of pairs[{place}]", parts[1])
        checked.append((parts[0], parts[1]))
    return checked


def require_count(name: str, value: object) -> None:
    """Refuses what is no whole number above 0. Raises `ValueError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}")


def seconds(name: str, value: object) -> float:
    """Returns a time to wait, at most a year; 0 or less is over already.

    Raises:
        TypeError: It is no number.
        ValueError: It is NaN, with which nothing would ever be over.
    """
    if not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if math.isnan(value):
        raise ValueError(f"{name} must be a number of seconds, not NaN")
    return min(float(value), _LONGEST_S)


def message_of(kind: type[_MessageT], **fields: Any) -> _MessageT:
    """Returns a message with these fields.

    Raises:
        TypeError: A field is of another type; names it.
        ValueError: A field is out of the range of its type; names it.
    """
    try:
        return kind(**fields)
    except (TypeError, ValueError):
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except (TypeError, ValueError) as error:
                # Not of its own type: that of a text that is not UTF-8 takes more than a sentence.
                refused = ValueError if isinstance(error, ValueError) else TypeError
                raise refused(f"{name}: {error}") from None
        raise

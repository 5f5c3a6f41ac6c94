"""Spoils messages wherever they have a field: hostile values by type, found by descriptors. Knows no RPC."""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

_TEXTS = [
    "",
    " ",
    "\0",
    "\n",
    "\x7f",
    "a" * 128,
    "a" * 129,
    "ß" * 64 + "a",
    "x" * 20_000,
    "../../etc/passwd",
    "%s%n{0}",
    "٣",
    "1_000",
    "-1",
    "1e999",
    "nan",
    "0.0.0",
    "ffffffffffffffff.0.99999999999999999999999",
    "a.b.c.d",
    "\u202eabc",
    "\ufeff",
    "\uffff",
    "{}",
    "AAAA",
    "====",
    "*",
    "[marquee]",
    "bags.",
    "bags.cast.x",
]
_NUMBERS = [0, 1, 2, 63, 64, 150, 151, 250, 251, 500, 501, 1000, 1001, 10_001, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
_LARGE = [2**53, 2**63 - 1, 2**64 - 1]
_FLOATS = [
    0.0,
    -0.0,
    1e-45,
    -1e-45,
    0.1,
    -0.1,
    1.0000001,
    5.5,
    1001.0,
    3.4e38,
    -3.4e38,
    *map(float, ("nan", "inf", "-inf")),
]
_REPEATS = [2, 5, 33, 101, 251, 501, 1001, 5001]
_MAX_BYTES = 3 << 20


def spoil(draw: Draw, message: Message) -> None:
    """Changes one field, of the message or of one within it, to something that its writer may not have thought of."""
    places = list(_places(message))
    if not places:
        return
    owner, field = draw(st.sampled_from(places))
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _spoil_map(draw, owner, field)
    elif field.is_repeated:
        _spoil_list(draw, owner, field, message)
    elif field.message_type is not None:
        if draw(st.booleans()):
            owner.ClearField(field.name)
        else:
            getattr(owner, field.name).SetInParent()
    elif draw(st.integers(0, 4)) == 4:
        owner.ClearField(field.name)
    else:
        setattr(owner, field.name, draw(_hostile(field)))


def _places(message: Any) -> Iterator[tuple[Any, Any]]:
    for field in message.DESCRIPTOR.fields:
        yield message, field
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        if field.is_repeated:
            for row in getattr(message, field.name):
                yield from _places(row)
        elif message.HasField(field.name):
            yield from _places(getattr(message, field.name))


def _spoil_list(draw: Draw, owner: Any, field: Any, whole: Message) -> None:
    rows = getattr(owner, field.name)
    how = draw(st.sampled_from(["add", "empty", "repeat", "drop"]))
    if how == "add" or not rows:
        if field.message_type is not None:
            rows.add()
        else:
            rows.append(draw(_hostile(field)))
    elif how == "empty":
        owner.ClearField(field.name)
    elif how == "drop":
        del rows[draw(st.integers(0, len(rows) - 1))]
    else:
        times = draw(st.sampled_from(_REPEATS))
        # Beyond gRPC's limit for messages nobody of ours is asked.
        times = min(times, max(1, _MAX_BYTES // max(1, whole.ByteSize())))
        rows.extend(list(rows) * (times - 1))


def _spoil_map(draw: Draw, owner: Any, field: Any) -> None:
    entries = getattr(owner, field.name)
    value = field.message_type.fields_by_name["value"]
    for number in range(draw(st.sampled_from([1, 1, 9, 65]))):
        key = draw(st.sampled_from(_TEXTS)) + (str(number) if number else "")
        if value.message_type is None:
            entries[key] = draw(_hostile(value))
        else:
            spoil(draw, entries[key])


def _hostile(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        whole = st.sampled_from([b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\x80" * 4000])
        return st.binary(max_size=40) | whole
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return st.sampled_from(_TEXTS) | st.text(max_size=20)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([0, 1, 2, 3, 99, -1, 2**31 - 1, -(2**31)])
    if kind == FieldDescriptor.CPPTYPE_FLOAT or kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.sampled_from(_FLOATS) | st.floats(width=32)
    signed = kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    wide = kind in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
    highest = 2 ** ((64 if wide else 32) - int(signed)) - 1
    known = [number for number in (*_NUMBERS, *_LARGE) if number <= highest]
    if signed:
        known += [-1, -2, -62_135_596_801, -highest - 1] if wide else [-1, -2, -highest - 1]
    return st.sampled_from(known) | st.integers(-highest - 1 if signed else 0, highest)

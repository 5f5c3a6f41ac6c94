"""Writes columns of numbers as protobuf has them on the wire. Knows fields and arrays; knows no message by name.

A packed repeated field is its tag, its length in bytes, and the numbers one after the other: floats as four bytes each,
the lowest first, and enums and bools as varints, which are one byte below 128
(https://protobuf.dev/programming-guides/encoding/#packed). To hand protobuf an array number by number takes forty times
as long as to hand it these bytes.
"""

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from numpy.typing import NDArray

_LENGTH_DELIMITED = 2
_ONE_BYTE = 128
_KINDS = {
    FieldDescriptor.CPPTYPE_FLOAT: "<f4",
    FieldDescriptor.CPPTYPE_ENUM: "u1",
    FieldDescriptor.CPPTYPE_BOOL: "u1",
}


def packed(field: FieldDescriptor, values: NDArray[np.generic]) -> bytes:
    """Returns a packed repeated field of floats, enums or bools; to be merged into a message of its kind.

    Args:
        field: As it is in the message.
        values: Of enums only such as are below 128. [n]
    """
    kind = _KINDS[field.cpp_type]
    assert field.is_packed, field.full_name
    assert kind != "u1" or not len(values) or 0 <= values.min() <= values.max() < _ONE_BYTE, field.full_name
    content = values.astype(kind).tobytes()
    return _varint(field.number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    written = bytearray()
    while number >= _ONE_BYTE:
        written.append(number % _ONE_BYTE | _ONE_BYTE)
        number //= _ONE_BYTE
    written.append(number)
    return bytes(written)

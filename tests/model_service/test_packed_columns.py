"""What is written by hand is what protobuf writes, byte for byte, and reads back."""

from typing import Any

import numpy as np
import pytest
from marquee.v1 import model_service_pb2

from model_service.packed_columns import packed

Response = model_service_pb2.BatchPredictRatingsResponse
FIELDS = Response.DESCRIPTOR.fields_by_name
FLOATS = [0.0, -0.0, 1.5, float("nan"), float("inf"), 3.4e38, 1e-45]


@pytest.mark.parametrize("num", [1, 31, 32, 127, 128, 4096, 600_000])
def test_floats_are_as_protobuf_writes_them(num: int) -> None:
    """Of lengths whose varints have one to four bytes."""
    values = np.resize(np.array(FLOATS, np.float32), num)

    written = packed(FIELDS["ratings"], values)

    assert written == Response(ratings=values.tolist()).SerializeToString()


@pytest.mark.parametrize(
    ("name", "values"),
    [("statuses", model_service_pb2.RowStatus.values()), ("cold", [True, False, True]), ("stddevs", FLOATS)],
)
def test_each_kind_of_column_is_as_protobuf_writes_it(name: str, values: list[float]) -> None:
    """Enums and bools are varints of one byte; a field's number is its own."""
    columns: dict[str, Any] = {name: values}

    assert packed(FIELDS[name], np.array(values)) == Response(**columns).SerializeToString()


def test_no_numbers_are_no_difference() -> None:
    """An empty column may be written or left out: it is read as the same."""
    assert Response.FromString(packed(FIELDS["ratings"], np.zeros(0, np.float32))) == Response()


@pytest.mark.parametrize(("name", "values"), [("statuses", [1, 128]), ("statuses", [-1]), ("model_version", [1])])
def test_what_one_byte_cannot_hold_is_no_column(name: str, values: list[int]) -> None:
    """Never a wrong number on the wire."""
    with pytest.raises((AssertionError, KeyError)):
        packed(FIELDS[name], np.array(values))

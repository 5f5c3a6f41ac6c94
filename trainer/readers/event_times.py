"""Turns a column of times into epoch milliseconds: seconds or milliseconds since 1970, or ISO 8601. Knows no file."""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from trainer.readers.raw_table import text_values

UNITS_MS = {"seconds": 1000.0, "milliseconds": 1.0, "microseconds": 1e-3, "nanoseconds": 1e-6}
"""Milliseconds in each unit."""
LARGEST_OF_UNIT = {"seconds": 1e11, "milliseconds": 1e14, "microseconds": 1e17}
"""Numbers below the bound are taken for that unit: each bound is the year 5138 in its unit and 1973 in the next."""
LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, beyond which a protobuf Timestamp cannot go."""


@dataclass(frozen=True, slots=True)
class EventTimes:
    """A column of times.

    Attributes:
        milliseconds: Epoch milliseconds, 0 where `broken`. int64 [n]
        broken: True where the value is no time from 1970 on. bool [n]
        form: How the file writes times, for a person; None if the column is empty throughout.
    """

    milliseconds: NDArray[np.int64]
    broken: NDArray[np.bool_]
    form: str | None


def parse_times(values: pa.Array) -> EventTimes:
    """Detects how times are written, from most of the values, and reads them all that way."""
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        zone = getattr(values.type, "tz", None)
        times = values.cast(pa.timestamp("ms", zone), safe=False).cast(pa.int64())
        missing = np.asarray(values.is_null())
        return _bounded(times.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64), missing, "timestamps")
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return _from_numbers(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    text = text_values(values)
    numbers = _numbers(text)
    if np.isfinite(numbers).sum() * 2 >= len(numbers):
        return _from_numbers(numbers)
    strings = text.to_pandas()
    if (strings == "").all():
        return EventTimes(np.zeros(len(strings), np.int64), np.zeros(len(strings), np.bool_), None)
    moments = pd.to_datetime(strings, format="ISO8601", utc=True, errors="coerce").astype("datetime64[ms, UTC]")
    missing = moments.isna().to_numpy()
    stamps = moments.fillna(pd.Timestamp(0, unit="ms", tz="UTC")).dt.tz_localize(None)
    return _bounded(
        stamps.to_numpy().astype(np.int64).astype(np.float64), missing, "ISO 8601, UTC where no zone is given"
    )


def _numbers(text: pa.Array) -> NDArray[np.float64]:
    try:
        return np.asarray(text.cast(pa.int64()), np.float64)
    except pa.ArrowInvalid:
        return np.asarray(pd.to_numeric(text.to_pandas(), errors="coerce"), np.float64)


def _from_numbers(numbers: NDArray[np.float64]) -> EventTimes:
    missing = ~np.isfinite(numbers)
    if missing.all():
        return EventTimes(np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.bool_), None)
    middle = abs(float(np.median(numbers[~missing] if missing.any() else numbers)))
    unit = next((unit for unit, bound in LARGEST_OF_UNIT.items() if middle < bound), "nanoseconds")
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        return _bounded(numbers * UNITS_MS[unit], missing, f"{unit} since 1970")


def _bounded(milliseconds: NDArray[np.float64], missing: NDArray[np.bool_], form: str) -> EventTimes:
    with np.errstate(invalid="ignore"):
        broken = missing | (milliseconds < 0) | (milliseconds > LATEST_MS)
        whole = np.where(broken, 0, np.rint(milliseconds)).astype(np.int64)
    return EventTimes(whole, broken, form)

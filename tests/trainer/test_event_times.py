"""Times are recognised as seconds, milliseconds or ISO 8601 from how most of them are written."""

import pyarrow as pa
import pytest

from trainer.readers.event_times import parse_times

MOMENT_MS = 1_577_934_245_000


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1577934245", "seconds since 1970"),
        ("1577934245.0", "seconds since 1970"),
        ("1577934245000", "milliseconds since 1970"),
        ("1577934245000000", "microseconds since 1970"),
        ("2020-01-02T03:04:05Z", "ISO 8601"),
        ("2020-01-02 03:04:05", "ISO 8601"),
        ("2020-01-02T05:04:05+02:00", "ISO 8601"),
        ("2020-01-02T03:04:05.000", "ISO 8601"),
    ],
)
def test_a_moment_is_the_same_however_it_is_written(text: str, form: str) -> None:
    """Every accepted form of one moment gives the same milliseconds."""
    times = parse_times(pa.array([text, text]))

    assert times.milliseconds.tolist() == [MOMENT_MS, MOMENT_MS]
    assert not times.broken.any()
    assert times.form is not None
    assert times.form.startswith(form)


def test_milliseconds_are_kept() -> None:
    """A fraction of a second survives to the millisecond."""
    assert parse_times(pa.array(["1.234", "2.5"])).milliseconds.tolist() == [1234, 2500]


def test_what_is_no_time_is_broken() -> None:
    """Times before 1970, after 9999 and words are broken, the others are not."""
    times = parse_times(pa.array(["100", "-1", "later", "", "nan", "99999999999999999"]))

    assert times.broken.tolist() == [False, True, True, True, True, True]
    assert times.milliseconds.tolist() == [100_000, 0, 0, 0, 0, 0]


def test_an_empty_column_is_no_times() -> None:
    """A time column in which nothing stands counts as absent."""
    assert parse_times(pa.array(["", ""])).form is None
    assert parse_times(pa.array([None, None], pa.float64())).form is None

"""Tests what a soak calls growth: made-up readings of memory, no service."""

import pytest

from benchmarks.soak import faults_of, slope_of

SECONDS = [10.0 * turn for turn in range(90)]


def _faults(sizes_mib: list[float]) -> list[str]:
    slope, half_width = slope_of(SECONDS, sizes_mib)
    growth = {"model_service": {"slope": slope, "half_width_95": half_width}}
    return faults_of({"turns_with_errors": [], "mib_an_hour_in_second_half": growth})


def test_memory_that_grows_evenly_is_a_fault():
    """A leak of a hundredth of a MiB a turn is 3.6 MiB an hour, and found below noise ten times as large."""
    sizes_mib = [300 + 0.01 * turn + 0.1 * (-1) ** turn for turn in range(90)]

    faults = _faults(sizes_mib)

    assert len(faults) == 1
    assert faults[0].startswith("model_service grows by 3.")


def test_memory_that_comes_and_goes_is_none():
    """What a cache takes and gives back is not growth."""
    sizes_mib = [300 + 5.0 * (turn % 7) for turn in range(90)]

    assert _faults(sizes_mib) == []


def test_memory_that_stays_as_it_is_has_no_slope_and_no_doubt():
    """Readings without any spread have a slope of 0, not one that is not a number."""
    assert slope_of(SECONDS, [300.0] * 90) == pytest.approx((0.0, 0.0))

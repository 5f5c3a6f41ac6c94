"""How busy a thread was is what it worked and what it waited for a core; what it slept is not."""

import time
from pathlib import Path

import pytest

from model_service import thread_load
from model_service.thread_load import not_idle_s


def _grown_by_work_and_sleep() -> tuple[float, float]:
    before = not_idle_s()
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        pass
    worked = not_idle_s()
    time.sleep(0.2)
    return worked - before, not_idle_s() - worked


@pytest.mark.parametrize("told", [True, False], ids=["schedstat", "no schedstat"])
def test_work_counts_and_sleep_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: bool) -> None:
    """Also where the system says no more than what a thread has used."""
    if not told:
        monkeypatch.setattr(thread_load, "_SCHEDULED", tmp_path / "absent")

    worked_s, slept_s = _grown_by_work_and_sleep()

    assert worked_s >= 0.095
    assert slept_s < 0.1

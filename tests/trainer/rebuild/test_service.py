"""Rebuilds come when they are due, whatever was started anew meanwhile, and what they came to is told."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service_runtime.metrics import Metrics
from trainer.errors import TrainerError
from trainer.rebuild.journal import Figure, Journal, JournalError, Record, Result, Run
from trainer.rebuild.lock import BusyError
from trainer.rebuild.measures import RebuildMeasures
from trainer.rebuild.service import due_ms, parse_duration, rebuild_for_ever
from two_tower.registry import Registry

HOUR_MS = 3_600_000


class Clock:
    """A clock that moves when somebody sleeps; ends the loop after some naps."""

    def __init__(self, naps: int) -> None:
        self.now_s = 1_000_000.0
        self.slept: list[float] = []
        self._naps = naps

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds))
        self.now_s += seconds
        if len(self.slept) == self._naps:
            raise KeyboardInterrupt


def result(started_ms: int, outcome: str = "promoted", reason: str = "better", took_ms: int = 60_000) -> Result:
    """Returns what a rebuild came to."""
    return Result(
        outcome=outcome,
        reason=reason,
        label="stable",
        version="v2",
        started_at_ms=started_ms,
        ended_at_ms=started_ms + took_ms,
        snapshot="s",
        candidate="v1",
        refitted="v2",
        num_rows=1234,
        num_events=5,
        num_deleted=0,
        figures=[Figure(metric="rmse", new=0.9, old=0.95, gain=0.05, low=0.01, high=0.09)],
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Of a registry in which nothing has happened."""
    return Journal(Registry(tmp_path))


def loop(journal: Journal, clock: Clock, do: Callable[[], Result], every_s: float = 6 * 3600) -> None:
    """Runs the service until its clock ends it."""
    with pytest.raises(KeyboardInterrupt):
        rebuild_for_ever(do, journal, every_s, sleep=clock.sleep, now=clock.now)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), ("1d", 86400)])
def test_durations_are_read(text: str, seconds: float) -> None:
    """A number and a unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "0h", "6 h", "-1h", "1w", "1.5h"])
def test_other_durations_are_refused(text: str) -> None:
    """The message says what would be right."""
    with pytest.raises(TrainerError, match="write 90s, 30m, 6h or 1d"):
        parse_duration(text)


def test_a_rebuild_begins_every_so_often(journal: Journal) -> None:
    """Counted from one beginning to the next, however long each takes."""
    clock, begun = Clock(naps=3), []

    def do() -> Result:
        begun.append(clock.now_s)
        clock.now_s += 600
        return journal.close(result(int(begun[-1] * 1000)))

    loop(journal, clock, do)

    assert clock.slept == [6 * 3600 - 600] * 3
    assert begun == [1_000_000.0 + 6 * 3600 * turn for turn in range(3)]


def test_a_restart_neither_skips_nor_repeats(journal: Journal) -> None:
    """What is due follows from the journal; what was under way is due at once."""
    journal.close(result(5 * HOUR_MS))

    assert due_ms(journal.read(), 6 * 3600) == 11 * HOUR_MS
    run = Run(label="stable", model=None, options=None, forced="", started_at_ms=6 * HOUR_MS, figures=[])
    journal.note(run)
    assert due_ms(journal.read(), 6 * 3600) == 0
    assert journal.read() == Record(run=run, results=[result(5 * HOUR_MS)])


def test_what_fails_is_tried_again_soon(journal: Journal) -> None:
    """A store that is away, or a rebuild that somebody else runs, ends no service."""
    clock = Clock(naps=3)
    answers = iter([TrainerError("feature_service: UNAVAILABLE"), BusyError("another")])

    def do() -> Result:
        for error in answers:
            raise error
        return journal.close(result(int(clock.now_s * 1000)))

    loop(journal, clock, do)

    assert clock.slept == [300, 300, 6 * 3600]


def test_the_same_failure_again_and_again_is_one_line(journal: Journal) -> None:
    """It would push out what there was before."""
    journal.close(result(1))
    for turn in range(3):
        journal.close(result(2 + turn, "failed", "away"))
    journal.close(result(9, "failed", "full"))

    assert [(each.outcome, each.reason) for each in journal.read().results] == [
        ("promoted", "better"),
        ("failed", "away"),
        ("failed", "full"),
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"run": null}', '{"format_version": 9, "run": null, "results": []}']
)
def test_a_damaged_journal_is_no_empty_one(journal: Journal, content: str) -> None:
    """What was under way is not forgotten in silence."""
    journal.path.write_text(content)

    with pytest.raises(JournalError, match="remove it to begin anew"):
        journal.read()


def test_state_and_last_result_are_metrics(journal: Journal) -> None:
    """What ended before a restart is told after it."""
    journal.close(result(1000 * HOUR_MS, took_ms=90_000))
    metrics = Metrics("trainer")
    measures = RebuildMeasures(metrics, journal, 6 * 3600)

    measures.step("training")
    measures.ended("refused")

    lines = metrics.text().splitlines()
    assert {
        'marquee_trainer_rebuild_step{step="training"} 1.0',
        'marquee_trainer_rebuild_step{step="waiting"} 0.0',
        'marquee_trainer_rebuilds_total{outcome="refused"} 1.0',
        'marquee_trainer_rebuilds_total{outcome="promoted"} 0.0',
        'marquee_trainer_rebuild_end_timestamp_seconds{outcome="promoted"} 3.60009e+06',
        "marquee_trainer_rebuild_duration_seconds 90.0",
        "marquee_trainer_rebuild_overdue_seconds 0.0",
        "marquee_trainer_rebuild_snapshot_rows 1234.0",
        'marquee_trainer_rebuild_quality{metric="rmse",model="new"} 0.9',
        'marquee_trainer_rebuild_quality{metric="rmse",model="old"} 0.95',
    } <= set(lines)

"""Rebuilds again and again. Knows the clock and the journal; knows no step of a rebuild."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from trainer.errors import TrainerError
from trainer.rebuild.journal import Journal, Record, Result
from trainer.rebuild.lock import BusyError
from two_tower.errors import TwoTowerError

_log = structlog.get_logger(__name__)

RETRY_S = 300.0
"""After a failure: what is usual is a service that starts anew, which takes seconds, or a person who is needed."""

_DURATION = re.compile(r"([0-9]+)(s|m|h|d)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Returns the seconds of "90s", "30m", "6h" or "1d".

    Raises:
        TrainerError: It is none of these.
    """
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise TrainerError(f"{text!r} is no duration: write 90s, 30m, 6h or 1d")
    return float(int(match[1]) * _UNIT_S[match[2]])


def due_ms(record: Record, every_s: float) -> int:
    """Returns when the next rebuild begins, epoch milliseconds: it outlives the process, since the journal does."""
    if record.run is not None or not record.results:
        return 0
    last = record.results[-1]
    if last.outcome == "failed":
        return last.ended_at_ms + int(min(every_s, RETRY_S) * 1000)
    return last.started_at_ms + int(every_s * 1000)


def rebuild_for_ever(
    do: Callable[[], Result],
    journal: Journal,
    every_s: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Rebuilds whenever it is due; returns never. What a person can act on is logged and tried again.

    Args:
        do: Rebuilds, once.
        journal: What was done before, also by other processes.
        every_s: From one beginning to the next.
        sleep: Waits.
        now: The wall clock, since what was done before another start counts too.
    """
    while True:
        wait_s = due_ms(journal.read(), every_s) / 1000 - now().timestamp()
        if wait_s > 0:
            _log.info("rebuild_waits", seconds=round(wait_s))
            sleep(wait_s)
        try:
            result = do()
        except BusyError as error:
            _log.warning("rebuild_busy", reason=str(error))
            sleep(min(every_s, RETRY_S))
        except (TrainerError, TwoTowerError, OSError) as error:
            _log.error("rebuild_failed", reason=str(error))
            sleep(min(every_s, RETRY_S))
        else:
            _log.info("rebuild_ended", outcome=result.outcome, reason=result.reason, model_version=result.version)

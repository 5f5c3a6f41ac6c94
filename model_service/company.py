"""Decides whether a request waits for others to be answered with it. Knows times; knows no request.

Ratings that are answered together take a fraction of what they take one by one: each step's code and data are in the
processor's caches for the second one, arrays are as cheap as numbers, and gRPC sends what is ready with fewer turns.
Users who are not near take one read of the store and one pass through the user tower together.

But a server hands over one request per turn of its loop, so that to have company a request must wait for it. It does so
only while the thread of the loop is busy, and who would be answered at once only while it is hardly ever idle: then
callers wait for each other anyway, and what is saved shortens everybody's wait. Below that, latency counts and
processor time is there for the taking.
"""

from collections.abc import Callable
from typing import Self

_BUSY_SHARE = 0.85
"""Of the time. There a request waits for three others on average (M/D/1: .85 / (2 * .15)). Why not less:
docs/decisions/0069-a-busy-service-gathers.md."""
_FAR_BUSY_SHARE = 0.6
"""For users who are not near, who wait for milliseconds anyway; measured in decision 69."""
_FAR_MOST_GAPS = 7
"""Where few are not near, it takes a while for some to come; likewise."""
_FORGOTTEN_AFTER_S = 1.0
"""A share of a longer time tells nothing of now."""
_WINDOW_S = 0.05
"""Over which the share is measured: some eighty requests of a busy loop, and soon enough to notice a rush. The system
counts in steps of milliseconds, so one window may say a twentieth too much and the next one as much too little."""
_MOST_GAPS = 4
MOST_TOGETHER = 64
"""Questions that are answered in one turn of the loop, for which others wait: as ratings they take about a millisecond,
as lists of 4,000 movies eight."""


class Company:
    """Whether requests shall wait, and how long. Time is an argument, in monotonic seconds."""

    def __init__(
        self,
        gap_s: float,
        busy_s: Callable[[], float],
        busy_share: float = _BUSY_SHARE,
        most_gaps: int = _MOST_GAPS,
    ) -> None:
        """Stores when it is worth it.

        Args:
            gap_s: How long the next request is waited for, 0 for never.
            busy_s: Tells for how many seconds the thread of the loop was busy so far.
            busy_share: Of the time; from this on requests wait.
            most_gaps: How often a gap is waited at most.
        """
        self.gap_s = gap_s
        self._busy_s = busy_s
        self._busy_share = busy_share
        self._most_gaps = most_gaps
        self._since = -float("inf")
        self._busy_before_s = 0.0
        self._is_busy = False

    @classmethod
    def of_far_users(cls, gap_s: float, busy_s: Callable[[], float]) -> Self:
        """Returns that of users who are not near: sought sooner, and waited for longer."""
        return cls(gap_s, busy_s, _FAR_BUSY_SHARE, _FAR_MOST_GAPS)

    @property
    def longest_s(self) -> float:
        """How long a request waits at most."""
        return self._most_gaps * self.gap_s

    def is_sought(self, now: float) -> bool:
        """Tells whether a request that comes now shall wait for others."""
        elapsed = now - self._since
        if elapsed >= _WINDOW_S:
            busy_s = self._busy_s()
            share = (busy_s - self._busy_before_s) / elapsed
            self._is_busy = elapsed < _FORGOTTEN_AFTER_S and share >= self._busy_share
            self._since, self._busy_before_s = now, busy_s
        return self._is_busy and self.gap_s > 0

    def may_wait(self, now: float, deadline: float | None) -> bool:
        """Tells whether a request is in no hurry."""
        return deadline is None or deadline - now > 2 * self.longest_s

    def is_enough(self, num_waiting: int, num_came: int, waited_s: float) -> bool:
        """Tells whether those who wait are to be answered now.

        Args:
            num_waiting: All of them.
            num_came: Of these, in the last gap.
            waited_s: How long the first one has waited.
        """
        return num_came == 0 or num_waiting >= MOST_TOGETHER or waited_s >= (self._most_gaps - 1) * self.gap_s

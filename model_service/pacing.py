"""Decides how long a batch is held for company. Knows times and counts; knows no queue, no user and no priority.

A server hands over one request per turn of its loop, so that batches that leave at once have one or two of them, and
each costs about as much as one of sixteen. A request that finds the device busy waits anyway, so its batch is held for
a small gap. Where answers are made faster than requests are handed over, though, the device is never found busy; so it
counts as busy for one gap after a batch left. To hold a request then is a bet that others come: after one that was lost
the next ones are not made, so that who asks one question after another hardly ever waits.

While the loop is busy (`Company.of_far_users`), a batch for users who are not near is held for longer. They take a read
of the store and a pass through the tower, which cost much for one of them and little for the tenth; and the fewer they
are among all who ask, the longer it takes for some to come. Who needs neither does not wait for them.
"""

from model_service.company import Company

_NOT_HELD_AFTER_A_LOST_BET = 8
"""Batches. A lone caller pays one gap for each 9 answers; among many, a bet lost by chance costs 8 small batches."""

_ENOUGH_FAR = 16
"""Of sixteen users together the tower takes 102 microseconds each, of eight 156, of one 728 (docs/experiments.md). More
are no reason to wait: while these are answered, the next ones gather anyway (decision 69)."""


class Pacing:
    """When a batch that begins to form may leave. Time is always an argument, in monotonic seconds."""

    def __init__(self, gap_s: float, company: Company) -> None:
        """Stores the gap, and who tells whether to hold a batch for longer."""
        self._gap_s = gap_s
        self._company = company
        self._is_long = False
        self._last_left = -float("inf")
        self._is_bet = False
        self._not_held = 0

    def hold_until(self, arrived: float, deadline: float, num_far: int, num_in_flight: int) -> float:
        """Returns when a batch may leave.

        Args:
            arrived: When its first request came, which is now.
            deadline: When the caller of that one stops waiting.
            num_far: Users of that one who are not near.
            num_in_flight: Batches that it found under way.
        """
        is_busy = self._company.is_sought(arrived) and self._company.longest_s > self._gap_s
        self._is_long = is_busy and 0 < num_far < _ENOUGH_FAR and self._company.may_wait(arrived, deadline)
        is_just_gone = arrived < self._last_left + self._gap_s
        self._is_bet = not self._is_long and num_in_flight == 0 and is_just_gone and self._not_held == 0
        if self._is_long:
            return arrived + self._company.longest_s
        return arrived + self._gap_s if num_in_flight or self._is_bet else arrived

    def hold_on_until(
        self, held_until: float, arrived: float, deadline: float, num_far: int, num_far_waiting: int
    ) -> float:
        """Returns when a batch may leave that was to be held until then, and that another request joins now.

        Args:
            held_until: When it could leave so far.
            arrived: Now.
            deadline: When the caller who comes now stops waiting.
            num_far: Users of his who are not near.
            num_far_waiting: Users of all who wait who are not, his among them.
        """
        if not self._is_long:
            return held_until
        if num_far_waiting >= _ENOUGH_FAR:
            return min(held_until, arrived)
        if num_far and self._company.may_wait(arrived, deadline):
            return held_until
        return min(held_until, arrived + self._gap_s)

    def note_left(self, now: float, num_requests: int) -> None:
        """Notes that a batch left."""
        self._last_left = now
        if self._is_bet and num_requests == 1:
            self._not_held = _NOT_HELD_AFTER_A_LOST_BET
        elif self._not_held:
            self._not_held -= 1
        self._is_bet = False

"""Who waits for company, and for how long: time is made up, so every test takes no time."""

import pytest

from model_service.company import Company

GAP_S = 0.003


class Loop:
    """A thread that is busy for a share of the time.

    Attributes:
        now: Monotonic seconds.
        busy_s: For how long the thread was not idle.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.busy_s = 7.0

    def pass_time(self, seconds: float, share: float) -> None:
        """Lets time pass with the thread so busy."""
        self.now += seconds
        self.busy_s += share * seconds


@pytest.fixture
def loop() -> Loop:
    """A thread of which nothing is known yet."""
    return Loop()


def company_of(loop: Loop, gap_s: float = GAP_S) -> Company:
    return Company(gap_s, lambda: loop.busy_s)


def test_the_first_request_of_all_waits_for_nobody(loop: Loop) -> None:
    """However busy the process was while it started."""
    loop.busy_s = 1000.0

    assert not company_of(loop).is_sought(loop.now)


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (0.8, False), (0.9, True), (1.0, True)])
def test_company_is_sought_while_the_loop_is_hardly_ever_idle(loop: Loop, share: float, expected: bool) -> None:
    """Below that a request would wait for nothing but others."""
    company = company_of(loop)
    company.is_sought(loop.now)

    loop.pass_time(0.06, share)

    assert company.is_sought(loop.now) is expected


@pytest.mark.parametrize(("share", "expected"), [(0.5, False), (0.7, True)])
def test_who_is_not_near_waits_sooner_and_longer(loop: Loop, share: float, expected: bool) -> None:
    """He waits for milliseconds anyway, and one read of many costs a fraction of many reads."""
    company = Company.of_far_users(GAP_S, lambda: loop.busy_s)
    company.is_sought(loop.now)

    loop.pass_time(0.06, share)

    assert company.is_sought(loop.now) is expected
    assert company.longest_s > company_of(loop).longest_s


def test_a_share_of_long_ago_is_forgotten(loop: Loop) -> None:
    """Who is asked rarely, whether company is sought, would tell of minutes, not of now."""
    company = company_of(loop)
    company.is_sought(loop.now)

    loop.pass_time(60, 1.0)
    after_a_minute = company.is_sought(loop.now)
    loop.pass_time(0.06, 1.0)

    assert (after_a_minute, company.is_sought(loop.now)) == (False, True)


def test_a_rush_is_noticed_and_its_end_too(loop: Loop) -> None:
    """After a twentieth of a second each, and not before: a few requests tell nothing."""
    company = company_of(loop)
    company.is_sought(loop.now)

    told = []
    for seconds, share in ((0.06, 0.1), (0.04, 0.9), (0.04, 0.9), (0.04, 0.1), (0.04, 0.1)):
        loop.pass_time(seconds, share)
        told.append(company.is_sought(loop.now))

    assert told == [False, False, True, True, False]


def test_a_gap_of_zero_seeks_no_company(loop: Loop) -> None:
    """For who counts latency alone."""
    company = company_of(loop, gap_s=0.0)
    company.is_sought(loop.now)

    loop.pass_time(0.06, 1.0)

    assert not company.is_sought(loop.now)


@pytest.mark.parametrize(("left_s", "expected"), [(None, True), (1.0, True), (0.025, True), (0.02, False), (-1, False)])
def test_who_is_in_a_hurry_does_not_wait(loop: Loop, left_s: float | None, expected: bool) -> None:
    """Twice the longest wait must be left to him."""
    deadline = None if left_s is None else loop.now + left_s

    assert company_of(loop).may_wait(loop.now, deadline) is expected


@pytest.mark.parametrize(
    ("num_waiting", "num_came", "waited_gaps", "expected"),
    [(1, 0, 1, True), (5, 0, 2, True), (2, 1, 1, False), (9, 4, 2.9, False), (9, 4, 3, True), (64, 60, 1, True)],
)
def test_they_wait_until_nobody_comes_or_it_is_enough(
    loop: Loop, num_waiting: int, num_came: int, waited_gaps: float, expected: bool
) -> None:
    """One gap without anybody, four gaps in all, or as many as others may wait for."""
    company = company_of(loop)

    assert company.is_enough(num_waiting, num_came, waited_gaps * GAP_S) is expected

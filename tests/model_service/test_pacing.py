"""How long a batch is held for company: time is made up, so every test takes no time."""

import pytest

from model_service.company import Company
from model_service.pacing import Pacing

GAP_S = 0.001
LONGEST_S = 0.021
NEVER = 1e9
NOBODY_WAITED_FOR = Company(0.0, lambda: 0.0)


def after_one_batch():
    """Returns a pacing that has just let a batch of one go, at 0."""
    pacing = Pacing(GAP_S, NOBODY_WAITED_FOR)
    pacing.hold_until(0.0, NEVER, 0, 0)
    pacing.note_left(0.0, 1)
    return pacing


def test_nothing_is_held_while_nothing_happens():
    """The first request, and one that comes a gap after the last batch, leave at once."""
    pacing = Pacing(GAP_S, NOBODY_WAITED_FOR)

    first = pacing.hold_until(5.0, NEVER, 0, 0)
    pacing.note_left(5.0, 1)
    later = pacing.hold_until(5.001, NEVER, 0, 0)

    assert (first, later) == (5.0, 5.001)


def test_who_finds_the_device_busy_is_held_for_the_gap():
    """He has to wait anyway."""
    pacing = after_one_batch()

    assert pacing.hold_until(10.0, NEVER, 0, 1) == 10.0 + GAP_S


def test_the_device_counts_as_busy_for_one_gap_after_a_batch_left():
    """Answers that are made at once must not keep requests from meeting."""
    pacing = after_one_batch()

    assert pacing.hold_until(0.0004, NEVER, 0, 0) == 0.0004 + GAP_S


def test_a_lone_caller_is_held_for_a_ninth_of_his_questions():
    """He asks again as soon as he has an answer: nobody ever joins him, and most of his questions leave at once."""
    pacing = after_one_batch()
    now, held = 0.0, 0

    for _ in range(90):
        now += 0.0005
        until = pacing.hold_until(now, NEVER, 0, 0)
        held += until > now
        now = until
        pacing.note_left(now, 1)

    assert held == 10


def test_among_many_every_batch_is_held():
    """A bet that was won is made again."""
    pacing = after_one_batch()
    now = 0.0

    for _ in range(100):
        arrived = now + 0.0001
        now = pacing.hold_until(arrived, NEVER, 0, 0)
        assert now == arrived + GAP_S
        pacing.note_left(now, 8)


def in_a_busy_loop(gap_s=LONGEST_S / 7):
    """Returns a pacing whose loop was busy for seven tenths of the half second that ends at 1."""
    company = Company.of_far_users(gap_s, iter([0.0, 0.35]).__next__)
    company.is_sought(0.5)
    company.is_sought(1.0)
    return Pacing(GAP_S, company)


def test_in_a_busy_loop_users_who_are_not_near_are_held_for_longer_though_the_device_is_idle():
    """One of them costs nearly what ten cost."""
    assert in_a_busy_loop().hold_until(1.01, NEVER, 1, 0) == pytest.approx(1.01 + LONGEST_S)


def test_in_a_busy_loop_requests_about_nobody_else_are_held_as_ever():
    """Near users and movies like another one gain nothing by waiting: alone, and in a batch that is held for others."""
    pacing = in_a_busy_loop()

    assert pacing.hold_until(1.01, NEVER, 0, 0) == 1.01
    until = pacing.hold_until(1.01, NEVER, 1, 0)
    assert pacing.hold_on_until(until, 1.012, NEVER, 1, 2) == until
    assert pacing.hold_on_until(until, 1.012, NEVER, 0, 2) == pytest.approx(1.012 + GAP_S)


def test_in_a_busy_loop_who_is_in_a_hurry_is_held_as_ever():
    """Twice the longest time must be left to him: alone, and in a batch that is held for others."""
    pacing = in_a_busy_loop()
    in_time, in_a_hurry = 1.01 + 2.1 * LONGEST_S, 1.01 + 1.9 * LONGEST_S

    assert pacing.hold_until(1.01, in_a_hurry, 1, 0) == 1.01
    pacing.hold_until(1.01, in_time, 1, 0)
    assert pacing.hold_on_until(1.02, 1.01, in_time, 1, 2) == 1.02
    assert pacing.hold_on_until(1.02, 1.01, in_a_hurry, 1, 2) == pytest.approx(1.01 + GAP_S)
    assert pacing.hold_on_until(1.01, 1.01, in_a_hurry, 1, 2) == 1.01


def test_in_a_busy_loop_sixteen_users_are_enough():
    """More would cost hardly less each, and the device idles; a batch held for the usual gap waits for all who come."""
    pacing = in_a_busy_loop()

    until = pacing.hold_until(1.01, NEVER, 1, 0)
    assert pacing.hold_on_until(until, 1.012, NEVER, 1, 15) == until
    assert pacing.hold_on_until(until, 1.012, NEVER, 1, 16) == 1.012
    assert pacing.hold_until(1.02, NEVER, 16, 0) == 1.02
    assert after_one_batch().hold_on_until(0.001, 0.0005, NEVER, 1, 16) == 0.001


def test_no_hold_of_a_busy_loop_is_shorter_than_the_usual_one():
    """Whoever asked for a long gap, or for a short wait for company, keeps it."""
    assert in_a_busy_loop(gap_s=GAP_S / 10).hold_until(1.01, NEVER, 1, 1) == pytest.approx(1.01 + GAP_S)


def test_to_be_held_in_a_busy_loop_is_no_bet():
    """A batch of one that left from there does not keep the next ones from being held."""
    pacing = in_a_busy_loop()
    left = 1.0 + LONGEST_S
    pacing.note_left(0.9995, 1)
    a_bet_that_was_withdrawn = pacing.hold_until(1.0, NEVER, 0, 0)
    pacing.hold_until(1.0, NEVER, 1, 0)
    pacing.note_left(left, 1)

    arrived = left + GAP_S / 2
    assert a_bet_that_was_withdrawn > 1.0
    assert pacing.hold_until(arrived, NEVER, 0, 0) == pytest.approx(arrived + GAP_S)

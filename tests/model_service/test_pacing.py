"""How long a batch is held for company: time is made up, so every test takes no time."""

from model_service.pacing import Pacing

GAP_S = 0.001


def after_one_batch():
    """Returns a pacing that has just let a batch of one go, at 0."""
    pacing = Pacing(GAP_S)
    pacing.hold_until(0.0, 0)
    pacing.note_left(0.0, 1)
    return pacing


def test_nothing_is_held_while_nothing_happens():
    """The first request, and one that comes a gap after the last batch, leave at once."""
    pacing = Pacing(GAP_S)

    first = pacing.hold_until(5.0, 0)
    pacing.note_left(5.0, 1)
    later = pacing.hold_until(5.001, 0)

    assert (first, later) == (5.0, 5.001)


def test_who_finds_the_device_busy_is_held_for_the_gap():
    """He has to wait anyway."""
    pacing = after_one_batch()

    assert pacing.hold_until(10.0, 1) == 10.0 + GAP_S


def test_the_device_counts_as_busy_for_one_gap_after_a_batch_left():
    """Answers that are made at once must not keep requests from meeting."""
    pacing = after_one_batch()

    assert pacing.hold_until(0.0004, 0) == 0.0004 + GAP_S


def test_a_lone_caller_is_held_for_a_ninth_of_his_questions():
    """He asks again as soon as he has an answer: nobody ever joins him, and most of his questions leave at once."""
    pacing = after_one_batch()
    now, held = 0.0, 0

    for _ in range(90):
        now += 0.0005
        until = pacing.hold_until(now, 0)
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
        now = pacing.hold_until(arrived, 0)
        assert now == arrived + GAP_S
        pacing.note_left(now, 8)

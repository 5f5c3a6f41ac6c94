"""What leaves as a batch, and when: time is made up, so every test takes no time."""

from dataclasses import replace

import pytest

from model_service.company import Company
from model_service.waiting_room import BatchingKnobs, Drop, Priority, QueueFullError, Release, Ticket, WaitingRoom

KNOBS = BatchingKnobs(
    max_batch_rows=10, max_waiting_rows=20, gap_s=0.001, max_in_flight=2, bulk_patience_s=0.2, max_bulk_rows=10
)

NOBODY_WAITED_FOR = Company(0.0, lambda: 0.0)


def ticket(name, arrived=0.0, *, rows=1, bulk=False, deadline=100.0, num_far=0):
    return Ticket(name, rows, Priority.BULK if bulk else Priority.INTERACTIVE, arrived, deadline, num_far)


def busy_company():
    """Returns a company that is sought at 1, and waited for 12 ms."""
    company = Company(0.003, iter([0.0, 0.5]).__next__)
    company.is_sought(0.5)
    company.is_sought(1.0)
    return company


def room_with(*tickets, knobs=KNOBS, company=NOBODY_WAITED_FOR):
    room = WaitingRoom(knobs, company)
    for each in tickets:
        room.admit(each)
    return room


def names(batch):
    return [each.payload for each in batch]


def take(room, now):
    return names(room.take(now)[0])


def test_an_idle_device_takes_a_request_at_once():
    """Nobody waits while nothing is under way."""
    room = room_with(ticket("first", 5.0))

    assert take(room, 5.0) == ["first"]


def test_a_busy_device_lets_the_next_batch_form_for_the_gap():
    """Requests that find the device busy leave together when the gap is over, and not before."""
    room = room_with(ticket("first"))
    room.take(0.0)
    room.admit(ticket("second", 0.0100))
    room.admit(ticket("third", 0.0105))

    early = take(room, 0.0109)
    wake_at = room.wake_at()
    late = take(room, 0.0110)

    assert (early, wake_at, late) == ([], 0.0110, ["second", "third"])


def test_a_batch_held_by_a_busy_loop_leaves_when_one_joins_who_cannot_wait():
    """Twelve milliseconds for those who have time; he who has not, and they with him, leave after the usual gap."""
    room = room_with(ticket("first", 1.0, num_far=1), company=busy_company())
    held_until = room.wake_at()
    room.admit(ticket("second", 1.004, num_far=1))
    still = room.wake_at()
    room.admit(ticket("hurried", 1.005, deadline=1.02, num_far=1))

    assert (held_until, still, room.wake_at()) == pytest.approx((1.012, 1.012, 1.006))
    assert take(room, 1.0061) == ["first", "second", "hurried"]


def test_sixteen_users_who_are_not_near_are_enough_in_a_busy_loop():
    """Of those who wait: not of those who went, or were taken."""
    room = room_with(ticket("first", 1.0, num_far=9), company=busy_company())
    gone = ticket("gone", 1.001, num_far=6)
    room.admit(gone)
    room.withdraw(gone)
    room.admit(ticket("second", 1.002, num_far=6))
    held_until = room.wake_at()
    room.admit(ticket("third", 1.004, num_far=1))
    enough = room.wake_at()
    room.take(1.004)
    room.admit(ticket("next", 1.005, num_far=14))
    room.admit(ticket("more", 1.006, num_far=1))

    assert (held_until, enough, room.wake_at()) == pytest.approx((1.012, 1.004, 1.017))


def test_a_busy_loop_holds_no_bulk_request():
    """It shares no batch with others."""
    assert room_with(ticket("bulk", 1.0, bulk=True, num_far=1), company=busy_company()).wake_at() == 1.0


def test_a_full_batch_does_not_wait_for_the_gap():
    """There is nothing to gain by holding a batch that can take no more rows."""
    room = room_with(ticket("first"))
    room.take(0.0)
    room.admit(ticket("large", 0.01, rows=10))

    assert take(room, 0.01) == ["large"]


def test_no_more_batches_than_allowed_are_in_flight():
    """With all slots taken requests wait until a batch is done, and then leave at once if the gap is over."""
    room = room_with(ticket("first"))
    room.take(0.0)
    room.admit(ticket("second", 0.0))
    room.take(0.001)
    room.admit(ticket("third", 0.002))

    blocked = take(room, 1.0)
    wake_at = room.wake_at()
    room.finish(0.5)
    freed = take(room, 1.0)

    assert (blocked, wake_at, freed) == ([], None, ["third"])


def test_rows_are_bounded_and_not_requests():
    """A batch takes requests while their rows fit, in the order in which they came."""
    room = room_with(ticket("a", rows=6), ticket("b", rows=4), ticket("c", rows=1))

    assert take(room, 0.0) == ["a", "b"]
    assert take(room, 0.0) == ["c"]


def test_a_request_larger_than_a_batch_leaves_alone():
    """It must not wait for ever, and nobody is made to wait for it in the same batch."""
    room = room_with(ticket("huge", rows=15), ticket("small"))

    assert take(room, 0.0) == ["huge"]
    assert take(room, 0.0) == ["small"]


def test_interactive_requests_go_before_bulk_ones():
    """And not with them: whoever asks for a page does not wait until the bulk is done too."""
    room = room_with(ticket("bulk", rows=5, bulk=True), ticket("page", 0.01, rows=2), ticket("more", 0.01, rows=3))

    assert take(room, 0.01) == ["page", "more"]
    assert take(room, 0.01) == ["bulk"]


def test_a_bulk_request_is_not_starved():
    """After its patience it takes the place that its age gives it."""
    room = room_with(ticket("bulk", 0.0, rows=5, bulk=True), ticket("page", 0.1, rows=8))

    assert take(room, 0.2) == ["bulk"]


def test_a_bulk_job_without_patience_has_every_second_batch():
    """However much of it waits, who asks for a page waits for one batch of it."""
    bulk = [ticket(f"bulk {number}", 0.0, rows=5, bulk=True) for number in range(3)]
    room = room_with(*bulk, ticket("page", 0.1), knobs=replace(KNOBS, max_bulk_rows=5))

    assert [take(room, 0.3), take(room, 0.3)] == [["bulk 0"], ["page"]]


def test_a_batch_of_bulk_requests_is_small():
    """A page that comes right after it has left waits for these rows only."""
    bulk = [ticket(f"bulk {number}", 0.0, rows=2, bulk=True) for number in range(4)]
    room = room_with(*bulk, knobs=replace(KNOBS, max_bulk_rows=4))

    assert [take(room, 0.3), take(room, 0.3)] == [["bulk 0", "bulk 1"], ["bulk 2", "bulk 3"]]


def test_expired_requests_leave_before_work_is_done():
    """A caller who has stopped waiting costs nothing."""
    room = room_with(ticket("gone", deadline=0.5), ticket("here", deadline=0.51))

    batch, dropped = room.take(0.5)

    assert (names(batch), names(dropped)) == (["here"], ["gone"])


def test_withdrawn_requests_leave_before_work_is_done():
    """A cancelled request frees its rows at once; withdrawing it again changes nothing."""
    cancelled = ticket("gone", rows=7)
    room = room_with(cancelled, ticket("here"))

    room.withdraw(cancelled)
    room.withdraw(cancelled)

    assert room.waiting_rows == 1
    assert take(room, 0.0) == ["here"]


def test_a_full_queue_refuses_and_says_when_to_come_back():
    """The wait is what the rows before it should take, by the batches seen so far."""
    room = room_with(ticket("first"))
    room.take(0.0)
    room.finish(0.1)
    room.admit(ticket("waits", rows=20))

    with pytest.raises(QueueFullError) as refusal:
        room.admit(ticket("late"))

    assert refusal.value.retry_after_s == pytest.approx(0.3)


def test_bulk_requests_cannot_fill_the_queue_of_interactive_ones():
    """Each priority has its own bound."""
    room = room_with(ticket("bulk", rows=20, bulk=True))

    with pytest.raises(QueueFullError):
        room.admit(ticket("more bulk", bulk=True))
    room.admit(ticket("page"))

    assert room.waiting_rows == 21


def test_expired_requests_make_room_in_a_full_queue():
    """Nobody is refused for the sake of callers who have gone."""
    room = room_with(ticket("gone", rows=20, deadline=1.0))

    dropped = room.admit(ticket("late", 1.0, rows=20))

    assert names(dropped) == ["gone"]
    assert take(room, 1.0) == ["late"]


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits():
    """Any request within the limits of the contract can be answered."""
    room = room_with(ticket("huge", rows=1000))

    assert take(room, 0.0) == ["huge"]


def test_batches_are_counted_by_why_they_left():
    """The first found the device idle, the next found it busy and waited, the last was full."""
    room = room_with(ticket("first"))
    room.take(0.0)
    room.admit(ticket("second", 0.01))
    room.take(0.02)
    room.finish(0.02)
    room.admit(ticket("large", 0.03, rows=10))
    room.take(0.03)

    assert room.released == {Release.IDLE: 1, Release.HELD: 1, Release.FULL: 1}


def test_requests_are_counted_by_why_they_were_dropped():
    """One found no room, one waited past its deadline, the caller of one went away; one that left is none of them."""
    room = room_with(ticket("leaves"))
    room.take(0.0)
    gone = ticket("gone", 0.01)
    for each in (gone, ticket("late", 0.01, deadline=0.02), ticket("many", 0.01, rows=18)):
        room.admit(each)
    with pytest.raises(QueueFullError):
        room.admit(ticket("refused", 0.01))

    room.withdraw(gone)
    room.withdraw(gone)
    room.take(0.03)

    assert room.dropped == {Drop.REFUSED: 1, Drop.EXPIRED: 1, Drop.CANCELLED: 1}

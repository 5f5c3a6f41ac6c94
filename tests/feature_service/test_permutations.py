"""A user's state depends on the set of his events alone: not on their order, grouping or repetition."""

import asyncio
import math
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from feature_service.histories import Histories, WatchEvent
from feature_service.import_plan import ImportColumns
from feature_service.keys import user_keys
from feature_service.lifetimes import Lifetimes
from feature_service.seen_sets import pack_seen
from feature_service.value_format import ENTRY, HEADER, event_hash, pack_state

WINDOW = 4
# Few movies and times, so that they meet; numbers on both sides of the seen set's two formats.
MOVIES = [0, 1, 2, 3, 4, 5, 6, 16_383, 16_384, 70_000]

# event_id "" stands for an imported entry, which has none.
Event = tuple[str, int, float | None, int]  # event_id, movie number, rating, time
events_strategy = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "b", "c"]),
        st.sampled_from(MOVIES),
        st.sampled_from([None, None, -0.0, 0.0, 1.0, 4.5, 5.0]),
        st.integers(0, 12),
    ),
    max_size=30,
)


def model(events: list[Event], window: int) -> tuple[bytes, bytes]:
    """Says in plain Python what the state and the seen set of these events are, without the version."""

    def age(event: Event) -> tuple[int, int, float]:
        event_id, _, rating, time = event
        return time, event_hash(event_id) if event_id else 0, -math.inf if rating is None else rating

    newest: dict[int, Event] = {}
    newest_rated: dict[int, Event] = {}
    for event in events:
        number = event[1]
        if number not in newest or age(event) > age(newest[number]):
            newest[number] = event
        if event[2] is not None and (number not in newest_rated or age(event) > age(newest_rated[number])):
            newest_rated[number] = event
    kept = sorted(newest.values(), key=lambda event: (event[3], event[1]), reverse=True)[:window]
    if len(kept) == window:
        floor = (kept[-1][3], kept[-1][1])
        newest_rated = {n: event for n, event in newest_rated.items() if (event[3], n) >= floor}
    entries, older = [], []
    for event in kept:
        rated = newest_rated.get(event[1])
        stars = math.nan if rated is None or rated[2] is None else rated[2] + 0.0
        entries.append((event[1], stars, event[3], age(event)[1]))
        if rated is not None and event[2] is None:
            older.append((event[1], stars, rated[3], age(rated)[1]))
    state = pack_state(b"", np.array(entries, ENTRY).tobytes(), np.array(older, ENTRY).tobytes(), len(newest))
    return state, pack_seen(np.array(sorted(newest)))


class Store:
    """Feeds events to a user of a real Redis and reads his bytes."""

    def __init__(self, link, marks):
        self._link = link
        self._histories = Histories(link, marks, lambda: 0, window=WINDOW, log_entries=1000, lifetimes=Lifetimes())
        self._num_users = 0

    async def add(self, user_id: str, call: list[Event]) -> None:
        """Writes events; those without an id are imported."""
        written = [
            WatchEvent(event_id, user_id, number, rating, time) for event_id, number, rating, time in call if event_id
        ]
        imported = [event for event in call if not event[0]]
        if written:
            await self._histories.write(written)
        if imported:
            columns = ImportColumns(
                np.array([len(imported)]),
                np.array([number for _, number, _, _ in imported]),
                np.array([math.nan if rating is None else rating for _, _, rating, _ in imported], np.float32),
                np.array([time for _, _, _, time in imported]),
            )
            await self._histories.load([user_id], columns, not_for_evaluation=False)

    async def state_after(self, calls: list[list[Event]]) -> tuple[bytes, bytes]:
        """Returns state, without the version, and seen set of a new user after some calls."""
        self._num_users += 1
        user_id = f"user {self._num_users}"
        for call in calls:
            await self.add(user_id, call)
        keys = user_keys(user_id)
        state, seen = await self._link.read([keys.state, keys.seen])
        if state is None:
            return pack_state(b"", b"", b"", 0), seen or b""
        return without_version(state), seen or b""


def without_version(state: bytes) -> bytes:
    header = list(HEADER.unpack_from(state))
    header[3] = 0
    return HEADER.pack(*header) + state[HEADER.size :]


def cut(events: list[Event], rng: random.Random) -> list[list[Event]]:
    """Spreads events over calls."""
    calls: list[list[Event]] = [[]]
    for event in events:
        if rng.random() < 0.3:
            calls.append([])
        calls[-1].append(event)
    return [call for call in calls if call]


@pytest.fixture
def store(link, marks) -> Store:
    return Store(link, marks)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=events_strategy, rng=st.randoms(use_true_random=False))
@example(events=[("a", 1, 5.0, 3), ("b", 1, None, 7), ("c", 2, 1.0, 5)], rng=random.Random(0))
async def test_any_order_and_repetition_ends_in_the_same_bytes(store, events, rng):
    """Written one by one, together, shuffled, repeated, imported: the bytes are those of the model."""
    shuffled = [*events, *rng.choices(events, k=rng.randint(0, len(events)))] if events else []
    rng.shuffle(shuffled)

    in_order = await store.state_after([[event] for event in events])
    at_random = await store.state_after(cut(shuffled, rng))

    assert in_order == model(events, WINDOW)
    assert at_random == in_order


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=events_strategy)
@example(events=[("", 1, 5.0, 3), ("", 1, None, 9), *(("", number, None, 5 + number) for number in (2, 3, 4))])
async def test_a_user_who_is_new_is_imported_as_he_would_be_merged(store, events):
    """What is written without a merge, because nothing is stored yet, has the bytes that merging leaves."""
    imported = [("", *rest) for _, *rest in events]

    at_once = await store.state_after([imported])

    assert at_once == model(imported, WINDOW)


async def test_writers_at_once_end_in_the_same_bytes(link, marks):
    """Forty calls that race for one user leave what one call would have left."""
    rng = random.Random(1)
    events = [(f"e{i}", rng.choice(MOVIES), rng.choice([None, 2.0, 3.0]), rng.randrange(9)) for i in range(200)]
    histories = Histories(link, marks, lambda: 0, window=WINDOW, log_entries=1000, lifetimes=Lifetimes())
    writes = [[WatchEvent(name, "u", *rest) for name, *rest in events[i::40]] for i in range(40)]

    await asyncio.gather(*(histories.write(write) for write in writes))

    state, seen = await link.read([user_keys("u").state, user_keys("u").seen])
    assert (without_version(state), seen) == model(events, WINDOW)


async def test_an_unrated_rewatch_keeps_the_rating_and_moves_the_movie(store):
    """Watching again without rating makes a movie the newest and leaves its stars."""
    state, _ = await store.state_after([[("a", 1, 4.5, 10)], [("b", 2, 3.0, 20)], [("c", 1, None, 30)]])

    entries = np.frombuffer(state[HEADER.size :], ENTRY)
    assert [(number, stars, time) for number, stars, time, _ in entries.tolist()] == [
        (1, 4.5, 30),
        (2, 3.0, 20),
        (1, 4.5, 10),  # the older rating, kept apart
    ]


async def test_a_rating_older_than_the_full_window_is_forgotten(store):
    """Once newer movies fill the window, only what is not older than them counts."""
    calls: list[list[Event]] = [[("a", 1, 4.5, 1)], [("b", 1, None, 50)]]
    calls += [[("c", 2 + i, None, 10 + i)] for i in range(WINDOW - 1)]

    state, _ = await store.state_after(calls)

    newest = np.frombuffer(state[HEADER.size :], ENTRY)[0]
    assert newest["number"] == 1
    assert math.isnan(newest["rating"])
    assert len(state) == HEADER.size + WINDOW * ENTRY.itemsize


@pytest.mark.parametrize("number", [16_383, 16_384, 2**32 - 1])
async def test_the_seen_set_holds_any_number(store, number):
    """Both formats, and the switch between them, keep every number."""
    calls: list[list[Event]] = [[("a", n, None, n % 7)] for n in (5, 900, number, 5, 16_000, 3)]

    _, seen = await store.state_after(calls)

    assert seen == pack_seen(np.array(sorted({5, 900, number, 16_000, 3})))


@pytest.mark.parametrize("step", [1, 9, 33, 300])
async def test_the_seen_set_is_packed_by_what_it_holds(store, step):
    """Sparse sets and dense ones, one movie at a time and all at once, from either end: the same bytes."""
    numbers = list(range(0, 64 * step, step))
    rising: list[Event] = [("a", n, None, 1) for n in numbers]
    one_by_one = [[event] for event in rising]

    packed = {(await store.state_after(calls))[1] for calls in (one_by_one, one_by_one[::-1], [rising])}

    assert packed == {pack_seen(np.array(numbers))}


async def test_a_sparse_bitmap_of_an_older_build_is_packed_anew(store, link):
    """It is read as it is, and written as it would be today with the next movie."""
    await store.add("u", [("a", 16_000, None, 1)])
    await link.command("SET", user_keys("u").seen, b"\x01" + bytes(2000) + b"\x80")

    await store.add("u", [("b", 5, None, 2)])

    assert await link.read([user_keys("u").seen]) == [pack_seen(np.array([5, 16_000]))]

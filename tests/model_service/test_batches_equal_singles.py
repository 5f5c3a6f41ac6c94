"""A batch of mixed requests answers each as if it had come alone: every path, every device, real models."""

import numpy as np
import pytest
import torch
from marquee.client.columns import UserRows
from marquee.v1 import user_pb2

from model_service.catalogue import Catalogue, CatalogueMovie
from model_service.device_work import DeviceWork
from model_service.filters import MovieFilter
from model_service.generation import Generation
from model_service.queries import (
    ProfileFields,
    RatingAnswer,
    RatingTask,
    SimilarAnswer,
    SimilarTask,
    TopKAnswer,
    TopKTask,
    UserQuery,
    Watched,
)
from model_service.stored_user import stored_users
from model_service.user_side import StoredUsers
from tests.model_service.hand_made import HandMade
from tests.model_service.hand_made_pairwise import HandMadePairwise
from two_tower import checkpoint
from two_tower.recommending import Wish

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
NUM_MOVIES = 40
NUM_USERS = 24
GENRES = ["Drama", "Comedy", "Crime"]
NOW_MS = 1_700_000_000_000


@pytest.fixture(
    params=[
        (device, *form)
        for device in DEVICES
        for form in [("numpy", HandMade), ("torch", HandMade), ("pairwise", HandMadePairwise)]
    ],
    ids=lambda param: "-".join(param[:2]),
)
def bench(request, train):
    """A generation on a device, and work that is forced onto one path."""
    device, path, kind = request.param
    rng = np.random.default_rng(5)
    loaded = checkpoint.load(train("v1", kind=kind), device)
    movies = [
        CatalogueMovie(
            number,
            ["heat", "alien", "big", "up"][number] if number < 4 else f"m{number}",
            year=int(rng.integers(1980, 2020)),
            genres=tuple(rng.choice(GENRES, rng.integers(0, 3), replace=False)),
            removed=number % 13 == 12,
        )
        for number in range(NUM_MOVIES)
    ]
    generation = Generation.build(loaded, Catalogue.empty("c").with_changes(movies, 1))
    return DeviceWork(10_000 if path == "numpy" else 0), generation


@pytest.fixture
def stored():
    """Users with histories of 0 to 12 movies; every third is one that the checkpoint knows or nobody stored."""
    rng = np.random.default_rng(6)
    ids = ["ann", "bob", *(f"u{number}" for number in range(2, NUM_USERS))]
    lengths = rng.integers(0, 13, NUM_USERS)
    numbers = [np.sort(rng.choice(NUM_MOVIES, length, replace=False))[::-1] for length in lengths]
    flat = np.concatenate(numbers).astype(np.int32)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    ratings = rng.integers(1, 6, len(flat)).astype(np.float32)
    ratings[rng.random(len(flat)) < 0.2] = np.nan
    rows = UserRows(
        statuses=np.full(NUM_USERS, user_pb2.USER_STATUS_FOUND, np.int32),
        profiles=[user_pb2.UserProfile(gender="FM"[number % 2]) for number in range(NUM_USERS)],
        user_versions=[f"0123456789abcdef.1.{number}" for number in range(NUM_USERS)],
        offsets=offsets,
        movie_numbers=flat,
        ratings=ratings,
        event_times_ms=np.zeros(len(flat), np.int64),
        num_watched=lengths.astype(np.int64),
        deleted_at_ms=np.zeros(NUM_USERS, np.int64),
        expires_at_ms=np.zeros(NUM_USERS, np.int64),
        seen_offsets=offsets,
        seen_numbers=flat,
        seen_omitted=np.zeros(NUM_USERS, np.bool_),
    )
    return StoredUsers(dict(zip(ids, stored_users(rows), strict=True)))


def mixed_tasks(stored):
    rng = np.random.default_rng(7)
    ids = list(stored.users)

    def watched():
        numbers = rng.integers(0, NUM_MOVIES, 6).astype(np.int64)
        return Watched(numbers, rng.integers(1, 6, 6).astype(np.float32), None)

    def user():
        kind = rng.integers(5)
        if kind == 0:
            return UserQuery(None, ProfileFields(gender="F"), history=watched())
        if kind == 1:
            return UserQuery(str(rng.choice(ids)), session=watched())
        if kind == 2:
            return UserQuery("nobody")
        if kind == 3:
            return UserQuery(str(rng.choice(ids)))
        return UserQuery(str(rng.choice(ids)), ProfileFields(gender="M"))

    def movie_filter():
        return MovieFilter(
            genres_any=("drama", "comedy") if rng.random() < 0.5 else (),
            year_min=2000 if rng.random() < 0.3 else None,
            allow=tuple(rng.choice(NUM_MOVIES, 20, replace=False).tolist()) if rng.random() < 0.3 else None,
        )

    def wish():
        diversity = rng.random() if rng.random() < 0.3 else 0.0
        return Wish(int(rng.integers(1, 50)), diversity, int(rng.integers(1, 6)) if rng.random() < 0.3 else 0)

    tasks = []
    for number in range(40):
        users = [user() for _ in range(1 + number % 3)]
        if number % 3 == 0:
            pairs = np.arange(5) % len(users)
            movies = rng.integers(-1, NUM_MOVIES, 5).astype(np.int64)
            tasks.append(RatingTask("c", users, pairs.astype(np.int64), movies))
        elif number % 3 == 1:
            tasks.append(TopKTask("c", users, wish(), movie_filter(), bool(rng.random() < 0.7)))
        else:
            tasks.append(SimilarTask("c", int(rng.integers(NUM_MOVIES)), int(rng.integers(1, 50)), movie_filter()))
    return tasks


def assert_equal_rows(found, expected):
    assert found.ranked.numbers.tolist() == expected.ranked.numbers.tolist()
    np.testing.assert_allclose(found.ranked.scores, expected.ranked.scores, rtol=1e-6, atol=1e-6)
    assert (found.ratings is None) == (expected.ratings is None)
    if found.ratings is not None:
        np.testing.assert_allclose(found.ratings, expected.ratings, rtol=1e-6, atol=1e-6)
    assert (found.explanations is None) == (expected.explanations is None)
    for told, other in zip(found.explanations or (), expected.explanations or (), strict=True):
        assert told.numbers.tolist() == other.numbers.tolist()
        np.testing.assert_allclose(told.shares, other.shares, atol=1e-5)
        assert told.unexplained == pytest.approx(other.unexplained, abs=1e-5)


def assert_equal_answers(found, expected):
    assert type(found) is type(expected)
    if isinstance(found, RatingAnswer):
        assert found.users == expected.users
        for name in ("ratings", "rounded_ratings", "scores"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-6)
    elif isinstance(found, TopKAnswer):
        assert found.users == expected.users
        for row, other in zip(found.rows, expected.rows, strict=True):
            assert_equal_rows(row, other)
    else:
        assert isinstance(found, SimilarAnswer)
        assert_equal_rows(found.row, expected.row)


def test_a_batch_of_mixed_requests_equals_single_ones(bench, stored):
    """The neighbours of a request change nothing but the time it takes."""
    work, generation = bench
    tasks = mixed_tasks(stored)

    together = work.answer(tasks, stored, generation, NOW_MS)

    for task, answer in zip(tasks, together, strict=True):
        [alone] = work.answer([task], stored, generation, NOW_MS)
        assert_equal_answers(answer, alone)


def test_users_who_were_embedded_before_are_answered_alike(bench, stored):
    """Beside others who go through the tower; made up or added to for one request is nobody who is kept."""
    work, generation = bench
    tasks = mixed_tasks(stored)
    queries = [query for task in tasks for query in task.users]
    as_stored = {query.user_id for query in queries if query.is_as_stored} - {"nobody"}

    first, made = work.answer_and_embed(tasks, StoredUsers(stored.users, kept=True), generation, NOW_MS)
    generation.checkpoint.model.batches.clear()
    second, anew = work.answer_and_embed(tasks, StoredUsers(stored.users, made, kept=True), generation, NOW_MS)

    assert set(made) == as_stored
    assert anew == {}
    assert generation.checkpoint.model.batches[0] < len(queries)
    for answer, expected in zip(second, first, strict=True):
        assert_equal_answers(answer, expected)


def test_only_users_who_were_embedded_before_need_no_tower(bench, stored):
    """A batch of nobody else runs none, but for what explanations leave out in turn."""
    work, generation = bench
    users = [UserQuery(user_id) for user_id in list(stored.users)[:5]]
    tasks = [
        TopKTask("c", users[:3], Wish(10), MovieFilter(), True),
        RatingTask("c", users[2:], np.array([0, 1, 2]), np.array([3, 4, 5])),
    ]

    first, made = work.answer_and_embed(tasks, StoredUsers(stored.users, kept=True), generation, NOW_MS)
    generation.checkpoint.model.batches.clear()
    second, _ = work.answer_and_embed(tasks, StoredUsers(stored.users, made, kept=True), generation, NOW_MS)

    assert generation.checkpoint.model.batches == []
    for answer, expected in zip(second, first, strict=True):
        assert_equal_answers(answer, expected)


def test_both_paths_give_the_same_answers(bench, stored):
    """Where the crossover lies is a matter of time, not of answers."""
    work, generation = bench
    tasks = mixed_tasks(stored)

    for rows in (0, 10_000):
        other = DeviceWork(rows).answer(tasks, stored, generation, NOW_MS)
        for answer, expected in zip(work.answer(tasks, stored, generation, NOW_MS), other, strict=True):
            assert_equal_answers(answer, expected)


def test_what_was_seen_or_removed_is_never_ranked(bench, stored):
    """By nobody, whatever the rest of the batch asks for."""
    work, generation = bench
    ids = list(stored.users)
    task = TopKTask("c", [UserQuery(user_id) for user_id in ids], Wish(500), MovieFilter(), True)

    [answer] = work.answer([task], stored, generation, NOW_MS)

    removed = {number for number in range(NUM_MOVIES) if number % 13 == 12}
    for user_id, ranked in zip(ids, answer.rows, strict=True):
        seen = set(stored.users[user_id].history.movie_numbers.tolist())
        assert set(ranked.ranked.numbers.tolist()) == set(range(NUM_MOVIES)) - seen - removed

"""The largest calls that the contract allows fit into a gRPC message, there and back."""

import numpy as np
import pytest
from marquee.client.channel import MAX_MESSAGE_BYTES
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import movie_pb2, user_pb2

NUM_MOVIES = 4200
NUM_WATCHED = 2100
NUM_USERS = 10


def long_id(prefix, number):
    return f"{prefix}{number}".ljust(128, "x")


def movie_id(number):
    return long_id("m", number)


def full_entry(number):
    entry = user_pb2.HistoryEntry(movie_id=movie_id(number), rating=4.5)
    entry.event_time.FromMilliseconds(253_402_300_799_999)
    return entry


FULL_PROFILE = user_pb2.UserProfile(gender="x" * 32, age=150, occupation="x" * 64, zip="x" * 32)
FULL_FILTER = pb.MovieFilter(
    genres_any=["g" * 64] * 32,
    year_min=1900,
    year_max=2100,
    allow=pb.MovieList(movie_ids=[movie_id(number % NUM_MOVIES) for number in range(10_000)]),
    exclude=pb.MovieList(movie_ids=[long_id("unknown", number) for number in range(10_000)]),
)
VERSION = pb.ModelSelector(model_version="v" * 64)


@pytest.fixture
async def model(start, train, features):
    """A catalogue of movies with all that a movie may have, and users who have watched half of it."""
    features.movies.clear()
    features.changed_at.clear()
    for number in range(NUM_MOVIES):
        full = {"title": "t" * 512, "genres": ["g" * 64, *(f"{g:02}".ljust(64, "y") for g in range(31))]}
        fields = full if number < 600 else {"title": "t", "genres": ["g" * 64]}
        features.movies.append(movie_pb2.Movie(movie_id=movie_id(number), catalogue_number=number, year=2000, **fields))
        features.changed_at.append(1)
    for user in range(NUM_USERS):
        user_id = long_id("u", user)
        features.profiles[user_id] = FULL_PROFILE
        features.events[user_id] = {number: (1_000_000 + number, 4.0) for number in range(0, 2 * NUM_WATCHED, 2)}
    train("v" * 64)
    async with start(feature_timeout_s=30) as stub:
        yield stub


def assert_fits(*messages):
    for message in messages:
        assert message.ByteSize() <= MAX_MESSAGE_BYTES


async def test_the_largest_top_k_fits(model):
    """A full inline user, full lists, and 500 movies with all that there is to say about them."""
    user = pb.UserSelector(
        inline_user=pb.InlineUser(profile=FULL_PROFILE, history=[full_entry(number) for number in range(1000)]),
        session_events=[full_entry(number) for number in range(100)],
        profile_overrides=FULL_PROFILE,
    )
    request = pb.TopKRequest(
        user=user,
        k=500,
        filter=FULL_FILTER,
        exclude_seen=False,
        view=movie_pb2.MOVIE_VIEW_MOVIE,
        model=VERSION,
        diversity=0.5,
        explain=5,
    )

    reply = await model.TopK(request, timeout=30)

    assert len(reply.movies) == 500
    assert_fits(request, reply)


async def test_the_largest_batch_top_k_fits(model):
    """A thousand users, 5000 entries among them, full lists, 20,000 movies."""
    users = [
        pb.UserSelector(
            user_id=long_id("u", number),
            session_events=[full_entry(number + entry) for entry in range(5)],
            profile_overrides=FULL_PROFILE,
        )
        for number in range(1000)
    ]
    request = pb.BatchTopKRequest(users=users, k=20, filter=FULL_FILTER, model=VERSION)

    reply = await model.BatchTopK(request, timeout=60)

    assert {len(row.movies) for row in reply.results} == {20}
    assert_fits(request, reply)


async def test_the_largest_batch_with_titles_fits(model):
    """A thousand movies with all that there is to say about them."""
    history = [user_pb2.HistoryEntry(movie_id=movie_id(number), rating=5) for number in range(10)]
    users = [pb.UserSelector(inline_user=pb.InlineUser(history=history))] * 2
    request = pb.BatchTopKRequest(users=users, k=500, view=movie_pb2.MOVIE_VIEW_MOVIE, explain=5)

    reply = await model.BatchTopK(request, timeout=30)

    assert sum(len(movie.movie.genres) for movie in reply.results[0].movies) == 500 * 32
    assert_fits(request, reply)


async def test_the_largest_batch_of_ratings_fits(model):
    """A thousand users, 4096 movies, 4096 pairs."""
    request = pb.BatchPredictRatingsRequest(
        user_ids=[long_id("u", number) for number in range(1000)],
        movie_ids=[movie_id(number) for number in range(4096)],
        user_indices=[number % 1000 for number in range(4096)],
        movie_indices=list(range(4096)),
        model=VERSION,
        min_user_versions=["0123456789abcdef.7.0"] * 1000,
        with_stddev=True,
    )

    reply = await model.BatchPredictRatings(request, timeout=30)

    assert set(reply.statuses) == {pb.ROW_STATUS_OK}
    assert_fits(request, reply)


async def test_who_has_watched_2000_movies_is_recommended_none_of_them(model):
    """Also those that have long left the history window."""
    users = [pb.UserSelector(user_id=long_id("u", number)) for number in range(NUM_USERS)]

    reply = await model.BatchTopK(pb.BatchTopKRequest(users=users, k=500), timeout=30)
    single = await model.TopK(pb.TopKRequest(user=users[0], k=500))

    watched = {movie_id(number) for number in range(0, 2 * NUM_WATCHED, 2)}
    assert len(watched) >= 2000
    for row in (*reply.results, single):
        answered = {movie.movie_id for movie in row.movies}
        assert len(answered) == 500
        assert not answered & watched
    assert np.isfinite([movie.score for movie in single.movies]).all()

"""What is refused, and what the caller is told: every limit just outside, everything that is wrong at once."""

from typing import Any, cast

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.client.errors import read_error
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import movie_pb2, user_pb2


def inline(num_entries, movie_id="heat"):
    return pb.UserSelector(inline_user=pb.InlineUser(history=[user_pb2.HistoryEntry(movie_id=movie_id)] * num_entries))


def one(**fields):
    entry = user_pb2.HistoryEntry(movie_id="heat", **fields)
    return pb.UserSelector(inline_user=pb.InlineUser(history=[entry]))


def profile(**fields):
    return pb.UserSelector(inline_user=pb.InlineUser(profile=user_pb2.UserProfile(**fields)))


def asks(user):
    return pb.PredictRatingRequest(user=user, movie_id="heat")


def wants(k=1, user="ann", **fields):
    return pb.TopKRequest(user=pb.UserSelector(user_id=user), k=k, filter=pb.MovieFilter(**fields))


def movies(number):
    return pb.MovieList(movie_ids=["heat"] * number)


ANN = pb.UserSelector(user_id="ann")

REFUSED = {
    "nobody": (asks(pb.UserSelector()), "user"),
    "an empty user_id": (asks(pb.UserSelector(user_id="")), "user.user_id"),
    "129 bytes of user_id": (asks(pb.UserSelector(user_id="é" * 64 + "x")), "user.user_id"),
    "a control character": (asks(pb.UserSelector(user_id="a\nb")), "user.user_id"),
    "an empty movie_id": (pb.PredictRatingRequest(user=ANN), "movie_id"),
    "1001 inline entries": (asks(inline(1001)), "user.inline_user.history"),
    "an inline movie that the catalogue lacks": (asks(inline(1, "nope")), "user.inline_user.history[0].movie_id"),
    "101 session events": (
        asks(pb.UserSelector(user_id="ann", session_events=[user_pb2.HistoryEntry(movie_id="heat")] * 101)),
        "user.session_events",
    ),
    "times of some entries only": (
        asks(
            pb.UserSelector(
                inline_user=pb.InlineUser(
                    history=[
                        user_pb2.HistoryEntry(movie_id="heat"),
                        user_pb2.HistoryEntry(movie_id="big", event_time=Timestamp(seconds=1)),
                    ]
                )
            )
        ),
        "user.inline_user.history",
    ),
    "a time before 1970": (asks(one(event_time=Timestamp(seconds=-1))), "user.inline_user.history[0].event_time"),
    "a time after 9999": (
        asks(one(event_time=Timestamp(seconds=253_402_300_800))),
        "user.inline_user.history[0].event_time",
    ),
    "a time finer than a millisecond": (
        asks(one(event_time=Timestamp(seconds=1, nanos=1))),
        "user.inline_user.history[0].event_time",
    ),
    "a rating that is no number": (asks(one(rating=float("nan"))), "user.inline_user.history[0].rating"),
    "a rating off the scale": (asks(one(rating=5.1)), "user.inline_user.history[0].rating"),
    "an empty gender": (asks(profile(gender="")), "user.inline_user.profile.gender"),
    "33 bytes of gender": (asks(profile(gender="x" * 33)), "user.inline_user.profile.gender"),
    "an age of 151": (asks(profile(age=151)), "user.inline_user.profile.age"),
    "65 bytes of occupation": (asks(profile(occupation="x" * 65)), "user.inline_user.profile.occupation"),
    "33 bytes of zip": (asks(profile(zip="x" * 33)), "user.inline_user.profile.zip"),
    "a version of an anonymous user": (
        asks(pb.UserSelector(inline_user=pb.InlineUser(), min_user_version="x")),
        "user.min_user_version",
    ),
    "no movies wanted": (wants(k=0), "k"),
    "501 movies wanted": (wants(k=501), "k"),
    "33 genres": (wants(genres_any=["Drama"] * 33), "filter.genres_any"),
    "a genre that does not exist": (wants(genres_none=["Drama", "Polka"]), "filter.genres_none[1]"),
    "years the wrong way round": (wants(year_min=2000, year_max=1999), "filter.year_min"),
    "10,001 movies allowed": (wants(allow=movies(10_001)), "filter.allow.movie_ids"),
    "an allowed movie that the catalogue lacks": (
        wants(allow=pb.MovieList(movie_ids=["heat", "nope"])),
        "filter.allow.movie_ids[1]",
    ),
    "10,001 movies excluded": (wants(exclude=movies(10_001)), "filter.exclude.movie_ids"),
    "an unknown view": (pb.TopKRequest(user=ANN, k=1, view=cast(Any, 9)), "view"),
    "a diversity below 0": (pb.TopKRequest(user=ANN, k=1, diversity=-0.1), "diversity"),
    "a diversity above 1": (pb.BatchTopKRequest(users=[ANN], k=1, diversity=1.1), "diversity"),
    "a diversity that is no number": (pb.TopKRequest(user=ANN, k=1, diversity=float("nan")), "diversity"),
    "6 reasons": (pb.TopKRequest(user=ANN, k=1, explain=6), "explain"),
    "51 users to explain to": (pb.BatchTopKRequest(users=[ANN] * 51, k=1, explain=1), "users"),
    "1002 movies with reasons": (pb.BatchTopKRequest(users=[ANN] * 3, k=334, explain=1), "k"),
    "no users": (pb.BatchTopKRequest(k=1), "users"),
    "1001 users": (pb.BatchTopKRequest(users=[ANN] * 1001, k=1), "users"),
    "20,040 movies for all users together": (pb.BatchTopKRequest(users=[ANN] * 501, k=40), "k"),
    "1002 movies with titles": (pb.BatchTopKRequest(users=[ANN] * 3, k=334, view=movie_pb2.MOVIE_VIEW_MOVIE), "k"),
    "5001 entries of inline users": (pb.BatchTopKRequest(users=[inline(1000)] * 5 + [inline(1)], k=1), "users"),
    "a wrong user among others": (pb.BatchTopKRequest(users=[ANN, pb.UserSelector()], k=1), "users[1]"),
    "501 similar movies": (pb.SimilarMoviesRequest(movie_id="heat", k=501), "k"),
    "no pairs": (pb.BatchPredictRatingsRequest(user_ids=["a"], movie_ids=["heat"]), "user_indices"),
    "4097 pairs": (
        pb.BatchPredictRatingsRequest(
            user_ids=["a"], movie_ids=["heat"], user_indices=[0] * 4097, movie_indices=[0] * 4097
        ),
        "user_indices",
    ),
    "1001 users of pairs": (
        pb.BatchPredictRatingsRequest(
            user_ids=[str(n) for n in range(1001)], movie_ids=["heat"], user_indices=[0], movie_indices=[0]
        ),
        "user_ids",
    ),
    "4097 movies of pairs": (
        pb.BatchPredictRatingsRequest(
            user_ids=["a"], movie_ids=[str(n) for n in range(4097)], user_indices=[0], movie_indices=[0]
        ),
        "movie_ids",
    ),
    "a user twice": (
        pb.BatchPredictRatingsRequest(user_ids=["a", "a"], movie_ids=["heat"], user_indices=[0], movie_indices=[0]),
        "user_ids",
    ),
    "a movie twice": (
        pb.BatchPredictRatingsRequest(user_ids=["a"], movie_ids=["heat", "heat"], user_indices=[0], movie_indices=[0]),
        "movie_ids",
    ),
    "more indices of users than of movies": (
        pb.BatchPredictRatingsRequest(user_ids=["a"], movie_ids=["heat"], user_indices=[0, 0], movie_indices=[0]),
        "movie_indices",
    ),
    "an index of a user beyond the list": (
        pb.BatchPredictRatingsRequest(user_ids=["a"], movie_ids=["heat"], user_indices=[1], movie_indices=[0]),
        "user_indices[0]",
    ),
    "an index of a movie beyond the list": (
        pb.BatchPredictRatingsRequest(user_ids=["a"], movie_ids=["heat"], user_indices=[0], movie_indices=[1]),
        "movie_indices[0]",
    ),
    "versions of some users only": (
        pb.BatchPredictRatingsRequest(
            user_ids=["a", "b"], movie_ids=["heat"], user_indices=[0], movie_indices=[0], min_user_versions=["x"]
        ),
        "min_user_versions",
    ),
}

ALLOWED = {
    "128 bytes of user_id": asks(pb.UserSelector(user_id="é" * 64)),
    "1000 inline entries": asks(inline(1000)),
    "100 session events": asks(
        pb.UserSelector(user_id="ann", session_events=[user_pb2.HistoryEntry(movie_id="heat")] * 100)
    ),
    "the last millisecond of 9999": asks(
        one(event_time=Timestamp(seconds=253_402_300_799, nanos=999_000_000), rating=5.0)
    ),
    "a full profile": asks(profile(gender="x" * 32, age=150, occupation="x" * 64, zip="x" * 32)),
    "500 movies wanted": wants(k=500),
    "32 genres": wants(genres_any=["Drama"] * 32),
    "10,000 movies allowed and excluded": wants(allow=movies(10_000), exclude=movies(10_000)),
    "20,000 movies for all users together": pb.BatchTopKRequest(users=[ANN] * 1000, k=20),
    "1000 movies with titles": pb.BatchTopKRequest(users=[ANN] * 2, k=500, view=movie_pb2.MOVIE_VIEW_MOVIE),
    "50 users and 1000 movies with reasons": pb.BatchTopKRequest(users=[ANN] * 50, k=20, diversity=1, explain=5),
    "5000 entries of inline users": pb.BatchTopKRequest(users=[inline(1000)] * 5, k=1),
    "4096 pairs": pb.BatchPredictRatingsRequest(
        user_ids=[str(n) for n in range(1000)],
        movie_ids=[str(n) for n in range(4096)],
        user_indices=[n % 1000 for n in range(4096)],
        movie_indices=list(range(4096)),
    ),
}


async def ask(model, request):
    name = type(request).__name__.removesuffix("Request")
    return await getattr(model, name)(request)


async def refusal(model, request):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(model, request)
    return read_error(raised.value)


async def test_everything_outside_a_limit_is_refused_by_name(model):
    """Each of these requests is refused for the one field that is wrong with it."""
    for what, (request, field) in REFUSED.items():
        error = await refusal(model, request)
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, what
        assert [violation.field for violation in error.violations] == [field], what


FAR_TOO_LONG = {
    "pairs": pb.BatchPredictRatingsRequest(
        user_ids=["a"],
        movie_ids=["heat"],
        user_indices=[0] * 4097 + [9] * 10**6,
        movie_indices=[0] * 4097 + [9] * 10**6,
    ),
    "users twice": pb.BatchPredictRatingsRequest(
        user_ids=[str(n) for n in range(100_000)] * 2, movie_ids=["heat"], user_indices=[0], movie_indices=[0]
    ),
    "entries of inline users": pb.BatchTopKRequest(users=[inline(1000, "")] * 1000, k=1),
    "genres": wants(genres_any=[""] * 2_000_000),
}


async def test_what_is_far_too_long_is_refused_unread(model):
    """Millions of mistakes in one message are a few violations: reading them all would keep everybody else waiting."""
    for what, request in FAR_TOO_LONG.items():
        error = await refusal(model, request)

        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, what
        assert int(error.metadata["num_violations"]) <= 10_000, what


async def test_everything_on_a_limit_is_answered(model):
    """The limits themselves are allowed."""
    for what, request in ALLOWED.items():
        assert (await ask(model, request)).ByteSize() > 0, what


async def test_all_that_is_wrong_is_said_at_once(model):
    """Nobody has to find his mistakes one by one."""
    request = pb.BatchTopKRequest(
        users=[pb.UserSelector(user_id=""), inline(1, "nope")], k=501, filter=pb.MovieFilter(genres_all=["Polka"])
    )

    error = await refusal(model, request)

    assert {violation.field for violation in error.violations} == {
        "k",
        "users[0].user_id",
        "users[1].inline_user.history[0].movie_id",
        "filter.genres_all[0]",
    }


async def test_an_unknown_genre_lists_those_that_exist(model):
    """The message is enough to put it right."""
    error = await refusal(model, wants(genres_any=["Polka"]))

    assert error.violations[0].description == "there is no genre 'Polka'; there are Comedy, Crime, Drama, Horror"


@pytest.mark.parametrize(
    "request_of_nothing",
    [asks(ANN), pb.SimilarMoviesRequest(k=1)],
    ids=["PredictRating", "SimilarMovies"],
)
async def test_a_movie_that_the_catalogue_lacks_is_not_found_by_its_id(model, request_of_nothing):
    """The id comes back, so that a caller of many knows which."""
    request_of_nothing.movie_id = "nope"

    error = await refusal(model, request_of_nothing)

    assert error.code is grpc.StatusCode.NOT_FOUND
    assert (error.reason, error.missing_ids) == ("MOVIE_NOT_FOUND", ["nope"])


async def test_another_model_than_the_resident_one_is_refused_by_name(model, train):
    """A caller who pins a version is never answered by another, and learns which is resident."""
    train("v2", label="canary")
    ours = [pb.ModelSelector(model_version="v1"), pb.ModelSelector(label="stable")]
    others = [
        pb.ModelSelector(model_version="v2"),
        pb.ModelSelector(label="canary"),
        pb.ModelSelector(label="never set"),
    ]

    for selector in ours:
        reply = await model.PredictRating(pb.PredictRatingRequest(user=ANN, movie_id="heat", model=selector))
        assert reply.model_version == "v1"
    for selector in others:
        error = await refusal(model, pb.PredictRatingRequest(user=ANN, movie_id="heat", model=selector))
        assert error.code is grpc.StatusCode.FAILED_PRECONDITION
        assert (error.reason, error.metadata["resident_model_version"]) == ("MODEL_NOT_RESIDENT", "v1")
        assert "version v1 is" in error.message


async def test_a_version_that_is_not_reached_yet_is_unavailable(model, features):
    """The caller is told to come back; his own write is on its way."""
    version = features.watch("ann", "big", 1000)
    ahead = version[:-1] + "2"

    error = await refusal(model, asks(pb.UserSelector(user_id="ann", min_user_version=ahead)))

    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "USER_NOT_CURRENT")
    assert error.retry_after_s > 0


@pytest.mark.parametrize("version", ["f" * 16 + ".7.1", "nonsense", "0123456789abcdef.8.1"])
async def test_a_version_that_cannot_be_compared_is_refused(model, version):
    """Of another store, of another user, or none at all."""
    error = await refusal(model, asks(pb.UserSelector(user_id="ann", min_user_version=version)))

    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FOREIGN_USER_VERSION")


async def test_data_without_ratings_ranks_and_predicts_none(start, train):
    """TopK answers without predicted ratings; PredictRating says why it cannot."""
    train("v1", has_ratings=False)
    async with start() as model:
        reply = await model.TopK(wants(k=2))
        error = await refusal(model, asks(ANN))

    assert [movie.movie_id for movie in reply.movies] == ["heat", "up"]
    assert not reply.movies[0].HasField("predicted_rating")
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_RATINGS")


async def test_the_text_of_an_unexpected_error_stays_inside(start, train, monkeypatch):
    """The caller gets a request id and nothing else."""
    from model_service import answers

    def fail(*arguments):
        raise RuntimeError("the password is swordfish")

    train("v1")
    async with start() as model:
        monkeypatch.setattr(answers, "top_k", fail)
        error = await refusal(model, wants())

    assert error.code is grpc.StatusCode.INTERNAL
    assert "swordfish" not in str(error)
    assert error.request_id in error.message

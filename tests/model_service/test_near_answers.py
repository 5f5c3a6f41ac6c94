"""Who is near is answered at once, with the answer that a batch gives; whoever needs more than that goes into one."""

import asyncio

import grpc
import numpy as np
import pytest
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import user_pb2

from model_service.catalogue import Catalogue, CatalogueMovie
from model_service.filters import BarredMovies, MovieFilter
from tests.model_service.hand_made import HandMade, HandMadeSure
from tests.scraping import scrape
from two_tower.rating_spread import RatingSpread

MOVIES = ["heat", "alien", "big", "up", "new"]
INLINE = pb.UserSelector(inline_user=pb.InlineUser(history=[user_pb2.HistoryEntry(movie_id="heat", rating=5.0)]))


@pytest.fixture
async def both(request, start, train, features, unused_tcp_port):
    """Asks a service that has carl near and one that keeps nobody; tells how many of the answers came at once."""
    features.follow()
    features.watch("carl", "heat", 1000, 5.0)
    features.watch("carl", "big", 2000, 2.0)
    train("v1", kind=getattr(request, "param", HandMade), rating_spread=RatingSpread((0, 2, 5), (1.2, 0.9, 0.8)))
    metrics = f"127.0.0.1:{unused_tcp_port}"

    async with start(near_cache_bytes=1 << 20, metrics_listen=metrics) as near, start(near_cache_bytes=0) as far:

        async def num_at_once() -> float:
            return (await asyncio.to_thread(scrape, metrics)).total("marquee_model_answers_at_once_total")

        async def ask(name, request):
            before = await num_at_once()
            answers = [await getattr(stub, name)(request) for stub in (near, far)]
            return (*answers, await num_at_once() - before)

        async with asyncio.timeout(10):
            while not await num_at_once():
                await near.PredictRating(rate("heat"))
                await asyncio.sleep(0.01)
        yield ask


def rate(movie_id, **user):
    return pb.PredictRatingRequest(user=pb.UserSelector(user_id="carl", **user), movie_id=movie_id)


def top(k=3, user=None, **fields):
    return pb.TopKRequest(user=user or pb.UserSelector(user_id="carl"), k=k, **fields)


async def until_not_listed(both, movie_id):
    async with asyncio.timeout(10):
        while True:
            at_once, in_a_batch, _ = await both("TopK", top(k=5))
            listed = [movie_id in [each.movie_id for each in answer.movies] for answer in (at_once, in_a_batch)]
            if not any(listed):
                assert at_once == in_a_batch
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("movie_id", MOVIES)
async def test_a_rating_is_the_one_of_a_batch(both, movie_id):
    """To the last bit, with score, deviation, source and version; of a movie that the checkpoint does not know too."""
    at_once, in_a_batch, num_at_once = await both("PredictRating", rate(movie_id))

    assert at_once == in_a_batch
    assert num_at_once == 1
    assert at_once.stddev == pytest.approx(0.9)


@pytest.mark.parametrize("both", [HandMadeSure], indirect=True)
async def test_a_deviation_that_the_model_tells_is_the_one_of_a_batch(both):
    """It is worked out of the user's history once: he watched Heat, whose vector has length 1, and what is no Drama."""
    told = [await both("PredictRating", rate(movie_id)) for movie_id in ("heat", "up", "heat")]

    assert [num_at_once for _, _, num_at_once in told] == [1, 1, 1]
    assert told[0] == told[2]
    for at_once, in_a_batch, _ in told:
        assert at_once.stddev == pytest.approx(in_a_batch.stddev, rel=1e-5)
    assert told[0][0].stddev == pytest.approx(np.sqrt(0.25 + 1 / 2), rel=1e-5)


@pytest.mark.parametrize("both", [HandMadeSure], indirect=True)
async def test_deviations_of_several_users_that_the_model_tells_go_into_a_batch(both):
    """The histories of all are laid out together there."""
    request = pb.BatchPredictRatingsRequest(
        user_ids=["carl", "bob"], movie_ids=["heat"], user_indices=[0, 1], movie_indices=[0, 0], with_stddev=True
    )
    await both("BatchPredictRatings", request)

    near, far, num_at_once = await both("BatchPredictRatings", request)

    assert num_at_once == 0
    assert near == far


async def test_ratings_of_many_pairs_are_those_of_a_batch(both, features):
    """Of several users, in any order, with a movie that nobody has and one that has no rating yet."""
    users = ["carl", "dora", "bob"]
    features.watch("dora", "up", 1000, 4.0)
    request = pb.BatchPredictRatingsRequest(
        user_ids=users,
        movie_ids=[*MOVIES, "none"],
        user_indices=[0, 1, 2, 1, 0, 2, 2],
        movie_indices=[3, 0, 5, 4, 1, 2, 3],
        with_stddev=True,
    )
    await both("BatchPredictRatings", request)

    at_once, in_batches, num_at_once = await both("BatchPredictRatings", request)

    assert num_at_once == 1
    assert [np.isnan(rating) for rating in at_once.ratings] == [False, False, True, False, False, False, False]
    for name in ("ratings", "rounded_ratings", "scores", "stddevs"):
        np.testing.assert_array_equal(getattr(at_once, name), getattr(in_batches, name))
        at_once.ClearField(name)
        in_batches.ClearField(name)
    assert at_once == in_batches


async def test_pieces_of_a_large_request_are_answered_at_once_too(both):
    """Each by itself, in five turns of the loop."""
    users = ["carl", *(f"user-{number}" for number in range(299))]
    request = pb.BatchPredictRatingsRequest(
        user_ids=users, movie_ids=["heat"], user_indices=range(300), movie_indices=[0] * 300
    )
    await both("BatchPredictRatings", request)

    at_once, in_batches, num_at_once = await both("BatchPredictRatings", request)

    assert num_at_once == 5
    assert at_once == in_batches


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"k": 1},
        {"k": 500},
        {"exclude_seen": False},
        {"filter": pb.MovieFilter(genres_any=["Drama"])},
        {"filter": pb.MovieFilter(year_min=1985)},
        {"filter": pb.MovieFilter(allow=pb.MovieList(movie_ids=[]))},
        {"filter": pb.MovieFilter(exclude=pb.MovieList(movie_ids=["up", "alien"]))},
    ],
    ids=str,
)
async def test_a_list_is_the_one_of_a_batch(both, fields):
    """However long it is, and whatever it may hold; an empty one too."""
    at_once, in_a_batch, num_at_once = await both("TopK", top(**fields))

    assert at_once == in_a_batch
    assert num_at_once == 1


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("PredictRating", rate("heat", session_events=[{"movie_id": "up", "rating": 4.0}])),
        ("PredictRating", rate("heat", profile_overrides={"gender": "F"})),
        ("TopK", top(diversity=0.5)),
        ("TopK", top(explain=1)),
        ("TopK", top(user=INLINE)),
        ("TopK", top(user=pb.UserSelector(user_id="nobody"))),
    ],
    ids=["session", "override", "diversity", "explanation", "inline", "not near"],
)
async def test_who_needs_more_goes_into_a_batch(both, name, request_):
    """The answers are the same."""
    near, far, num_at_once = await both(name, request_)

    assert near == far
    assert num_at_once == 0


async def test_what_is_wrong_is_refused_as_ever(both):
    """A movie that nobody has, and no movie wanted."""
    for name, request, code in (
        ("PredictRating", rate("none"), grpc.StatusCode.NOT_FOUND),
        ("TopK", top(k=0), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await both(name, request)
        assert refused.value.code() is code


async def test_a_movie_that_was_taken_out_is_in_no_list(both, features):
    """From the next catalogue on."""
    features.put_movie("up", title="Up", year=2009, removed=True)

    await until_not_listed(both, "up")


async def test_a_change_is_seen(both, features):
    """Who watched something is not answered from what was near before."""
    features.watch("carl", "alien", 3000, 1.0)

    await until_not_listed(both, "alien")


def test_what_filters_bar_is_what_they_do_not_let_pass():
    """Also once more filters were asked for than are remembered, and of another catalogue."""
    rows = [CatalogueMovie(number, f"m{number}", year=1900 + number, removed=number == 3) for number in range(100)]
    catalogues = [Catalogue.empty("c").with_changes(rows[:size], 1) for size in (100, 50)]
    filters = [MovieFilter(), *(MovieFilter(year_min=year) for year in range(1900, 2000))]
    barred = BarredMovies()

    for catalogue in (*catalogues, catalogues[0]):
        for each in (*filters, *filters):
            assert barred.numbers(each, catalogue).tolist() == np.flatnonzero(~each.mask(catalogue)).tolist()

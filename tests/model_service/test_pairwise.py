"""A pairwise model is served as a factored one is: the same function in either form gives the same answers."""

import pytest
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import user_pb2

from tests.model_service.hand_made_pairwise import HandMadeById, HandMadePairwise


@pytest.fixture
async def pairwise(start, train):
    train("v1", kind=HandMadePairwise)
    async with start() as stub:
        yield stub


@pytest.fixture
async def by_id(start, train):
    train("v1", kind=HandMadeById)
    async with start() as stub:
        yield stub


def stored(user_id, **fields):
    return pb.UserSelector(user_id=user_id, **fields)


def ids(reply):
    return [movie.movie_id for movie in reply.movies]


async def test_a_pairwise_model_rates(pairwise):
    """ann·heat = 1: 3 + 1 stars; what ranks is 2·1 + .3."""
    reply = await pairwise.PredictRating(pb.PredictRatingRequest(user=stored("ann"), movie_id="heat"))

    assert (reply.rating, reply.rounded_rating, reply.source) == (4.0, 4.0, pb.ANSWER_SOURCE_PERSONAL)
    assert reply.score == pytest.approx(2.3)


async def test_a_pairwise_model_ranks_all_that_was_not_seen(pairwise, features):
    """Bob loves comedy; he has seen big. Equal scores stand by catalogue number."""
    features.watch("bob", "big", 1000, 3.0)

    bob = await pairwise.TopK(pb.TopKRequest(user=stored("bob"), k=10))
    nobody = await pairwise.TopK(pb.TopKRequest(user=stored("nobody"), k=5))
    old = await pairwise.TopK(pb.TopKRequest(user=stored("nobody"), k=1, filter=pb.MovieFilter(year_max=1990)))

    assert ids(bob) == ["new", "up", "heat", "alien"]
    assert bob.movies[0].score == pytest.approx(2.0)
    assert bob.movies[0].predicted_rating == pytest.approx(4.0)
    assert [movie.cold for movie in bob.movies] == [True, False, False, False]
    assert ids(nobody) == ["heat", "alien", "big", "up", "new"]
    assert ids(old) == ["alien"]


async def test_a_pairwise_model_knows_similar_movies(pairwise):
    """By the cosine of its similarity vectors."""
    reply = await pairwise.SimilarMovies(pb.SimilarMoviesRequest(movie_id="heat", k=10))

    assert ids(reply) == ["alien", "up", "big", "new"]
    assert [movie.score for movie in reply.movies] == pytest.approx([1.0, 0.5**0.5, 0.0, 0.0])


async def test_a_source_that_a_model_makes_no_use_of_is_not_claimed(by_id, features):
    """It knows ids alone: a history and a profile change nothing, so a stranger gets what everybody likes."""
    features.watch("carl", "big", 1000, 5.0)
    features.put_user("dora", gender="F")
    inline = pb.UserSelector(inline_user=pb.InlineUser(history=[user_pb2.HistoryEntry(movie_id="big", rating=5)]))

    users = [stored("ann"), stored("carl"), stored("dora"), inline]
    answers = [await by_id.PredictRating(pb.PredictRatingRequest(user=user, movie_id="heat")) for user in users]

    assert [answer.source for answer in answers] == [pb.ANSWER_SOURCE_PERSONAL, *[pb.ANSWER_SOURCE_POPULAR] * 3]
    assert [answer.rating for answer in answers] == [4.0, 3.0, 3.0, 3.0]

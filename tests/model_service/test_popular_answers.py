"""Of whom nothing is known is answered by what is popular, where the checkpoint says what is."""

import pytest
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import user_pb2

from tests.model_service.hand_made import HandMade
from tests.model_service.hand_made_pairwise import HandMadePairwise

POPULARITY = {"up": 5.0, "big": 2.5, "alien": 0.5, "heat": 0.25}
STRANGER = pb.UserSelector(inline_user=pb.InlineUser())


def scores(reply):
    return [(movie.movie_id, movie.score) for movie in reply.movies]


@pytest.mark.parametrize("kind", [HandMade, HandMadePairwise])
async def test_a_stranger_is_answered_by_popularity_and_a_known_user_by_the_model(start, train, kind):
    """In one batch too; filters hold, a movie that the checkpoint does not know comes last."""
    train("v1", kind=kind, popularity=POPULARITY)
    comedies = pb.MovieFilter(genres_any=["Comedy"])
    users = [STRANGER, pb.UserSelector(user_id="ann")]

    async with start() as model:
        reply = await model.TopK(pb.TopKRequest(user=STRANGER, k=10))
        filtered = await model.TopK(pb.TopKRequest(user=STRANGER, k=2, filter=comedies))
        both = await model.BatchTopK(pb.BatchTopKRequest(users=users, k=10))
        known = await model.TopK(pb.TopKRequest(user=users[1], k=10))

    assert reply.source == pb.ANSWER_SOURCE_POPULAR
    assert scores(reply) == [*sorted(POPULARITY.items(), key=lambda each: -each[1]), ("new", 0.0)]
    assert scores(filtered) == [("up", 5.0), ("big", 2.5)]
    assert scores(both.results[0]) == scores(reply)
    assert [movie_id for movie_id, _ in scores(both.results[1])] == [movie_id for movie_id, _ in scores(known)]
    assert scores(known)[0][0] == "heat"


async def test_the_score_of_a_rating_is_what_ranks(start, train):
    """And the rating is the model's, as before."""
    train("v1", popularity=POPULARITY)
    train("v0", label="without")

    async with start() as model:
        rated = await model.PredictRating(pb.PredictRatingRequest(user=STRANGER, movie_id="big"))
    async with start(label="without") as model:
        before = await model.PredictRating(pb.PredictRatingRequest(user=STRANGER, movie_id="big"))

    assert (rated.score, rated.rating) == (2.5, before.rating)
    assert before.score != rated.score


async def test_a_profile_or_a_history_is_something_known(start, train):
    """Then the model answers."""
    train("v1", popularity=POPULARITY)
    profile = pb.UserSelector(inline_user=pb.InlineUser(profile=user_pb2.UserProfile(gender="F")))
    history = pb.UserSelector(inline_user=pb.InlineUser(history=[user_pb2.HistoryEntry(movie_id="heat", rating=5.0)]))

    async with start() as model:
        replies = [await model.TopK(pb.TopKRequest(user=user, k=10)) for user in (profile, history)]

    assert [reply.source for reply in replies] == [pb.ANSWER_SOURCE_PROFILE, pb.ANSWER_SOURCE_FOLDED_IN]
    assert all(("up", 5.0) not in scores(reply) for reply in replies)

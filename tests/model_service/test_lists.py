"""Variety, explanations and uncertainty as callers get them, worked out by hand; over real gRPC."""

import math

import pytest
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import user_pb2

from tests.model_service.hand_made_pairwise import HandMadeById, HandMadePairwise
from two_tower.rating_spread import RatingSpread

SPREAD = RatingSpread((0, 1, 2), (1.25, 1.0, 0.75))


def stored(user_id, **fields):
    return pb.UserSelector(user_id=user_id, **fields)


async def top(model, user_id, **fields):
    return await model.TopK(pb.TopKRequest(user=stored(user_id), **{"k": 10, **fields}))


def ids(reply):
    return [movie.movie_id for movie in reply.movies]


def shares(movie):
    return {reason.movie_id: round(reason.share, 4) for reason in movie.explanation.reasons}


async def test_diversity_trades_score_for_variety(model):
    """Ann's relevances are heat 1, up .42, alien .39, big .06, new 0; alien points where heat does, big elsewhere."""
    lists = [ids(await top(model, "ann", diversity=diversity)) for diversity in (0.0, 0.5, 1.0)]

    assert lists == [
        ["heat", "up", "alien", "big", "new"],
        ["heat", "big", "up", "alien", "new"],
        ["heat", "big", "up", "alien", "new"],
    ]


async def test_the_scores_of_a_varied_list_are_the_same(model):
    """A varied list is chosen from the same ranking, filters and all; its scores need not fall."""
    plain, varied = await top(model, "ann"), await top(model, "ann", diversity=0.5)
    few = await top(model, "ann", k=2, diversity=0.5, filter=pb.MovieFilter(genres_any=["Comedy"]))

    assert {movie.movie_id: movie.score for movie in plain.movies} == {
        movie.movie_id: movie.score for movie in varied.movies
    }
    assert all(movie.HasField("predicted_rating") for movie in varied.movies)
    assert ids(few) == ["up", "big"]


async def test_an_explanation_names_what_speaks_for_a_movie(model, features):
    """Carl loved big and liked heat: scores heat 1.3, alien .7, big 4.1, up 2.5, new 4, of mean 2.52.

    Without big heat would count in full. So big adds -1, -.5, 4, 1.5, 4 (mean 1.6) and heat 1, .5, 0, .5, 0 (mean .4).
    New: 2.4 of big, -.4 of heat, the rest is 1.48 - 2. Alien: -2.1 of big, .1 of heat, the rest is -1.82 + 2.
    """
    features.watch("carl", "heat", 1000, 4.0)
    features.watch("carl", "big", 2000, 5.0)

    reply = await top(model, "carl", explain=5)

    assert ids(reply) == ["new", "up", "alien"]
    assert [shares(movie) for movie in reply.movies] == [{"big": 1.0}, {"heat": 1.0}, {"heat": 0.3571}]
    assert [movie.explanation.unexplained for movie in reply.movies] == pytest.approx([0, 0, 0.6429], abs=1e-3)


async def test_session_events_are_reasons_too(model, features):
    """What the service holds for the user, wherever it came from; of several reasons the largest is first."""
    features.watch("carl", "heat", 1000, 4.0)
    session = stored("carl", session_events=[user_pb2.HistoryEntry(movie_id="big", rating=5.0)])

    one = await model.TopK(pb.TopKRequest(user=session, k=1, explain=1))

    assert [(movie.movie_id, shares(movie)) for movie in one.movies] == [("new", {"big": 1.0})]


async def test_nothing_is_named_where_there_is_nothing_to_name(model, start, train, features):
    """A user without a history, and a model that makes no use of it; unasked there is no explanation."""
    features.watch("carl", "heat", 1000, 4.0)
    nobody, unasked = await top(model, "nobody", explain=3), await top(model, "nobody")
    train("v2", label="by-id", kind=HandMadeById)

    async with start(label="by-id") as by_id:
        by_nothing = await top(by_id, "carl", explain=3)

    for reply in (nobody, by_nothing):
        assert [(len(movie.explanation.reasons), movie.explanation.unexplained) for movie in reply.movies] == [
            (0, 1.0)
        ] * len(reply.movies)
    assert not any(movie.HasField("explanation") for movie in unasked.movies)


async def test_a_batch_of_lists_is_varied_and_explained_as_each_alone(start, train, features):
    """Also where the batch is cut into pieces, and by a model of the other form."""
    for place, user_id in enumerate(("carl", "dora", "ann")):
        features.watch(user_id, ["heat", "big", "up"][place], 1000, 5.0)
        features.watch(user_id, ["alien", "up", "heat"][place], 2000, 2.0)
    users = [stored(user_id) for user_id in ("carl", "dora", "ann", "nobody")]
    train("v1", kind=HandMadePairwise)

    async with start(max_batch_rows=20) as pairwise:
        together = await pairwise.BatchTopK(pb.BatchTopKRequest(users=users, k=3, diversity=0.3, explain=2))
        alone = [await pairwise.TopK(pb.TopKRequest(user=user, k=3, diversity=0.3, explain=2)) for user in users]

    assert [list(row.movies) for row in together.results] == [list(reply.movies) for reply in alone]
    assert any(movie.explanation.reasons for row in together.results for movie in row.movies)


async def test_the_deviation_follows_the_number_of_known_ratings(start, train, features):
    """By the manifest's table, for a model that cannot tell: a watched movie is no rating."""
    features.watch("carl", "heat", 1000, 4.0)
    features.watch("dora", "heat", 1000, 4.0)
    features.watch("dora", "big", 1000, 4.0)
    features.watch("emil", "big", 1000)
    train("v1", rating_spread=SPREAD)
    users = ["nobody", "carl", "dora", "emil"]

    async with start() as model:
        single = [
            await model.PredictRating(pb.PredictRatingRequest(user=stored(user_id), movie_id="up")) for user_id in users
        ]
        pairs = {"user_ids": users, "movie_ids": ["up", "no such"], "user_indices": [0, 1, 2, 3, 0]}
        batch = await model.BatchPredictRatings(
            pb.BatchPredictRatingsRequest(**pairs, movie_indices=[0, 0, 0, 0, 1], with_stddev=True)
        )
        unasked = await model.BatchPredictRatings(pb.BatchPredictRatingsRequest(**pairs, movie_indices=[0, 0, 0, 0, 1]))

    assert [(reply.stddev, reply.num_ratings) for reply in single] == [(1.25, 0), (1.0, 1), (0.75, 2), (1.25, 0)]
    assert list(batch.stddevs[:4]) == [1.25, 1.0, 0.75, 1.25]
    assert math.isnan(batch.stddevs[4])
    assert list(batch.num_ratings) == list(unasked.num_ratings) == [0, 1, 2, 0]
    assert not unasked.stddevs


async def test_a_model_that_can_tell_is_asked_itself(start, train, features):
    """By user and movie; the manifest's table is for the others."""
    train("v1", kind=HandMadeById, rating_spread=SPREAD)

    async with start() as model:
        reply = await model.BatchPredictRatings(
            pb.BatchPredictRatingsRequest(
                user_ids=["nobody", "ann", "bob"],
                movie_ids=["alien", "big"],
                user_indices=[2, 0, 2],
                movie_indices=[0, 1, 1],
                with_stddev=True,
            )
        )

    assert list(reply.stddevs) == pytest.approx([0.6, 1.2, 0.7])


async def test_a_deviation_that_nobody_knows_is_absent(model):
    """Better none than a made-up one."""
    reply = await model.PredictRating(pb.PredictRatingRequest(user=stored("ann"), movie_id="heat"))
    batch = await model.BatchPredictRatings(
        pb.BatchPredictRatingsRequest(
            user_ids=["ann"], movie_ids=["heat"], user_indices=[0], movie_indices=[0], with_stddev=True
        )
    )

    assert not reply.HasField("stddev")
    assert not batch.stddevs

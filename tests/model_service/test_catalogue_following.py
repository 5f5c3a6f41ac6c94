"""A catalogue that changes under a running service: new, changed, removed movies, and another catalogue altogether."""

import asyncio

import grpc
import pytest
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import user_pb2

from tests.model_service.asking import until

ANN = pb.UserSelector(user_id="ann")
NEVER = 3600.0
"""Polls so rarely that only a request can have caused a refresh."""


@pytest.fixture
async def model(start, train):
    train("v1")
    async with start(catalogue_poll_s=NEVER, catalogue_patience_s=5.0) as stub:
        yield stub


async def listed(model, user=ANN, **fields):
    reply = await model.TopK(pb.TopKRequest(user=user, k=100, exclude_seen=False, filter=pb.MovieFilter(**fields)))
    return {movie.movie_id: movie for movie in reply.movies}


async def test_a_new_movie_gets_a_rating_and_can_be_recommended_at_once(model, features):
    """A request that names an id unheard of asks for the newest catalogue first."""
    features.put_movie("brand new", genres=["Drama"])

    rating = await model.PredictRating(pb.PredictRatingRequest(user=ANN, movie_id="brand new"))
    features.put_movie("newer still", genres=["Comedy"])
    ranked = await listed(model, allow=pb.MovieList(movie_ids=["newer still", "heat"]))

    assert (rating.rating, rating.cold) == (4.0, True)
    assert ranked["newer still"].score == pytest.approx(0.5)
    assert list(ranked) == ["heat", "newer still"]


async def test_a_batch_with_an_unknown_movie_looks_at_the_newest_catalogue_once(model, features):
    """What is in it by now is rated, what is not has its status; the catalogue was read once for all of them."""
    features.put_movie("brand new", genres=["Drama"])
    features.lists.clear()
    request = pb.BatchPredictRatingsRequest(
        user_ids=["ann"], movie_ids=["brand new", "none", "nor this"], user_indices=[0, 0, 0], movie_indices=[0, 1, 2]
    )

    reply = await model.BatchPredictRatings(request)

    assert list(reply.statuses) == [pb.ROW_STATUS_OK, *[pb.ROW_STATUS_MOVIE_NOT_FOUND] * 2]
    assert reply.ratings[0] == 4.0
    assert len(features.lists) == 1


async def test_an_unknown_movie_is_refused_after_one_look(model, features):
    """Nobody is told that a movie does not exist by a catalogue that is older than his question."""
    features.lists.clear()

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await model.PredictRating(pb.PredictRatingRequest(user=ANN, movie_id="none"))

    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert len(features.lists) == 1


async def test_a_new_genre_can_be_asked_for_at_once(model, features):
    """As a new movie can."""
    features.put_movie("hop", genres=["Polka"])

    assert list(await listed(model, genres_any=["polka"])) == ["hop"]


async def test_changed_features_change_the_answer(model, features):
    """The reply about the user names a newer catalogue, and the batch waits for it."""
    before = await model.PredictRating(pb.PredictRatingRequest(user=ANN, movie_id="new"))
    features.put_movie("new", genres=["Drama"])

    after = await model.PredictRating(pb.PredictRatingRequest(user=ANN, movie_id="new"))

    assert (before.rating, after.rating) == (3.25, 4.0)


async def test_a_removed_movie_is_recommended_no_more(model, features):
    """It cannot be asked about either, and does no harm in a history."""
    features.watch("ann", "heat", 1000, 5.0)
    features.put_movie("heat", genres=["Drama"], removed=True)
    history = [user_pb2.HistoryEntry(movie_id="heat", rating=5.0)]

    ranked = await listed(model)
    inline = await listed(model, pb.UserSelector(inline_user=pb.InlineUser(history=history)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await model.PredictRating(pb.PredictRatingRequest(user=ANN, movie_id="heat"))

    assert "heat" not in ranked
    assert inline["alien"].score == pytest.approx(2 * 2 * 0.5 + 0.2)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_history_with_numbers_unheard_of_is_never_guessed_at(model, features):
    """The mapping is completed before the batch is scored."""
    features.put_movie("brand new", genres=["Drama"])
    features.watch("carl", "brand new", 1000, 5.0)

    reply = await model.PredictRating(pb.PredictRatingRequest(user=pb.UserSelector(user_id="carl"), movie_id="alien"))

    assert reply.score == pytest.approx(2 * 2 * 0.5 + 0.2)


async def test_a_replaced_catalogue_is_taken_over(model, features):
    """Numbers of the old one mean nothing any more: callers are told to come back, and are answered by the new one."""
    features.replace_catalogue()
    for movie_id in ("big", "heat"):
        features.put_movie(movie_id)

    reply = await model.TopK(pb.TopKRequest(user=ANN, k=100))

    assert [movie.movie_id for movie in reply.movies] == ["heat", "big"]


async def test_changes_are_found_without_any_request(start, train, features):
    """The catalogue is asked for now and then."""
    train("v1")
    async with start(catalogue_poll_s=0.05) as model:
        features.put_movie("quiet", genres=["Drama"])
        asked = len(features.lists)

        async def has_been_asked_twice() -> bool:
            return len(features.lists) >= asked + 2  # so that the first time is over

        await until(has_been_asked_twice, True)
        features.is_off = True
        inline = pb.UserSelector(inline_user=pb.InlineUser())
        reply = await model.PredictRating(pb.PredictRatingRequest(user=inline, movie_id="quiet"))

    assert reply.cold


async def test_many_unknown_ids_at_once_cost_few_reads(start, train, features):
    """Callers who ask at the same time share a refresh."""
    train("v1")
    async with start(catalogue_poll_s=NEVER, catalogue_min_interval_s=0.05) as model:
        features.lists.clear()
        requests = [pb.PredictRatingRequest(user=ANN, movie_id=f"no {n}") for n in range(50)]
        outcomes = await asyncio.gather(*(model.PredictRating(request) for request in requests), return_exceptions=True)

    assert {outcome.code() for outcome in outcomes} == {grpc.StatusCode.NOT_FOUND}
    assert 1 <= len(features.lists) <= 5


async def test_a_large_catalogue_comes_in_pages(start, train, features):
    """What does not fit into a page follows in the next."""
    for number in range(1200):
        features.put_movie(f"m{number}", genres=["Drama"])
    train("v1")
    async with start() as model:
        reply = await model.PredictRating(pb.PredictRatingRequest(user=ANN, movie_id="m1199"))

    assert reply.rating == 4.0

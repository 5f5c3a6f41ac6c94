"""What is held while the service is busy is what it gives one by one; nobody pays for his company."""

import asyncio

import grpc
import pytest
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import movie_pb2

from model_service.company import Company
from tests.model_service.hand_made import HandMade, HandMadeSure
from tests.scraping import scrape
from two_tower.rating_spread import RatingSpread

USERS = ["carl", "dora", "emil"]
MOVIES = ["heat", "alien", "big", "up", "new"]


@pytest.fixture
def busy(monkeypatch):
    """Lets every service count as busy, whatever its loop does."""
    monkeypatch.setattr(Company, "is_sought", lambda self, now: self.gap_s > 0)


@pytest.fixture
async def model(request, busy, start, train, features, unused_tcp_port):
    """A busy service that has three users near, each with a history of his own; `num_held` tells who was held."""
    features.follow()
    for place, user_id in enumerate(USERS):
        features.watch(user_id, MOVIES[place], 1000, 5.0)
        features.watch(user_id, MOVIES[place + 1], 2000, 2.0)
    given = {"kind": HandMade, **getattr(request, "param", {})}
    train("v1", kind=given.pop("kind"), rating_spread=RatingSpread((0, 2, 5), (1.2, 0.9, 0.8)))
    metrics = f"127.0.0.1:{unused_tcp_port}"
    async with start(near_cache_bytes=1 << 20, metrics_listen=metrics, **given) as stub:

        async def num_held():
            return (await asyncio.to_thread(scrape, metrics)).total("marquee_model_answers_held_total")

        async def num_batches(reason):
            return (await asyncio.to_thread(scrape, metrics)).total("marquee_model_batches_total", reason=reason)

        stub.num_held, stub.num_batches = num_held, num_batches
        async with asyncio.timeout(10):
            while await num_held() < len(USERS):
                await asyncio.gather(*(stub.PredictRating(rate(user_id, "heat")) for user_id in USERS))
        yield stub


def rate(user_id, movie_id, **user):
    return pb.PredictRatingRequest(user=pb.UserSelector(user_id=user_id, **user), movie_id=movie_id)


def top(user_id, **fields):
    return pb.TopKRequest(**{"user": pb.UserSelector(user_id=user_id), "k": 3, **fields})


@pytest.mark.parametrize("model", [{"kind": HandMade}, {"kind": HandMadeSure}], indirect=True)
async def test_ratings_given_together_are_those_given_one_by_one(model, start):
    """To the last bit, of several users and movies at once, one of which the checkpoint does not know."""
    asked = [rate(user_id, movie_id) for user_id in USERS for movie_id in MOVIES]
    async with start(near_cache_bytes=0) as nobody_near:
        one_by_one = [await nobody_near.PredictRating(each) for each in asked]
    before = await model.num_held()

    together = await asyncio.gather(*(model.PredictRating(each) for each in asked))

    assert await model.num_held() - before == len(asked)
    for held, alone in zip(together, one_by_one, strict=True):
        assert held.stddev == pytest.approx(alone.stddev, rel=1e-5)
        held.stddev = alone.stddev
        assert held == alone


async def test_lists_given_together_are_those_given_one_by_one(model, start):
    """Of several lengths, with filters and seen movies of their own, and one that nothing is left for."""
    wishes = [
        {},
        {"k": 1},
        {"k": 500},
        {"exclude_seen": False},
        {"filter": pb.MovieFilter(genres_any=["Comedy"])},
        {"filter": pb.MovieFilter(genres_none=["Comedy"]), "exclude_seen": False},
        {"filter": pb.MovieFilter(year_min=2100)},
        {"view": movie_pb2.MOVIE_VIEW_MOVIE},
    ]
    asked = [top(user_id, **wish) for user_id in USERS for wish in wishes]
    async with start(near_cache_bytes=0) as nobody_near:
        one_by_one = [await nobody_near.TopK(each) for each in asked]
    before = await model.num_held()

    together = await asyncio.gather(*(model.TopK(each) for each in asked))

    assert together == one_by_one
    assert await model.num_held() - before == len(asked)


async def test_a_list_that_takes_more_than_products_is_not_held(model):
    """Varied or explained lists go into a batch; so does whoever is not near."""
    before = await model.num_held()

    varied, explained = await asyncio.gather(model.TopK(top("carl", diversity=0.5)), model.TopK(top("carl", explain=2)))
    stranger = await model.TopK(top("stranger"))

    assert await model.num_held() == before
    assert len(varied.movies) == len(explained.movies) == 3
    assert explained.movies[0].HasField("explanation")
    assert stranger.source == pb.ANSWER_SOURCE_POPULAR


async def test_each_gets_his_own_answer_or_his_own_error(model):
    """A movie that nobody has, an id that is none and a user who is not near: they are not even held."""
    alone = await model.PredictRating(rate("carl", "up"))
    asked = [rate("carl", "up"), rate("carl", "none"), rate("x" * 200, "up"), rate("stranger", "up"), rate("carl", "")]

    before = await model.num_held()
    outcomes = await asyncio.gather(*(model.PredictRating(each) for each in asked), return_exceptions=True)

    assert await model.num_held() - before == 1
    assert outcomes[0] == alone
    assert outcomes[3].source == pb.ANSWER_SOURCE_POPULAR
    codes = [outcomes[place].code() for place in (1, 2, 4)]
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert codes == [grpc.StatusCode.NOT_FOUND, invalid, invalid]


@pytest.mark.parametrize("model", [{"company_gap_ms": 100.0}], indirect=True)
async def test_who_is_in_a_hurry_is_not_held(model):
    """He would pay for what others save: the longest wait is .4 s here, and he has no more than twice that."""
    before = await model.num_held()

    answer = await model.PredictRating(rate("carl", "up"), timeout=0.7)

    assert answer.rating
    assert await model.num_held() == before


@pytest.mark.parametrize("said", [{"min_user_version": "1-1"}, {"profile_overrides": {"gender": "F"}}])
async def test_who_says_more_of_a_user_than_his_id_is_answered_for_that(model, said):
    """What is kept of the user does not do for him: his question goes the way of all others."""
    before = await model.num_held()

    await asyncio.gather(model.PredictRating(rate("carl", "up", **said)), return_exceptions=True)

    assert await model.num_held() == before


@pytest.mark.parametrize("model", [{"company_gap_ms": 40.0}], indirect=True)
async def test_who_must_be_read_waits_for_others_and_is_read_with_them(model, features):
    """For up to .28 s here; who is near would wait for .16 s, and anybody for 2 ms in a service that is not busy."""
    read_before = len(features.reads)

    first = asyncio.ensure_future(model.PredictRating(rate("stranger", "up")))
    await asyncio.sleep(0.2)
    await asyncio.gather(first, model.PredictRating(rate("newcomer", "up")))

    assert [sorted(user_ids) for user_ids in features.reads[read_before:]] == [["newcomer", "stranger"]]


async def test_who_needs_a_batch_but_no_read_does_not_wait_for_others(model):
    """Nobody is read for movies like another one, for a varied list of a near user, nor for two near users at once."""
    held_before = await model.num_batches("held")

    for ask in (
        lambda: model.SimilarMovies(pb.SimilarMoviesRequest(movie_id="heat", k=2)),
        lambda: model.TopK(top("carl", diversity=0.5)),
        lambda: model.BatchTopK(pb.BatchTopKRequest(users=[top(user_id).user for user_id in USERS[:2]], k=3)),
    ):
        await asyncio.sleep(0.05)
        await ask()

    assert await model.num_batches("held") == held_before
    await asyncio.sleep(0.05)
    await model.TopK(top("stranger"))
    assert await model.num_batches("held") == held_before + 1

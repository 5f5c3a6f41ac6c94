"""The client that asks many questions in few calls: answers and errors are those of single calls."""

import asyncio

import grpc
import pytest
from marquee.client.answers import read_prediction, read_recommendations
from marquee.client.errors import CallError, read_error
from marquee.client.model_client import ModelClient
from marquee.client.sync_model_client import SyncModelClient
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.model_service_pb2_grpc import ModelServiceStub

USERS = ("ann", "bob", "stranger", "ann")
MOVIES = ("heat", "alien", "big", "new")


@pytest.fixture
async def client(model):
    async with ModelClient(model.channel) as asked:
        yield asked


@pytest.fixture
def num_calls(features, monkeypatch):
    """Counts the calls of each RPC that the client makes."""
    counts = {}

    def counted(name, method):
        def call(request, **arguments):
            counts[name] = counts.get(name, 0) + 1
            return method(request, **arguments)

        return call

    make = ModelServiceStub.__init__

    def counting(self, channel):
        make(self, channel)
        for name in ("PredictRating", "BatchPredictRatings", "TopK", "BatchTopK"):
            setattr(self, name, counted(name, getattr(self, name)))

    monkeypatch.setattr(ModelServiceStub, "__init__", counting)
    return counts


async def test_ratings_asked_at_the_same_time_are_those_of_single_calls(num_calls, model, client):
    """They travel in one call."""
    num_calls.clear()
    together = await asyncio.gather(
        *(client.predict_rating(user, movie, with_stddev=False) for user in USERS for movie in MOVIES)
    )
    shared = dict(num_calls)
    alone = [
        read_prediction(
            await model.PredictRating(pb.PredictRatingRequest(user=pb.UserSelector(user_id=user), movie_id=movie))
        )
        for user in USERS
        for movie in MOVIES
    ]

    assert shared == {"BatchPredictRatings": 1}
    for one, other in zip(together, alone, strict=True):
        assert one.rating == pytest.approx(other.rating, abs=1e-6)
        assert (one.rounded_rating, one.source, one.cold, one.model_version, one.user_version, one.num_ratings) == (
            other.rounded_rating,
            other.source,
            other.cold,
            other.model_version,
            other.user_version,
            other.num_ratings,
        )


async def test_lists_asked_at_the_same_time_are_those_of_single_calls(num_calls, model, client):
    """Those of one kind travel in one call, those of another in another."""
    num_calls.clear()
    dramas = [client.top_k(user, 3, genres_any=["Drama"], with_movie=True) for user in USERS]
    others = [client.top_k(user, 2, exclude_seen=False) for user in USERS]
    together = await asyncio.gather(*dramas, *others)
    shared = dict(num_calls)
    expected = []
    for request in (
        pb.TopKRequest(k=3, filter=pb.MovieFilter(genres_any=["Drama"]), view=2),
        pb.TopKRequest(k=2, exclude_seen=False),
    ):
        for user in USERS:
            request.user.user_id = user
            reply = await model.TopK(request)
            expected.append(read_recommendations(reply, reply.model_version))

    assert shared == {"BatchTopK": 2}
    assert [answer.movie_ids for answer in together] == [answer.movie_ids for answer in expected]
    assert together[0] == expected[0]
    assert together[0].movies[0].movie.title


async def test_a_wrong_question_fails_nobody_elses(client):
    """Each learns what a single call would have told him."""
    answers = await asyncio.gather(
        client.predict_rating("ann", "heat"),
        client.predict_rating("ann", "nope"),
        client.predict_rating("no\nsuch", "heat"),
        client.predict_rating("bob", "heat"),
        return_exceptions=True,
    )
    lists = await asyncio.gather(
        client.top_k("ann", 2), client.top_k("", 2), client.top_k("bob", 2), return_exceptions=True
    )

    assert [type(answer).__name__ for answer in answers] == ["Prediction", "CallError", "CallError", "Prediction"]
    assert (answers[1].code, answers[1].reason, answers[1].missing_ids) == (
        grpc.StatusCode.NOT_FOUND,
        "MOVIE_NOT_FOUND",
        ["nope"],
    )
    assert answers[2].violations[0].field == "user.user_id"
    assert [type(answer).__name__ for answer in lists] == ["Recommendations", "CallError", "Recommendations"]


async def test_many_pairs_are_answered_in_their_order(client):
    """A pair that failed stands there with why."""
    answers = await client.predict_ratings([("ann", "heat"), ("ann", "nope"), ("bob", "big")])

    assert [isinstance(answer, CallError) for answer in answers] == [False, True, False]
    assert answers[0].score != answers[2].score


async def test_a_state_that_is_not_there_yet_is_waited_for_and_then_refused(client, features):
    """As the service does for single calls: never an older answer."""
    features.watch("ann", "big", 1_600_000_000_000)
    write = features.version_of("ann")
    current = await client.predict_rating("ann", "heat", min_user_version=write)
    later = write.rpartition(".")[0] + ".99"

    with pytest.raises(CallError) as raised:
        await asyncio.gather(
            client.predict_rating("ann", "heat", min_user_version=later, timeout_s=0.5),
            client.predict_rating("bob", "heat", timeout_s=0.5),
        )

    assert current.user_version == write
    assert raised.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_question_has_its_own_deadline(client, features):
    """A slow call keeps nobody longer than he wanted to wait."""
    features.is_off = True
    loop = asyncio.get_running_loop()
    began = loop.time()

    with pytest.raises(CallError):
        await client.predict_rating("ann", "heat", timeout_s=0.2)

    assert loop.time() - began < 2


async def test_inline_users_are_answered_too(client):
    """They travel alone."""
    somebody = pb.UserSelector(inline_user=pb.InlineUser())

    assert len((await client.top_k(somebody, 3)).movies) == 3
    assert [movie.movie_id for movie in (await client.similar_movies("heat", 1)).movies] == ["alien"]


async def test_threads_ask_as_tasks_do(model, start):
    """The blocking client has the same methods; what threads ask travels together too."""
    address = model.address

    def ask():
        with SyncModelClient(address) as client:
            one = client.predict_rating("ann", "heat")
            several = client.predict_ratings([("ann", "heat"), ("bob", "big")])
            page = client.top_k("ann", 2)
            nearest = client.similar_movies("heat", 1)
            with pytest.raises(CallError, match="MOVIE_NOT_FOUND"):
                client.predict_rating("ann", "nope")
        with pytest.raises(CallError, match="closed"):
            client.predict_rating("ann", "heat")
        return one, several, page, nearest

    one, several, page, nearest = await asyncio.to_thread(ask)

    assert several[0] == one
    assert len(page.movies) == 2
    assert nearest.movie_ids == ["alien"]


def test_an_error_of_a_row_reads_as_one_of_a_call():
    """So that callers branch on one thing."""
    error = CallError.of(grpc.StatusCode.NOT_FOUND, "no movie 'nope'", reason="MOVIE_NOT_FOUND", missing_ids=["nope"])

    assert str(error) == "NOT_FOUND (MOVIE_NOT_FOUND): no movie 'nope'"
    assert error.domain == "marquee"
    assert read_error(grpc.RpcError("odd")).code is grpc.StatusCode.UNKNOWN

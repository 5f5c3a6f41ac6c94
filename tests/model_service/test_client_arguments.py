"""Arguments of the client that no call could carry: each fails who gave it, at once, by its name, and nobody else."""

import asyncio
import threading

import grpc
import pytest
from marquee.client.answers import Prediction
from marquee.client.errors import CallError
from marquee.client.model_client import ModelClient
from marquee.client.sync_model_client import SyncModelClient

NAN = float("nan")
NOBODY = "127.0.0.1:1"


@pytest.fixture
async def client(model):
    async with ModelClient(model.channel) as asked:
        yield asked


@pytest.mark.parametrize(
    ("user_id", "movie_id", "error", "named"),
    [
        (5, "heat", TypeError, "user_id must be a text"),
        (None, "heat", TypeError, "user_id must be a text"),
        (["ann"], "heat", TypeError, "user_id must be a text"),
        ("ann", b"heat", TypeError, "movie_id must be a text"),
        ("\ud83d", "heat", ValueError, "user_id is not UTF-8"),
        ("ann", "\udcff", ValueError, "movie_id is not UTF-8"),
    ],
)
async def test_a_wrong_question_fails_nobody_elses(client, user_id, movie_id, error, named):
    """Asked at the same time as a sound one, it never gets as far as the call that they would share."""
    wrong, sound = await asyncio.gather(
        client.predict_rating(user_id, movie_id), client.predict_rating("ann", "heat"), return_exceptions=True
    )

    assert type(wrong) is error
    assert named in str(wrong)
    assert isinstance(sound, Prediction)


@pytest.mark.parametrize(
    ("pair", "error", "named"),
    [
        (("ann",), TypeError, r"pairs[2] must be (user_id, movie_id), two texts, not 1 values"),
        (("ann", "heat", "big"), TypeError, r"pairs[2] must be (user_id, movie_id), two texts, not 3 values"),
        ("ab", TypeError, r"pairs[2] must be (user_id, movie_id), two texts, not str"),
        (None, TypeError, r"pairs[2] must be (user_id, movie_id), two texts, not NoneType"),
        (("ann", 5), TypeError, "movie_id of pairs[2] must be a text (str), not int"),
        ((None, "heat"), TypeError, "user_id of pairs[2] must be a text (str), not NoneType"),
        (("\udcff", "heat"), ValueError, "user_id of pairs[2] is not UTF-8"),
    ],
)
async def test_a_pair_that_is_none_is_named_by_its_place(client, pair, error, named):
    """Before anything is asked, with what would be right."""
    with pytest.raises(error) as caught:
        await client.predict_ratings([("ann", "heat"), ["bob", "big"], pair])

    assert str(caught.value).startswith(named)


@pytest.mark.parametrize("pairs", ["ann", None, 5])
async def test_what_is_no_list_of_pairs_is_refused(client, pairs):
    """The text says what it should be."""
    with pytest.raises(TypeError, match=r"pairs must be a list of \(user_id, movie_id\)"):
        await client.predict_ratings(pairs)


@pytest.mark.parametrize(
    ("wishes", "named"),
    [
        ({"k": -1}, "k: "),
        ({"k": "5"}, "k: "),
        ({"k": 2**40}, "k: "),
        ({"year_min": 2**40}, "year_min: "),
        ({"explain": -1}, "explain: "),
        ({"diversity": "much"}, "diversity: "),
        ({"genres_any": [1]}, "genres_any: "),
        ({"genres_any": "Drama"}, "genres_any must be a list of texts, not one text"),
        ({"allow": "heat"}, "allow must be a list of texts, not one text"),
        ({"timeout_s": NAN}, "timeout_s must be a number of seconds, not NaN"),
        ({"timeout_s": "1"}, "timeout_s must be a number of seconds, not str"),
    ],
)
async def test_a_wrong_wish_is_named(client, wishes, named):
    """The text says which argument it was; one text is not a list of its letters."""
    with pytest.raises((TypeError, ValueError)) as caught:
        await client.top_k("ann", **wishes)

    assert named in str(caught.value)


async def test_an_endless_time_is_a_long_one(client):
    """Not one that is over before it began."""
    answered = await client.predict_rating("ann", "heat", timeout_s=float("inf"))

    assert isinstance(answered, Prediction)


@pytest.mark.parametrize(
    "settings",
    [
        {"calls_in_flight": 0},
        {"calls_in_flight": -1},
        {"users_together": 0},
        {"users_together": 1.5},
        {"timeout_s": NAN},
    ],
)
async def test_a_client_that_would_never_ask_is_not_made(settings):
    """The setting is named, and no thread stays behind."""
    (name,) = settings
    before = threading.active_count()

    with pytest.raises(ValueError, match=name):
        ModelClient(NOBODY, **settings)
    with pytest.raises(ValueError, match=name):
        await asyncio.to_thread(SyncModelClient, NOBODY, **settings)

    assert "marquee-client" not in [thread.name for thread in threading.enumerate()]
    assert threading.active_count() <= before + 1  # that of to_thread


async def test_a_closed_client_says_so():
    """As an error of a call, whatever is asked."""
    client = ModelClient(NOBODY)
    await client.close()

    for asked in (client.predict_rating("ann", "heat"), client.top_k("ann"), client.similar_movies("heat")):
        with pytest.raises(CallError, match="the client is closed") as caught:
            await asked
        assert caught.value.code is grpc.StatusCode.CANCELLED

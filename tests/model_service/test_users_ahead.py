"""Who was asked about before a swap is embedded by the new model already when it begins to answer."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from marquee.v1 import model_service_pb2 as pb

from tests.model_service.asking import until, until_named, until_served
from tests.model_service.conftest import USER_POINTS
from tests.scraping import scrape

ELSEWHERE = {**USER_POINTS, "carl": (0.0, 2.0), "dora": (2.0, 0.0)}
USERS = ["carl", "dora"]


@pytest.fixture
def asked(start, train, features, unused_tcp_port):
    """Runs a service of v1 that was asked about Carl, then about Dora; tells who is answered at once, and asks."""
    for user in USERS:
        features.watch(user, "heat", 1000, 5.0)
    features.follow()
    train("v1")
    metrics = f"127.0.0.1:{unused_tcp_port}"

    async def num_at_once():
        return (await asyncio.to_thread(scrape, metrics)).total("marquee_model_answers_at_once_total")

    @asynccontextmanager
    async def run(**settings):
        async with start(near_cache_bytes=1 << 20, metrics_listen=metrics, **settings) as model:

            async def ask(user, **selector):
                before = await num_at_once()
                request = pb.PredictRatingRequest(
                    user=pb.UserSelector(user_id=user), movie_id="alien", model=pb.ModelSelector(**selector)
                )
                return await model.PredictRating(request), await num_at_once() > before

            async def is_at_once(user):
                return (await ask(user))[1]

            # Ann is who is asked about while the swap is waited for.
            for user in (*USERS, "ann"):
                await until(lambda user=user: is_at_once(user), True)
            yield model, ask

    return run


async def test_after_a_swap_users_are_answered_at_once(asked, train):
    """By the new model, to the last bit as it answers who was not embedded ahead."""
    async with asked() as (model, ask):
        train("v2", user_points=ELSEWHERE)
        await until_served(model, "v2")
        ahead = [await ask(user) for user in USERS]
    async with asked(embed_ahead_users=0) as (_, ask):
        later = [await ask(user) for user in USERS]

    assert [is_at_once for _, is_at_once in ahead] == [True, True]
    assert [answer for answer, _ in ahead] == [answer for answer, _ in later]
    assert ahead[0][0].model_version == "v2"


@pytest.mark.parametrize(("most", "at_once"), [(0, [False, False]), (2, [False, True])])
async def test_the_last_ones_are_embedded_ahead(asked, train, most, at_once):
    """As many as the setting says; the others are when they are asked about."""
    async with asked(embed_ahead_users=most) as (model, ask):
        train("v2")
        await until_served(model, "v2")
        found = [await ask(user) for user in USERS]
        again = [await ask(user) for user in USERS]

    assert [is_at_once for _, is_at_once in found] == at_once
    assert [is_at_once for _, is_at_once in again] == [True, True]


async def test_nobody_is_embedded_ahead_by_a_model_that_does_not_serve(asked, train):
    """One that is loaded for who names it would drive out of memory what answers the others."""
    async with asked(also_labels=("aside",)) as (model, ask):
        train("v2", label="aside")
        await until_named(model, model_version="v2")
        serving = await ask("carl")
        named = await ask("carl", model_version="v2")
        again = await ask("carl", model_version="v2")

    assert [is_at_once for _, is_at_once in (serving, named, again)] == [True, False, True]

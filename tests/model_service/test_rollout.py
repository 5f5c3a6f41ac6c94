"""How a replica follows the labels of its registry: what it loads, who is answered by it, and what changes nothing."""

import asyncio

import grpc
import pytest
from marquee.client.errors import read_error
from marquee.client.model_client import ModelClient
from marquee.v1 import model_service_pb2 as pb
from structlog.testing import capture_logs

from model_service.canaries import is_among
from tests.model_service.asking import ANN, rate, until, until_named, until_served
from tests.model_service.conftest import USER_POINTS
from two_tower.registry import Canary

ELSEWHERE = {**USER_POINTS, "ann": (0.0, 2.0)}


async def test_a_moved_label_is_followed_without_a_restart(start, train):
    """The next answers come from the new version, and say so."""
    train("v1")
    async with start() as model:
        before = await model.PredictRating(rate())
        train("v2", user_points=ELSEWHERE)
        await until_served(model, "v2")
        after = await model.PredictRating(rate())

    assert (before.model_version, after.model_version) == ("v1", "v2")
    assert before.score != after.score


async def test_a_version_that_is_refused_changes_nothing(start, train, registry):
    """What answers goes on, the reason is said once, and a later version is taken."""
    train("v1")
    with capture_logs() as logs:
        async with start() as model:
            train("v2", label="aside")
            weights = registry.path / "v2" / "weights.safetensors"
            weights.write_bytes(weights.read_bytes()[:-8])
            registry.set_label("stable", "v2")

            async def refused():
                return [line["model_version"] for line in logs if line["event"] == "refused"]

            await until(refused, ["v2"])
            await asyncio.sleep(0.3)
            meanwhile = (await model.PredictRating(rate())).model_version
            train("v3")
            await until_served(model, "v3")

    assert meanwhile == "v1"
    assert [line["reason"].partition(" in the")[0] for line in logs if line["event"] == "refused"] == [
        "weights.safetensors does not match its hash"
    ]


async def test_what_served_before_stays_in_memory(start, train, registry):
    """Going back is a swap: the folder may even be gone."""
    folder = train("v1")
    async with start() as model:
        train("v2")
        await until_served(model, "v2")
        (folder / "weights.safetensors").unlink()
        pinned = await model.PredictRating(rate(model_version="v1"))
        registry.roll_back("stable", reason="odd lists")
        await until_served(model, "v1")

    assert pinned.model_version == "v1"


async def test_what_nobody_names_any_more_is_let_go(start, train):
    """After two swaps the first version is refused by name; what is in memory is told."""
    train("v1")
    async with start() as model:
        for version in ("v2", "v3"):
            train(version)
            await until_served(model, version)

        async def error():
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await model.PredictRating(rate(model_version="v1"))
            return read_error(raised.value).metadata["resident_model_versions"]

        await until(error, "v3,v2")


async def test_a_canary_answers_its_share_of_the_users_and_always_the_same(start, train, registry):
    """Who names a model, and who has no id, is on no trial."""
    train("v1")
    train("v2", label="aside")
    registry.set_label("stable", "v1", canary=Canary("v2", 30.0))
    users = [f"user-{number}" for number in range(200)]
    async with start() as model:
        await until_named(model, model_version="v2")

        async def versions():
            asked = [model.PredictRating(rate(pb.UserSelector(user_id=user))) for user in users]
            return [(await answer).model_version for answer in asked]

        first, second = await versions(), await versions()
        named = await model.PredictRating(rate(model_version="v1"))
        nameless = await model.PredictRating(rate(pb.UserSelector(inline_user=pb.InlineUser())))
        registry.set_label("stable", "v1")
        await until(versions, ["v1"] * len(users))

    assert first == second
    assert 40 <= first.count("v2") <= 80
    assert (named.model_version, nameless.model_version) == ("v1", "v1")


async def test_a_canary_answers_its_share_of_a_batch(start, train, registry):
    """Each user as if he had been asked for alone, whatever his place; also through the client that makes batches."""
    train("v1")
    train("v2", label="aside", user_points=ELSEWHERE)
    registry.set_label("stable", "v1", canary=Canary("v2", 30.0))
    users = [f"user-{number}" for number in range(60)] + ["ann"]
    pairs = [(user, movie) for movie in ("heat", "alien") for user in (*users[5:], *users[:3])]
    places = {user: place for place, user in enumerate(users)}

    def ask(user, movie):
        return pb.PredictRatingRequest(user=pb.UserSelector(user_id=user), movie_id=movie)

    async with start() as model:
        await until_named(model, model_version="v2")
        singles = [await model.PredictRating(ask(user, movie)) for user, movie in pairs]
        ratings = await model.BatchPredictRatings(
            pb.BatchPredictRatingsRequest(
                user_ids=users,
                movie_ids=["heat", "alien"],
                user_indices=[places[user] for user, _ in pairs],
                movie_indices=[("heat", "alien").index(movie) for _, movie in pairs],
            )
        )
        selectors = [pb.UserSelector(user_id=user) for user in users]
        lists = await model.BatchTopK(
            pb.BatchTopKRequest(users=[*selectors, pb.UserSelector(inline_user=pb.InlineUser())], k=2)
        )
        alone = [await model.TopK(pb.TopKRequest(user=user, k=2)) for user in selectors]
        async with ModelClient(model.channel) as client:
            coalesced = await asyncio.gather(*(client.predict_rating(user, movie) for user, movie in pairs))
        registry.set_label("stable", "v1", canary=Canary("v2", 100.0))

        async def version_of_all():
            reply = await model.BatchTopK(pb.BatchTopKRequest(users=selectors, k=1))
            return reply.model_version, {row.model_version for row in reply.results}

        await until(version_of_all, ("v2", {""}))

    assert {single.model_version for single in singles} == {"v1", "v2"}
    assert list(ratings.scores) == [single.score for single in singles]
    assert [ratings.user_model_versions[places[user]] for user, _ in pairs] == [one.model_version for one in singles]
    assert ratings.model_version == lists.model_version == "v1"
    assert [row.model_version or "v1" for row in lists.results] == [*(one.model_version for one in alone), "v1"]
    assert [list(row.movies) for row in lists.results[:-1]] == [list(one.movies) for one in alone]
    assert [one.model_version for one in coalesced] == [one.model_version for one in singles]


async def test_a_canary_that_is_refused_is_tried_on_nobody(start, train, registry):
    """Its users are answered by what serves."""
    train("v1")
    train("v2", label="aside")
    (registry.path / "v2" / "weights.safetensors").write_bytes(b"")
    registry.set_label("stable", "v1", canary=Canary("v2", 100.0))
    with capture_logs() as logs:
        async with start() as model:

            async def refused():
                return [line["model_version"] for line in logs if line["event"] == "refused"]

            await until(refused, ["v2"])
            assert (await model.PredictRating(rate())).model_version == "v1"


async def test_further_labels_are_in_memory_for_who_names_them(start, train):
    """MODEL_ALSO_LABELS lists them; they are followed too."""
    train("v1")
    train("v2", label="challenger")
    async with start(also_labels=("challenger", "never-set")) as model:
        await until_named(model, label="challenger")
        by_label = await model.PredictRating(rate(label="challenger"))
        by_nobody = await model.PredictRating(rate())
        train("v3", label="challenger")

        async def challenger():
            return (await model.PredictRating(rate(label="challenger"))).model_version

        await until(challenger, "v3")

    assert (by_label.model_version, by_nobody.model_version) == ("v2", "v1")


async def test_a_new_movie_is_known_to_all_that_are_in_memory(start, train, features):
    """Models that answer together mean the same movies by the same numbers."""
    train("v1")
    async with start() as model:
        train("v2")
        await until_served(model, "v2")
        features.put_movie("fresh", title="Fresh", genres=["Comedy"])

        for version in ("v1", "v2"):
            request = rate(model_version=version)
            request.movie_id = "fresh"
            assert (await model.PredictRating(request)).model_version == version


async def test_ten_swaps_under_load_fail_nobody(start, train):
    """Each answer is of the version that it names, and no request is lost or refused."""
    train("v0")
    scores, failures = {}, []
    async with start() as model:

        async def ask_on():
            while True:
                try:
                    answer = await model.PredictRating(rate(), timeout=10)
                except grpc.aio.AioRpcError as error:
                    failures.append(error)
                else:
                    scores.setdefault(answer.model_version, set()).add(round(answer.score, 6))

        callers = [asyncio.create_task(ask_on()) for _ in range(8)]
        for number in range(1, 11):
            train(f"v{number}", user_points={**USER_POINTS, "ann": (1.0 + number, 0.25)})
            await until_served(model, f"v{number}")
        async with asyncio.timeout(10):
            # The last one has begun to serve; those who ask must have heard of it too.
            while "v10" not in scores:
                await asyncio.wait(callers, timeout=0.01)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

    assert failures == []
    assert set(scores) == {f"v{number}" for number in range(11)}
    assert all(len(each) == 1 for each in scores.values())
    assert len(set().union(*scores.values())) == 11


async def test_a_long_answer_names_one_model(start, train):
    """Pieces of one request are answered by one version, also while another begins to serve."""
    train("v1")
    async with start(max_batch_rows=1) as model:
        call = model.BatchTopK(pb.BatchTopKRequest(users=[ANN] * 60, k=3))
        train("v2", user_points=ELSEWHERE)
        await until_served(model, "v2")
        answer = await call

    lists = {tuple((movie.movie_id, round(movie.score, 5)) for movie in row.movies) for row in answer.results}
    assert answer.model_version in ("v1", "v2")
    assert len(lists) == 1


def test_shares_of_users_are_stable_nested_and_different_for_each_version():
    """A larger share contains the smaller one; another version is tried on other users."""
    users = [f"user-{number}" for number in range(2000)]
    tenth = {user for user in users if is_among(user, "v2", 10)}
    third = {user for user in users if is_among(user, "v2", 33)}
    others = {user for user in users if is_among(user, "v3", 10)}

    assert 150 <= len(tenth) <= 250
    assert tenth < third
    assert len(tenth & others) < 50
    assert all(is_among(user, "v2", 100) for user in users)

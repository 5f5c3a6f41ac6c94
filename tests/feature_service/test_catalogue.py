"""Movies get numbers for good, and every replica follows."""

import asyncio
import base64
import random

import grpc.aio
import pytest
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import movie_pb2

from feature_service.catalogue import Catalogue
from feature_service.value_format import StoredMovie
from tests.feature_service import messages as make


def bag(*values: str) -> movie_pb2.MovieBag:
    return movie_pb2.MovieBag(values=values)


async def get(stub, *movie_ids: str) -> pb2.BatchGetMoviesResponse:
    return await stub.BatchGetMovies(pb2.BatchGetMoviesRequest(movie_ids=movie_ids))


async def list_all(stub, **fields) -> list[pb2.ListMoviesResponse]:
    """Returns all pages."""
    pages = [await stub.ListMovies(pb2.ListMoviesRequest(**fields))]
    while pages[-1].next_page_token:
        pages.append(await stub.ListMovies(pb2.ListMoviesRequest(**fields, page_token=pages[-1].next_page_token)))
    return pages


async def test_numbers_are_dense_in_the_order_of_upsert(feature_stub):
    """New movies take the next numbers; known ones keep theirs."""
    first = await feature_stub.BatchUpsertMovies(make.movies(3))
    named = [movie_pb2.Movie(movie_id=name, title="t", catalogue_number=99) for name in ("z", "m1", "a")]
    second = await feature_stub.BatchUpsertMovies(make.upsert_movies(*named))

    assert list(first.catalogue_numbers) == [0, 1, 2]
    assert list(second.catalogue_numbers) == [3, 1, 4]
    assert second.catalogue_version > first.catalogue_version
    assert second.catalogue_id == first.catalogue_id


async def test_a_movie_comes_back_as_it_was_given(feature_stub):
    """All fields survive, unknown ids are listed, answers keep the order of the request."""
    movie = movie_pb2.Movie(movie_id="m", title="Amélie", year=2001, genres=["Comedy", "Romance"])
    movie.bags["cast"].values.extend(["Tautou", "Kassovitz"])
    await feature_stub.BatchUpsertMovies(make.upsert_movies(movie_pb2.Movie(movie_id="other"), movie))

    reply = await get(feature_stub, "x", "m", "other", "y")

    movie.catalogue_number = 1
    assert list(reply.movies) == [movie, movie_pb2.Movie(movie_id="other")]
    assert list(reply.not_found_movie_ids) == ["x", "y"]


async def test_absent_fields_keep_what_is_stored(feature_stub):
    """An upsert changes what it names, clears what it says, and keeps the rest."""
    full = movie_pb2.Movie(
        movie_id="m", title="t", year=1999, genres=["A"], bags={"cast": bag("x"), "crew": bag("y"), "tags": bag("z")}
    )
    await feature_stub.BatchUpsertMovies(make.upsert_movies(full))
    change = movie_pb2.Movie(movie_id="m", title="u", bags={"cast": bag("w")}, removed=True)
    await feature_stub.BatchUpsertMovies(make.upsert_movies(change, clear_fields=("year", "genres", "bags.crew")))

    stored = (await get(feature_stub, "m")).movies[0]

    assert stored == movie_pb2.Movie(movie_id="m", title="u", bags={"cast": bag("w"), "tags": bag("z")}, removed=True)


async def test_a_movie_may_come_back_after_its_removal(feature_stub):
    """A removed movie keeps its number and is listed as removed; it can be restored."""
    await feature_stub.BatchUpsertMovies(make.movies(2))
    await feature_stub.BatchUpsertMovies(make.upsert_movies(movie_pb2.Movie(movie_id="m0", removed=True)))
    removed = (await list_all(feature_stub))[0].movies[0]

    reply = await feature_stub.BatchUpsertMovies(make.upsert_movies(movie_pb2.Movie(movie_id="m0", removed=False)))

    assert (removed.movie_id, removed.removed) == ("m0", True)
    assert list(reply.catalogue_numbers) == [0]
    assert not (await get(feature_stub, "m0")).movies[0].removed


async def test_the_same_movie_again_changes_nothing(feature_stub):
    """A retried upsert keeps the catalogue's version."""
    first = await feature_stub.BatchUpsertMovies(make.movies(3))

    assert await feature_stub.BatchUpsertMovies(make.movies(3)) == first


async def test_pages_hold_every_movie_once(feature_stub):
    """By number, no gaps, no repetition; the last page has no token."""
    await feature_stub.BatchUpsertMovies(make.movies(25))

    pages = await list_all(feature_stub, page_size=10)

    assert [len(page.movies) for page in pages] == [10, 10, 5]
    assert [movie.catalogue_number for page in pages for movie in page.movies] == list(range(25))
    assert {page.num_movies for page in pages} == {25}


async def test_changes_are_listed_since_a_version(feature_stub):
    """Asking with the last answer's version lists what changed since, and nothing twice."""
    await feature_stub.BatchUpsertMovies(make.movies(20))
    seen = (await list_all(feature_stub))[0].catalogue_version
    await feature_stub.BatchUpsertMovies(make.movies(2, first=20))
    await feature_stub.BatchUpsertMovies(make.upsert_movies(movie_pb2.Movie(movie_id="m4", title="new")))

    pages = await list_all(feature_stub, since_catalogue_version=seen, page_size=2)

    assert [movie.movie_id for page in pages for movie in page.movies] == ["m4", "m20", "m21"]
    assert await list_all(feature_stub, since_catalogue_version=pages[0].catalogue_version) == [
        pb2.ListMoviesResponse(
            catalogue_id=pages[0].catalogue_id, catalogue_version=pages[0].catalogue_version, num_movies=22
        )
    ]


async def test_pages_name_the_version_of_the_first(feature_stub):
    """A change between two pages is not lost: the version to ask from next time is older than it."""
    await feature_stub.BatchUpsertMovies(make.movies(4))
    first = await feature_stub.ListMovies(pb2.ListMoviesRequest(page_size=2))
    await feature_stub.BatchUpsertMovies(make.upsert_movies(movie_pb2.Movie(movie_id="m0", title="late")))

    second = await feature_stub.ListMovies(pb2.ListMoviesRequest(page_size=2, page_token=first.next_page_token))

    assert second.catalogue_version == first.catalogue_version
    changes = await list_all(feature_stub, since_catalogue_version=second.catalogue_version)
    assert [movie.title for page in changes for movie in page.movies] == ["late"]


async def test_a_token_belongs_to_its_question(feature_stub):
    """A token of another since_catalogue_version is refused."""
    await feature_stub.BatchUpsertMovies(make.movies(4))
    token = (await feature_stub.ListMovies(pb2.ListMoviesRequest(page_size=2))).next_page_token

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await feature_stub.ListMovies(pb2.ListMoviesRequest(page_token=token, since_catalogue_version=1))

    assert read_error(raised.value).violations[0].field == "since_catalogue_version"


async def test_a_made_up_token_is_refused(feature_stub):
    """Numbers that no answer could carry, and nesting that no reader could follow, are no token of ours."""
    await feature_stub.BatchUpsertMovies(make.movies(4))
    catalogue_id = (await feature_stub.GetStoreInfo(pb2.GetStoreInfoRequest())).catalogue_id
    texts = [
        "[" * 100_000,
        f'["{catalogue_id}", {2**64}, 0, 0]',
        f'["{catalogue_id}", 1, 0, {10**400}]',
        f'["{catalogue_id}", 1.5, 0, 0]',
        "null",
    ]
    for text in texts:
        token = base64.urlsafe_b64encode(text.encode()).decode()

        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await feature_stub.ListMovies(pb2.ListMoviesRequest(page_token=token))

        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT, text[:40]
        assert read_error(raised.value).violations[0].field == "page_token"


async def test_a_replaced_catalogue_is_noticed(feature_stub, raw_redis):
    """When Redis was emptied, tokens of the old catalogue fail, ids and epoch are new, and no old number survives."""
    await feature_stub.BatchUpsertMovies(make.movies(4))
    before = await feature_stub.GetStoreInfo(pb2.GetStoreInfoRequest())
    token = (await feature_stub.ListMovies(pb2.ListMoviesRequest(page_size=2))).next_page_token
    raw_redis.flushall()

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await feature_stub.ListMovies(pb2.ListMoviesRequest(page_token=token))
    after = await feature_stub.GetStoreInfo(pb2.GetStoreInfoRequest())
    refused = await feature_stub.WriteEvents(make.write(make.event(movie_id="m3")))

    assert read_error(raised.value).reason == "FOREIGN_CATALOGUE"
    assert after.store_epoch != before.store_epoch
    assert after.catalogue_id != before.catalogue_id
    assert after.num_movies == 0
    assert refused.results[0].reason == "MOVIE_NOT_FOUND"


async def test_the_store_says_what_it_is(feature_stub):
    """Epoch, catalogue, size and window in one answer."""
    upserted = await feature_stub.BatchUpsertMovies(make.movies(3))

    info = await feature_stub.GetStoreInfo(pb2.GetStoreInfoRequest())

    assert len(info.store_epoch) == 16
    assert (info.catalogue_id, info.catalogue_version) == (upserted.catalogue_id, upserted.catalogue_version)
    assert (info.num_movies, info.history_window) == (3, 200)


@pytest.fixture
def replicas(link, marks) -> list[Catalogue]:
    """Two processes that keep the same catalogue."""
    return [Catalogue(link, marks, random.Random(seed)) for seed in range(2)]


async def test_replicas_see_each_others_movies(replicas):
    """What one replica writes the other knows at its next look, changed movies too."""
    await replicas[0].change(lambda mirror: [StoredMovie("a"), StoredMovie("b")])
    await replicas[1].newest()
    await replicas[0].change(lambda mirror: [StoredMovie("c"), StoredMovie("a", title="t")])
    await replicas[0].change(lambda mirror: [StoredMovie("c", title="u")])

    numbers, missing = await replicas[1].numbers_of(["c", "a", "x", "x"])

    assert (numbers, missing) == ({"c": 2, "a": 0}, ["x"])
    mirror = await replicas[1].newest()
    assert [movie.title for movie in mirror.movies] == ["t", None, "u"]


async def test_an_unknown_movie_is_looked_for_before_it_is_refused(feature_stub, link, marks, raw_redis, one_server):
    """Calls at once about movies that another replica added are taken, after one look at the catalogue between them."""
    await feature_stub.BatchUpsertMovies(make.movies(3))
    other = Catalogue(link, marks, random.Random(0))
    await other.change(lambda mirror: [StoredMovie(f"m{number}") for number in range(3, 100)])
    raw_redis.config_resetstat()

    events = [make.event(f"e{number}", movie_id=f"m{number}") for number in range(99)]
    calls = [make.write(*events[first : first + 33]) for first in (0, 33, 66)]
    replies = await asyncio.gather(*(feature_stub.WriteEvents(call) for call in calls))
    imported = await feature_stub.ImportHistories(make.import_histories({"u": [("m99", 4, 100)]}))
    refused = await feature_stub.WriteEvents(
        make.write(*(make.event(movie_id=f"no {number}") for number in range(500)))
    )

    commands = {name: row["calls"] for name, row in raw_redis.info("commandstats").items()}
    assert {result.status for reply in replies for result in reply.results} == {pb2.EVENT_STATUS_APPLIED}
    assert imported.num_applied == 1
    assert {result.reason for result in refused.results} == {"MOVIE_NOT_FOUND"}
    assert commands["cmdstat_hmget"] == 1
    assert commands["cmdstat_zrange"] == 1
    # A look a call, and what goes with a write; readiness looks now and then.
    assert commands["cmdstat_mget"] <= 2 * 5 + 5


async def test_replicas_never_give_a_number_twice(replicas):
    """Many writers at once: all movies are there, numbers are dense, and both replicas agree."""

    async def add(position: int) -> None:
        await replicas[position % 2].change(lambda mirror: [StoredMovie(f"m{position}")])

    await asyncio.gather(*(add(position) for position in range(30)))

    mirrors = [await replica.newest() for replica in replicas]
    assert sorted(mirrors[0].numbers.values()) == list(range(30))
    assert mirrors[0].numbers == mirrors[1].numbers
    assert mirrors[0].pointer.version == 30

"""Which generations answer from an index, and what becomes of it when the catalogue changes; alone and in a service."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from marquee.v1 import model_service_pb2 as pb
from structlog.testing import capture_logs

from model_service.catalogue import Catalogue, CatalogueMovie
from model_service.generation import Generation
from model_service.index_users import user_vectors
from model_service.indexing import Indexing
from tests.model_service.asking import until
from tests.model_service.hand_made import HandMade
from tests.model_service.hand_made_pairwise import HandMadePairwise
from two_tower import checkpoint
from two_tower.serving import UserEmbeddings

NUM_MOVIES = 3000
GENRES = ("Drama", "Comedy")
ANN = pb.UserSelector(user_id="ann")


def movie(number, **changes):
    """Every movie is Drama, Comedy or both; few are told apart, so lists hold ties."""
    genres = tuple(genre for bit, genre in enumerate(GENRES) if number % 3 != bit)
    return CatalogueMovie(number, f"m{number}", **{"genres": genres, **changes})


@pytest.fixture
def generation(train):
    return Generation.build(
        checkpoint.load(train("v1"), "cpu"), Catalogue.empty("c").with_changes(map(movie, range(NUM_MOVIES)), 1)
    )


def test_a_large_catalogue_gets_an_index_and_a_small_one_none(generation):
    """Large is what the setting says."""
    indexed = Indexing(NUM_MOVIES, 0.5).indexed(generation)

    assert indexed.index is not None
    assert Indexing(NUM_MOVIES + 1, 0.5).indexed(generation).index is None
    assert Indexing(NUM_MOVIES, 1.0).indexed(generation).index is None


def test_a_model_without_dot_products_gets_no_index(train):
    """There is nothing to build it of."""
    loaded = checkpoint.load(train("v1", kind=HandMadePairwise), "cpu")
    generation = Generation.build(loaded, Catalogue.empty("c").with_changes(map(movie, range(NUM_MOVIES)), 1))

    assert Indexing(1000, 0.5).indexed(generation).index is None


def test_a_removed_movie_leaves_the_index_as_it_is(generation):
    """It is masked, at once and at no cost."""
    indexed = Indexing(1000, 0.5).indexed(generation)

    moved = indexed.over(indexed.catalogue.with_changes([movie(5, removed=True)], 2))

    assert moved.index is indexed.index
    assert moved.stale.tolist() == []
    assert not moved.catalogue.available[5]


def test_few_changes_are_ranked_beside_the_index_and_many_want_a_new_one(generation):
    """Until it is there, the old one goes on and nothing is missing."""
    indexing = Indexing(1000, 0.5)
    indexed = indexing.indexed(generation)
    catalogue = indexed.catalogue

    few = indexed.over(catalogue.with_changes([movie(NUM_MOVIES), movie(7, genres=())], 2))
    many = indexed.over(catalogue.with_changes(map(movie, range(NUM_MOVIES, NUM_MOVIES + 10)), 2))

    assert few.stale.tolist() == [7, NUM_MOVIES]
    assert many.stale.tolist() == list(range(NUM_MOVIES, NUM_MOVIES + 10))
    assert [indexing.is_due(each) for each in (indexed, few, many)] == [False, False, True]
    assert indexing.indexed(many).stale.tolist() == []


def test_a_checkpoint_without_users_to_measure_on_is_ranked_exactly_for_good(generation):
    """It is told once, and not tried again with every change of the catalogue."""

    class Lost(HandMade):
        def embed_users(self, users, movies):
            nowhere = torch.full((len(users), 2), torch.nan)
            return UserEmbeddings(nowhere, nowhere)

    lost = Generation.build(replace(generation.checkpoint, model=Lost({}, {}, {})), generation.catalogue)
    indexing = Indexing(1000, 0.5)

    with capture_logs() as logs:
        assert indexing.indexed(lost).index is None

    assert [log["event"] for log in logs] == ["ranked_exactly"]
    assert not indexing.is_due(lost)


def test_the_recall_is_measured_on_trained_users_and_on_strangers(generation):
    """Of the two users that the checkpoint knows, and of made-up ones; all of them numbers."""
    vectors = user_vectors(generation.checkpoint, generation.heads, np.random.default_rng(0))

    assert len(vectors) == 256
    assert np.isfinite(vectors).all()
    for trained in (1.0, 0.25), (0.0, 1.0):
        assert (vectors == trained).all(axis=-1).any()
    assert len(np.unique(vectors, axis=0)) > 3


async def top(model, **fields):
    reply = await model.TopK(pb.TopKRequest(user=ANN, k=10, exclude_seen=False, filter=pb.MovieFilter(**fields)))
    return [(each.movie_id, round(each.score, 5)) for each in reply.movies]


async def test_a_service_answers_from_an_index_what_it_answers_without(start, train, features):
    """New movies are listed at once, and once they are many the index is built anew behind the answers."""
    train("v1")
    for number in range(1200):
        features.put_movie(f"m{number}", genres=["Drama"] * (number % 2) + ["Comedy"], year=1950 + number % 50)
    with capture_logs() as logs:
        async with start(index_min_movies=1000, index_min_recall=0.9) as indexed, start() as exact:
            with_filter = {"genres_any": ["Drama"], "exclude": pb.MovieList(movie_ids=["heat"])}
            asked = [{}, with_filter, {"year_min": 1985}]
            answers = [(await top(indexed, **fields), await top(exact, **fields)) for fields in asked]
            for number in range(1200, 1250):
                features.put_movie(f"m{number}", genres=["Drama", "Comedy"])
            found = await top(indexed, allow=pb.MovieList(movie_ids=["m1249", "m1200"]))
            await until(partial(num_built, logs), 2, timeout_s=120)
            after = await top(indexed), await top(exact)

    # Movies with equal scores may be others: an index finds some of them.
    for mine, true in [*answers, after]:
        assert [score for _, score in mine] == [score for _, score in true]
    assert {movie_id for movie_id, _ in found} == {"m1249", "m1200"}


async def num_built(logs):
    return sum(log["event"] == "index" for log in logs)

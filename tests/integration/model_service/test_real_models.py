"""The real models behind the device's work: batches of mixed requests equal single ones, on every device and path."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from marquee.client.columns import UserRows
from marquee.v1 import user_pb2

from model_service.catalogue import Catalogue, CatalogueMovie
from model_service.checkpoint_loader import CheckpointLoader
from model_service.device_work import DeviceWork
from model_service.filters import MovieFilter
from model_service.generation import Generation
from model_service.queries import (
    Answer,
    ProfileFields,
    RatingAnswer,
    RatingTask,
    SimilarAnswer,
    SimilarTask,
    Task,
    TopKAnswer,
    TopKTask,
    UserQuery,
    Watched,
)
from model_service.stored_user import stored_users
from model_service.user_side import StoredUsers
from tests.toy_dataset import toy_dataset
from tests.training_record import unmeasured
from trainer.dataset import Dataset
from trainer.evaluation import user_columns
from trainer.fits import fit_function, silent
from trainer.fits.options import parse_options
from trainer.histories import HistoryLayout
from two_tower import checkpoint as checkpoints
from two_tower import golden
from two_tower.models import MODELS
from two_tower.recommending import RankedRow, Wish
from two_tower.registry import Registry

QUICK = {
    "marquee": ["hidden_size=16", "tower_epochs=2", "ranking_epochs=2", "ranking_cuts=3", "ranking_size=8"],
    "two-tower-history": ["batch_size=16"],
}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
PATHS = {"numpy": 10_000, "torch": 0}
NOW_MS = 1_700_000_000_000
TIE = 1e-4


@pytest.fixture(scope="module")
def data() -> Dataset:
    return toy_dataset()


@pytest.fixture(params=sorted(MODELS), scope="module")
def registry(request: pytest.FixtureRequest, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with one checkpoint of one model, fitted to toy data."""
    name: str = request.param
    made = fit_function(name)
    model = made.fit(data, parse_options(made.options_class, QUICK.get(name, [])), seed=0, progress=silent)
    registry = Registry(tmp_path_factory.mktemp("registry"))
    record = unmeasured(model.rating_scale, int(data.interactions.event_times_ms.max()))
    answers = golden.make(model, data.movies, data.profiles, "u0", record.data_until_ms)
    checkpoints.write(registry.path, "v1", model, record, answers)
    registry.set_label("stable", "v1")
    return registry


@pytest.fixture(params=DEVICES)
def generation(request: pytest.FixtureRequest, registry: Registry, data: Dataset) -> Generation:
    """The checkpoint, found and checked as the service does, over a catalogue with two movies more."""
    loaded = CheckpointLoader(registry, torch.device(request.param)).load("v1")
    movies = [
        CatalogueMovie(number, movie_id, data.movies.titles[number], None, tuple(data.movies.genres[number]))
        for number, movie_id in enumerate(data.movies.movie_ids)
    ]
    size = len(movies)
    movies += [CatalogueMovie(size, "cold", "Cold", 2020, ("Drama",)), CatalogueMovie(size + 1, "bare")]
    return Generation.build(loaded, Catalogue.empty("c").with_changes(movies, 1))


@pytest.fixture
def stored(data: Dataset) -> StoredUsers:
    """All users of the data, as the store answers them."""
    columns = user_columns(data, HistoryLayout(data.interactions, len(data.user_ids)), np.arange(len(data.user_ids)))
    size = len(columns)
    profiles = [
        user_pb2.UserProfile(gender=gender, age=None if np.isnan(age) else int(age), occupation=occupation)
        for gender, age, occupation in zip(
            columns.profiles.genders, columns.profiles.ages, columns.profiles.occupations, strict=True
        )
    ]
    rows = UserRows(
        statuses=np.full(size, user_pb2.USER_STATUS_FOUND, np.int32),
        profiles=profiles,
        user_versions=["0123456789abcdef.1.1"] * size,
        offsets=columns.histories.offsets,
        movie_numbers=columns.histories.movie_numbers,
        ratings=columns.histories.ratings,
        event_times_ms=columns.histories.event_times_ms,
        num_watched=np.diff(columns.histories.offsets),
        deleted_at_ms=np.zeros(size, np.int64),
        expires_at_ms=np.zeros(size, np.int64),
        seen_offsets=columns.histories.offsets,
        seen_numbers=columns.histories.movie_numbers,
        seen_omitted=np.zeros(size, np.bool_),
    )
    return StoredUsers(dict(zip(data.user_ids, stored_users(rows), strict=True)))


def mixed_tasks(data: Dataset, num_movies: int) -> list[Task]:
    """Requests of all kinds: known, inline and what-if users, alone and together, with filters and without."""
    rng = np.random.default_rng(11)

    def watched() -> Watched:
        numbers = rng.integers(0, num_movies, 6).astype(np.int64)
        return Watched(numbers, rng.integers(1, 6, 6).astype(np.float32), None)

    def user(kind: int) -> UserQuery:
        user_id = str(rng.choice(data.user_ids))
        return [
            UserQuery(user_id),
            UserQuery(user_id, session=watched()),
            UserQuery(user_id, ProfileFields(gender="F", age=33.0)),
            UserQuery(None, ProfileFields(occupation="doctor"), history=watched()),
            UserQuery(None),
            UserQuery("nobody"),
        ][kind]

    tasks: list[Task] = []
    for number in range(18):
        users = [user((number + place) % 6) for place in range(1 + number % 4)]
        positions = rng.integers(0, len(users), 7).astype(np.int64)
        tasks.append(RatingTask("c", users, positions, rng.integers(0, num_movies, 7).astype(np.int64), True))
        movie_filter = MovieFilter(genres_any=("drama",) if number % 2 else ())
        tasks.append(
            TopKTask("c", users, Wish(1 + number, explain=number % 3), movie_filter, exclude_seen=bool(number % 3))
        )
        tasks.append(SimilarTask("c", int(rng.integers(num_movies)), 1 + number, movie_filter))
    return tasks


def assert_alike(found: Answer | Exception, expected: Answer | Exception) -> None:
    """Equal answers; where two scores lie within a tie of each other, their movies may have changed places."""
    if isinstance(found, RatingAnswer) and isinstance(expected, RatingAnswer):
        assert found.users == expected.users
        np.testing.assert_allclose(found.ratings, expected.ratings, atol=1e-5)
        np.testing.assert_allclose(found.scores, expected.scores, atol=TIE, rtol=1e-5)
    elif isinstance(found, TopKAnswer) and isinstance(expected, TopKAnswer):
        assert found.users == expected.users
        assert_alike_rows(found.rows, expected.rows)
    else:
        assert isinstance(found, SimilarAnswer)
        assert isinstance(expected, SimilarAnswer)
        assert_alike_rows([found.row], [expected.row])


def assert_alike_rows(found: Sequence[RankedRow], expected: Sequence[RankedRow]) -> None:
    for row, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(row.ranked.scores, other.ranked.scores, atol=TIE, rtol=1e-5)
        scores = other.ranked.scores
        gaps = np.abs(np.diff(scores, append=-np.inf, prepend=np.inf))
        tied = np.minimum(gaps[:-1], gaps[1:]) <= TIE * (1 + np.abs(scores))
        # Whom the last one ties with may stand behind the end of the list.
        tied[-1:] = True
        assert tied[row.ranked.numbers != other.ranked.numbers].all()


@pytest.mark.parametrize("path", PATHS)
def test_a_batch_of_mixed_requests_equals_single_ones(
    generation: Generation, stored: StoredUsers, data: Dataset, path: str
) -> None:
    """Whoever is asked for together with others is answered as if he had been asked for alone."""
    work = DeviceWork(PATHS[path])
    tasks = mixed_tasks(data, len(generation.catalogue))

    together = work.answer(tasks, stored, generation, NOW_MS)

    for task, answer in zip(tasks, together, strict=True):
        assert_alike(answer, work.answer([task], stored, generation, NOW_MS)[0])


def test_both_paths_answer_alike(generation: Generation, stored: StoredUsers, data: Dataset) -> None:
    """Where the crossover lies is a matter of time, not of answers."""
    tasks = mixed_tasks(data, len(generation.catalogue))

    by_numpy, by_torch = (DeviceWork(rows).answer(tasks, stored, generation, NOW_MS) for rows in PATHS.values())

    for answer, expected in zip(by_numpy, by_torch, strict=True):
        assert_alike(answer, expected)


def test_an_inline_user_equals_a_stored_stranger(generation: Generation, stored: StoredUsers, data: Dataset) -> None:
    """The tower sees the same of both."""
    user = stored.users[data.user_ids[7]]
    assert user.history.event_times_ms is not None
    oldest_first = Watched(
        user.history.movie_numbers[::-1], user.history.ratings[::-1], user.history.event_times_ms[::-1]
    )
    inline = UserQuery(None, user.profile, history=oldest_first)
    unknown = StoredUsers({"a stranger": user})
    work = DeviceWork(PATHS["numpy"])

    by_request, by_store = (
        work.answer([TopKTask("c", [query], Wish(10), MovieFilter(), True)], unknown, generation, NOW_MS)[0]
        for query in (inline, UserQuery("a stranger"))
    )

    assert isinstance(by_request, TopKAnswer)
    assert isinstance(by_store, TopKAnswer)
    assert by_request.users[0].source == by_store.users[0].source
    assert_alike_rows(by_request.rows, by_store.rows)

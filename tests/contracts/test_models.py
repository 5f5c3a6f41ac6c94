"""What every model promises, whatever it is inside. A model is under this contract as soon as it has a name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.toy_dataset import toy_dataset
from tests.training_record import unmeasured
from trainer.dataset import Dataset
from trainer.evaluation import user_columns
from trainer.fits import fit_function, silent
from trainer.fits.options import parse_options
from trainer.histories import HistoryLayout
from two_tower import checkpoint as checkpoints
from two_tower import golden
from two_tower.models import MODELS, model_class
from two_tower.movie_columns import MovieColumns
from two_tower.scoring import rank_scores, rate_all
from two_tower.serving import Model
from two_tower.user_columns import Histories, Profiles, UserColumns

QUICK = {
    "marquee": ["hidden_size=16", "tower_epochs=2", "ranking_epochs=2", "ranking_cuts=3", "ranking_size=8"],
    "two-tower-history": ["batch_size=16"],
}
"""Options with which a model fits toy data in a second; a new model may do without."""

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(params=["timed", "untimed"], scope="module")
def data(request: pytest.FixtureRequest) -> Dataset:
    """Toy data with times and without."""
    return toy_dataset(timed=request.param == "timed")


@pytest.fixture(params=sorted(MODELS), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    """The model."""
    given: str = request.param
    return given


def fit(name: str, data: Dataset, seed: int = 0) -> Model:
    made = fit_function(name)
    return made.fit(data, parse_options(made.options_class, QUICK.get(name, [])), seed=seed, progress=silent)


@pytest.fixture(scope="module")
def fitted(name: str, data: Dataset) -> Model:
    """The model, fitted to the toy data."""
    return fit(name, data)


@pytest.fixture(params=DEVICES)
def model(fitted: Model, request: pytest.FixtureRequest) -> Model:
    """The model, rebuilt on every device present."""
    kind = model_class(fitted.name)
    return kind.restore(fitted.config(), fitted.tensors(), fitted.vocabularies(), torch.device(request.param))


def stored_users(data: Dataset, rows: list[int]) -> UserColumns:
    """Users as the feature store gives them."""
    return user_columns(data, HistoryLayout(data.interactions, len(data.user_ids)), np.array(rows))


def strangers(users: UserColumns) -> UserColumns:
    return replace(users, user_ids=[None] * len(users))


def answers(
    model: Model, movies: MovieColumns, users: UserColumns
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Ratings and ranking scores of all movies."""
    embedded = model.embed_movies(movies)
    embeddings = model.embed_users(users, embedded)
    return rate_all(model, embeddings, embedded), rank_scores(model, embeddings, embedded).cpu().numpy()


def test_it_is_registered_under_its_own_name(name: str) -> None:
    """The name that a person types is the name that the class says."""
    assert model_class(name).name == name


def test_embeddings_have_the_shapes_that_serving_relies_on(model: Model, data: Dataset) -> None:
    """Both heads, on the model's device, in float32 and finite; rows by catalogue number."""
    movies = model.embed_movies(data.movies)
    users = model.embed_users(stored_users(data, [0, 1, 2]), movies)

    assert len(movies) == len(data.movies)
    assert len(users) == 3
    assert movies.rating_vectors.shape[1] == users.rating_vectors.shape[1]
    assert movies.ranking_vectors.shape[1] == users.ranking_vectors.shape[1]
    for tensor in (
        movies.rating_vectors,
        movies.rating_biases,
        movies.ranking_vectors,
        movies.ranking_biases,
        users.rating_vectors,
        users.ranking_vectors,
    ):
        assert tensor.dtype == torch.float32
        assert tensor.device.type == model.device.type
        assert bool(torch.isfinite(tensor).all())


def test_it_knows_the_movies_and_users_that_it_was_trained_on(model: Model, data: Dataset) -> None:
    """The movie that nobody watched is COLD, and a stranger has no trained vector."""
    movies = model.embed_movies(data.movies)

    assert movies.known.tolist() == [True] * (len(data.movies) - 1) + [False]
    assert (movies.movie_rows >= 0).tolist() == movies.known.tolist()
    assert model.knows_users(["u0", "nobody", None]).tolist() == [True, False, False]


def test_ratings_lie_within_the_scale(model: Model, data: Dataset) -> None:
    """Clipped ratings are stars."""
    ratings, _ = answers(model, data.movies, stored_users(data, list(range(60))))

    assert ratings.min() >= 1
    assert ratings.max() <= 5


def test_batched_users_equal_single_users(model: Model, data: Dataset) -> None:
    """Answering together changes nothing but the time it takes; a batch of one is a batch."""
    rows = [3, 59, 0, 7]
    together = answers(model, data.movies, stored_users(data, rows))

    for place, row in enumerate(rows):
        alone = answers(model, data.movies, stored_users(data, [row]))
        assert alone[0][0] == pytest.approx(together[0][place], abs=1e-5)
        assert alone[1][0] == pytest.approx(together[1][place], abs=1e-5, rel=1e-5)


def test_a_catalogue_may_be_embedded_in_any_order(model: Model, data: Dataset) -> None:
    """A movie's embedding depends on the movie, not on its catalogue number."""
    movies = data.movies
    order = np.random.default_rng(0).permutation(len(movies))
    shuffled = MovieColumns(
        [movies.movie_ids[row] for row in order],
        [movies.titles[row] for row in order],
        movies.years[order],
        [movies.genres[row] for row in order],
    )
    users = strangers(stored_users(data, [0, 1]))
    moved = replace(
        users,
        histories=replace(
            users.histories, movie_numbers=np.argsort(order)[users.histories.movie_numbers].astype(np.int32)
        ),
    )

    ratings, scores = answers(model, movies, users)
    moved_ratings, moved_scores = answers(model, shuffled, moved)

    assert moved_ratings == pytest.approx(ratings[:, order], abs=1e-5)
    assert moved_scores == pytest.approx(scores[:, order], abs=1e-5, rel=1e-5)


def test_users_of_whom_nothing_is_known_are_answered(model: Model, data: Dataset) -> None:
    """No id, no profile, no history: all such users get the same finite answer."""
    nobody = UserColumns([None, "a stranger"], Profiles.unknown(2), Histories.empty(2))

    ratings, scores = answers(model, data.movies, nobody)

    assert np.isfinite(ratings).all()
    assert np.isfinite(scores).all()
    assert ratings[0] == pytest.approx(ratings[1], abs=1e-6)


def test_profiles_may_lack_any_field_and_hold_any_value(model: Model, data: Dataset) -> None:
    """Values that training never saw, and ages out of any range, are answered."""
    odd = UserColumns(
        [None] * 4,
        Profiles(
            ["X", None, "M", ""], np.array([np.nan, 150, -3, 1e30], np.float32), ["astronaut", "doctor", None, ""]
        ),
        Histories.empty(4),
    )

    ratings, scores = answers(model, data.movies, odd)

    assert np.isfinite(ratings).all()
    assert np.isfinite(scores).all()


def test_histories_may_lack_ratings_and_name_unknown_movies(model: Model, data: Dataset) -> None:
    """A movie that was watched and not rated, and one that the checkpoint does not know, do no harm."""
    unknown = len(data.movies) - 1
    users = UserColumns(
        [None, "u0"],
        Profiles.unknown(2),
        Histories(
            np.array([0, 3, 4], np.int64),
            np.array([0, unknown, 2, unknown], np.int32),
            np.array([np.nan, 4, np.nan, np.nan], np.float32),
            np.array([3, 2, 1, 0], np.int64),
            np.array([True, False]),
        ),
    )

    ratings, scores = answers(model, data.movies, users)

    assert np.isfinite(ratings).all()
    assert np.isfinite(scores).all()


def test_a_history_changes_the_answer(model: Model, data: Dataset) -> None:
    """A stranger who watched something is answered otherwise than one who watched nothing."""
    watched = strangers(stored_users(data, [0]))
    nothing = replace(watched, histories=Histories.empty(1))

    ratings, scores = answers(model, data.movies, watched)
    other_ratings, other_scores = answers(model, data.movies, nothing)

    assert not np.allclose(ratings, other_ratings, atol=1e-6)
    assert not np.allclose(scores, other_scores, atol=1e-6)


def test_movies_that_nobody_knows_are_made_from_content(model: Model) -> None:
    """Two new movies that differ in genre, or in year, differ in their embedding; neither is known."""
    new = MovieColumns(
        ["new0", "new1", "new2", "new3"],
        ["A", "B", "C", "D"],
        np.array([1970, 1970, 1995, np.nan], np.float32),
        [("Comedy",), ("Drama",), ("Comedy",), ("Never heard of",)],
    )

    movies = model.embed_movies(new)

    assert not movies.known.any()
    assert (movies.movie_rows == -1).all()
    vectors = torch.cat([movies.rating_vectors, movies.rating_biases[:, None]], dim=-1).cpu()
    assert bool(torch.isfinite(vectors).all())
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-6)
    assert not torch.allclose(vectors[0], vectors[2], atol=1e-6)


def test_an_empty_catalogue_and_an_empty_batch_are_embedded(model: Model, data: Dataset) -> None:
    """A service starts before its first movie and is asked about nobody."""
    empty = model.embed_movies(MovieColumns([], [], np.zeros(0, np.float32), []))
    nobody = UserColumns([], Profiles.unknown(0), Histories.empty(0))

    assert len(empty) == 0
    assert len(model.embed_users(UserColumns([None], Profiles.unknown(1), Histories.empty(1)), empty)) == 1
    assert len(model.embed_users(nobody, model.embed_movies(data.movies))) == 0


def test_the_same_seed_gives_the_same_model(name: str, data: Dataset, fitted: Model) -> None:
    """All chance comes from the seed; another seed gives another model."""
    again, other = fit(name, data).tensors(), fit(name, data, seed=1).tensors()

    first = fitted.tensors()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_fitting_leaves_the_data_as_it_was(name: str) -> None:
    """A fit reads the data set and changes nothing of it."""
    data, untouched = toy_dataset(), toy_dataset()

    fit(name, data)

    for column in ("user_rows", "movie_rows", "ratings", "event_times_ms"):
        assert np.array_equal(getattr(data.interactions, column), getattr(untouched.interactions, column))
    assert np.array_equal(data.profiles.ages, untouched.profiles.ages, equal_nan=True)


@pytest.fixture
def written(fitted: Model, data: Dataset, tmp_path: Path) -> Path:
    """The model's checkpoint."""
    record = unmeasured(data.scale, int(data.interactions.event_times_ms.max()), has_times=data.has_times)
    answered = golden.make(fitted, data.movies, data.profiles, "u0", record.data_until_ms)
    return checkpoints.write(tmp_path, "v1", fitted, record, answered)


@pytest.mark.parametrize("device", DEVICES)
def test_a_checkpoint_answers_as_the_model_did(written: Path, fitted: Model, data: Dataset, device: str) -> None:
    """Saved and loaded, every answer is what it was, and the golden users say so too."""
    users = stored_users(data, [0, 1, 2])
    loaded = checkpoints.load(written, device)

    checkpoints.self_check(loaded)
    before, after = answers(fitted, data.movies, users), answers(loaded.model, data.movies, users)

    tolerance = 0 if device == "cpu" else 1e-4
    assert np.abs(before[0] - after[0]).max() <= tolerance
    assert np.abs(before[1] - after[1]).max() <= tolerance


Parts = tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, list[str]]]


def _drop_tensor(model: Model) -> Parts:
    tensors = model.tensors()
    tensors.pop(min(tensors))
    return model.config(), tensors, model.vocabularies()


def _drop_vocabulary(model: Model) -> Parts:
    return model.config(), model.tensors(), {"users": model.vocabularies()["users"]}


def _drop_config(model: Model) -> Parts:
    config = model.config()
    config.pop(min(config))
    return config, model.tensors(), model.vocabularies()


def _shorten_vocabulary(model: Model) -> Parts:
    vocabularies = model.vocabularies()
    return model.config(), model.tensors(), {**vocabularies, "movies": vocabularies["movies"][:-1]}


@pytest.mark.parametrize("damage", [_drop_tensor, _drop_vocabulary, _drop_config, _shorten_vocabulary])
def test_parts_that_do_not_fit_are_named(fitted: Model, damage: Callable[[Model], Parts]) -> None:
    """A missing part, or one of another size, is a CheckpointError that says which."""
    kind = model_class(fitted.name)

    with pytest.raises(checkpoints.MismatchedCheckpointError):
        kind.restore(*damage(fitted), torch.device("cpu"))

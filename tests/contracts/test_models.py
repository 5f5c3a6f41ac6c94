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
from two_tower.scoring import rank_scores, rate_all, rate_pairs
from two_tower.serving import Model, PairwiseModel
from two_tower.user_columns import Histories, Profiles, UserColumns

QUICK = {
    "content-fc": ["batch_size=32", "epochs=3"],
    "nn-collab": ["batch_size=32", "epochs=3"],
    "nn-collab-genre": ["batch_size=32", "epochs=3"],
    "tfrs-simple": ["coverage=1", "batch_size=100", "epochs=2"],
    "tfrs-titles": ["coverage=1", "batch_size=100", "epochs=2"],
    "dot-bias": ["batch_size=32", "epochs=2"],
    "dot-bias-genre": ["batch_size=32", "epochs=2"],
    "mf-centred": ["batch_size=30", "epochs=5"],
    "marquee": [
        "machine_iterations=5",
        "machine_rank=2",
        "towers=1",
        "hidden_size=16",
        "tower_epochs=2",
        "ranking_epochs=2",
        "ranking_cuts=3",
        "ranking_size=8",
    ],
    "two-tower": ["epochs=2", "cuts=10", "attention=true"],
    "two-tower-history": ["batch_size=16"],
}
"""Options with which a model fits toy data in a second; a new model may do without."""

WITHOUT_CHANCE = {"bias", "item-knn", "majority", "mean", "popular"}
"""Models that are counted or solved: another seed gives the same answers."""

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


@pytest.fixture(params=DEVICES, scope="module")
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
    if isinstance(model, PairwiseModel):
        assert model.floats_per_pair > 0
        tensors = [movies.inputs, movies.similarity_vectors, users.inputs]
    else:
        assert movies.rating_vectors.shape[1] == users.rating_vectors.shape[1]
        assert movies.ranking_vectors.shape[1] == users.ranking_vectors.shape[1]
        tensors = [movies.rating_vectors, movies.rating_biases, movies.ranking_vectors, movies.ranking_biases]
        tensors += [users.rating_vectors, users.ranking_vectors]
    for tensor in tensors:
        assert tensor.dtype == torch.float32
        assert tensor.device.type == model.device.type
        assert bool(torch.isfinite(tensor).all())


def test_it_knows_the_movies_and_users_that_it_was_trained_on(model: Model, data: Dataset) -> None:
    """The movie that nobody watched is COLD, and a stranger has no trained vector."""
    movies = model.embed_movies(data.movies)

    assert movies.known.tolist() == [True] * (len(data.movies) - 1) + [False]
    assert (movies.movie_rows >= 0).tolist() == movies.known.tolist()
    assert model.knows_users(["u0", "nobody", None]).tolist() == [True, False, False]


def test_a_movie_is_most_like_itself(model: Model, data: Dataset) -> None:
    """No cosine is above that of a movie with itself, also of one that the checkpoint does not know."""
    vectors = model.embed_movies(data.movies).similarity_vectors.cpu().double()

    cosines = torch.nn.functional.normalize(vectors, dim=-1) @ torch.nn.functional.normalize(vectors, dim=-1).T

    assert bool(torch.isfinite(cosines).all())
    assert cosines.diagonal().numpy() == pytest.approx(cosines.max(dim=-1).values.numpy(), abs=1e-6)
    assert bool((cosines.diagonal() > 0.99).all())


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


def test_pairs_asked_by_name_equal_the_whole_catalogue(model: Model, data: Dataset) -> None:
    """A rating is the same whether it is asked for alone or with those of all movies."""
    movies = model.embed_movies(data.movies)
    users = model.embed_users(stored_users(data, [3, 59, 0]), movies)
    positions, numbers = np.array([0, 1, 1, 2, 2]), np.array([0, len(data.movies) - 1, 3, 3, 7])

    together = rate_all(model, users, movies)
    pairs = rate_pairs(model, users, movies, positions, numbers)

    assert pairs == pytest.approx(together[positions, numbers], abs=1e-5)


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


def differ(model: Model, movies: MovieColumns, some: UserColumns, others: UserColumns) -> bool:
    """Whether two users are answered differently, in ratings or in ranking."""
    pairs = zip(answers(model, movies, some), answers(model, movies, others), strict=True)
    return not all(np.allclose(*pair, atol=1e-6) for pair in pairs)


def test_a_history_changes_the_answer_of_a_model_that_uses_it(model: Model, data: Dataset) -> None:
    """A stranger who watched something is answered otherwise than one who watched nothing, or never is."""
    watched = strangers(stored_users(data, [0]))
    nothing = replace(watched, histories=Histories.empty(1))

    assert differ(model, data.movies, watched, nothing) == model.uses_history


def test_a_profile_changes_the_answer_of_a_model_that_uses_it(model: Model, data: Dataset) -> None:
    """Two strangers who differ in gender, age and occupation are answered differently, or never are."""
    one, other = (
        UserColumns([None], Profiles([gender], np.array([age], np.float32), [occupation]), Histories.empty(1))
        for gender, age, occupation in (("M", 21, "doctor"), ("F", 57, "artist"))
    )

    assert differ(model, data.movies, one, other) == model.uses_profile


def test_content_tells_unknown_movies_apart_in_a_model_that_uses_it(model: Model, data: Dataset) -> None:
    """New movies that differ in genre and year are answered differently, or all are answered alike; none is known."""
    new = MovieColumns(
        ["new0", "new1", "new2", "new3"],
        ["A", "B", "C", "D"],
        np.array([1970, 1970, 1995, np.nan], np.float32),
        [("Comedy",), ("Drama",), ("Comedy",), ("Never heard of",)],
    )
    users = replace(stored_users(data, [0, 1]), histories=Histories.empty(2))

    movies = model.embed_movies(new)
    ratings, scores = answers(model, new, users)

    assert not movies.known.any()
    assert (movies.movie_rows == -1).all()
    assert np.isfinite(ratings).all()
    assert np.isfinite(scores).all()
    spread = max(float(np.ptp(ratings, axis=1).max()), float(np.ptp(scores, axis=1).max()))
    assert (spread > 1e-6) == model.uses_content


def test_data_of_which_nothing_is_known_but_ratings_is_learnt_from(name: str, data: Dataset) -> None:
    """Missing demographics, titles, genres and years are unknown rows, not a reason to refuse."""
    num_users, num_movies = len(data.user_ids), len(data.movies)
    bare = replace(
        data,
        profiles=Profiles.unknown(num_users),
        zips=[None] * num_users,
        movies=MovieColumns(
            data.movies.movie_ids, [""] * num_movies, np.full(num_movies, np.nan, np.float32), [()] * num_movies
        ),
    )

    ratings, scores = answers(fit(name, bare), bare.movies, stored_users(bare, [0, 1]))

    assert np.isfinite(ratings).all()
    assert np.isfinite(scores).all()


def test_an_empty_catalogue_and_an_empty_batch_are_embedded(model: Model, data: Dataset) -> None:
    """A service starts before its first movie and is asked about nobody."""
    empty = model.embed_movies(MovieColumns([], [], np.zeros(0, np.float32), []))
    nobody = UserColumns([], Profiles.unknown(0), Histories.empty(0))

    assert len(empty) == 0
    assert len(model.embed_users(UserColumns([None], Profiles.unknown(1), Histories.empty(1)), empty)) == 1
    assert len(model.embed_users(nobody, model.embed_movies(data.movies))) == 0


def test_the_same_seed_gives_the_same_model(name: str, data: Dataset, fitted: Model) -> None:
    """All chance comes from the seed; another seed gives another model, where there is chance."""
    again, other = fit(name, data).tensors(), fit(name, data, seed=1).tensors()

    first = fitted.tensors()
    assert all(torch.equal(first[each], again[each]) for each in first)
    assert any(not torch.equal(first[each], other[each]) for each in first) == (name not in WITHOUT_CHANCE)


def test_fitting_leaves_the_data_as_it_was(fitted: Model, data: Dataset) -> None:
    """A fit reads the data set and changes nothing of it."""
    untouched = toy_dataset(timed=data.has_times)

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

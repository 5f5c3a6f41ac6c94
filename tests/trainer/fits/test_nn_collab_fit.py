"""nn-collab and nn-collab-genre learn tastes, and their options do what they say."""

from dataclasses import replace

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.errors import DataError
from trainer.evaluation import evaluate
from trainer.fits import nn_collab, nn_collab_genre, silent
from trainer.fits.divergence import DivergedFitError
from trainer.fits.nn_collab import Options, embedding_width
from trainer.fits.options import parse_options


@pytest.mark.parametrize(
    "options",
    [
        Options(batch_size=32, epochs=10, initial_deviation=0.1, unknown_rate=0),
        Options(
            batch_size=32,
            learning_rate=0.005,
            epochs=40,
            initial_deviation=0.1,
            dropout=0.3,
            validation_share=0.1,
            patience=5,
        ),
    ],
    ids=["as it was", "dropout and early stopping"],
)
def test_it_learns_tastes(options: Options) -> None:
    """Held-out ratings of users with two clear tastes are predicted far better than by their mean."""
    data = toy_dataset(rows_per_user=30)
    train, test = data.interactions.take(np.arange(200, 1800)), data.interactions.take(np.arange(200))

    model = nn_collab.fit(replace(data, interactions=train), options, seed=0, progress=silent)

    rmse = evaluate(model, data, train, test, protocol="").metrics.rmse
    assert rmse is not None
    assert rmse < 0.75 * test.ratings.std()


@pytest.mark.parametrize("pooling", ["sum", "mean", "concat"])
def test_genres_tell_movies_without_ratings_apart(pooling: str) -> None:
    """Who loves comedies is told that a new comedy will be better than a new drama."""
    data = toy_dataset(rows_per_user=30)
    old = data.interactions.take(data.interactions.movie_rows < 30)
    new = data.interactions.take(data.interactions.movie_rows >= 30)
    options = parse_options(nn_collab_genre.Options, [f"pooling={pooling}", "batch_size=32", "unknown_rate=0.1"])

    model = nn_collab_genre.fit(replace(data, interactions=old), options, seed=0, progress=silent)

    rmse = evaluate(model, data, old, new, protocol="").metrics.rmse
    assert rmse is not None
    assert rmse < 0.8 * new.ratings.std()


def test_padded_genres_fill_up_to_the_longest_list() -> None:
    """One genre a movie here, and none without the bug."""
    data = toy_dataset()

    padded, plain = (
        nn_collab_genre.fit(data, nn_collab_genre.Options(epochs=1, padded_genres=bug), seed=0, progress=silent)
        for bug in (True, False)
    )

    assert (padded.config()["padded_genres"], plain.config()["padded_genres"]) == (1, 0)


def test_embeddings_are_as_wide_as_the_notebook_s() -> None:
    """610 users, 9,742 movies and 20 genres there; never 0 and never above 600."""
    assert [embedding_width(count) for count in (610, 9742, 20, 1, 10**6)] == [58, 274, 9, 2, 600]


def test_row_zero_is_learned_only_if_ids_are_hidden() -> None:
    """unknown_rate trains the rows for the unknown; without it they are the mean of the others."""
    data = toy_dataset()

    trained = nn_collab.fit(data, Options(unknown_rate=0.2, epochs=2), seed=0, progress=silent).tensors()
    untrained = nn_collab.fit(data, Options(unknown_rate=0.0, epochs=2), seed=0, progress=silent).tensors()

    for name in ("user_table", "movie_table"):
        assert untrained[name][0].numpy() == pytest.approx(untrained[name][1:].mean(dim=0).numpy(), abs=1e-6)
        assert trained[name][0].numpy() != pytest.approx(trained[name][1:].mean(dim=0).numpy(), abs=1e-3)


def test_the_sigmoid_ends_half_a_step_beyond_the_scale_or_where_it_is_told() -> None:
    """Else the extreme stars could be approached and never reached."""
    data = toy_dataset()
    ours = nn_collab.fit(data, Options(epochs=1), seed=0, progress=silent)
    theirs = nn_collab.fit(data, Options(epochs=1, margin=1), seed=0, progress=silent)

    far = np.array([-100, 100], np.float32)
    assert ours.link(far).tolist() == [0.5, 5.5]
    assert theirs.link(far).tolist() == pytest.approx([0, 6])


def test_validation_rows_may_be_given() -> None:
    """Their loss is reported, the last epoch counts."""
    data = toy_dataset()
    told: list[dict[str, float]] = []

    nn_collab.fit(
        data,
        Options(epochs=2),
        seed=0,
        progress=lambda done, total, message, figures=None: told.append(dict(figures or {})),
        validation=data.interactions.take(np.arange(50)),
    )

    assert [set(figures) for figures in told] == [{"training mse", "validation mse"}] * 2


def test_a_loss_that_is_no_number_keeps_the_last_good_model() -> None:
    """Broken ratings, as a reader would never give them, stop training in the first epoch: there is no good model."""
    data = toy_dataset()
    ratings = data.interactions.ratings.copy()
    ratings[5] = np.inf

    with pytest.raises(DivergedFitError, match="in epoch 1") as caught:
        nn_collab.fit(
            replace(data, interactions=replace(data.interactions, ratings=ratings)), Options(), seed=0, progress=silent
        )

    assert caught.value.model is None


def test_data_without_ratings_is_refused() -> None:
    """The network predicts stars and says so."""
    with pytest.raises(DataError, match="nn-collab-genre learns from ratings"):
        nn_collab_genre.fit(toy_dataset(rated=False), nn_collab_genre.Options(), seed=0, progress=silent)

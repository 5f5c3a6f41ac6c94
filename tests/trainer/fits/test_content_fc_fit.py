"""content-fc learns who likes what, chooses its epoch, and notices a network that died."""

from dataclasses import replace

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.errors import DataError, TrainerError
from trainer.evaluation import evaluate
from trainer.fits import silent
from trainer.fits.content_fc import MAX_STARTS, DeadNetworkError, Options, fit
from two_tower.user_columns import Histories, UserColumns


def test_it_learns_from_content() -> None:
    """Comedies are good here and dramas are not: ratings of movies that nobody rated are predicted from their genre."""
    data = toy_dataset(rows_per_user=30)
    rows = data.interactions
    rows = replace(rows, ratings=np.where(rows.movie_rows % 2, 2, 4.5).astype(np.float32))
    new = rows.movie_rows >= 30
    train, test = rows.take(~new), rows.take(new)

    model = fit(replace(data, interactions=train), Options(batch_size=64), seed=0, progress=silent)

    mae = evaluate(model, data, train, test, protocol="").metrics.mae
    assert mae is not None
    assert mae < 0.3


def test_the_epoch_is_chosen_on_rows_that_are_given_or_held_back() -> None:
    """Given rows are looked at after each epoch; a share of 0 without given rows looks at none."""
    data = toy_dataset()
    train, other = data.interactions.take(np.arange(100, 900)), data.interactions.take(np.arange(100))
    told: list[set[str]] = []

    def listen(done: int, total: int, message: str, figures: object = None) -> None:
        assert isinstance(figures, dict)
        told.append(set(figures))

    fit(replace(data, interactions=train), Options(epochs=1), seed=0, progress=listen, validation=other)
    fit(replace(data, interactions=train), Options(epochs=1, validation_share=0), seed=0, progress=listen)

    assert told == [{"training mae", "validation mae"}, {"training mae"}]


def test_a_column_that_nobody_has_weighs_nothing() -> None:
    """Unknown genders, occupations, genres and missing years: no row tells what they mean."""
    data = toy_dataset()
    everybody = data.interactions.user_rows < 59
    known = replace(data, interactions=data.interactions.take(everybody))

    tensors = fit(known, Options(epochs=2), seed=0, progress=silent).tensors()

    # Age, its flag, unknown gender, M, unknown occupation, artist, doctor.
    assert tensors["user_layer.weight"].any(dim=0).tolist() == [True, False, False, True, False, True, True]


def test_a_network_that_dies_starts_again() -> None:
    """Of eight seeds some kill the network on data as small as this; every model that comes out tells users apart."""
    data = toy_dataset()
    told: list[str] = []

    def listen(done: int, total: int, message: str, figures: object = None) -> None:
        told.append(message)

    models = [fit(data, Options(epochs=1, batch_size=64), seed=seed, progress=listen) for seed in range(4, 12)]

    assert f"the network died; start 2 of at most {MAX_STARTS}" in told
    for model in models:
        movies = model.embed_movies(data.movies)
        users = model.embed_users(UserColumns([None] * 60, data.profiles, Histories.empty(60)), movies)
        assert float(model.raw_ratings_of_all(users.inputs, movies.inputs).std()) > 0


def test_a_network_that_dies_under_every_seed_is_an_error() -> None:
    """With a learning rate of 1 on raw years and ages none survives, and the message says what to try."""
    with pytest.raises(DeadNetworkError, match="try a smaller learning_rate") as caught:
        fit(toy_dataset(), Options(learning_rate=1.0, epochs=30), seed=0, progress=silent)

    assert isinstance(caught.value, TrainerError)


def test_data_without_ratings_is_refused() -> None:
    """The network predicts stars and says so."""
    with pytest.raises(DataError, match="content-fc learns from ratings"):
        fit(toy_dataset(rated=False), Options(), seed=0, progress=silent)

"""The gradients that are written out are those that autograd finds."""

import numpy as np
import pytest
import torch

from tests.toy_dataset import toy_dataset
from trainer.fits import fit_function, silent
from trainer.fits.options import parse_options
from trainer.fits.squashed_factors import Genres, Rated, SquashedFactors, Steps
from two_tower.features import Vocabulary
from two_tower.models.dot_bias_genre import genre_weights

FLOOR, CEILING = 0.5, 5.5


def factors_on(genres: Genres | None, rated: Rated) -> SquashedFactors:
    steps = Steps(4, FLOOR, CEILING, learning_rate=0.1, weight_decay=0.0, dropout=0.0, late_steps=True)
    made = SquashedFactors(5, 6, rated, rated.take(np.array([], np.int64)), steps, np.random.default_rng(0), genres)
    for table in made.weights().values():
        table.mul_(50)  # so that products of small numbers do not all vanish
    return made


@pytest.mark.parametrize("kind", ["none", "multiplied", "beside"])
def test_the_first_step_is_along_the_gradient(kind: str) -> None:
    """Adam's first step is the learning rate times the gradient's sign, for every row in use and no other."""
    rng = np.random.default_rng(3)
    rated = Rated(rng.integers(1, 5, 8), rng.integers(1, 6, 8), rng.integers(1, 6, 8).astype(np.float32))
    weights = rng.random((6, 3)).astype(np.float32)
    genres = None if kind == "none" else Genres(weights, own_coordinates=kind == "beside")
    factors = factors_on(genres, rated)
    before = {name: table.clone().requires_grad_() for name, table in factors.weights().items()}
    users, movies = before["users"][rated.user_rows], before["movies"][rated.movie_rows]
    vectors, biases = movies[:, :-1], movies[:, -1]
    if genres is not None:
        of_genres = torch.from_numpy(weights[rated.movie_rows]) @ before["genres"]
        biases = biases + of_genres[:, -1]
        beside = torch.cat([vectors, of_genres[:, :-1]], dim=-1)
        vectors = beside if kind == "beside" else vectors * (1 + of_genres[:, :-1])
    raw = (users[:, :-1] * vectors).sum(-1) + users[:, -1] + biases
    errors = FLOOR + (CEILING - FLOOR) * torch.sigmoid(raw) - torch.from_numpy(rated.ratings)
    errors.square().mean().backward()

    squared_error = factors.step(torch.arange(8))
    factors.validation_loss()

    assert float(squared_error) == pytest.approx(errors.square().sum().item(), rel=1e-5)
    for name, table in factors.weights().items():
        gradient = before[name].grad
        if gradient is not None:
            expected = before[name].detach() - 0.1 * gradient.sign()
            assert table.numpy() == pytest.approx(expected.numpy(), abs=1e-3)


def test_genres_are_weighed_as_the_pooling_says() -> None:
    """Sum, mean, and the notebook's filling up with the first genre; a genre that nobody knows counts nowhere."""
    vocabulary = Vocabulary.of(["Comedy", "Drama"])
    movies = [("Comedy", "Drama"), ("Drama",), (), ("Never heard of",)]

    assert genre_weights(movies, vocabulary, "sum", 0).tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert genre_weights(movies, vocabulary, "mean", 0).tolist() == [[0, 0.5, 0.5], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert genre_weights(movies, vocabulary, "sum", 2).tolist() == [[0, 1, 1], [0, 1, 1], [0, 2, 0], [0, 1, 0]]


@pytest.mark.parametrize("name", ["mf-centred", "dot-bias", "dot-bias-genre"])
def test_a_factorisation_learns_two_tastes(name: str) -> None:
    """Even users love comedies and odd ones dramas: with a step that suits toy data, errors come down."""
    made = fit_function(name)
    errors = []

    def note(done: int, total: int, message: str, figures: object = None) -> None:
        errors.append(figures["training mse"])  # type: ignore[index]

    made.fit(
        toy_dataset(), parse_options(made.options_class, ["learning_rate=0.02", "epochs=30"]), seed=0, progress=note
    )

    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    "options",
    [
        ["patience=2", "epochs=50", "learning_rate=0.1"],
        ["dropout=0.3"],
        ["rounded=true"],
        ["weight_decay=0.1"],
        ["genre_pooling=concat"],
        ["genre_pooling=mean"],
        ["padded_genres=true"],
        ["adam=used-rows"],
    ],
)
def test_every_option_trains(options: list[str]) -> None:
    """What the notebook wished for is there to be tried."""
    made = fit_function("dot-bias-genre")

    model = made.fit(toy_dataset(), parse_options(made.options_class, options), seed=0, progress=silent)

    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.tensors().values())

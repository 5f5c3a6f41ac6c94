"""Steps of nn-collab whose gradients are written out are the steps that autograd and a dense Adam take."""

import copy

import numpy as np
import pytest
import torch

from trainer.fits.collab_steps import CollabSteps
from trainer.fits.rated_pairs import RatedPairs
from two_tower.features import Range
from two_tower.models.nn_collab import CollabNetwork, Config
from two_tower.serving import RatingScale

NUM_USERS, NUM_MOVIES, NUM_GENRES, NUM_ROWS = 6, 9, 4, 40
NOTHING = Range(0, 0, 0)


@pytest.fixture(params=["none", "sum", "mean", "concat"])
def pooling(request: pytest.FixtureRequest) -> str:
    """How genres are pooled."""
    return str(request.param)


def make(pooling: str) -> tuple[Config, CollabNetwork, RatedPairs, np.ndarray]:
    genre_width = 0 if pooling == "none" else 2
    config = Config(3, 5, genre_width, pooling, 3, 0.5, 5.5, False, NUM_USERS, NUM_MOVIES, NOTHING, NOTHING,
                    RatingScale(1, 5, 1))  # fmt: skip
    network = CollabNetwork(config, NUM_GENRES)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3, generator=generator)
    rng = np.random.default_rng(0)
    pairs = RatedPairs(
        torch.from_numpy(rng.integers(0, NUM_USERS, NUM_ROWS)),
        torch.from_numpy(rng.integers(0, NUM_MOVIES, NUM_ROWS)),
        torch.from_numpy(rng.integers(1, 6, NUM_ROWS).astype(np.float32)),
    )
    genres = rng.integers(0, 2, (NUM_MOVIES, NUM_GENRES)).astype(np.float32)
    return config, network, pairs, genres / np.maximum(genres.sum(axis=1, keepdims=True), 1)


def test_written_out_steps_are_those_of_autograd(pooling: str) -> None:
    """After a dozen steps all weights are the same to rounding, also of rows that most batches did not name."""
    config, network, pairs, genres = make(pooling)
    theirs = copy.deepcopy(network)
    steps = CollabSteps(
        network, config, np.arange(NUM_USERS), np.arange(NUM_MOVIES), genres, pairs, pairs, np.random.default_rng(0),
        learning_rate=0.01, dropout=0, unknown_rate=0, late_steps=True,
    )  # fmt: skip
    parameters = [parameter for parameter in theirs.parameters() if parameter.numel()]
    adam = torch.optim.Adam(parameters, 0.01)

    for start in range(0, 36, 3):
        positions = torch.arange(start, start + 3)
        batch = pairs.take(positions)
        movies = theirs.movie_vectors(theirs.movie_table[batch.movies], torch.from_numpy(genres)[batch.movies])
        met = theirs.meet(theirs.user_part(theirs.user_table[batch.users]), theirs.movie_part(movies))
        squared_error = (0.5 + 5 * torch.sigmoid(met) - batch.ratings).square()
        adam.zero_grad()
        squared_error.mean().backward()
        adam.step()
        assert float(steps.step(positions)) == pytest.approx(float(squared_error.detach().sum()), rel=1e-4)
    validation = steps.validation_loss()

    for name, weights in theirs.state_dict().items():
        assert network.state_dict()[name].numpy() == pytest.approx(weights.numpy(), abs=2e-5), name
    with torch.no_grad():
        movies = theirs.movie_vectors(theirs.movie_table[pairs.movies], torch.from_numpy(genres)[pairs.movies])
        met = theirs.meet(theirs.user_part(theirs.user_table[pairs.users]), theirs.movie_part(movies))
        expected = (0.5 + 5 * torch.sigmoid(met) - pairs.ratings).square().mean()
    assert validation == pytest.approx(float(expected), rel=1e-4)

"""The compiled steps of two-tower-history are those that autograd and torch.optim.SGD take."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.toy_dataset import toy_dataset
from trainer.fits.tower_kernels import Samples
from trainer.fits.tower_steps import TowerSteps
from two_tower.features import FeatureEncoder
from two_tower.models.two_tower_history import Config, Towers, make_towers
from two_tower.serving import RatingScale

RATE, MOMENTUM, NUM_SAMPLES, LENGTH, BATCH_SIZE = 0.02, 0.3, 50, 4, 16


def towers_of(encoder: FeatureEncoder, activation: str, widths: tuple[int, ...]) -> Towers:
    config = Config(activation, widths, LENGTH, True, False, "stars", encoder.ages, encoder.years, RatingScale(1, 5, 1))
    towers = make_towers(config, encoder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in towers.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return towers


def samples_of(encoder: FeatureEncoder) -> Samples:
    rng = np.random.default_rng(1)

    def rows(of: Any) -> np.ndarray:
        drawn: np.ndarray = rng.integers(0, len(of), NUM_SAMPLES)
        return drawn

    shares = rng.random((NUM_SAMPLES, LENGTH)).astype(np.float32) * (rng.random((NUM_SAMPLES, LENGTH)) < 0.7)
    return Samples(
        rows(encoder.users), rows(encoder.genders), rng.random(NUM_SAMPLES).astype(np.float32),
        rows(encoder.occupations), rows(encoder.movies),
        rng.random((NUM_SAMPLES, len(encoder.genres))).astype(np.float32), rng.random(NUM_SAMPLES).astype(np.float32),
        rng.random(NUM_SAMPLES).astype(np.float32), rng.integers(0, len(encoder.movies), (NUM_SAMPLES, LENGTH)), shares,
    )  # fmt: skip


def by_autograd(towers: Towers, samples: Samples, *, unit_target: bool) -> float:
    """Takes the same steps on all parameters by the library's rule; id tables have no momentum but a larger rate."""
    tables = [towers.user_table.requires_grad_(), towers.movie_table.requires_grad_()]
    dense = [each for name, each in towers.named_parameters() if name not in ("user_table", "movie_table")]
    optimisers = [
        torch.optim.SGD(dense, RATE, momentum=MOMENTUM),
        torch.optim.SGD(tables, RATE / (1 - MOMENTUM)),
    ]
    total = 0.0
    for start in range(0, NUM_SAMPLES, BATCH_SIZE):
        cut = {name: torch.from_numpy(column[start : start + BATCH_SIZE]) for name, column in samples._asdict().items()}
        history = nn.functional.embedding_bag(
            cut["history"], towers.movie_table, per_sample_weights=cut["shares"], mode="sum"
        )
        users = towers.embed_users(
            towers.user_table[cut["users"]], history, cut["genders"], cut["ages"], cut["occupations"]
        )
        movies = towers.embed_movies(towers.movie_table[cut["movies"]], cut["genres"], cut["years"])
        dots = (users * movies).sum(dim=-1)
        errors = (torch.sigmoid(dots) if unit_target else torch.relu(dots)) - cut["targets"]
        for optimiser in optimisers:
            optimiser.zero_grad()
        errors.square().mean().backward()
        for optimiser in optimisers:
            optimiser.step()
        total += errors.detach().square().sum().item()
    return total


@pytest.mark.parametrize(
    ("activation", "widths", "unit_target"),
    [("relu", (8, 4), False), ("relu", (4,), False), ("tanh", (8, 4), True), ("sigmoid", (8, 4), True)],
)
def test_compiled_steps_equal_those_of_autograd(activation: str, widths: tuple[int, ...], unit_target: bool) -> None:
    """All weights and the error are the same after four batches, the last of them shorter."""
    data = toy_dataset()
    encoder = FeatureEncoder.of(data.user_ids, list(data.movies.movie_ids), data.profiles, data.movies)
    samples = samples_of(encoder)
    ours, theirs = (towers_of(encoder, activation, widths) for _ in range(2))
    steps = TowerSteps(ours, activation, unit_target=unit_target, learning_rate=RATE, momentum=MOMENTUM)

    error = steps.train(samples, BATCH_SIZE)

    assert error == pytest.approx(by_autograd(theirs, samples, unit_target=unit_target), rel=1e-5)
    for name, parameter in ours.named_parameters():
        expected = dict(theirs.named_parameters())[name].detach().numpy()
        assert parameter.detach().numpy() == pytest.approx(expected, abs=1e-5), name

"""The retrieval head's gradients are those of its loss, and it learns what follows what."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainer.fits.log_linear import Cuts, LogLinear, LogLinearConfig, draw_cuts, fit_log_linear, set_gradients

CONFIG = LogLinearConfig(
    size=5,
    epochs=12,
    cuts_per_user=8,
    batch_users=16,
    learning_rate=0.02,
    weight_decay=0.0,
    history_dropout=0.0,
    short_decay=2.0,
    long_decay=12.0,
    flat_gain=0.1,
)


def quiet(done: int, total: int) -> None:
    """Nobody is told."""


def test_gradients_are_those_of_the_loss() -> None:
    """Against autograd over the loss written out cut by cut: seen movies left out, nearer targets weigh more."""
    generator = torch.Generator().manual_seed(0)
    vectors, short, long = (torch.randn(9, 5, generator=generator) for _ in range(3))
    model = LogLinear(vectors, torch.randn(9, generator=generator), torch.randn(5, generator=generator), short, long)
    cuts = Cuts(
        movies=np.array([[3, 1, 4, 0, 5], [2, 6, 5, 0, 0]]),
        lengths=np.array([5, 3]),
        places=np.array([[0, 2, 4], [1, 2, 0]]),
        used=np.array([[True, True, True], [True, True, False]]),
    )

    set_gradients(model, cuts, CONFIG, np.random.default_rng(0))

    copies = {name: getattr(model, name).clone().requires_grad_() for name in LogLinear.__slots__}
    losses = []
    for user, cut in zip(*np.nonzero(cuts.used), strict=True):
        place, length = cuts.places[user, cut], cuts.lengths[user]
        movies = cuts.movies[user]
        vector = copies["user_bias"]
        for event in range(place):
            age = place - 1 - event
            vector = vector + np.exp(-age / 2) * copies["short"][movies[event]]
            vector = vector + (np.exp(-age / 12) + 0.1) * copies["long"][movies[event]]
        scores = copies["vectors"] @ vector + copies["biases"]
        unseen = [movie for movie in range(9) if movie not in movies[:place]]
        total = torch.logsumexp(scores[unseen], 0)
        losses += [np.exp(-ahead) * (total - scores[movies[place + ahead]]) for ahead in range(min(3, length - place))]
    (torch.stack(losses).sum() / 5).backward()
    for name, copy in copies.items():
        assert torch.allclose(getattr(model, name).grad, copy.grad, atol=1e-5), name


def test_cuts_are_places_in_a_user_s_own_order() -> None:
    """Events stand oldest first, each cut leaves something to guess, and no place is drawn twice."""
    users = np.repeat(np.arange(3, dtype=np.int32), [4, 1, 6])
    movies = np.arange(11, dtype=np.int32)
    times = -np.arange(11)

    (batch,) = draw_cuts(users, movies, times, CONFIG, np.random.default_rng(0))

    # A user with one event has nothing to be guessed from and after.
    stored = {tuple(row[:length]) for row, length in zip(batch.movies, batch.lengths, strict=True)}
    assert stored == {(3, 2, 1, 0), (10, 9, 8, 7, 6, 5)}
    for places, used, length in zip(batch.places, batch.used, batch.lengths, strict=True):
        assert sorted(places[used]) == list(range(length))


def test_an_epoch_may_be_a_share_of_the_users() -> None:
    """Where data is large; each epoch draws others, and all of them take part in the end."""
    users = np.repeat(np.arange(20, dtype=np.int32), 3)
    config, rng = replace(CONFIG, user_share=0.25), np.random.default_rng(0)
    seen = set()

    for _ in range(30):
        (batch,) = draw_cuts(users, users, np.arange(60), config, rng)
        assert len(batch.movies) == 5
        seen |= set(batch.movies[:, 0].tolist())

    assert seen == set(range(20))


def test_ties_are_drawn_anew() -> None:
    """Events of one moment have no order to learn."""
    users, times = np.zeros(6, np.int32), np.array([5, 5, 5, 5, 5, 9])
    rng = np.random.default_rng(0)

    orders = {tuple(draw_cuts(users, np.arange(6, dtype=np.int32), times, CONFIG, rng)[0].movies[0]) for _ in range(20)}

    assert len(orders) > 10
    assert {order[-1] for order in orders} == {5}


@pytest.mark.parametrize("history_dropout", [0.0, 0.3])
def test_it_learns_what_follows_what(history_dropout: float) -> None:
    """Users walk around a ring of movies from random places: the next movie ranks first."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 30, 100)
    movies = ((starts[:, None] + np.arange(10)) % 30).astype(np.int32)
    users = np.repeat(np.arange(100, dtype=np.int32), 10)
    config = LogLinearConfig(16, 30, 8, 16, 0.03, 1e-5, history_dropout, 2.0, 12.0, 0.1)

    head = fit_log_linear(
        users, movies.ravel(), np.tile(np.arange(10), 100), 30, config, np.random.default_rng(0), quiet
    )

    ages = torch.arange(9, -1, -1, dtype=torch.float32)
    short_weights, long_weights = torch.exp(-ages / 2), torch.exp(-ages / 12) + 0.1
    rows = torch.from_numpy(movies.astype(np.int64))
    vectors = head.user_bias + short_weights @ head.short[rows] + long_weights @ head.long[rows]
    scores = vectors @ head.vectors.T + head.biases
    scores.scatter_(1, rows, -1e9)
    assert (scores.argmax(-1).numpy() == (starts + 10) % 30).mean() > 0.9

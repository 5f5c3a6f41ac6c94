"""The movie tower's sparse training is the dense formula, and it learns what movies have in common."""

from typing import Any

import numpy as np
import torch

from trainer.fits.item_autoencoder import AutoencoderConfig, fit_item_autoencoder

CONFIG = AutoencoderConfig(
    hidden_size=16,
    epochs=3,
    batch_movies=100,
    learning_rate=0.01,
    weight_decay=1e-3,
    input_dropout=0.0,
    side_scale=4.0,
    warm_up_epochs=0.0,
)


def quiet(done: int, total: int) -> None:
    """Nobody is told."""


def test_sparse_training_equals_dense_training() -> None:
    """Three steps on all movies at once end where autograd over the dense matrix ends."""
    rng = np.random.default_rng(0)
    num_users, num_movies = 30, 12
    observed = rng.random((num_movies, num_users)) < 0.3
    observed[5] = False
    movie_rows, user_rows = (part.astype(np.int32) for part in np.nonzero(observed))
    residuals = rng.normal(0, 1, len(user_rows)).astype(np.float32)
    content = rng.integers(0, 2, (num_movies, 4)).astype(np.float32)

    found = fit_item_autoencoder(
        user_rows, movie_rows, residuals, content, num_users, CONFIG, np.random.default_rng(7), quiet
    )

    start = np.random.default_rng(7)
    encoder = torch.tensor(start.normal(0, (2 * num_users) ** -0.5, (2 * num_users, 16)), dtype=torch.float32)
    decoder = torch.tensor(start.normal(0, 0.3 * 16**-0.5, (num_users, 16)), dtype=torch.float32)
    from_content, hidden_bias = torch.zeros(4, 16), torch.zeros(16)
    user_bias, movie_bias = torch.zeros(num_users), torch.zeros(num_movies)
    decayed, free = [encoder, decoder], [from_content, hidden_bias, user_bias, movie_bias]
    for parameter in decayed + free:
        parameter.requires_grad_()
    inputs = torch.zeros(num_movies, num_users, 2)
    inputs[movie_rows, user_rows, 0] = torch.from_numpy(residuals)
    inputs[movie_rows, user_rows, 1] = 1.0
    side = torch.from_numpy(content) * 4

    def hidden_units() -> torch.Tensor:
        return torch.sigmoid(inputs.reshape(num_movies, -1) @ encoder + side @ from_content + hidden_bias)

    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 1e-3}, {"params": free}]
    optimizer = torch.optim.Adam(groups, lr=0.01)
    for step in range(3):
        predicted = hidden_units() @ decoder.T + user_bias + movie_bias[:, None]
        loss = ((predicted[movie_rows, user_rows] - torch.from_numpy(residuals)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        # The step before the warm-up ends is taken at the full rate; the cosine follows.
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1.0 if step < 1 else 0.5 * (1 + np.cos(np.pi * (step - 1) / 2)))
        optimizer.step()

    # The movie without ratings takes no part in training, but its content does not either; all else must agree.
    assert torch.allclose(found.user_vectors, decoder.detach(), atol=1e-5)
    assert torch.allclose(found.user_biases, user_bias.detach(), atol=1e-5)
    assert torch.allclose(found.movie_biases, movie_bias.detach(), atol=1e-5)
    assert torch.allclose(found.content_weights, from_content.detach(), atol=1e-5)
    assert torch.allclose(found.hidden, hidden_units().detach(), atol=1e-5)


def test_it_learns_tastes_that_biases_cannot_hold() -> None:
    """Users love one half of the movies and hate the other; held-out residuals of ±1 are predicted to within .3."""
    rng = np.random.default_rng(0)
    users, movies = np.divmod(np.arange(100 * 80), 80)
    liked = np.where((users % 2) == (movies % 2), 1.0, -1.0).astype(np.float32)
    known = rng.random(len(users)) < 0.4
    train, test = np.flatnonzero(known), np.flatnonzero(~known)
    config = AutoencoderConfig(16, 40, 8, 0.01, 1e-4, 0.3, 4.0)

    tower = fit_item_autoencoder(
        users[train].astype(np.int32),
        movies[train].astype(np.int32),
        liked[train],
        np.zeros((80, 1), np.float32),
        100,
        config,
        np.random.default_rng(0),
        quiet,
    )

    predicted = (tower.hidden[movies[test]] * tower.user_vectors[users[test]]).sum(-1)
    predicted += tower.user_biases[users[test]] + tower.movie_biases[movies[test]]
    assert float((predicted - torch.from_numpy(liked[test])).abs().mean()) < 0.3

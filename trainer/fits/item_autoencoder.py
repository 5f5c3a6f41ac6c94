"""Fits the neural movie tower: one hidden layer over a movie's column of rating residuals, its mask and its content.

Knows residuals, rows and content features; knows no file, no serving form and no retrieval.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.fits.curves import tell


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """How the tower is built and trained; the constants are those of `MarqueeConfig`, which documents them."""

    hidden_size: int
    epochs: int
    batch_movies: int
    learning_rate: float
    weight_decay: float
    input_dropout: float
    side_scale: float
    warm_up_epochs: float = 2.0


@dataclass(frozen=True, slots=True)
class ItemAutoencoder:
    """A trained tower; the residual it predicts is hidden[i] · user_vectors[u] + user_biases[u] + movie_biases[i].

    U users, I movies, F content features, D hidden units.

    Attributes:
        hidden: What the tower makes of each movie's training column. float32 [I, D]
        user_vectors: float32 [U, D]
        user_biases: float32 [U]
        movie_biases: float32 [I]
        content_weights: From (scaled) content features to pre-activations. float32 [F, D]
        hidden_biases: Pre-activations of a movie of which nothing is known. float32 [D]
    """

    hidden: Tensor
    user_vectors: Tensor
    user_biases: Tensor
    movie_biases: Tensor
    content_weights: Tensor
    hidden_biases: Tensor


@dataclass(frozen=True, slots=True)
class _MovieMajorRatings:
    """Residuals sorted by movie, as a compressed sparse row matrix [I, U]."""

    offsets: NDArray[np.int64]
    user_rows: NDArray[np.int64]
    residuals: NDArray[np.float32]

    @classmethod
    def sorted_from(
        cls,
        user_rows: NDArray[np.int32],
        movie_rows: NDArray[np.int32],
        residuals: NDArray[np.float32],
        num_movies: int,
    ) -> "_MovieMajorRatings":
        order = np.lexsort((user_rows, movie_rows))
        offsets = np.searchsorted(movie_rows[order], np.arange(num_movies + 1))
        return cls(offsets, user_rows[order].astype(np.int64), residuals[order])

    def batch(self, movies: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Returns the counts of the given movies, and their users and residuals laid end to end."""
        counts = self.offsets[movies + 1] - self.offsets[movies]
        ends = np.cumsum(counts)
        picked = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.offsets[movies] - (ends - counts), counts)
        return counts, self.user_rows[picked], self.residuals[picked]


def _sparse(counts: NDArray[np.int64], columns: Tensor, values: Tensor, num_columns: int) -> Tensor:
    """Returns a compressed sparse row matrix of which each row holds the next `counts` columns and values."""
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int64)
    offsets[1:] = torch.from_numpy(np.cumsum(counts))
    with warnings.catch_warnings():
        # torch calls the format beta, once a process; its products are checked by this module's tests.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(offsets, columns, values, (len(counts), num_columns), check_invariants=False)


def fit_item_autoencoder(
    user_rows: NDArray[np.int32],
    movie_rows: NDArray[np.int32],
    residuals: NDArray[np.float32],
    content: NDArray[np.float32],
    num_users: int,
    config: AutoencoderConfig,
    rng: np.random.Generator,
    progress: Callable[[int, int], None],
) -> ItemAutoencoder:
    """Trains the tower by Adam on squared error over the observed cells (AutoRec: Sedhain et al. 2015, with a mask).

    Each observed input entry is dropped, value and mask together, and the survivors scaled up, while the loss counts
    all observed entries: the target may stay in the input. Only observed cells are computed, by sparse products.

    Args:
        user_rows: User of each rating. [n]
        movie_rows: Movie of each rating. [n]
        residuals: What damped biases leave of each rating, of a standard deviation near .9. [n]
        content: Content features of every movie. [I, F]
        num_users: Users of the data set.
        config: Sizes and schedule.
        rng: Draws the start, the batches and the dropout.
        progress: Called with (epochs done, epochs in all).
    """
    num_movies, hidden_size = len(content), config.hidden_size
    data = _MovieMajorRatings.sorted_from(user_rows, movie_rows, residuals, num_movies)
    rated_movies = np.flatnonzero(np.diff(data.offsets))
    side = torch.from_numpy(content * np.float32(config.side_scale))  # [I, F]
    # Rows 2u and 2u + 1 belong to user u's residual and mask: neighbours in memory, since both are always read.
    encoder = torch.from_numpy(
        rng.normal(0, (2 * num_users) ** -0.5, (2 * num_users, hidden_size)).astype(np.float32)
    )  # [2U, D]
    decoder = torch.from_numpy(
        rng.normal(0, 0.3 * hidden_size**-0.5, (num_users, hidden_size)).astype(np.float32)
    )  # [U, D]
    content_weights = torch.zeros(side.shape[1], hidden_size)
    hidden_biases = torch.zeros(hidden_size)
    user_biases = torch.zeros(num_users)
    movie_biases = torch.zeros(num_movies)
    regularised, free = [encoder, decoder], [content_weights, hidden_biases, user_biases, movie_biases]
    for parameter in regularised + free:
        parameter.grad = torch.zeros_like(parameter)
    groups: list[dict[str, Any]] = [
        {"params": regularised, "weight_decay": config.weight_decay},
        {"params": free},
    ]
    optimizer = torch.optim.Adam(groups, lr=config.learning_rate, fused=True)
    num_batches = -(-len(rated_movies) // config.batch_movies)
    total_steps, step = config.epochs * num_batches, 0
    warm_up_steps = max(1.0, config.warm_up_epochs * num_batches)
    gradient_scale = 2.0 * num_batches / len(residuals)
    keep = 1.0 - config.input_dropout
    for epoch in range(config.epochs):
        progress(epoch, config.epochs)
        squared_error = torch.zeros(())
        order = rng.permutation(rated_movies)
        for first in range(0, len(order), config.batch_movies):
            movies = order[first : first + config.batch_movies]
            counts, users, values = data.batch(movies)
            local = np.repeat(np.arange(len(movies)), counts)
            kept = rng.random(len(users), dtype=np.float32) < keep
            kept_counts = np.bincount(local[kept], minlength=len(movies))
            inputs = _inputs(kept_counts, users[kept], values[kept] / keep, keep, num_users)

            movie_index = torch.from_numpy(movies)
            hidden = torch.sigmoid(inputs @ encoder + (side[movie_index] @ content_weights + hidden_biases))  # [B, D]
            cells = _sparse(counts, torch.from_numpy(users), torch.ones(len(users)), num_users)
            scores = torch.sparse.sampled_addmm(cells, hidden, decoder.T, beta=0.0).values()  # [n_b]
            local_index, user_index = torch.from_numpy(local), torch.from_numpy(users)
            errors = scores + user_biases[user_index] + movie_biases[movie_index][local_index]
            errors -= torch.from_numpy(values)  # [n_b]
            squared_error += errors.square().sum()
            errors *= gradient_scale

            d_hidden = _sparse(counts, user_index, errors, num_users) @ decoder
            by_user = np.argsort(users, kind="stable")
            transposed = _sparse(
                np.bincount(users, minlength=num_users), local_index[by_user], errors[by_user], len(movies)
            )
            decoder.grad = transposed @ hidden
            d_pre = d_hidden * hidden * (1.0 - hidden)  # [B, D]
            encoder.grad = _transposed_inputs(users, local, values, kept, by_user, keep, num_users, len(movies)) @ d_pre
            content_weights.grad = side[movie_index].T @ d_pre
            hidden_biases.grad = d_pre.sum(0)
            user_biases.grad = torch.from_numpy(np.bincount(users, errors.numpy(), num_users).astype(np.float32))
            movie_biases.grad = torch.zeros(num_movies)
            movie_biases.grad[movie_index] = torch.from_numpy(
                np.bincount(local, errors.numpy(), len(movies)).astype(np.float32)
            )

            rate = min(1.0, (step + 1) / warm_up_steps)
            if step >= warm_up_steps:
                done = (step - warm_up_steps) / max(1.0, total_steps - warm_up_steps)
                rate = 0.5 * (1.0 + float(np.cos(np.pi * done)))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate
            optimizer.step()
            step += 1
        tell("movie tower: training mse of residuals", float(squared_error) / len(residuals))
    progress(config.epochs, config.epochs)

    hidden = torch.empty(num_movies, hidden_size)
    for first in range(0, num_movies, 512):
        movies = np.arange(first, min(first + 512, num_movies))
        counts, users, values = data.batch(movies)
        pre = _inputs(counts, users, values, 1.0, num_users) @ encoder
        hidden[first : first + 512] = torch.sigmoid(pre + (side[first : first + 512] @ content_weights + hidden_biases))
    return ItemAutoencoder(hidden, decoder, user_biases, movie_biases, content_weights, hidden_biases)


def _inputs(
    counts: NDArray[np.int64],
    users: NDArray[np.int64],
    values: NDArray[np.float32],
    keep: float,
    num_users: int,
) -> Tensor:
    """Returns the tower's input, residual and mask channel side by side. Sparse [B, 2U]."""
    columns = np.empty((len(users), 2), np.int64)
    columns[:, 0] = 2 * users
    columns[:, 1] = 2 * users + 1
    channels = np.empty((len(users), 2), np.float32)
    channels[:, 0] = values
    channels[:, 1] = 1.0 / keep
    return _sparse(2 * counts, torch.from_numpy(columns.ravel()), torch.from_numpy(channels.ravel()), 2 * num_users)


def _transposed_inputs(
    users: NDArray[np.int64],
    local: NDArray[np.int64],
    values: NDArray[np.float32],
    kept: NDArray[np.bool_],
    by_user: NDArray[np.int64],
    keep: float,
    num_users: int,
    num_movies: int,
) -> Tensor:
    """Returns the transpose of `_inputs`. Sparse [2U, B]."""
    picked = by_user[kept[by_user]]
    counts = np.bincount(users[picked], minlength=num_users)
    ends = np.cumsum(counts)
    # Row 2u holds user u's residuals and row 2u + 1 as many ones: both start after twice the entries of those before.
    position = np.arange(len(picked)) + np.repeat(ends - counts, counts)
    columns = np.empty(2 * len(picked), np.int64)
    channels = np.empty(2 * len(picked), np.float32)
    mask_position = position + np.repeat(counts, counts)
    columns[position] = columns[mask_position] = local[picked]
    channels[position] = values[picked] / keep
    channels[mask_position] = 1.0 / keep
    return _sparse(np.repeat(counts, 2), torch.from_numpy(columns), torch.from_numpy(channels), num_movies)

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
    training = _Training.begin(user_rows, movie_rows, residuals, content, num_users, config, rng)
    for epoch in range(config.epochs):
        progress(epoch, config.epochs)
        squared_error = training.train_epoch(rng)
        tell("movie tower: training mse of residuals", squared_error / len(residuals))
    progress(config.epochs, config.epochs)
    weights = training.weights
    return ItemAutoencoder(
        training.embed_all(),
        weights.decoder,
        weights.user_biases,
        weights.movie_biases,
        weights.content_weights,
        weights.hidden_biases,
    )


@dataclass(frozen=True, slots=True)
class _Weights:
    """What is trained; `encoder` and `decoder` decay.

    Attributes:
        encoder: From residuals and masks to pre-activations; rows 2u and 2u + 1 belong to user u's residual and mask:
            neighbours in memory, since both are always read. [2U, D]
        decoder: [U, D]
        content_weights: [F, D]
        hidden_biases: [D]
        user_biases: [U]
        movie_biases: [I]
    """

    encoder: Tensor
    decoder: Tensor
    content_weights: Tensor
    hidden_biases: Tensor
    user_biases: Tensor
    movie_biases: Tensor

    @classmethod
    def drawn(
        cls, num_users: int, num_movies: int, num_features: int, hidden_size: int, rng: np.random.Generator
    ) -> "_Weights":
        encoder = rng.normal(0, (2 * num_users) ** -0.5, (2 * num_users, hidden_size))
        decoder = rng.normal(0, 0.3 * hidden_size**-0.5, (num_users, hidden_size))
        return cls(
            torch.from_numpy(encoder.astype(np.float32)),
            torch.from_numpy(decoder.astype(np.float32)),
            torch.zeros(num_features, hidden_size),
            torch.zeros(hidden_size),
            torch.zeros(num_users),
            torch.zeros(num_movies),
        )

    def adam(self, config: AutoencoderConfig) -> torch.optim.Adam:
        decayed = [self.encoder, self.decoder]
        free = [self.content_weights, self.hidden_biases, self.user_biases, self.movie_biases]
        for parameter in decayed + free:
            parameter.grad = torch.zeros_like(parameter)
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free}]
        return torch.optim.Adam(groups, lr=config.learning_rate, fused=True)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some movies and their n_b observed cells, laid end to end.

    Attributes:
        movies: Rows of the movies. int64 [B]
        counts: Cells of each movie. int64 [B]
        local: Place in the batch of each cell's movie. int64 [n_b]
        users: User of each cell. int64 [n_b]
        residuals: float32 [n_b]
        kept: Which cells the input keeps. bool [n_b]
        by_user: Cells in order of their users. int64 [n_b]
    """

    movies: NDArray[np.int64]
    counts: NDArray[np.int64]
    local: NDArray[np.int64]
    users: NDArray[np.int64]
    residuals: NDArray[np.float32]
    kept: NDArray[np.bool_]
    by_user: NDArray[np.int64]


@dataclass(slots=True)
class _Training:
    """The loop. `side` is the scaled content [I, F]; `rated_movies` are those with a rating."""

    config: AutoencoderConfig
    data: _MovieMajorRatings
    num_users: int
    side: Tensor
    rated_movies: NDArray[np.int64]
    weights: _Weights
    optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def begin(
        cls,
        user_rows: NDArray[np.int32],
        movie_rows: NDArray[np.int32],
        residuals: NDArray[np.float32],
        content: NDArray[np.float32],
        num_users: int,
        config: AutoencoderConfig,
        rng: np.random.Generator,
    ) -> "_Training":
        data = _MovieMajorRatings.sorted_from(user_rows, movie_rows, residuals, len(content))
        weights = _Weights.drawn(num_users, len(content), content.shape[1], config.hidden_size, rng)
        side = torch.from_numpy(content * np.float32(config.side_scale))  # [I, F]
        rated_movies = np.flatnonzero(np.diff(data.offsets))
        return cls(config, data, num_users, side, rated_movies, weights, weights.adam(config))

    @property
    def num_batches(self) -> int:
        return -(-len(self.rated_movies) // self.config.batch_movies)

    def train_epoch(self, rng: np.random.Generator) -> float:
        """Returns the sum of squared errors, each before the step of its batch."""
        squared_error = torch.zeros(())
        order = rng.permutation(self.rated_movies)
        for first in range(0, len(order), self.config.batch_movies):
            batch = self._draw(order[first : first + self.config.batch_movies], rng)
            hidden = self._encode(batch)  # [B, D]
            errors = self._errors(batch, hidden)  # [n_b]
            squared_error += errors.square().sum()
            errors *= 2.0 * self.num_batches / len(self.data.residuals)
            self._differentiate(batch, hidden, errors)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self._rate()
            self.optimizer.step()
            self.step += 1
        return float(squared_error)

    def embed_all(self) -> Tensor:
        """Returns what the tower makes of every movie, nothing dropped. [I, D]."""
        weights, num_movies = self.weights, len(self.side)
        hidden = torch.empty(num_movies, self.config.hidden_size)
        for first in range(0, num_movies, 512):
            movies = np.arange(first, min(first + 512, num_movies))
            pre = _inputs(*self.data.batch(movies), 1.0, self.num_users) @ weights.encoder
            of_content = self.side[first : first + 512] @ weights.content_weights + weights.hidden_biases
            hidden[first : first + 512] = torch.sigmoid(pre + of_content)
        return hidden

    def _draw(self, movies: NDArray[np.int64], rng: np.random.Generator) -> _Batch:
        counts, users, residuals = self.data.batch(movies)
        kept = rng.random(len(users), dtype=np.float32) < self._keep
        local = np.repeat(np.arange(len(movies)), counts)
        return _Batch(movies, counts, local, users, residuals, kept, np.argsort(users, kind="stable"))

    @property
    def _keep(self) -> float:
        return 1.0 - self.config.input_dropout

    def _encode(self, batch: _Batch) -> Tensor:
        kept, weights = batch.kept, self.weights
        counts = np.bincount(batch.local[kept], minlength=len(batch.movies))
        inputs = _inputs(counts, batch.users[kept], batch.residuals[kept] / self._keep, self._keep, self.num_users)
        side = self.side[torch.from_numpy(batch.movies)]  # [B, F]
        return torch.sigmoid(inputs @ weights.encoder + (side @ weights.content_weights + weights.hidden_biases))

    def _errors(self, batch: _Batch, hidden: Tensor) -> Tensor:
        """Returns by how much each observed cell is missed. [n_b]."""
        weights, users = self.weights, torch.from_numpy(batch.users)
        cells = _sparse(batch.counts, users, torch.ones(len(users)), self.num_users)
        scores: Tensor = torch.sparse.sampled_addmm(cells, hidden, weights.decoder.T, beta=0.0).values()  # [n_b]
        movie_biases = weights.movie_biases[torch.from_numpy(batch.movies)]  # [B]
        errors = scores + weights.user_biases[users] + movie_biases[torch.from_numpy(batch.local)]
        errors -= torch.from_numpy(batch.residuals)
        return errors

    def _differentiate(self, batch: _Batch, hidden: Tensor, errors: Tensor) -> None:
        """Gives all weights their gradients, from the gradient of each cell's score."""
        weights, num_users, num_movies = self.weights, self.num_users, len(batch.movies)
        movies, users, local = (torch.from_numpy(rows) for rows in (batch.movies, batch.users, batch.local))
        by_user = batch.by_user
        transposed = _sparse(np.bincount(batch.users, minlength=num_users), local[by_user], errors[by_user], num_movies)
        weights.decoder.grad = transposed @ hidden
        d_hidden = _sparse(batch.counts, users, errors, num_users) @ weights.decoder
        d_pre = d_hidden * hidden * (1.0 - hidden)  # [B, D]
        weights.encoder.grad = _transposed_inputs(batch, self._keep, num_users) @ d_pre
        weights.content_weights.grad = self.side[movies].T @ d_pre
        weights.hidden_biases.grad = d_pre.sum(0)
        of_users = np.bincount(batch.users, errors.numpy(), num_users).astype(np.float32)  # [U]
        of_movies = np.bincount(batch.local, errors.numpy(), num_movies).astype(np.float32)  # [B]
        weights.user_biases.grad = torch.from_numpy(of_users)
        weights.movie_biases.grad = torch.zeros(len(weights.movie_biases))
        weights.movie_biases.grad[movies] = torch.from_numpy(of_movies)

    def _rate(self) -> float:
        """Returns the share of the learning rate that this step takes: a linear warm-up, then half a cosine."""
        warm_up_steps = max(1.0, self.config.warm_up_epochs * self.num_batches)
        if self.step < warm_up_steps:
            return min(1.0, (self.step + 1) / warm_up_steps)
        total_steps = self.config.epochs * self.num_batches
        done = (self.step - warm_up_steps) / max(1.0, total_steps - warm_up_steps)
        return 0.5 * (1.0 + float(np.cos(np.pi * done)))


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


def _transposed_inputs(batch: _Batch, keep: float, num_users: int) -> Tensor:
    """Returns the transpose of `_inputs` of what the batch keeps. Sparse [2U, B]."""
    picked = batch.by_user[batch.kept[batch.by_user]]
    counts = np.bincount(batch.users[picked], minlength=num_users)
    ends = np.cumsum(counts)
    # Row 2u holds user u's residuals and row 2u + 1 as many ones: both start after twice the entries of those before.
    position = np.arange(len(picked)) + np.repeat(ends - counts, counts)
    columns = np.empty(2 * len(picked), np.int64)
    channels = np.empty(2 * len(picked), np.float32)
    mask_position = position + np.repeat(counts, counts)
    columns[position] = columns[mask_position] = batch.local[picked]
    channels[position] = batch.residuals[picked] / keep
    channels[mask_position] = 1.0 / keep
    return _sparse(np.repeat(counts, 2), torch.from_numpy(columns), torch.from_numpy(channels), len(batch.movies))

"""Takes the steps of nn-collab and nn-collab-genre. Knows rows and weights; knows no option's default and no file.

The gradients are written out and tables follow `LateAdam`: it is what `torch.optim.Adam` does to whole tables, at a
tenth of what the same step costs through autograd.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.fits.late_adam import LateAdam
from trainer.fits.rated_pairs import RatedPairs
from two_tower.models.nn_collab import CollabNetwork, Config

_ROWS_VALIDATED_AT_ONCE = 1 << 15


class CollabSteps:
    """The trainee. B = rows of a batch, G = genres, H = hidden width, V = width of a movie with its genres."""

    def __init__(
        self,
        network: CollabNetwork,
        config: Config,
        user_rows: NDArray[np.int64],
        movie_rows: NDArray[np.int64],
        genres: NDArray[np.float32],
        learn: RatedPairs,
        choose: RatedPairs,
        rng: np.random.Generator,
        *,
        learning_rate: float,
        dropout: float,
        unknown_rate: float,
        late_steps: bool,
    ) -> None:
        """Takes what is to be trained; its weights are changed in place.

        Args:
            network: With the weights to start from.
            config: What the network is.
            user_rows: Table row of each user of the data set. [users]
            movie_rows: Table row of each movie of the data set. [movies]
            genres: Shares of genres of each movie of the data set. [movies, G]
            learn: Rows to learn from.
            choose: Rows to choose by; may be none.
            rng: All chance comes from it.
            learning_rate: Of Adam.
            dropout: Share of the hidden layer that a step leaves out, the rest scaled up (Srivastava et al. 2014).
            unknown_rate: Share of ids that a step takes for unknown.
            late_steps: Whether rows make the steps of Adam that they missed.
        """
        self._network, self._config, self._rng = network, config, rng
        self._user_rows, self._movie_rows, self._genres = user_rows, movie_rows, genres
        self._dropout, self._unknown_rate = dropout, unknown_rate
        self._choose = choose
        self._users, self._movies = learn.users.numpy(), learn.movies.numpy()  # [n], [n]
        self._ratings = learn.ratings.numpy()  # [n]
        self._genre_weights = network.genre_weights(torch.from_numpy(genres)).numpy()  # [movies, G]

        def adam(weights: Tensor, *, late: bool = False) -> LateAdam:
            table = weights.detach().numpy().reshape(-1, weights.shape[-1])
            return LateAdam(table, learning_rate, late_steps=late)

        self._user_adam, self._movie_adam = (
            adam(table, late=late_steps) for table in (network.user_table, network.movie_table)
        )
        self._dense = [
            _Dense(weights, adam(weights))
            for weights in (
                network.user_layer.weight,
                network.user_layer.bias,
                network.movie_layer.weight,
                network.output.weight,
                network.output.bias,
                *([network.genre_table] if config.genre_width else []),
            )
        ]

    def weights(self) -> Mapping[str, Tensor]:
        """Returns all weights."""
        return self._network.state_dict()

    def step(self, positions: Tensor) -> Tensor:
        """Takes one step; returns the sum of squared errors, in stars."""
        rows = positions.numpy()
        user_rows = self._hide(self._user_rows[self._users[rows]])  # [B]
        movie_rows = self._hide(self._movie_rows[self._movies[rows]])  # [B]
        users, ids = self._user_adam.rows(user_rows), self._movie_adam.rows(movie_rows)
        genres = self._genre_weights[self._movies[rows]]  # [B, G]
        movies = self._with_genres(ids, genres)  # [B, V]

        of_user, bias, of_movie, output, offset = (dense.weights for dense in self._dense[:5])
        before = users @ of_user.T + bias + movies @ of_movie.T  # [B, H]
        factors = (before > 0).astype(np.float32)  # [B, H], of the ReLU
        if self._dropout:
            kept = self._rng.random(before.shape, np.float32) >= self._dropout
            factors *= kept / np.float32(1 - self._dropout)
        hidden = before * factors  # [B, H]
        place = _sigmoid(hidden @ output[0] + offset[0])  # [B]
        width = np.float32(self._config.high - self._config.low)
        errors = np.float32(self._config.low) + width * place - self._ratings[rows]  # [B]

        slopes = (2 / len(rows)) * errors * width * place * (1 - place)  # [B], of the mean squared error
        slopes = slopes.astype(np.float32)[:, None]
        back = slopes * output * factors  # [B, H]
        user_gradients, movie_gradients = back @ of_user, back @ of_movie  # [B, user_width], [B, V]
        gradients = [back.T @ users, back.sum(axis=0), back.T @ movies, slopes.T @ hidden, slopes.sum(axis=0)]
        if self._config.genre_width:
            gradients.append(self._genre_gradient(genres, movie_gradients[:, ids.shape[1] :]))
        for dense, gradient in zip(self._dense, gradients, strict=True):
            dense.step(gradient)
        self._user_adam.step(user_rows, user_gradients)
        self._movie_adam.step(movie_rows, np.ascontiguousarray(movie_gradients[:, : ids.shape[1]]))
        return torch.tensor(float(np.square(errors).sum()))

    @torch.no_grad()
    def validation_loss(self) -> float | None:
        """Returns the mean squared error of the validation rows, in stars."""
        # All rows are about to be looked at as they are.
        self._user_adam.finish()
        self._movie_adam.finish()
        if not len(self._choose):
            return None
        network, low, high = self._network, self._config.low, self._config.high
        users = network.user_part(network.user_table[torch.from_numpy(self._user_rows)])  # [users, H]
        ids = network.movie_table[torch.from_numpy(self._movie_rows)]  # [movies, movie_width]
        movies = network.movie_part(network.movie_vectors(ids, torch.from_numpy(self._genres)))  # [movies, H]
        summed = torch.zeros(())
        for positions in torch.split(torch.arange(len(self._choose)), _ROWS_VALIDATED_AT_ONCE):
            some = self._choose.take(positions)
            stars = low + (high - low) * torch.sigmoid(network.meet(users[some.users], movies[some.movies]))
            summed += (stars - some.ratings).square().sum()
        return float(summed) / len(self._choose)

    def _hide(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self._unknown_rate:
            return rows
        return np.where(self._rng.random(len(rows)) < self._unknown_rate, 0, rows)

    def _with_genres(self, ids: NDArray[np.float32], genres: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self._config.genre_width:
            return ids
        table = self._dense[5].weights  # [G, genre_width]
        if self._config.pooling == "concat":
            return np.concatenate([ids, (genres[:, :, None] * table).reshape(len(ids), -1)], axis=1)
        return np.concatenate([ids, genres @ table], axis=1)

    def _genre_gradient(self, genres: NDArray[np.float32], gradients: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._config.pooling == "concat":
            places = gradients.reshape(len(genres), genres.shape[1], -1)  # [B, G, genre_width]
            return np.asarray(np.einsum("bg,bgw->gw", genres, places))
        return np.asarray(genres.T @ gradients)


class _Dense:
    """Weights that every batch uses whole."""

    def __init__(self, weights: Tensor, adam: LateAdam) -> None:
        self.weights: NDArray[np.float32] = weights.detach().numpy()
        self._adam = adam
        self._width = weights.shape[-1]
        self._rows = np.arange(weights.numel() // self._width)

    def step(self, gradient: NDArray[np.float32]) -> None:
        self._adam.step(self._rows, gradient.reshape(-1, self._width))


def _sigmoid(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    # The same as 1 / (1 + e^-x), without an overflow.
    return np.asarray(np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * raw)))

"""Trains dot products with biases, squashed into the scale, with or without genres. Knows rows; knows no file.

The gradients are written out: a step on 64 rows costs some 50 µs, where the same step through autograd costs a
millisecond. The notebooks' validation set made id and genre tables of its own, so that it judged other movies than it
named; here there is one table of each, and ids stay whole numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.fits.late_adam import LateAdam

_INITIAL_DEVIATION = 0.01
"""Of every table; the notebook's."""


@dataclass(frozen=True, slots=True)
class Rated:
    """n ratings. user_rows and movie_rows int64 [n], as rows of the tables; ratings float32 [n], in stars."""

    user_rows: NDArray[np.int64]
    movie_rows: NDArray[np.int64]
    ratings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ratings)

    def take(self, positions: NDArray[np.int64]) -> "Rated":
        """Returns the ratings at these positions."""
        return Rated(self.user_rows[positions], self.movie_rows[positions], self.ratings[positions])


@dataclass(frozen=True, slots=True)
class Genres:
    """How movies depend on genres.

    Attributes:
        weights: How much each genre counts in each movie. float32 [I, G]
        own_coordinates: False multiplies the movie's vector by one plus its genres'; True puts them beside it.
    """

    weights: NDArray[np.float32]
    own_coordinates: bool


@dataclass(frozen=True, slots=True)
class Steps:
    """How one step is taken.

    Attributes:
        factors: Coordinates of a user's vector.
        floor: Stars at the lower end of the sigmoid.
        ceiling: Stars at its upper end.
        learning_rate: Of Adam.
        weight_decay: Coupled L2 on all tables.
        dropout: Share of coordinates left out of a dot product, the others scaled up.
        late_steps: Whether rows make the steps of Adam that they missed.
    """

    factors: int
    floor: float
    ceiling: float
    learning_rate: float
    weight_decay: float
    dropout: float
    late_steps: bool


class SquashedFactors:
    """The trainee. A table's last column is its bias; B rows of a batch, D coordinates, G genres."""

    def __init__(
        self,
        num_users: int,
        num_movies: int,
        training: Rated,
        validation: Rated,
        steps: Steps,
        rng: np.random.Generator,
        genres: Genres | None = None,
    ) -> None:
        """Starts all tables at N(0, .01²).

        Args:
            num_users: Rows of the users' table.
            num_movies: Rows of the movies' table.
            training: Ratings to learn from.
            validation: Ratings to stop by; may be none.
            steps: How a step is taken.
            rng: All chance comes from it.
            genres: None for the model without.
        """
        self._training, self._validation = training, validation
        self._steps, self._rng, self._genres = steps, rng, genres
        beside = genres is not None and genres.own_coordinates
        width = steps.factors // 2 if beside else steps.factors

        def table(rows: int, columns: int) -> NDArray[np.float32]:
            return rng.normal(0, _INITIAL_DEVIATION, (rows, columns + 1)).astype(np.float32)

        self.users = table(num_users, steps.factors)  # [U, D + 1]
        self.movies = table(num_movies, width)  # [I, D + 1]
        self.genres = table(genres.weights.shape[1] if genres else 0, width)  # [G, D + 1]
        self._all_genres = np.arange(len(self.genres))

        def adam(weights: NDArray[np.float32]) -> LateAdam:
            return LateAdam(weights, steps.learning_rate, weight_decay=steps.weight_decay, late_steps=steps.late_steps)

        self._user_adam, self._movie_adam, self._genre_adam = adam(self.users), adam(self.movies), adam(self.genres)

    def weights(self) -> Mapping[str, Tensor]:
        """Returns the tables, in the memory in which they are trained."""
        tables = {"users": self.users, "movies": self.movies, "genres": self.genres}
        return {name: torch.from_numpy(table) for name, table in tables.items()}

    def step(self, positions: Tensor) -> Tensor:
        """Takes one step; returns the sum of squared errors, in stars."""
        batch = self._training.take(positions.numpy())
        users, movies = self._user_adam.rows(batch.user_rows), self._movie_adam.rows(batch.movie_rows)  # [B, D + 1]
        vectors, biases, genre_weights, of_genres = self._with_genres(movies, batch.movie_rows)
        kept = self._kept(vectors.shape)
        seen = vectors if kept is None else vectors * kept  # [B, D]
        own = users[:, :-1]
        raw = np.einsum("bd,bd->b", own, seen) + users[:, -1] + biases  # [B]
        place = _sigmoid(raw)
        width = np.float32(self._steps.ceiling - self._steps.floor)
        errors = self._steps.floor + width * place - batch.ratings  # [B]
        slopes = (2 / len(batch)) * errors * width * place * (1 - place)  # [B], of the mean squared error
        slopes = slopes.astype(np.float32)[:, None]

        user_gradients, movie_gradients = np.empty_like(users), np.empty_like(movies)
        user_gradients[:, :-1] = slopes * seen
        user_gradients[:, -1:] = slopes
        towards = slopes * own if kept is None else slopes * own * kept  # [B, D], gradient of the movies' vectors
        movie_gradients[:, -1:] = slopes
        if genre_weights is None or of_genres is None or self._genres is None:
            movie_gradients[:, :-1] = towards
        else:
            trained = movies[:, :-1]
            of_each = np.empty((len(batch), self.genres.shape[1]), np.float32)
            of_each[:, -1:] = slopes
            if self._genres.own_coordinates:
                movie_gradients[:, :-1] = towards[:, : trained.shape[1]]
                of_each[:, :-1] = towards[:, trained.shape[1] :]
            else:
                movie_gradients[:, :-1] = towards * (1 + of_genres)
                of_each[:, :-1] = towards * trained
            self._genre_adam.step(self._all_genres, genre_weights.T @ of_each)
        self._user_adam.step(batch.user_rows, user_gradients)
        self._movie_adam.step(batch.movie_rows, movie_gradients)
        return torch.tensor(float(np.square(errors).sum()))

    def validation_loss(self) -> float | None:
        """Returns the mean squared error of the validation rows, in stars."""
        # All tables are about to be looked at as they are.
        for adam in (self._user_adam, self._movie_adam, self._genre_adam):
            adam.finish()
        if not len(self._validation):
            return None
        squared_error = 0.0
        for start in range(0, len(self._validation), 1 << 14):
            rows = self._validation.take(np.arange(start, min(start + (1 << 14), len(self._validation))))
            vectors, biases, _, _ = self._with_genres(self.movies[rows.movie_rows], rows.movie_rows)
            users = self.users[rows.user_rows]
            place = _sigmoid(np.einsum("bd,bd->b", users[:, :-1], vectors) + users[:, -1] + biases)
            predicted = self._steps.floor + (self._steps.ceiling - self._steps.floor) * place
            squared_error += float(np.square(predicted - rows.ratings, dtype=np.float64).sum())
        return squared_error / len(self._validation)

    def _with_genres(
        self, movies: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Returns vectors [B, D], biases [B], and, with genres, their weights [B, G] and their part [B, D]."""
        vectors, biases = movies[:, :-1], movies[:, -1]
        if self._genres is None:
            return vectors, biases, None, None
        weights = self._genres.weights[rows]  # [B, G]
        summed = weights @ self._genre_adam.rows(self._all_genres)  # [B, D + 1]
        of_genres = summed[:, :-1]
        if self._genres.own_coordinates:
            vectors = np.concatenate([vectors, of_genres], axis=1)
        else:
            vectors = vectors * (1 + of_genres)
        return vectors, biases + summed[:, -1], weights, of_genres

    def _kept(self, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Returns what each coordinate is multiplied by, None where all stay (dropout; Srivastava et al. 2014)."""
        rate = self._steps.dropout
        if not rate:
            return None
        return (self._rng.random(shape, np.float32) >= rate).astype(np.float32) / np.float32(1 - rate)


def _sigmoid(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    # The same as 1 / (1 + e^-x), without an overflow.
    return np.asarray(0.5 * (1 + np.tanh(0.5 * raw)), np.float32)

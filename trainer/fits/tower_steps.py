"""Steps of SGD on the towers of two-tower-history, with gradients written out. Knows their layout; knows no data set.

A step of the notebook's batch of 64 is 9 million multiplications: 160 µs. Through autograd and an optimiser's loop over
parameters it takes ten times as long (docs/experiments.md), so here one compiled loop goes through a block of batches.
`tests/trainer/fits/test_tower_steps.py` holds it to what autograd gives.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from two_tower.models.two_tower_history import GENDER_WIDTH, GENRE_WIDTH, ID_WIDTH, OCCUPATION_WIDTH, Towers

_ACTIVATIONS = {"relu": 0, "tanh": 1, "sigmoid": 2}

# Where the parts of a user's and of a movie's input lie, as `Towers` puts them together.
_GENDER = ID_WIDTH
_AGE = _GENDER + GENDER_WIDTH
_OCCUPATION = _AGE + 1
_HISTORY = _OCCUPATION + OCCUPATION_WIDTH
_GENRE = ID_WIDTH
_YEAR = _GENRE + GENRE_WIDTH


@dataclass(frozen=True, slots=True)
class Samples:
    """n samples. Letters: L history length, G genres.

    Attributes:
        users: Row of each user's id. int64 [n]
        genders: int64 [n]
        ages: float32 [n]
        occupations: int64 [n]
        movies: Row of each movie's id. int64 [n]
        genres: Share of each genre in the bag. float32 [n, G]
        years: float32 [n]
        targets: float32 [n]
        history: Rows of the movies watched. int64 [n, L]
        shares: Share of each in the mean, 0 for padding. float32 [n, L]
    """

    users: NDArray[np.int64]
    genders: NDArray[np.int64]
    ages: NDArray[np.float32]
    occupations: NDArray[np.int64]
    movies: NDArray[np.int64]
    genres: NDArray[np.float32]
    years: NDArray[np.float32]
    targets: NDArray[np.float32]
    history: NDArray[np.int64]
    shares: NDArray[np.float32]


class TowerSteps:
    """SGD with momentum on dense weights, `RowSgd`'s on the two id tables."""

    def __init__(
        self, towers: Towers, activation: str, *, unit_target: bool, learning_rate: float, momentum: float
    ) -> None:
        """Takes the towers, which it changes in place.

        Args:
            towers: One or two layers each, outputs not normalised.
            activation: After each layer.
            unit_target: Whether sigmoid(dot) is fitted, else max(0, dot).
            learning_rate: Of each step.
            momentum: 0 to below 1.
        """
        self._activation = _ACTIVATIONS[activation]
        self._unit_target = unit_target
        self._rate, self._momentum = np.float32(learning_rate), np.float32(momentum)
        self._tables = (_array(towers.user_table), _array(towers.movie_table))
        self._categories = (
            _array(towers.gender_table),
            _array(towers.occupation_table),
            _array(towers.genre_table),
            _array(towers.age.weight).reshape(-1),
            _array(towers.age.bias),
            _array(towers.year.weight).reshape(-1),
            _array(towers.year.bias),
        )
        layers = [[*towers.user_layers], [*towers.movie_layers]]
        self._deep = len(layers[0]) == 2
        # Of one layer the second is given too, and not looked at.
        first_and_last = [(layer[0], layer[-1]) for layer in layers]
        self._layers = tuple(_array(part) for pair in first_and_last for of in pair for part in (of.weight, of.bias))
        self._category_momenta = tuple(np.zeros_like(weights) for weights in self._categories)
        self._layer_momenta = tuple(np.zeros_like(weights) for weights in self._layers)

    def train(self, samples: Samples, batch_size: int) -> float:
        """Takes a step on each batch in turn; returns the sum of squared errors, each before its step."""
        # Without a sign the compiler need not think of rows counted from the end: a sixth of the time.
        users, movies, history, genders, occupations = (
            rows.astype(np.uint64)
            for rows in (samples.users, samples.movies, samples.history, samples.genders, samples.occupations)
        )
        squared_error: float = _train(
            (users, movies, history),
            samples.shares,
            (genders, occupations),
            (samples.ages, samples.years, samples.targets),
            samples.genres,
            batch_size,
            self._tables,
            self._categories,
            self._category_momenta,
            self._layers,
            self._layer_momenta,
            self._deep,
            self._activation,
            self._unit_target,
            self._rate,
            self._momentum,
        )
        return squared_error


def _array(parameter: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = parameter.detach().numpy()
    return array


# What follows is compiled: plain loops, and no more of numpy than the compiler knows.


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(inputs, weight, bias, activation, outputs):  # type: ignore[no-untyped-def]  # pragma: no cover
    np.dot(inputs, weight.T, outputs)
    for b in range(outputs.shape[0]):
        for column in range(outputs.shape[1]):
            value = outputs[b, column] + bias[column]
            if activation == 0:
                outputs[b, column] = max(value, np.float32(0))
            elif activation == 1:
                outputs[b, column] = np.tanh(value)
            else:
                outputs[b, column] = np.float32(1) / (np.float32(1) + np.exp(-value))


@njit(cache=True, nogil=True, error_model="numpy")
def _backward(  # type: ignore[no-untyped-def]  # pragma: no cover
    gradients, outputs, inputs, weight, activation, d_weight, d_bias, d_inputs
):
    """Turns the gradient of a layer's outputs, in place, into that of what it activates, and passes it on."""
    one = np.float32(1)
    d_bias[:] = 0
    for b in range(outputs.shape[0]):
        for column in range(outputs.shape[1]):
            value = outputs[b, column]
            if activation == 0:
                slope = one if value > 0 else np.float32(0)
            elif activation == 1:
                slope = one - value * value
            else:
                slope = value * (one - value)
            gradients[b, column] *= slope
            d_bias[column] += gradients[b, column]
    np.dot(gradients.T, inputs, d_weight)
    np.dot(gradients, weight, d_inputs)


@njit(cache=True, nogil=True, error_model="numpy")
def _move(weights, momenta, gradients, rate, momentum):  # type: ignore[no-untyped-def]  # pragma: no cover
    flat_weights, flat_momenta, flat_gradients = weights.reshape(-1), momenta.reshape(-1), gradients.reshape(-1)
    for place in range(len(flat_weights)):
        flat_momenta[place] = momentum * flat_momenta[place] + flat_gradients[place]
        flat_weights[place] -= rate * flat_momenta[place]


@njit(cache=True, nogil=True, error_model="numpy")
def _train(  # type: ignore[no-untyped-def]  # pragma: no cover
    rows,
    shares,
    category_rows,
    numbers,
    genres,
    batch_size,
    tables,
    categories,
    category_momenta,
    layers,
    layer_momenta,
    deep,
    activation,
    unit_target,
    rate,
    momentum,
):
    users, movies, history = rows
    genders, occupations = category_rows
    ages, years, targets = numbers
    user_table, movie_table = tables
    gender_table, occupation_table, genre_table, age_weight, age_bias, year_weight, year_bias = categories
    user_first, user_first_bias, user_last, user_last_bias = layers[0], layers[1], layers[2], layers[3]
    movie_first, movie_first_bias, movie_last, movie_last_bias = layers[4], layers[5], layers[6], layers[7]
    num_samples, length = history.shape
    num_genres = genre_table.shape[0]
    user_width, movie_width, width, last_width = (
        user_first.shape[1],
        movie_first.shape[1],
        user_first.shape[0],
        user_last.shape[0],
    )
    row_rate = rate / (np.float32(1) - momentum)
    user_buffer = np.empty((batch_size, user_width), np.float32)
    movie_buffer = np.empty((batch_size, movie_width), np.float32)
    hidden_buffer = np.empty((2, batch_size, width), np.float32)
    output_buffer = np.empty((2, batch_size, last_width), np.float32)
    d_user_buffer, d_movie_buffer = np.empty_like(user_buffer), np.empty_like(movie_buffer)
    d_hidden_buffer, d_output_buffer = np.empty_like(hidden_buffer), np.empty_like(output_buffer)
    d_user_first, d_user_first_bias = np.empty_like(user_first), np.empty_like(user_first_bias)
    d_user_last, d_user_last_bias = np.empty_like(user_last), np.empty_like(user_last_bias)
    d_movie_first, d_movie_first_bias = np.empty_like(movie_first), np.empty_like(movie_first_bias)
    d_movie_last, d_movie_last_bias = np.empty_like(movie_last), np.empty_like(movie_last_bias)
    d_gender, d_occupation, d_genre = (
        np.empty_like(gender_table),
        np.empty_like(occupation_table),
        np.empty_like(genre_table),
    )
    d_age, d_age_bias = np.empty_like(age_weight), np.empty_like(age_bias)
    d_year, d_year_bias = np.empty_like(year_weight), np.empty_like(year_bias)
    squared_error = 0.0

    for start in range(0, num_samples, batch_size):
        size = min(batch_size, num_samples - start)
        user_inputs, movie_inputs = user_buffer[:size], movie_buffer[:size]
        for b in range(size):
            sample = start + b
            for column in range(ID_WIDTH):
                user_inputs[b, column] = user_table[users[sample], column]
                movie_inputs[b, column] = movie_table[movies[sample], column]
                user_inputs[b, _HISTORY + column] = 0
            for column in range(GENDER_WIDTH):
                user_inputs[b, _GENDER + column] = gender_table[genders[sample], column]
            user_inputs[b, _AGE] = age_weight[0] * ages[sample] + age_bias[0]
            for column in range(OCCUPATION_WIDTH):
                user_inputs[b, _OCCUPATION + column] = occupation_table[occupations[sample], column]
            for entry in range(length):
                share, row = shares[sample, entry], history[sample, entry]
                if share > 0:
                    for column in range(ID_WIDTH):
                        user_inputs[b, _HISTORY + column] += share * movie_table[row, column]
            for column in range(GENRE_WIDTH):
                movie_inputs[b, _GENRE + column] = 0
            for genre in range(num_genres):
                share = genres[sample, genre]
                if share > 0:
                    for column in range(GENRE_WIDTH):
                        movie_inputs[b, _GENRE + column] += share * genre_table[genre, column]
            movie_inputs[b, _YEAR] = year_weight[0] * years[sample] + year_bias[0]

        user_hidden, movie_hidden = hidden_buffer[0, :size], hidden_buffer[1, :size]
        _forward(user_inputs, user_first, user_first_bias, activation, user_hidden)
        _forward(movie_inputs, movie_first, movie_first_bias, activation, movie_hidden)
        user_outputs, movie_outputs = user_hidden, movie_hidden
        if deep:
            user_outputs, movie_outputs = output_buffer[0, :size], output_buffer[1, :size]
            _forward(user_hidden, user_last, user_last_bias, activation, user_outputs)
            _forward(movie_hidden, movie_last, movie_last_bias, activation, movie_outputs)

        d_user_outputs, d_movie_outputs = d_hidden_buffer[0, :size], d_hidden_buffer[1, :size]
        if deep:
            d_user_outputs, d_movie_outputs = d_output_buffer[0, :size], d_output_buffer[1, :size]
        for b in range(size):
            dot = np.float32(0)
            for column in range(last_width):
                dot += user_outputs[b, column] * movie_outputs[b, column]
            if unit_target:
                predicted = np.float32(1) / (np.float32(1) + np.exp(-dot))
                slope = predicted * (np.float32(1) - predicted)
            else:
                predicted = max(dot, np.float32(0))
                slope = np.float32(1) if dot > 0 else np.float32(0)
            error = predicted - targets[start + b]
            squared_error += error * error
            slope *= np.float32(2) * error / np.float32(size)
            for column in range(last_width):
                d_user_outputs[b, column] = slope * movie_outputs[b, column]
                d_movie_outputs[b, column] = slope * user_outputs[b, column]

        d_user_inputs, d_movie_inputs = d_user_buffer[:size], d_movie_buffer[:size]
        d_user_hidden, d_movie_hidden = d_hidden_buffer[0, :size], d_hidden_buffer[1, :size]
        if deep:
            _backward(
                d_user_outputs, user_outputs, user_hidden, user_last, activation,
                d_user_last, d_user_last_bias, d_user_hidden,
            )  # fmt: skip
            _backward(
                d_movie_outputs, movie_outputs, movie_hidden, movie_last, activation,
                d_movie_last, d_movie_last_bias, d_movie_hidden,
            )  # fmt: skip
        _backward(
            d_user_hidden, user_hidden, user_inputs, user_first, activation,
            d_user_first, d_user_first_bias, d_user_inputs,
        )  # fmt: skip
        _backward(
            d_movie_hidden, movie_hidden, movie_inputs, movie_first, activation,
            d_movie_first, d_movie_first_bias, d_movie_inputs,
        )  # fmt: skip

        d_gender[:], d_occupation[:], d_genre[:] = 0, 0, 0
        d_age[0], d_age_bias[0], d_year[0], d_year_bias[0] = 0, 0, 0, 0
        for b in range(size):
            sample = start + b
            for column in range(ID_WIDTH):
                user_table[users[sample], column] -= row_rate * d_user_inputs[b, column]
                movie_table[movies[sample], column] -= row_rate * d_movie_inputs[b, column]
            for entry in range(length):
                share, row = row_rate * shares[sample, entry], history[sample, entry]
                if share > 0:
                    for column in range(ID_WIDTH):
                        movie_table[row, column] -= share * d_user_inputs[b, _HISTORY + column]
            for column in range(GENDER_WIDTH):
                d_gender[genders[sample], column] += d_user_inputs[b, _GENDER + column]
            for column in range(OCCUPATION_WIDTH):
                d_occupation[occupations[sample], column] += d_user_inputs[b, _OCCUPATION + column]
            for genre in range(num_genres):
                share = genres[sample, genre]
                if share > 0:
                    for column in range(GENRE_WIDTH):
                        d_genre[genre, column] += share * d_movie_inputs[b, _GENRE + column]
            d_age[0] += ages[sample] * d_user_inputs[b, _AGE]
            d_age_bias[0] += d_user_inputs[b, _AGE]
            d_year[0] += years[sample] * d_movie_inputs[b, _YEAR]
            d_year_bias[0] += d_movie_inputs[b, _YEAR]

        _move(gender_table, category_momenta[0], d_gender, rate, momentum)
        _move(occupation_table, category_momenta[1], d_occupation, rate, momentum)
        _move(genre_table, category_momenta[2], d_genre, rate, momentum)
        _move(age_weight, category_momenta[3], d_age, rate, momentum)
        _move(age_bias, category_momenta[4], d_age_bias, rate, momentum)
        _move(year_weight, category_momenta[5], d_year, rate, momentum)
        _move(year_bias, category_momenta[6], d_year_bias, rate, momentum)
        _move(user_first, layer_momenta[0], d_user_first, rate, momentum)
        _move(user_first_bias, layer_momenta[1], d_user_first_bias, rate, momentum)
        _move(movie_first, layer_momenta[4], d_movie_first, rate, momentum)
        _move(movie_first_bias, layer_momenta[5], d_movie_first_bias, rate, momentum)
        if deep:
            _move(user_last, layer_momenta[2], d_user_last, rate, momentum)
            _move(user_last_bias, layer_momenta[3], d_user_last_bias, rate, momentum)
            _move(movie_last, layer_momenta[6], d_movie_last, rate, momentum)
            _move(movie_last_bias, layer_momenta[7], d_movie_last_bias, rate, momentum)
    return squared_error

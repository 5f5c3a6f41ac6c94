"""The compiled steps of SGD on the towers of two-tower-history. Knows their layout; knows no data set and no torch.

What a step works on is named tuples of arrays, which the compiler takes apart at no cost. They stand here because the
cache of compiled code looks at no other file than that of the code.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from two_tower.models.two_tower_history import GENDER_WIDTH, GENRE_WIDTH, ID_WIDTH, OCCUPATION_WIDTH

Floats: TypeAlias = NDArray[np.float32]

# Where the parts of a user's and of a movie's input lie, as `Towers` puts them together.
_GENDER = ID_WIDTH
_AGE = _GENDER + GENDER_WIDTH
_OCCUPATION = _AGE + 1
_HISTORY = _OCCUPATION + OCCUPATION_WIDTH
_GENRE = ID_WIDTH
_YEAR = _GENRE + GENRE_WIDTH


class Samples(NamedTuple):
    """n samples, column by column. Letters: L history length, G genres.

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

    users: NDArray[np.integer]
    genders: NDArray[np.integer]
    ages: Floats
    occupations: NDArray[np.integer]
    movies: NDArray[np.integer]
    genres: Floats
    years: Floats
    targets: Floats
    history: NDArray[np.integer]
    shares: Floats


class Layer(NamedTuple):
    """A layer's parameters, or their momenta, or their gradients."""

    weight: Floats  # [out, in]
    bias: Floats  # [out]


class Tower(NamedTuple):
    """A tower's layers; of one layer the last is the first again, and not looked at."""

    first: Layer
    last: Layer


class Features(NamedTuple):
    """What makes inputs of a sample's features; of age and year a layer of one weight."""

    genders: Floats  # [genders, GENDER_WIDTH]
    occupations: Floats  # [occupations, OCCUPATION_WIDTH]
    genres: Floats  # [G, GENRE_WIDTH]
    age: Layer
    year: Layer


class Dense(NamedTuple):
    """All that moves with momentum."""

    features: Features
    user_tower: Tower
    movie_tower: Tower


class Ids(NamedTuple):
    """The two id tables, of which a step moves the rows that it saw."""

    users: Floats  # [users, ID_WIDTH]
    movies: Floats  # [movies, ID_WIDTH]


class Passage(NamedTuple):
    """A batch on its way through a tower, or the gradients on their way back; of one layer `outputs` is `hidden`."""

    inputs: Floats  # [B, in]
    hidden: Floats  # [B, H]
    outputs: Floats  # [B, D]

    @classmethod
    def through(cls, tower: Tower, batch_size: int, *, deep: bool) -> "Passage":
        """Makes room for a batch."""
        inputs = np.empty((batch_size, tower.first.weight.shape[1]), np.float32)  # [B, in]
        hidden = np.empty((batch_size, tower.first.weight.shape[0]), np.float32)  # [B, H]
        outputs = np.empty((batch_size, tower.last.weight.shape[0]), np.float32) if deep else hidden  # [B, D]
        return cls(inputs, hidden, outputs)


ACTIVATIONS = ("relu", "tanh", "sigmoid")


class Rule(NamedTuple):
    """How a batch becomes a step; see `TowerSteps`."""

    deep: bool  # whether the towers have a second layer
    activation: int  # place in `ACTIVATIONS`
    unit_target: bool
    rate: np.float32
    momentum: np.float32


# What follows is compiled: plain loops, and no more of numpy than the compiler knows. Only the entry is cached, for all
# that it calls is compiled into it.


@njit(cache=True, nogil=True, error_model="numpy")
def take_steps(
    samples: Samples,
    ids: Ids,
    weights: Dense,
    momenta: Dense,
    gradients: Dense,
    passages: tuple[Passage, Passage],
    d_passages: tuple[Passage, Passage],
    rule: Rule,
) -> float:
    """Takes a step on each batch in turn.

    Args:
        samples: Their rows unsigned: the compiler need not think of rows counted from the end, a sixth of the time.
        ids: Moved in place.
        weights: Moved in place.
        momenta: Of the weights.
        gradients: Room for those of the weights.
        passages: Room for a batch of users and one of movies.
        d_passages: Room for the gradients of the passages.
        rule: How.

    Returns:
        The sum of squared errors, each before its step.
    """
    squared_error, batch_size = 0.0, len(passages[0].inputs)
    row_rate = rule.rate / (np.float32(1) - rule.momentum)
    for start in range(0, len(samples.targets), batch_size):
        batch = _cut(samples, start, start + batch_size)
        size = len(batch.targets)
        users, movies = _first(passages[0], size), _first(passages[1], size)
        d_users, d_movies = _first(d_passages[0], size), _first(d_passages[1], size)

        _gather(batch, ids, weights.features, users.inputs, movies.inputs)
        _forward_through(weights.user_tower, users, rule)
        _forward_through(weights.movie_tower, movies, rule)
        squared_error += _meet(users.outputs, movies.outputs, batch.targets, rule, d_users.outputs, d_movies.outputs)
        _backward_through(weights.user_tower, users, d_users, rule, gradients.user_tower)
        _backward_through(weights.movie_tower, movies, d_movies, rule, gradients.movie_tower)
        _sum_by_feature(batch, d_users.inputs, d_movies.inputs, gradients.features)

        _move_ids(batch, ids, d_users.inputs, d_movies.inputs, row_rate)
        _move_features(weights.features, momenta.features, gradients.features, rule)
        _move_tower(weights.user_tower, momenta.user_tower, gradients.user_tower, rule)
        _move_tower(weights.movie_tower, momenta.movie_tower, gradients.movie_tower, rule)
    return squared_error


@njit(error_model="numpy")
def _cut(samples: Samples, start: int, stop: int) -> Samples:
    return Samples(
        samples.users[start:stop],
        samples.genders[start:stop],
        samples.ages[start:stop],
        samples.occupations[start:stop],
        samples.movies[start:stop],
        samples.genres[start:stop],
        samples.years[start:stop],
        samples.targets[start:stop],
        samples.history[start:stop],
        samples.shares[start:stop],
    )


@njit(error_model="numpy")
def _first(passage: Passage, size: int) -> Passage:
    return Passage(passage.inputs[:size], passage.hidden[:size], passage.outputs[:size])


@njit(error_model="numpy")
def _gather(batch: Samples, ids: Ids, features: Features, users: Floats, movies: Floats) -> None:
    """Puts the inputs of both towers together."""
    for b in range(len(batch.targets)):
        for column in range(ID_WIDTH):
            users[b, column] = ids.users[batch.users[b], column]
            movies[b, column] = ids.movies[batch.movies[b], column]
            users[b, _HISTORY + column] = 0
        for column in range(GENDER_WIDTH):
            users[b, _GENDER + column] = features.genders[batch.genders[b], column]
        users[b, _AGE] = features.age.weight[0, 0] * batch.ages[b] + features.age.bias[0]
        for column in range(OCCUPATION_WIDTH):
            users[b, _OCCUPATION + column] = features.occupations[batch.occupations[b], column]
        for entry in range(batch.history.shape[1]):
            share, row = batch.shares[b, entry], batch.history[b, entry]
            if share > 0:
                for column in range(ID_WIDTH):
                    users[b, _HISTORY + column] += share * ids.movies[row, column]
        for column in range(GENRE_WIDTH):
            movies[b, _GENRE + column] = 0
        for genre in range(batch.genres.shape[1]):
            share = batch.genres[b, genre]
            if share > 0:
                for column in range(GENRE_WIDTH):
                    movies[b, _GENRE + column] += share * features.genres[genre, column]
        movies[b, _YEAR] = features.year.weight[0, 0] * batch.years[b] + features.year.bias[0]


@njit(error_model="numpy")
def _forward_through(tower: Tower, passage: Passage, rule: Rule) -> None:
    _forward(tower.first, passage.inputs, rule.activation, passage.hidden)
    if rule.deep:
        _forward(tower.last, passage.hidden, rule.activation, passage.outputs)


@njit(error_model="numpy")
def _forward(layer: Layer, inputs: Floats, activation: int, outputs: Floats) -> None:
    np.dot(inputs, layer.weight.T, outputs)
    for b in range(outputs.shape[0]):
        for column in range(outputs.shape[1]):
            value = outputs[b, column] + layer.bias[column]
            if activation == 0:
                outputs[b, column] = max(value, np.float32(0))
            elif activation == 1:
                outputs[b, column] = np.tanh(value)
            else:
                outputs[b, column] = np.float32(1) / (np.float32(1) + np.exp(-value))


@njit(error_model="numpy")
def _meet(users: Floats, movies: Floats, targets: Floats, rule: Rule, d_users: Floats, d_movies: Floats) -> float:
    """Compares the towers' dot products with the targets; returns the sum of squares, whose mean has the gradients."""
    squared_error, size = 0.0, len(targets)
    for b in range(size):
        dot = np.float32(0)
        for column in range(users.shape[1]):
            dot += users[b, column] * movies[b, column]
        if rule.unit_target:
            predicted = np.float32(1) / (np.float32(1) + np.exp(-dot))
            slope = predicted * (np.float32(1) - predicted)
        else:
            predicted = max(dot, np.float32(0))
            slope = np.float32(1) if dot > 0 else np.float32(0)
        error = predicted - targets[b]
        squared_error += error * error
        slope *= np.float32(2) * error / np.float32(size)
        for column in range(users.shape[1]):
            d_users[b, column] = slope * movies[b, column]
            d_movies[b, column] = slope * users[b, column]
    return squared_error


@njit(error_model="numpy")
def _backward_through(tower: Tower, passage: Passage, d_passage: Passage, rule: Rule, d_tower: Tower) -> None:
    if rule.deep:
        _backward(
            tower.last, passage.hidden, passage.outputs, rule.activation,
            d_passage.outputs, d_tower.last, d_passage.hidden,
        )  # fmt: skip
    _backward(
        tower.first, passage.inputs, passage.hidden, rule.activation, d_passage.hidden, d_tower.first, d_passage.inputs
    )


@njit(error_model="numpy")
def _backward(
    layer: Layer,
    inputs: Floats,
    outputs: Floats,
    activation: int,
    d_outputs: Floats,
    d_layer: Layer,
    d_inputs: Floats,
) -> None:
    """Turns the gradient of a layer's outputs, in place, into that of what it activates, and passes it on."""
    one = np.float32(1)
    d_layer.bias[:] = 0
    for b in range(outputs.shape[0]):
        for column in range(outputs.shape[1]):
            value = outputs[b, column]
            if activation == 0:
                slope = one if value > 0 else np.float32(0)
            elif activation == 1:
                slope = one - value * value
            else:
                slope = value * (one - value)
            d_outputs[b, column] *= slope
            d_layer.bias[column] += d_outputs[b, column]
    np.dot(d_outputs.T, inputs, d_layer.weight)
    np.dot(d_outputs, layer.weight, d_inputs)


@njit(error_model="numpy")
def _sum_by_feature(batch: Samples, d_users: Floats, d_movies: Floats, d_features: Features) -> None:
    """Adds the inputs' gradients up for each gender, occupation and genre, and for what scales age and year."""
    d_features.genders[:], d_features.occupations[:], d_features.genres[:] = 0, 0, 0
    d_age, d_year = d_features.age, d_features.year
    d_age.weight[0, 0], d_age.bias[0], d_year.weight[0, 0], d_year.bias[0] = 0, 0, 0, 0
    for b in range(len(batch.targets)):
        for column in range(GENDER_WIDTH):
            d_features.genders[batch.genders[b], column] += d_users[b, _GENDER + column]
        for column in range(OCCUPATION_WIDTH):
            d_features.occupations[batch.occupations[b], column] += d_users[b, _OCCUPATION + column]
        for genre in range(batch.genres.shape[1]):
            share = batch.genres[b, genre]
            if share > 0:
                for column in range(GENRE_WIDTH):
                    d_features.genres[genre, column] += share * d_movies[b, _GENRE + column]
        d_age.weight[0, 0] += batch.ages[b] * d_users[b, _AGE]
        d_age.bias[0] += d_users[b, _AGE]
        d_year.weight[0, 0] += batch.years[b] * d_movies[b, _YEAR]
        d_year.bias[0] += d_movies[b, _YEAR]


@njit(error_model="numpy")
def _move_ids(batch: Samples, ids: Ids, d_users: Floats, d_movies: Floats, rate: np.float32) -> None:
    """Moves the rows of the batch and of its histories, at the rate that momentum would come to."""
    for b in range(len(batch.targets)):
        for column in range(ID_WIDTH):
            ids.users[batch.users[b], column] -= rate * d_users[b, column]
            ids.movies[batch.movies[b], column] -= rate * d_movies[b, column]
        for entry in range(batch.history.shape[1]):
            share, row = rate * batch.shares[b, entry], batch.history[b, entry]
            if share > 0:
                for column in range(ID_WIDTH):
                    ids.movies[row, column] -= share * d_users[b, _HISTORY + column]


@njit(error_model="numpy")
def _move_features(features: Features, momenta: Features, gradients: Features, rule: Rule) -> None:
    _move(features.genders, momenta.genders, gradients.genders, rule)
    _move(features.occupations, momenta.occupations, gradients.occupations, rule)
    _move(features.genres, momenta.genres, gradients.genres, rule)
    _move_layer(features.age, momenta.age, gradients.age, rule)
    _move_layer(features.year, momenta.year, gradients.year, rule)


@njit(error_model="numpy")
def _move_tower(tower: Tower, momenta: Tower, gradients: Tower, rule: Rule) -> None:
    _move_layer(tower.first, momenta.first, gradients.first, rule)
    if rule.deep:
        _move_layer(tower.last, momenta.last, gradients.last, rule)


@njit(error_model="numpy")
def _move_layer(layer: Layer, momenta: Layer, gradients: Layer, rule: Rule) -> None:
    _move(layer.weight, momenta.weight, gradients.weight, rule)
    _move(layer.bias, momenta.bias, gradients.bias, rule)


@njit(error_model="numpy")
def _move(weights: Floats, momenta: Floats, gradients: Floats, rule: Rule) -> None:
    flat_weights, flat_momenta, flat_gradients = weights.reshape(-1), momenta.reshape(-1), gradients.reshape(-1)
    for place in range(len(flat_weights)):
        flat_momenta[place] = rule.momentum * flat_momenta[place] + flat_gradients[place]
        flat_weights[place] -= rule.rate * flat_momenta[place]

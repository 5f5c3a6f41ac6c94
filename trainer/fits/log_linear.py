"""Fits the retrieval head for data with times: a log-linear softmax over the next movies, given a decaying history.

Knows sequences of movie rows; knows no rating, content or serving form.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.fits.curves import tell

_SEEN_SCORE = -1e4
"""Of a movie that was watched before the cut: its share of the softmax is 0 in float32, and stays finite."""

_MAX_HISTORY = 1000
"""Events before a cut that training looks at; what is older has faded to the flat part of the long memory."""


@dataclass(frozen=True, slots=True)
class LogLinearConfig:
    """How the head is built and trained; `trainer.fits.marquee_options.Options` documents the constants.

    Attributes:
        num_targets: Next movies that a cut is to predict; the h-th weighs e^-h. Recipe.
        warm_up_steps: Steps in which the learning rate rises to its full height. Recipe.
        start_spread: Standard deviation of all tables at the start. Recipe.
    """

    size: int
    epochs: int
    cuts_per_user: int
    batch_users: int
    learning_rate: float
    weight_decay: float
    history_dropout: float
    short_decay: float
    long_decay: float
    flat_gain: float
    user_share: float = 1.0
    num_targets: int = 3
    warm_up_steps: int = 20
    start_spread: float = 0.05


@dataclass(frozen=True, slots=True)
class LogLinear:
    """A trained head: score_i = u·vectors[i] + biases[i], u = user_bias + Σ_j s^a_j·short[j] + (l^a_j + g)·long[j].

    a_j counts the events that are newer than j.

    Attributes:
        vectors: float32 [I, K]
        biases: float32 [I]
        user_bias: float32 [K]
        short: float32 [I, K]
        long: float32 [I, K]
    """

    vectors: Tensor
    biases: Tensor
    user_bias: Tensor
    short: Tensor
    long: Tensor


@dataclass(frozen=True, slots=True)
class Cuts:
    """A batch of users, each cut at several places; what is before a cut is given, what follows is to be guessed.

    Attributes:
        movies: Movie rows, oldest first, 0 where padded. [B, L]
        lengths: Events of each user. [B]
        places: Events before each cut. [B, c]
        used: False for a cut that a short history had no place for. [B, c]
    """

    movies: NDArray[np.int64]
    lengths: NDArray[np.int64]
    places: NDArray[np.int64]
    used: NDArray[np.bool_]


def fit_log_linear(
    user_rows: NDArray[np.int32],
    movie_rows: NDArray[np.int32],
    event_times_ms: NDArray[np.int64],
    num_movies: int,
    config: LogLinearConfig,
    rng: np.random.Generator,
    progress: Callable[[int, int], None],
) -> LogLinear:
    """Trains the head by Adam on cross-entropy over the whole catalogue, movies before the cut left out.

    Events of equal time have no order; each epoch draws one, so that the head learns none.

    Args:
        user_rows: [n]
        movie_rows: [n]
        event_times_ms: [n]
        num_movies: Movies, also those without events.
        config: Sizes and schedule.
        rng: Draws the start, the order of ties, the cuts, the batches and the dropout.
        progress: Called with (epochs done, epochs in all).
    """
    counts = np.bincount(movie_rows, minlength=num_movies)

    def start(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(0, config.start_spread, shape).astype(np.float32))

    vectors, short, long = (start(num_movies, config.size) for _ in range(3))
    biases = torch.from_numpy(0.5 * np.log1p(counts).astype(np.float32))
    user_bias = torch.zeros(config.size)
    model = LogLinear(vectors, biases, user_bias, short, long)
    for parameter in (vectors, short, long, biases, user_bias):
        parameter.grad = torch.zeros_like(parameter)
    groups: list[dict[str, Any]] = [
        {"params": [vectors, short, long], "weight_decay": config.weight_decay},
        {"params": [biases, user_bias]},
    ]
    optimizer = torch.optim.Adam(groups, lr=config.learning_rate, fused=True)
    steps_per_epoch = -(-_users_per_epoch(np.bincount(user_rows), config) // config.batch_users)
    total_steps, step = config.epochs * steps_per_epoch, 0
    for epoch in range(config.epochs):
        progress(epoch, config.epochs)
        losses: list[Tensor] = []
        for cuts in draw_cuts(user_rows, movie_rows, event_times_ms, config, rng):
            losses.append(set_gradients(model, cuts, config, rng))
            if step < config.warm_up_steps:
                rate = (step + 1) / config.warm_up_steps
            else:
                done = (step - config.warm_up_steps) / max(1, total_steps - config.warm_up_steps)
                rate = 0.5 * (1 + float(np.cos(np.pi * done)))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate
            optimizer.step()
            step += 1
        if losses:
            tell("retrieval head: training cross-entropy", float(torch.stack(losses).mean()))
    progress(config.epochs, config.epochs)
    return model


def draw_cuts(
    user_rows: NDArray[np.int32],
    movie_rows: NDArray[np.int32],
    event_times_ms: NDArray[np.int64],
    config: LogLinearConfig,
    rng: np.random.Generator,
) -> list[Cuts]:
    """Orders every user's events, cuts them at random places and puts users of similar length into one batch."""
    order = np.lexsort((rng.random(len(user_rows)), event_times_ms, user_rows))
    movies = movie_rows[order].astype(np.int64)
    starts = np.searchsorted(user_rows[order], np.arange(int(user_rows.max()) + 2))
    sizes = np.diff(starts)
    users = rng.permutation(np.flatnonzero(sizes > 1))[: _users_per_epoch(sizes, config)]
    users = users[np.argsort(sizes[users] * rng.uniform(0.8, 1.25, len(users)), kind="stable")]
    batches = [users[first : first + config.batch_users] for first in range(0, len(users), config.batch_users)]
    cuts = []
    for batch in (batches[i] for i in rng.permutation(len(batches))):
        lengths = sizes[batch]  # [B]
        longest = int(lengths.max())
        columns = np.arange(longest)
        inside = columns < lengths[:, None]
        padded = np.where(inside, movies[np.where(inside, starts[batch][:, None] + columns, 0)], 0)  # [B, L]
        # The places with the smallest draws are a sample without replacement; place p leaves p events before the cut.
        draws = np.where(inside, rng.random(inside.shape), 2.0)
        width = min(config.cuts_per_user, longest)
        places = np.argpartition(draws, width - 1, axis=1)[:, :width]
        used = np.take_along_axis(draws, places, axis=1) < 1.0
        cuts.append(Cuts(padded, lengths, np.where(used, places, 0), used))
    return cuts


def _users_per_epoch(sizes: NDArray[np.integer], config: LogLinearConfig) -> int:
    """Returns how many of the users with something to be guessed take part in an epoch, given the events of each."""
    return int(np.ceil(config.user_share * np.count_nonzero(sizes > 1)))


def set_gradients(model: LogLinear, cuts: Cuts, config: LogLinearConfig, rng: np.random.Generator) -> Tensor:
    """Sets every parameter's gradient of the mean weighted cross-entropy of a batch of cuts; returns that mean. []."""
    num_users, longest = cuts.movies.shape
    width = cuts.places.shape[1]
    longest = min(longest, max(1, int(cuts.places.max())))
    movies = torch.from_numpy(cuts.movies[:, :longest])  # [B, L]
    ages = torch.from_numpy(cuts.places)[:, :, None] - 1 - torch.arange(longest)  # [B, c, L], below 0 after the cut
    given = (ages >= 0) & (ages < _MAX_HISTORY)
    kept = torch.from_numpy(rng.random(tuple(given.shape), dtype=np.float32)) >= config.history_dropout
    scale = (given & kept).float().div_(1.0 - config.history_dropout)  # [B, c, L]
    by_age = torch.arange(max(longest, 1), dtype=torch.float32)
    faded = ages.clamp(min=0)
    short_weights = torch.exp(by_age * (-1 / config.short_decay))[faded].mul_(scale)  # [B, c, L]
    long_weights = torch.exp(by_age * (-1 / config.long_decay)).add_(config.flat_gain)[faded].mul_(scale)
    users = torch.bmm(short_weights, model.short[movies]) + torch.bmm(long_weights, model.long[movies])  # [B, c, K]
    users = (users + model.user_bias).reshape(num_users * width, -1)  # [Q, K]

    scores = torch.addmm(model.biases, users, model.vectors.T)  # [Q, I]
    user, cut, event = torch.nonzero(ages >= 0, as_tuple=True)
    scores[user * width + cut, movies[user, event]] = _SEEN_SCORE
    errors = torch.softmax(scores, dim=-1, out=scores)
    ahead = np.arange(config.num_targets)
    targets = cuts.places[:, :, None] + ahead  # [B, c, h]
    real = cuts.used[:, :, None] & (targets < cuts.lengths[:, None, None])
    weights = np.where(real, np.exp(-ahead), 0).astype(np.float32)
    totals = weights.sum(axis=-1)  # [B, c]
    norm = 1.0 / max(1, int(np.count_nonzero(cuts.used)))
    rows = np.broadcast_to(np.arange(num_users * width).reshape(num_users, width, 1), targets.shape)[real]
    wanted = np.broadcast_to(np.arange(num_users)[:, None, None], targets.shape)[real], targets[real]
    cells = torch.from_numpy(rows), torch.from_numpy(cuts.movies[wanted])
    shares = torch.from_numpy(weights[real] * np.float32(norm))
    # A share of the softmax that float32 holds no more is 0: the logarithm is cut where that begins.
    loss = -(shares * errors[cells].clamp(min=1e-38).log()).sum()
    errors.mul_(torch.from_numpy(totals.reshape(-1, 1) * np.float32(norm)))
    errors.index_put_(cells, -shares, accumulate=True)  # [Q, I], gradient of the scores

    model.vectors.grad = errors.T @ users
    model.biases.grad = errors.sum(0)
    d_users = (errors @ model.vectors).reshape(num_users, width, -1)  # [B, c, K]
    model.user_bias.grad = d_users.sum((0, 1))
    for table, table_weights in ((model.short, short_weights), (model.long, long_weights)):
        d_rows = torch.bmm(table_weights.transpose(1, 2), d_users)  # [B, L, K]
        table.grad = torch.zeros_like(table).index_add_(0, movies.reshape(-1), d_rows.reshape(-1, d_rows.shape[-1]))
    return loss

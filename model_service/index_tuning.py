"""Makes up filters and tells how much is found of the best that they let through. Knows vectors; knows no index.

A filter may let movies through that lie anywhere, as a range of years may, or such as lie near to each other, as genres
do; the latter are far from most users. Recalls are of the best movies to some depths, without regard to which of equal
scores are found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from two_tower.top_k import MovieMatrix

_SPOTS = 32
"""Movies to one of which each movie is nearest, as to a genre: filters let the movies of some of them through. With few
such spots the recall came out too good for who is far from them all."""

_FLOATS_AT_ONCE = 16 << 20
"""Exact scores held at once: 64 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A filter, and what the best movies are that it lets through. Letters: M movies, Q users.

    Attributes:
        share: Of the movies, that the filter lets through, about.
        allowed: bool [M]
        bars: For each depth, the score that so many movies of each user reach. float32 [Q]
    """

    share: float
    allowed: NDArray[np.bool_]
    bars: dict[int, NDArray[np.float32]]


def make_filters(
    movies: MovieMatrix, shares: Sequence[float], rng: np.random.Generator
) -> list[tuple[float, NDArray[np.bool_]]]:
    """Returns two filters for each share, of movies anywhere and of movies nearest to some spots. bool [M]."""
    vectors = movies.vectors.numpy()  # [M, D]
    spots = vectors[rng.choice(len(vectors), min(_SPOTS, len(vectors)), replace=False)]  # [S, D]
    units = spots / np.maximum(np.linalg.norm(spots, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    nearness = vectors @ units.T  # [M, S]
    nearest = nearness.argmax(axis=-1)  # [M]
    lengths = np.maximum(np.linalg.norm(vectors, axis=-1), np.finfo(np.float32).tiny)  # [M]
    cosines = nearness.max(axis=-1) / lengths  # [M]
    made = []
    for share in shares:
        num_allowed = int(share * len(vectors))
        # One spot after the other, and of the last those movies that are nearest to it.
        by_spot = 3 * rng.permutation(len(spots))[nearest] + cosines
        for measure in (rng.random(len(vectors)), by_spot):
            allowed = np.zeros(len(vectors), np.bool_)
            allowed[np.argpartition(-measure, num_allowed - 1)[:num_allowed]] = True
            made.append((share, allowed))
    return made


def make_trials(
    movies: MovieMatrix,
    users: NDArray[np.float32],
    filters: Sequence[tuple[float, NDArray[np.bool_]]],
    depths: Sequence[int],
) -> list[Trial]:
    """Returns what the best movies of each user are under each filter: all movies are scored once."""
    vectors, biases = movies.vectors.numpy(), movies.biases.numpy()  # [M, D], [M]
    passing = [None if allowed.all() else np.flatnonzero(allowed) for _, allowed in filters]
    at_once = max(1, _FLOATS_AT_ONCE // len(vectors))
    parts: list[list[NDArray[np.float32]]] = [[] for _ in filters]
    for start in range(0, len(users), at_once):
        scores = users[start : start + at_once] @ vectors.T + biases  # [q, M]
        for part, numbers in zip(parts, passing, strict=True):
            some = scores if numbers is None else scores.take(numbers, axis=-1)
            places = [some.shape[-1] - depth for depth in depths]
            part.append(np.partition(some, places, axis=-1)[:, places])  # [q, depths]
    # Less what rounding may add.
    margins = movies.margin(np.linalg.norm(users.astype(np.float64), axis=-1))  # [Q]
    trials = []
    for (share, allowed), part in zip(filters, parts, strict=True):
        bars = (np.concatenate(part) - margins[:, None]).astype(np.float32)  # [Q, depths]
        trials.append(Trial(share, allowed, dict(zip(depths, bars.T, strict=True))))
    return trials


def recalls(
    movies: MovieMatrix,
    users: NDArray[np.float32],
    proposed: NDArray[np.int64],
    bar: NDArray[np.float32],
    depth: int,
    widths: Sequence[int],
) -> list[float]:
    """Returns the share of the best movies, those that reach the users' bars, among so many of the first proposed.

    Args:
        movies: That were proposed.
        users: float32 [Q, D]
        proposed: Movies that the filter lets through, and -1. [Q, P]
        bar: float32 [Q]
        depth: How many movies are the best.
        widths: How many are looked at of what was proposed.
    """
    vectors, biases = movies.vectors.numpy(), movies.biases.numpy()  # [M, D], [M]
    found = np.zeros(len(widths), np.int64)
    for user, numbers, lowest in zip(users, proposed, bar, strict=True):
        reached = (vectors.take(numbers, axis=0) @ user + biases[numbers] >= lowest) & (numbers >= 0)  # [P]
        # More than are wanted reach the bar where scores are equal.
        found += [min(depth, int(np.count_nonzero(reached[:width]))) for width in widths]
    return [int(each) / (depth * len(users)) for each in found]

"""Next movies by ridge regression: what is added up in corners of one table is what every prefix written out gives."""

import numpy as np
import pytest
import scipy.sparse

from trainer.fits.closed_retrieval import ClosedFormConfig, cut_to_rank, fit_closed_form
from trainer.fits.sequential_ridge import Sequences, fit_sequential_ridge

NUM_MOVIES = 7
HISTORIES = [[0, 1, 2, 3], [4, 2, 0, 5, 6, 1], [3], [6, 5, 2]]
"""Oldest first."""


def rows_of(histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    users = np.concatenate([np.full(len(history), user) for user, history in enumerate(histories)])
    times = np.concatenate([np.arange(len(history)) for history in histories])
    return users.astype(np.int32), np.concatenate(histories).astype(np.int32), times.astype(np.int64)


def dense_ridge(histories: list[list[int]], ridge: float) -> np.ndarray:
    """The same regression with a row for each cut."""
    design, wanted = [], []
    for history in histories:
        for cut in range(1, len(history)):
            row, target = np.zeros(2 * NUM_MOVIES), np.zeros(NUM_MOVIES)
            for place, movie in enumerate(history):
                age = cut - 1 - place
                if age >= 0:
                    row[movie] = np.exp(-age / 2)
                    row[NUM_MOVIES + movie] = np.exp(-age / 12) + 0.1
                else:
                    target[movie] = np.exp(age + 1)
            design.append(row)
            wanted.append(target)
    x, y = np.array(design), np.array(wanted)
    return np.linalg.solve(x.T @ x + ridge * np.eye(2 * NUM_MOVIES), x.T @ y)


def solve(sequences: Sequences, ridge: float, max_history: int = 100) -> np.ndarray:
    return fit_sequential_ridge(
        sequences,
        NUM_MOVIES,
        short_decay=2.0,
        long_decay=12.0,
        flat_gain=0.1,
        ridge=ridge,
        max_history=max_history,
        rng=np.random.default_rng(0),
    )


def test_no_prefix_has_to_be_written_out() -> None:
    """The ridge equals the one whose design has a row for each cut of each history."""
    sequences = Sequences.draw(*rows_of(HISTORIES), np.random.default_rng(0))

    weights = solve(sequences, 0.7)

    assert weights == pytest.approx(dense_ridge(HISTORIES, 0.7), abs=1e-5)


def test_a_movie_that_takes_no_part_still_ages_the_others() -> None:
    """Its rows and columns are gone, and those of the others are as if it had been solved without its unknowns."""
    sequences = Sequences.draw(*rows_of([[0, 6, 1], [1, 6, 0]]), np.random.default_rng(0))

    weights = solve(sequences.among(np.arange(6), NUM_MOVIES), 0.5)

    assert not weights[:, 6].any()
    assert not weights[[6, NUM_MOVIES + 6]].any()
    # One cut in each history has 0 or 1 before it and the other two events later: the target weighs e^-1.
    age_0, age_1 = np.array([1.0, 1.1]), np.array([np.exp(-1 / 2), np.exp(-1 / 12) + 0.1])
    gram = np.outer(age_0, age_0) + np.outer(age_1, age_1) + 0.5 * np.eye(2)
    expected = np.linalg.solve(gram, age_0 * np.exp(-1) + age_1)
    assert weights[[0, NUM_MOVIES], 1] == pytest.approx(expected, abs=1e-5)


def test_only_the_newest_events_are_read() -> None:
    """With at most three events a user, older ones change nothing."""
    whole = Sequences.draw(*rows_of(HISTORIES), np.random.default_rng(0))

    weights = solve(whole, 0.7, max_history=3)

    assert weights == pytest.approx(dense_ridge([history[-3:] for history in HISTORIES], 0.7), abs=1e-5)


def test_a_cut_rank_keeps_the_scores_of_the_given_histories_best() -> None:
    """No matrix of the same rank through the same weights comes nearer; full rank loses nothing."""
    rng = np.random.default_rng(0)
    weights, states = rng.normal(size=(12, 9)).astype(np.float32), rng.normal(size=(40, 12)).astype(np.float32)
    sparse = scipy.sparse.csr_matrix(states)

    whole, cut = cut_to_rank(weights, sparse, 9, rng), cut_to_rank(weights, sparse, 3, rng)

    assert whole[0] @ whole[1].T == pytest.approx(weights, abs=1e-4)
    best = np.sqrt((np.linalg.svd(states @ weights, compute_uv=False)[3:] ** 2).sum())
    assert np.linalg.norm(states @ (cut[0] @ cut[1].T - weights)) == pytest.approx(best, rel=1e-3)


def test_the_closed_form_finds_what_follows_what() -> None:
    """Every second user watches 0 1 2 3, the others 4 5 6 7: after 0 and 1 comes 2; a rare movie takes no part."""
    histories = [[0, 1, 2, 3] if user % 2 else [4, 5, 6, 7] for user in range(40)] + [[0, 8]]
    config = ClosedFormConfig(
        size=16,
        max_movies=8,
        ease_ridge=1.0,
        sequential_ridge=1.0,
        popularity_power=0.1,
        short_decay=2.0,
        long_decay=12.0,
        flat_gain=0.1,
    )

    head = fit_closed_form(*rows_of(histories), 9, config, np.random.default_rng(0))

    user = np.exp(-0.5) * head.short[0] + head.short[1] + (np.exp(-1 / 12) + 0.1) * head.long[0] + 1.1 * head.long[1]
    scores = head.vectors @ user
    scores[[0, 1]] = -np.inf
    assert int(scores.argmax()) == 2
    assert head.vectors.shape == (9, 8)
    assert not head.vectors[8].any()
    assert not head.short[8].any()

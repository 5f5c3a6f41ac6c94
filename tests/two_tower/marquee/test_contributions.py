"""What history entries add to a marquee ranking score, and what is left, add up to the score."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainer.dataset import Dataset, Interactions
from trainer.fits import silent
from trainer.fits.marquee import Options, fit
from two_tower.models.marquee import Marquee
from two_tower.movie_columns import MovieColumns
from two_tower.scoring import rank_scores
from two_tower.serving import RatingScale
from two_tower.user_columns import Histories, Profiles, UserColumns

NUM_USERS, NUM_MOVIES = 12, 30
COLD = NUM_MOVIES
EVENTS_EACH = 10
WATCHED = np.stack([np.random.default_rng(user).permutation(NUM_MOVIES)[:EVENTS_EACH] for user in range(NUM_USERS)])
"""Oldest first. [users, events]"""

FEW_STEPS = Options(tower_epochs=1, machine_iterations=2, ranking_epochs=1)


CATALOGUE = MovieColumns(
    [f"m{row}" for row in range(NUM_MOVIES + 1)],
    ["A title"] * (NUM_MOVIES + 1),
    np.linspace(1950, 2000, NUM_MOVIES + 1).astype(np.float32),
    [(("Comedy", "Drama")[row % 2],) for row in range(NUM_MOVIES + 1)],
)


@pytest.fixture(scope="module")
def model() -> Marquee:
    """A model of users u0..u11 and movies m0..m29; m30 is in the catalogue and unknown to it."""
    rng = np.random.default_rng(0)
    rows = Interactions(
        np.repeat(np.arange(NUM_USERS), EVENTS_EACH).astype(np.int32),
        WATCHED.reshape(-1).astype(np.int32),
        rng.integers(1, 6, WATCHED.size).astype(np.float32),
        np.tile(np.arange(1, EVENTS_EACH + 1), NUM_USERS).astype(np.int64),
    )
    nobody = Profiles([None] * NUM_USERS, np.full(NUM_USERS, np.nan, np.float32), [None] * NUM_USERS)
    users = [f"u{row}" for row in range(NUM_USERS)]
    data = Dataset("toy", users, nobody, [None] * NUM_USERS, CATALOGUE, rows, RatingScale(1, 5, 1), True)
    fitted = fit(data, FEW_STEPS, seed=0, progress=silent)
    # What ranks for everybody fades with every event, so it would be another remainder for every history.
    tensors = fitted.tensors()
    tensors["ranking.of_everybody"].zero_()
    return Marquee.restore(fitted.config(), tensors, fitted.vocabularies(), torch.device("cpu"))


def users_of(histories: list[list[int]]) -> UserColumns:
    """Strangers with complete histories, newest first, of the days that the model was trained on."""
    sizes = [len(history) for history in histories]
    return UserColumns(
        [None] * len(sizes),
        Profiles([None] * len(sizes), np.full(len(sizes), np.nan, np.float32), [None] * len(sizes)),
        Histories(
            np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            np.array([number for history in histories for number in history], np.int32),
            np.full(sum(sizes), 3, np.float32),
            np.concatenate([EVENTS_EACH - np.arange(size) for size in sizes]).astype(np.int64),
            np.ones(len(sizes), np.bool_),
        ),
    )


def contributions(
    model: Marquee, users: UserColumns, positions: NDArray[np.int64], numbers: NDArray[np.int64]
) -> NDArray[np.float32]:
    added = model.history_contributions(users, model.embed_movies(CATALOGUE), positions, numbers)
    assert added is not None
    return added


def test_contributions_and_what_nobody_watched_add_up_to_the_score(model: Marquee) -> None:
    """The score without any history is the remainder; pairs come in the order asked, of users in any order."""
    users = users_of([[3, COLD, 7], [], [1, 2, 4, 5]])
    positions, numbers = np.array([2, 0, 1, 2, 0]), np.array([9, 10, 11, COLD, 12])
    movies = model.embed_movies(CATALOGUE)
    scores = rank_scores(model, model.embed_users(users, movies), movies).numpy()
    nothing = rank_scores(model, model.embed_users(users_of([[]]), movies), movies).numpy()

    added = contributions(model, users, positions, numbers)

    assert len(added) == 4 + 3 + 0 + 4 + 3
    sums = [part.sum() for part in np.split(added, np.cumsum([4, 3, 0, 4]))]
    assert sums + nothing[0, numbers] == pytest.approx(scores[positions, numbers], abs=1e-4)


def test_a_movie_that_the_checkpoint_does_not_know_adds_nothing(model: Marquee) -> None:
    """And leaves the others as young as they were."""
    with_it = contributions(model, users_of([[3, COLD, 7]]), np.array([0]), np.array([9]))
    without = contributions(model, users_of([[3, 7]]), np.array([0]), np.array([9]))

    assert with_it[1] == 0
    assert with_it[[0, 2]] == pytest.approx(without, abs=1e-6)


def test_what_is_left_of_a_trained_user_with_a_trimmed_history_is_what_the_history_lost(model: Marquee) -> None:
    """The checkpoint remembers ten events, the store shows the newest five: the other five are the remainder."""
    rows = WATCHED[0][::-1].tolist()
    stranger, trained = users_of([rows]), replace(users_of([rows[:5]]), user_ids=["u0"])
    trained = replace(trained, histories=replace(trained.histories, complete=np.array([False])))
    movies = model.embed_movies(CATALOGUE)
    nobody = rank_scores(model, model.embed_users(users_of([[]]), movies), movies).numpy()

    score = rank_scores(model, model.embed_users(trained, movies), movies).numpy()[0, COLD]

    in_view = contributions(model, trained, np.array([0]), np.array([COLD]))
    whole = contributions(model, stranger, np.array([0]), np.array([COLD]))
    assert in_view == pytest.approx(whole[:5], abs=1e-6)
    assert score - in_view.sum() == pytest.approx(nobody[0, COLD] + whole[5:].sum(), abs=1e-4)


def test_no_pairs_have_no_contributions(model: Marquee) -> None:
    """Nothing is asked, nothing is answered."""
    none = np.zeros(0, np.int64)

    assert not len(contributions(model, users_of([[3]]), none, none))

"""How sure a marquee rating is, and how many ratings it rests on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.two_tower.marquee_by_hand import (
    COLD,
    NAN,
    UNTIL_MS,
    a_user,
    make_model,
    some_events,
    together,
    weights_of,
)
from two_tower.models.marquee import Marquee
from two_tower.serving import MovieEmbeddings


def test_a_deviation_adds_what_is_unknown_of_user_and_movie_to_the_noise(
    model: Marquee, movies: MovieEmbeddings
) -> None:
    """The posterior variance of a textbook regression, the movie's own and that of a rating whose parties are known."""
    events = [*some_events(20), (COLD, 4.0, 0)]
    users = together([a_user([]), a_user(events), a_user(some_events(100))])
    positions, numbers = np.array([1, 0, 1, 2]), np.array([COLD, 4, 5, 6])

    found = model.rating_deviations(users, movies, positions, numbers)

    vectors = movies.rating_vectors.numpy().astype(np.float64)
    own = weights_of(model)["rating.variances"]
    precision = np.eye(12)
    for number, stars, _ in events:
        if not np.isnan(stars):
            precision += np.outer(vectors[number], vectors[number]) / (0.7 if number != COLD else 1.0)
    expected = [
        vectors[COLD] @ np.linalg.solve(precision, vectors[COLD]) + own[0],
        vectors[4] @ vectors[4] + own[5],
        vectors[5] @ np.linalg.solve(precision, vectors[5]) + own[6],
    ]
    assert found is not None
    assert found[:3] ** 2 - 0.5 == pytest.approx(expected, rel=1e-3)
    assert found[3] < found[1]


def test_the_factor_widens_what_is_unknown_of_the_user_alone(model: Marquee, movies: MovieEmbeddings) -> None:
    """Movie and noise are in the tables as they are to be; a checkpoint from before the factor has 1."""
    user, positions, numbers = a_user(some_events(20)), np.array([0]), np.array([7])
    trebled = make_model(replace(model._config, user_variance_factor=3.0))
    earlier = model.config()
    del earlier["user_variance_factor"]
    restored = Marquee.restore(earlier, model.tensors(), model.vocabularies(), torch.device("cpu"))

    of_user, of_movie, noise = model.variance_parts(user, movies, positions, numbers)
    found = [np.asarray(each.rating_deviations(user, movies, positions, numbers)) for each in (trebled, restored)]

    assert found[0] ** 2 == pytest.approx(3 * of_user + of_movie + noise, rel=1e-5)
    assert found[1] ** 2 == pytest.approx(of_user + of_movie + noise, rel=1e-5)


def test_the_number_of_ratings_counts_those_that_were_trimmed(model: Marquee) -> None:
    """A trained user's 300 and what came since; of a complete history what it holds."""
    news = [(3, 4.0, UNTIL_MS + 5), (4, NAN, UNTIL_MS + 4)]
    events = [*news, (7, 2.0, UNTIL_MS), (8, 2.0, UNTIL_MS)]
    users = together([a_user(events, user_id="u1", complete=False), a_user(events, user_id="u1"), a_user([])])

    assert model.count_ratings(users).tolist() == [301, 3, 0]


@pytest.mark.parametrize("num_events", [0, 1, 20, 100])
def test_what_is_kept_of_a_user_tells_the_same_deviations(
    model: Marquee, movies: MovieEmbeddings, num_events: int
) -> None:
    """With fewer ratings than coordinates, with more, and without any; some events are no ratings."""
    user = a_user([*some_events(num_events), (3, NAN, 5)])
    numbers = np.arange(0, COLD + 1, 7)

    certainty = model.certainty_of(user, movies)

    assert certainty is not None
    assert certainty.narrows == (num_events < 20)
    found = model.deviations_by(certainty, movies, numbers)
    assert found.dtype == np.float32
    expected = model.rating_deviations(user, movies, np.zeros(len(numbers), np.int64), numbers)
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5)

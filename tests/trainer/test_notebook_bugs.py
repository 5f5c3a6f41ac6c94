"""The notebooks' bugs of data are put back exactly, and only where asked for."""

from dataclasses import replace

import numpy as np

from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset
from trainer.notebook_bugs import with_misaligned_genres, with_own_maps


def test_genres_joined_by_row_label_belong_to_other_movies() -> None:
    """Movie "1" has what row 1 should have; an id beyond the rows, or one that is no number, has nothing."""
    data = toy_dataset()
    ids = ["1", "3", "2", "900", "m4", *(f"x{row}" for row in range(35))]
    genres = [("A",), ("B",), ("C",), ("D",), *[()] * 36]
    numbered = replace(data, movies=replace(data.movies, movie_ids=ids, genres=genres))

    assert list(with_misaligned_genres(numbered).movies.genres[:5]) == [("B",), ("D",), ("C",), (), ()]
    assert list(numbered.movies.genres) == genres


def divided() -> tuple[Dataset, np.ndarray, np.ndarray]:
    data = toy_dataset()
    return data, np.arange(0, 700), np.arange(700, 900)


def test_own_maps_ask_about_somebody_else_and_keep_the_rating() -> None:
    """Each user and each movie has one stand-in, who was trained on; nobody stands in for two."""
    data, learn, asked = divided()
    train, validation = data.interactions.take(learn), data.interactions.take(asked)

    _, seen = with_own_maps(data, train, validation, np.random.default_rng(0))

    assert len(seen) == len(validation)
    assert np.array_equal(seen.ratings, validation.ratings)
    for real, shown, trained in (
        (validation.user_rows, seen.user_rows, train.user_rows),
        (validation.movie_rows, seen.movie_rows, train.movie_rows),
    ):
        pairs = set(zip(real.tolist(), shown.tolist(), strict=True))
        assert len(pairs) == len({row for row, _ in pairs}) == len({row for _, row in pairs})
        assert {row for _, row in pairs} <= set(trained.tolist())
        assert sum(row != other for row, other in pairs) > len(pairs) / 2


def test_own_maps_give_the_stand_in_the_right_movies_genres_under_other_names() -> None:
    """Two genres keep their names or change them, all over."""
    data, learn, asked = divided()
    train, validation = data.interactions.take(learn), data.interactions.take(asked)

    shown, seen = with_own_maps(data, train, validation, np.random.default_rng(3))

    renamed = {
        (data.movies.genres[real], shown.movies.genres[other])
        for real, other in zip(validation.movie_rows, seen.movie_rows, strict=True)
    }
    assert len(renamed) == 2
    assert {len(names) for _, names in renamed} == {1}


def test_rows_that_no_stand_in_has_are_left_out() -> None:
    """A part with more movies than training had numbers that nothing stood under."""
    data, learn, asked = divided()
    few = data.interactions.take(learn[:10])

    _, seen = with_own_maps(data, few, data.interactions.take(asked), np.random.default_rng(0))

    assert 0 < len(seen) < len(asked)
    assert set(seen.movie_rows.tolist()) <= set(few.movie_rows.tolist())

"""Filters are exact: they let through what a reading of each movie, one by one, lets through."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_service.catalogue import Catalogue, CatalogueGapError, CatalogueMovie
from model_service.filters import MovieFilter, permit

GENRES = ["Drama", "Comedy", "Film-Noir"]

movies = st.lists(
    st.builds(
        lambda year, genres, removed: (year, tuple(genres), removed),
        st.none() | st.integers(1990, 1995),
        st.sets(st.sampled_from(GENRES)),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)
some_genres = st.lists(st.sampled_from([genre.casefold() for genre in GENRES]), max_size=2).map(tuple)


def catalogue_of(rows):
    return Catalogue.empty("c").with_changes(
        [
            CatalogueMovie(number, f"m{number}", year=year, genres=genres, removed=removed)
            for number, (year, genres, removed) in enumerate(rows)
        ],
        version=1,
    )


@given(
    rows=movies,
    genres_any=some_genres,
    genres_all=some_genres,
    genres_none=some_genres,
    year_min=st.none() | st.integers(1989, 1996),
    year_max=st.none() | st.integers(1989, 1996),
    allow=st.none() | st.sets(st.integers(0, 11)),
    exclude=st.sets(st.integers(0, 14)),
)
def test_a_filter_equals_reading_each_movie(
    rows, genres_any, genres_all, genres_none, year_min, year_max, allow, exclude
):
    """All conditions hold, for exactly the movies that pass."""
    allow = None if allow is None else tuple(number for number in allow if number < len(rows))
    movie_filter = MovieFilter(
        genres_any, genres_all, genres_none, year_min, year_max, allow, tuple(f"m{number}" for number in exclude)
    )

    mask = movie_filter.mask(catalogue_of(rows))

    def passes(number, year, genres, removed):
        folded = {genre.casefold() for genre in genres}
        return (
            not removed
            and (not genres_any or bool(folded & set(genres_any)))
            and folded >= set(genres_all)
            and not folded & set(genres_none)
            and (year_min is None or (year is not None and year >= year_min))
            and (year_max is None or (year is not None and year <= year_max))
            and (allow is None or number in allow)
            and number not in exclude
        )

    assert mask.tolist() == [passes(number, *row) for number, row in enumerate(rows)]


@given(rows=movies, changes=movies)
def test_changing_a_catalogue_equals_building_it_anew(rows, changes):
    """Nothing of what a movie was before remains."""
    final = changes + rows[len(changes) :]
    changed_movies = catalogue_of(changes).movies

    changed = catalogue_of(rows).with_changes(changed_movies, version=2)

    anew = catalogue_of(final)
    assert changed.genres() == anew.genres()
    assert changed.movies == anew.movies
    np.testing.assert_array_equal(changed.available, anew.available)
    np.testing.assert_array_equal(changed.years, anew.years)
    for genre in GENRES:
        folded = MovieFilter(genres_any=(genre.casefold(),))
        np.testing.assert_array_equal(folded.mask(changed), folded.mask(anew))


def test_a_changed_catalogue_leaves_the_old_one_as_it_was():
    """A batch under way sees one catalogue from beginning to end."""
    old = catalogue_of([(1990, ("Drama",), False)])

    old.with_changes([CatalogueMovie(0, "m0", year=1991, genres=("Comedy",), removed=True)], version=2)

    assert old.genres() == ["Drama"]
    assert old.available.tolist() == [True]
    assert old.years.tolist() == [1990]


def test_a_catalogue_with_a_gap_is_refused():
    """A number that nobody described is never guessed at."""
    with pytest.raises(CatalogueGapError, match="names number 2 and lacks 1"):
        catalogue_of([(1990, (), False)]).with_changes([CatalogueMovie(2, "m2")], version=2)


def test_only_what_a_tower_sees_counts_as_a_change_of_features():
    """A removal masks a movie without a run of the tower; another year is a reason for one."""
    old = catalogue_of([(1990, ("Drama",), False)])

    removed = old.with_changes([CatalogueMovie(0, "m0", year=1990, genres=("Drama",), removed=True)], version=2)
    aged = old.with_changes([CatalogueMovie(0, "m0", year=1991, genres=("Drama",))], version=2)

    assert removed.has_features_of(old)
    assert not aged.has_features_of(old)


def test_each_row_has_its_own_exclusions_and_shares_masks():
    """Equal filters are applied once; a movie seen by one user stays open to the other."""
    catalogue = catalogue_of([(1990, ("Drama",), False)] * 3)
    seen = [np.array([0, 2]), np.array([], np.int64), np.array([1, 7])]

    permitted = permit([MovieFilter(), MovieFilter(), MovieFilter(year_min=1991)], seen, catalogue)

    assert permitted.masks.shape == (2, 3)
    assert [permitted.of_row(row).tolist() for row in range(3)] == [
        [False, True, False],
        [True, True, True],
        [False, False, False],
    ]

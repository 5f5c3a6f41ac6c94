"""Synthetic data has the shape of MovieLens, the structure that was put into it, and the same bytes each time."""

import resource
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.readers import read_dataset
from trainer.synthesis import SynthesisPlan, synthesize, write_synthetic
from trainer.synthesis.dataset_synthesis import catalogue_of
from trainer.synthesis.known_tastes import PER_DECADE, WOMEN_OVER_MEN


@pytest.fixture(scope="module")
def data() -> Dataset:
    """The default size: that of MovieLens 100K."""
    return synthesize(seed=11)


def _same_columns(left: Dataset, right: Dataset) -> None:
    for ours, theirs in zip(astuple(left.interactions), astuple(right.interactions), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert left.user_ids == right.user_ids
    assert left.profiles.genders == right.profiles.genders
    assert left.profiles.occupations == right.profiles.occupations
    np.testing.assert_array_equal(left.profiles.ages, right.profiles.ages)
    assert left.zips == right.zips
    assert left.movies.titles == right.movies.titles
    assert left.movies.genres == right.movies.genres
    np.testing.assert_array_equal(left.movies.years, right.movies.years)
    assert left.scale == right.scale
    assert left.has_times == right.has_times


def test_the_shape_is_that_of_movielens(data: Dataset) -> None:
    """Exactly the size asked for, 20 ratings a user or more, few users and movies with many, no pair twice."""
    rows = data.interactions
    by_user = np.sort(np.bincount(rows.user_rows, minlength=943))[::-1]
    by_movie = np.sort(np.bincount(rows.movie_rows, minlength=1682))[::-1]

    assert len(rows) == 100_000
    assert by_user.min() >= 20
    assert by_user[:94].sum() > 0.25 * len(rows)
    assert by_movie[:168].sum() > 0.3 * len(rows)
    assert np.median(by_movie) < 50
    assert len(np.unique(rows.user_rows.astype(np.int64) * 1682 + rows.movie_rows)) == len(rows)


def test_ratings_use_the_whole_scale(data: Dataset) -> None:
    """Half stars from 0.5 to 5, four stars more often than one."""
    values, counts = np.unique(data.interactions.ratings, return_counts=True)

    assert values.tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]
    assert 3.3 < data.interactions.ratings.mean() < 3.9
    assert counts[values == 4.0] > 5 * counts[values == 1.0]


@pytest.mark.parametrize("genre", ["Romance", "Action", "Sci-Fi"])
def test_women_and_men_differ_as_constructed(data: Dataset, genre: str) -> None:
    """Women's stars over men's in a genre, beyond their overall difference, have the constructed sign and size."""
    rows = data.interactions
    is_woman = np.asarray([gender == "F" for gender in data.profiles.genders])[rows.user_rows]
    only = np.asarray([genres == (genre,) for genres in data.movies.genres])[rows.movie_rows]
    others = np.asarray([not set(genres) & set(WOMEN_OVER_MEN) for genres in data.movies.genres])[rows.movie_rows]

    def women_over_men(where: np.ndarray) -> float:
        return float(rows.ratings[where & is_woman].mean() - rows.ratings[where & ~is_woman].mean())

    difference = women_over_men(only) - women_over_men(others)

    assert difference == pytest.approx(WOMEN_OVER_MEN[genre], abs=0.2)


def test_age_changes_tastes_as_constructed(data: Dataset) -> None:
    """Those over 45 give Westerns more, and horror less, than those under 25."""
    rows = data.interactions
    ages = data.profiles.ages[rows.user_rows]

    def old_over_young(genre: str) -> float:
        with_genre = np.asarray([genre in genres for genres in data.movies.genres])[rows.movie_rows]
        return float(rows.ratings[with_genre & (ages > 45)].mean() - rows.ratings[with_genre & (ages < 25)].mean())

    assert PER_DECADE["Western"] > 0 > PER_DECADE["Horror"]
    assert old_over_young("Western") > 0.1
    assert old_over_young("Horror") < -0.1


def test_demographics_change_what_is_watched(data: Dataset) -> None:
    """Women watch a larger share of romances than men, men a larger share of science fiction."""
    rows = data.interactions
    is_woman = np.asarray([gender == "F" for gender in data.profiles.genders])[rows.user_rows]

    def share(genre: str, who: np.ndarray) -> float:
        with_genre = np.asarray([genre in genres for genres in data.movies.genres])[rows.movie_rows]
        return float(with_genre[who].mean())

    assert share("Romance", is_woman) > 1.3 * share("Romance", ~is_woman)
    assert share("Sci-Fi", ~is_woman) > 1.3 * share("Sci-Fi", is_woman)


def test_the_next_movie_can_be_told_from_the_last(data: Dataset) -> None:
    """Far more often than chance a movie is followed by the one after it on its shelf."""
    followers = catalogue_of(SynthesisPlan(seed=11)).followers
    rows = data.interactions
    order = np.lexsort((rows.event_times_ms, rows.user_rows))
    users, movies = rows.user_rows[order], rows.movie_rows[order]
    within = users[1:] == users[:-1]

    follows = followers[movies[:-1][within]] == movies[1:][within]

    assert follows.mean() > 0.15


def test_biases_leave_structure_to_be_found(data: Dataset) -> None:
    """What user and movie averages leave unexplained is more than the noise that was put in."""
    rows = data.interactions
    residuals = rows.ratings - rows.ratings.mean()
    for which, num in ((rows.user_rows, 943), (rows.movie_rows, 1682)) * 5:
        means = np.bincount(which, residuals, num) / np.maximum(np.bincount(which, minlength=num), 1)
        residuals = residuals - means[which]

    assert residuals.std() > 0.8


def test_titles_are_all_different_and_years_plausible(data: Dataset) -> None:
    """Movies can be told apart by what a person reads."""
    assert len(set(data.movies.titles)) == len(data.movies)
    assert data.movies.years.min() >= 1930
    assert data.movies.years.max() <= 2013


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_what_is_written_reads_back(tmp_path: Path, file_format: str) -> None:
    """The files hold the data set, in either format, and none of their rows is broken."""
    plan = SynthesisPlan(60, 120, 1_500, seed=4)

    write_synthetic(plan, tmp_path / "made", "csv" if file_format == "csv" else "parquet")
    read = read_dataset(tmp_path / "made")

    _same_columns(read, synthesize(60, 120, 1_500, seed=4))
    assert not [note for note in read.notes if "skipped" in note]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two runs write equal files; another seed writes others."""
    first, second, other = (
        [path.read_bytes() for path in write_synthetic(SynthesisPlan(50, 100, 1_200, seed=seed), tmp_path / name)]
        for seed, name in ((1, "a"), (1, "b"), (2, "c"))
    )

    assert first == second
    assert all(one != another for one, another in zip(first, other, strict=True))


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
@pytest.mark.parametrize("there_before", [True, False])
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path: Path, file_format: str, there_before: bool) -> None:
    """A limit to the size of files stands in for a full disk: the folder is named, and no part of a file is left."""
    folder = tmp_path / "made"
    if there_before:
        folder.mkdir()
        (folder / f"ratings.{file_format}").write_text("of before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(DataError, match=r"made: the data set cannot be written there \(File too large\)"):
            write_synthetic(SynthesisPlan(60, 120, 1_500), folder, "csv" if file_format == "csv" else "parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    left = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == ({Path(f"made/ratings.{file_format}"): "of before"} if there_before else {})
    assert folder.exists() == there_before


def test_a_folder_in_the_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    """Nothing is written beside it."""
    (tmp_path / "users.csv").mkdir()

    with pytest.raises(DataError, match=r"users\.csv is a folder there"):
        write_synthetic(SynthesisPlan(60, 120, 1_500), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["users.csv"]


def test_blocks_of_users_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """More users than a block are made in several, and each user's rows stay together in order."""
    monkeypatch.setattr("trainer.synthesis.dataset_synthesis.BLOCK_USERS", 16)

    made = synthesize(50, 100, 1_200, seed=1)

    assert len(made.interactions) == 1_200
    assert (np.diff(made.interactions.user_rows) >= 0).all()
    assert made.interactions.user_rows.max() == 49


def test_tiny_and_dense_sets_are_made() -> None:
    """The smallest plan and the fullest one come out with the exact number of ratings."""
    assert len(synthesize(1, 10, 1).interactions) == 1
    assert len(synthesize(4, 10, 20).interactions) == 20
    assert len(synthesize(30, 40, 600).interactions) == 600


def test_impossible_plans_are_refused() -> None:
    """Every figure out of range is named."""
    with pytest.raises(DataError, match=r"0 users.*5 movies"):
        synthesize(0, 5, 10)
    with pytest.raises(DataError, match="600 ratings: from 10 to 50"):
        synthesize(10, 10, 600)

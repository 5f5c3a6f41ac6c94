"""What no service would store is not trained on: it is read as unknown and noted, or refused, before a training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer.errors import DataError
from trainer.readers import ReadOptions, read_dataset

RATINGS = "user,movie,rating\n1,a,4\n2,a,5\n"


@pytest.mark.parametrize(
    ("field", "most"), [("gender", 32), ("occupation", 64), ("zip", 32)], ids=["gender", "occupation", "zip"]
)
def test_a_text_of_a_profile_that_is_too_long_is_unknown(folder_of: Callable[..., Path], field: str, most: int) -> None:
    """One byte more than the services keep is noted with line and user; as many as they keep are read."""
    users = f"user,{field}\n1,{'x' * most}\n2,{'ü' * (most // 2)}x\n"

    data = read_dataset(folder_of({"ratings.csv": RATINGS, "users.csv": users}))

    columns = {"gender": data.profiles.genders, "occupation": data.profiles.occupations, "zip": data.zips}
    assert columns[field] == ["x" * most, None]
    (note,) = [note for note in data.notes if "unknown" in note]
    assert note.endswith(f"users.csv: 1 x {field} over {most} bytes of UTF-8: read as unknown (line 3: user '2')")


def test_a_year_that_no_catalogue_keeps_is_unknown(folder_of: Callable[..., Path]) -> None:
    """1800 and 2200 are kept; years beyond them are noted."""
    movies = "movie,title,year\na,A,1800\nb,B,2200\nc,C,1799\nd,D,2201\n"

    data = read_dataset(folder_of({"ratings.csv": RATINGS, "movies.csv": movies}))

    np.testing.assert_array_equal(data.movies.years, np.asarray([1800, 2200, np.nan, np.nan], np.float32))
    (note,) = [note for note in data.notes if "unknown" in note]
    assert note.endswith("1800 to 2200: read as unknown (line 4: movie 'c'; line 5: movie 'd')")
    assert "movies.csv: 2 x year not from" in note


def test_genres_that_no_catalogue_keeps_are_left_out(folder_of: Callable[..., Path]) -> None:
    """A name that is too long goes, and what stands beyond the 32nd; the others of the movie stay."""
    many = "|".join(f"g{number}" for number in range(33))
    movies = f"movie,title,genres\na,A,Drama|{'x' * 65}|War\nb,B,{many}\nc,C,{'y' * 64}\n"

    data = read_dataset(folder_of({"ratings.csv": RATINGS, "movies.csv": movies}))

    assert data.movies.genres == [("Drama", "War"), tuple(many.split("|")[:32]), ("y" * 64,)]
    (note,) = [note for note in data.notes if "genres" in note]
    assert "movies.csv: 2 x over 32 genres, or one over 64 bytes: read without those (line 2: movie 'a'; l" in note


def test_more_bags_than_a_catalogue_keeps_are_refused(folder_of: Callable[..., Path]) -> None:
    """Nobody should train on the ninth and learn at publishing that it cannot be stored."""
    names = [f"bag{number}" for number in range(9)]
    movies = f"movie,title,{','.join(names)}\na,A,{','.join('xxxxxxxxx')}\n"
    folder = folder_of({"ratings.csv": RATINGS, "movies.csv": movies})

    read_dataset(folder, ReadOptions(movie_bags=tuple(names[:8])))
    with pytest.raises(DataError, match="--movie-bag was given 9 times; a catalogue keeps at most 8"):
        read_dataset(folder, ReadOptions(movie_bags=tuple(names)))

"""The files that MovieLens publishes are read as their READMEs describe them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer.readers import read_dataset
from two_tower.serving import RatingScale

LATEST = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,964982703\n1,2,0.5,964981247\n2,10,3.5,964982224\n",
    "movies.csv": 'movieId,title,genres\n2,Jumanji (1995),Adventure|Children\n10,"Heat, The (2013) ",Action\n'
    "3,Babylon 5,(no genres listed)\n",
    "links.csv": "movieId,imdbId,tmdbId\n2,1,1\n",
    "tags.csv": "userId,movieId,tag,timestamp\n1,2,fun,1\n",
}
ML_1M = {
    "ratings.dat": "1::10::5::978300760\n2::2::3::978302109\n",
    "movies.dat": "2::Jumanji (1995)::Adventure|Children's\n10::Les Misérables (1998)::Drama\n".encode("latin-1"),
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072-1234\n",
}
NO_FLAGS = "|0" * 17
ML_100K = {
    "u.data": "2\t1\t3\t881250949\n1\t1\t5\t881250950\n",
    "u.item": (
        f"1|Á köldum klaka (Cold Fever) (1994)|08-Mar-1996||http://x|0|1{NO_FLAGS}\n2|unknown||||1|0{NO_FLAGS}\n"
    ).encode("latin-1"),
    "u.user": "1|24|M|technician|85711\n2|53|F|other|V3N4P\n",
}


def test_movielens_latest_is_read(folder_of: Callable[..., Path]) -> None:
    """A CSV publication gives ids, ratings, times, titles without year, years and genres."""
    data = read_dataset(folder_of(LATEST))

    assert data.user_ids == ["1", "2"]
    assert data.movies.movie_ids == ["2", "10", "3"]
    assert data.interactions.user_rows.tolist() == [0, 0, 1]
    assert data.interactions.movie_rows.tolist() == [1, 0, 1]
    assert data.interactions.ratings.tolist() == [4.0, 0.5, 3.5]
    assert data.interactions.event_times_ms.tolist() == [964982703000, 964981247000, 964982224000]
    assert data.movies.titles == ["Jumanji", "Heat, The", "Babylon 5"]
    assert data.movies.genres == [("Adventure", "Children"), ("Action",), ()]
    np.testing.assert_array_equal(data.movies.years, np.asarray([1995, 2013, np.nan], np.float32))
    assert data.scale == RatingScale(0.5, 5.0, 0.5)
    assert data.has_times
    assert data.profiles.genders == [None, None]


def test_movielens_1m_is_read(folder_of: Callable[..., Path]) -> None:
    """Double colons, latin-1 titles and coded occupations are understood; age bands stay their starts."""
    data = read_dataset(folder_of(ML_1M))

    assert data.movies.titles == ["Jumanji", "Les Misérables"]
    assert data.profiles.genders == ["F", "M"]
    assert data.profiles.ages.tolist() == [1.0, 56.0]
    assert data.profiles.occupations == ["K-12 student", "self-employed"]
    assert data.zips == ["48067", "70072-1234"]
    assert data.interactions.ratings.tolist() == [5.0, 3.0]
    assert data.scale == RatingScale(1.0, 5.0, 1.0)


def test_movielens_100k_is_read(folder_of: Callable[..., Path]) -> None:
    """Genre flags become names, and the year comes from the release date, not from the title."""
    data = read_dataset(folder_of(ML_100K))

    assert data.user_ids == ["1", "2"]
    assert data.interactions.user_rows.tolist() == [1, 0]
    assert data.movies.titles == ["Á köldum klaka (Cold Fever)", "unknown"]
    np.testing.assert_array_equal(data.movies.years, np.asarray([1996, np.nan], np.float32))
    assert data.movies.genres == [("Action",), ()]
    assert data.profiles.occupations == ["technician", "other"]
    assert data.zips == ["85711", "V3N4P"]
    assert data.scale == RatingScale(1.0, 5.0, 1.0)


def test_each_file_is_read_by_its_own_layout(folder_of: Callable[..., Path]) -> None:
    """Ratings without times in CSV may stand beside users and movies of another publication."""
    files = {"ratings.csv": "userId,movieId,rating\n1,10,5\n2,2,3\n", **ML_1M}
    del files["ratings.dat"]

    data = read_dataset(folder_of(files))

    assert not data.has_times
    assert data.interactions.event_times_ms.tolist() == [0, 0]
    assert data.scale == RatingScale(1.0, 5.0, 1.0)
    assert data.profiles.genders == ["F", "M"]
    assert any("no order" in note for note in data.notes)


def test_a_publication_may_lie_one_folder_deeper(folder_of: Callable[..., Path]) -> None:
    """An unpacked archive is often a folder in a folder."""
    folder = folder_of({f"ml-mini/{name}": content for name, content in LATEST.items()})

    data = read_dataset(folder)

    assert len(data.interactions) == 3
    assert len(data.movies) == 3


def test_windows_line_ends_and_byte_order_mark_are_read(folder_of: Callable[..., Path]) -> None:
    """A file that went through a Windows editor is the same file."""
    files = {name: b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode() for name, content in LATEST.items()}

    data = read_dataset(folder_of(files))

    assert data.movies.genres == [("Adventure", "Children"), ("Action",), ()]
    assert data.interactions.ratings.tolist() == [4.0, 0.5, 3.5]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "num_users", "num_movies", "num_ratings", "num_without_year", "scale", "has_times"),
    [
        ("ml-100k", 943, 1682, 100_000, 1, RatingScale(1.0, 5.0, 1.0), True),
        ("ml-latest-small", 610, 9742, 100_836, 13, RatingScale(0.5, 5.0, 0.5), True),
        ("ml-1m-untimed", 6040, 3883, 999_714, 0, RatingScale(1.0, 5.0, 1.0), False),
    ],
)
def test_real_movielens_is_read_whole(
    real_data: Callable[[str], Path],
    name: str,
    num_users: int,
    num_movies: int,
    num_ratings: int,
    num_without_year: int,
    scale: RatingScale,
    has_times: bool,
) -> None:
    """Every row of the real files arrives and none is called broken."""
    data = read_dataset(real_data(name))

    assert (len(data.user_ids), len(data.movies), len(data.interactions)) == (num_users, num_movies, num_ratings)
    assert int(np.isnan(data.movies.years).sum()) == num_without_year
    assert data.scale == scale
    assert data.has_times is has_times
    assert not [note for note in data.notes if "skipped" in note or "stays" in note]

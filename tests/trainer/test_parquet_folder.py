"""A folder of Parquet files becomes a data set whose interactions stay on disk."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.dataset import Interactions
from trainer.errors import DataError
from trainer.readers.dataset_reader import read_dataset
from trainer.readers.mapped_columns import are_mapped, blocks_of_users, rows_of_users
from trainer.readers.read_options import ReadOptions
from two_tower.serving import RatingScale


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(folder: Path, *parts: dict[str, list[object]]) -> Path:
    (folder / "interactions").mkdir(parents=True, exist_ok=True)
    for number, columns in enumerate(parts):
        pq.write_table(pa.table(columns), folder / "interactions" / f"part-{number}.parquet")
    return folder


def rows(
    users: list[str], movies: list[int] | list[str], ratings: list[float | None], times: list[int]
) -> dict[str, list[object]]:
    return {"user": users, "movie": movies, "rating": ratings, "time": times}  # type: ignore[dict-item]


@pytest.mark.parametrize(("role", "place"), [("user", 0), ("movie", 1)])
def test_an_id_that_no_service_takes_ends_the_reading(tmp_path: Path, role: str, place: int) -> None:
    """The file, the row and the limit are named."""
    sound, row = rows(["a", "a"], ["7", "8"], [5, 3], [1, 2]), [["a"], ["9"]]
    row[place] = ["x" * 129]

    folder = write(tmp_path / "big", sound, rows(row[0], row[1], [4], [3]))

    with pytest.raises(DataError, match=rf"part-1\.parquet, row 1: {role} id over 128 bytes of UTF-8 .* of 129 bytes"):
        read_dataset(folder)


def test_its_interactions_are_sorted_and_lie_on_disk(tmp_path: Path) -> None:
    """A user may run over the end of a file; his rows come in the order of time; a missing rating stays missing."""
    folder = write(
        tmp_path / "big",
        rows(["b", "b", "a"], [7, 8, 7], [5, 3, 1], [2_000_000_000, 1_000_000_000, 1_500_000_000]),
        rows(["a", "c"], [9, 8], [None, 4], [1_400_000_000, 1]),
    )
    (folder / "movies.csv").write_text("movieId,title,genres\n8,Heat (1995),Crime\n5,Up (2009),\n")

    data = read_dataset(folder)

    assert are_mapped(data.interactions)
    assert data.user_ids == ["b", "a", "c"]
    assert data.movies.movie_ids == ["8", "5", "7", "9"]
    assert data.movies.titles == ["Heat", "Up", "", ""]
    assert data.interactions.user_rows.tolist() == [0, 0, 1, 1, 2]
    assert data.interactions.movie_rows.tolist() == [0, 2, 3, 2, 0]
    assert data.interactions.ratings.tolist() == pytest.approx([3, 5, np.nan, 1, 4], nan_ok=True)
    assert data.interactions.event_times_ms[:2].tolist() == [1_000_000_000_000, 2_000_000_000_000]
    assert data.scale is not None
    assert (data.scale.low, data.scale.high) == (1, 5)


def test_the_second_reading_finds_the_first_ones_columns(tmp_path: Path, cache: Path) -> None:
    """Unless a file has changed."""
    folder = write(tmp_path / "big", rows(["a", "b"], [1, 1], [1, 5], [1, 1]))
    read_dataset(folder)
    read_dataset(folder)
    kept = len(list((cache / "interactions").iterdir()))

    write(folder, rows(["a", "b", "b"], [1, 1, 2], [1, 5, 2], [1, 1, 1]))

    assert kept == 1
    assert len(read_dataset(folder).interactions) == 3


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (rows(["a", "b", "a"], [1, 1, 2], [1, 5, 2], [1, 1, 1]), "row 3: a user who stood further up comes again"),
        (rows(["a", "a"], [1, 1], [1, 5], [1, 2]), "have a row already"),
        (rows(["a", ""], [1, 1], [1, 5], [1, 1]), "row 2: no user id"),
        (rows(["a", "b"], [1, 1], [1, 5], [1, -1]), "row 2: a time that is not one of seconds since 1970"),
        ({"user": ["a"], "stars": [5]}, "no column is known to hold the movie ids"),
    ],
    ids=["unsorted", "twice", "no id", "no time", "no movie"],
)
def test_a_row_that_is_wrong_ends_the_reading(tmp_path: Path, columns: dict[str, list[object]], reason: str) -> None:
    """The message names file, row and cure."""
    folder = write(tmp_path / "big", columns)

    with pytest.raises(DataError, match=reason):
        read_dataset(folder)


def test_a_rating_off_a_stated_scale_is_refused(tmp_path: Path) -> None:
    """With the scale in the message."""
    folder = write(tmp_path / "big", rows(["a", "b"], [1, 1], [1, 9], [1, 1]))

    with pytest.raises(DataError, match="a rating of 9 is off the scale 1 to 5"):
        read_dataset(folder, ReadOptions(scale=RatingScale(1, 5, 1)))


def test_blocks_hold_whole_users() -> None:
    """However many rows one has; together they are all rows."""
    users = np.repeat(np.arange(6), [1, 2, 7, 1, 3, 1]).astype(np.int32)
    all_rows = Interactions(users, users, users.astype(np.float32), users.astype(np.int64))

    blocks = [users[some].tolist() for some in blocks_of_users(all_rows, rows_at_once=4)]

    assert blocks == [[0, 1, 1], [2] * 7, [3, 4, 4, 4], [5]]
    assert rows_of_users(all_rows, np.array([5, 0]), 6).user_rows.tolist() == [0, 5]


def test_columns_of_the_movies_file_become_bags(tmp_path: Path) -> None:
    """Those that are asked for, in the order of the file; a column that is not there is named."""
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\na,1,4\nb,2,3\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres,cast,director\n1,A,,Al Pacino|Val Kilmer,Mann\n2,B,,,\n")

    data = read_dataset(tmp_path, ReadOptions(movie_bags=("cast", "director")))

    assert data.movies.bags == {"cast": [("Al Pacino", "Val Kilmer"), ()], "director": [("Mann",), ()]}
    with pytest.raises(DataError, match="no column for --movie-bag writer; its columns are: movieId, title"):
        read_dataset(tmp_path, ReadOptions(movie_bags=("writer",)))


def test_a_page_that_is_damaged_is_named(tmp_path, monkeypatch):
    """The footer is sound and the rows are not: found by fuzzing."""
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "data" / "interactions" / "1.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"user": ["a", "b"], "movie": [1, 2], "rating": [4.0, 3.5]}), file, compression="NONE")
    content = bytearray(file.read_bytes())
    content[4:40] = b"\xff" * 36
    file.write_bytes(content)

    with pytest.raises(DataError, match=r"1\.parquet: cannot be read"):
        read_dataset(tmp_path / "data")

"""Tables that are not MovieLens are read by what their columns are called or said to be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trainer.errors import DataError
from trainer.readers import ReadOptions, read_dataset
from trainer.readers.read_options import parse_columns, parse_scale
from two_tower.serving import RatingScale

VIEWS = "when;uid;film;stars\n2020-01-02T03:04:05Z;anna;tt1;7\n2020-01-02 03:04:06;bo;tt2;10\n;cy;tt1;1\n"


def test_columns_may_be_named(folder_of: Callable[..., Path]) -> None:
    """A stated column plays its role whatever it is called, and any string is an id."""
    folder = folder_of({"views.csv": VIEWS.replace(";cy", "2021-01-01;cy")})
    options = ReadOptions(columns=parse_columns("user=uid, movie=film, rating=stars, time=when"))

    data = read_dataset(folder, options)

    assert data.user_ids == ["anna", "bo", "cy"]
    assert data.movies.movie_ids == ["tt1", "tt2"]
    assert data.scale == RatingScale(1.0, 10.0, 1.0)
    assert data.interactions.event_times_ms.tolist() == [1577934245000, 1577934246000, 1609459200000]


def test_familiar_names_need_no_statement(folder_of: Callable[..., Path]) -> None:
    """Column names in common use are recognised in any spelling, and users and movies may be elsewhere."""
    folder = folder_of(
        {
            "views.tsv": "User ID\titem_id\tScore\n7\tb\t3\n10\ta\t4\n",
            "elsewhere/people.csv": "id,sex,age,job,postcode\n10,female,33,pilot,N1\n7,,,,\n",
            "elsewhere/films.csv": "id,name,genre,release_date\na,Alpha,Drama|War,2001-05-06\nb,Beta (1990),,\n",
        }
    )
    options = ReadOptions(
        users_file=folder / "elsewhere/people.csv",
        movies_file=folder / "elsewhere/films.csv",
        scale=parse_scale("1:5:1"),
    )

    data = read_dataset(folder / "views.tsv", options)

    assert data.user_ids == ["10", "7"]
    assert data.profiles.genders == ["F", None]
    assert data.profiles.occupations == ["pilot", None]
    assert data.zips == ["N1", None]
    np.testing.assert_array_equal(data.profiles.ages, np.asarray([33, np.nan], np.float32))
    assert data.movies.titles == ["Alpha", "Beta"]
    assert data.movies.genres == [("Drama", "War"), ()]
    np.testing.assert_array_equal(data.movies.years, np.asarray([2001, np.nan], np.float32))


def test_without_ratings_the_data_serves_retrieval_only(folder_of: Callable[..., Path]) -> None:
    """No rating column means no scale and ratings that are no numbers."""
    data = read_dataset(folder_of({"views.csv": "user,movie\n2,a\n10,b\n"}))

    assert data.scale is None
    assert np.isnan(data.interactions.ratings).all()
    assert data.user_ids == ["2", "10"]
    assert any("retrieval only" in note for note in data.notes)


def test_a_rating_column_may_be_declined(folder_of: Callable[..., Path]) -> None:
    """An empty name says that there is no such column."""
    options = ReadOptions(columns=parse_columns("rating="))

    data = read_dataset(folder_of({"views.csv": "user,movie,rating\n2,a,3\n10,b,4\n"}), options)

    assert data.scale is None


def test_ratings_that_are_all_the_same_say_nothing(folder_of: Callable[..., Path]) -> None:
    """A column of ones is a list of views."""
    data = read_dataset(folder_of({"views.csv": "user,movie,rating\n2,a,1\n10,b,1\n"}))

    assert data.scale is None


def test_parquet_and_csv_give_the_same_data(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """The same table in Parquet with native types reads identically."""
    frame = pd.DataFrame(
        {
            "userId": [3, 1, 2, 2],
            "movieId": ["b", "a", "a", "b"],
            "rating": [1.5, 5.0, 0.5, 3.0],
            "timestamp": pd.to_datetime([10, 20, 30, 40], unit="s", utc=True),
        }
    )
    frame.to_parquet(tmp_path / "ratings.parquet")
    seconds = frame.assign(timestamp=[10, 20, 30, 40])

    from_parquet = read_dataset(tmp_path / "ratings.parquet")
    from_csv = read_dataset(folder_of({"ratings.csv": seconds.to_csv(index=False)}))

    assert from_parquet.user_ids == from_csv.user_ids
    assert from_parquet.scale == from_csv.scale == RatingScale(0.5, 5.0, 0.5)
    for name in ("user_rows", "movie_rows", "ratings", "event_times_ms"):
        np.testing.assert_array_equal(
            getattr(from_parquet.interactions, name), getattr(from_csv.interactions, name), err_msg=name
        )


def test_broken_parquet_rows_are_named_by_row(tmp_path: Path) -> None:
    """Parquet has no lines, so the message counts rows; missing ids and ratings are broken as in text."""
    frame = pd.DataFrame({"user": [1, None, 3, 4], "movie": [1, 2, 3, 4], "rating": [1.0, 2.0, float("nan"), 5.0]})
    frame.to_parquet(tmp_path / "ratings.parquet")

    data = read_dataset(tmp_path / "ratings.parquet", ReadOptions(max_broken_share=0.9))

    assert data.user_ids == ["1", "4"]
    notes = " ".join(data.notes)
    assert "no user or no movie: skipped (row 2:" in notes
    assert "rating is not a number: skipped (row 3: user '3'" in notes


def test_a_stated_column_that_is_missing_is_refused(folder_of: Callable[..., Path]) -> None:
    """The message lists the columns that there are."""
    folder = folder_of({"views.csv": VIEWS})

    with pytest.raises(DataError, match=r"no column .*rating=rank.* its columns are: when, uid, film, stars"):
        read_dataset(folder, ReadOptions(columns={"user": "uid", "movie": "film", "rating": "rank"}))


def test_malformed_column_statements_are_all_listed() -> None:
    """Every fault of `--columns` is named at once."""
    with pytest.raises(DataError) as refusal:
        parse_columns("user=a,usr=b,rating,user=c")

    for fault in ('"usr" is not one of user, movie', '"rating" is not ROLE=NAME', '"user" is given twice'):
        assert fault in str(refusal.value)


@pytest.mark.parametrize("text", ["", "1:5", "5:1:1", "1:5:0", "1:5:3", "a:b:c", "1:5:nan", "0:inf:1"])
def test_malformed_scales_are_refused(text: str) -> None:
    """A scale is LOW:HIGH:STEP with a step that fits."""
    with pytest.raises(DataError, match="LOW:HIGH:STEP"):
        parse_scale(text)


def test_a_stated_scale_judges_the_rows(folder_of: Callable[..., Path]) -> None:
    """`--scale` overrides detection; what lies off it is broken."""
    folder = folder_of({"views.csv": "user,movie,rating\n" + "".join(f"{n},a,{n % 6}\n" for n in range(60))})

    data = read_dataset(folder, ReadOptions(scale=parse_scale("0:10:1")))

    assert data.scale == RatingScale(0.0, 10.0, 1.0)
    with pytest.raises(DataError, match="10 of 60 rows are broken"):
        read_dataset(folder, ReadOptions(scale=parse_scale("1:5:1")))


def test_parquet_columns_of_other_types_are_refused(tmp_path: Path) -> None:
    """A nested column is named with its type."""
    pd.DataFrame({"user": [[1], [2]], "movie": [1, 2]}).to_parquet(tmp_path / "ratings.parquet")

    with pytest.raises(DataError, match="column user is of type list"):
        read_dataset(tmp_path / "ratings.parquet")


def test_likes_and_dislikes_are_ratings(tmp_path: Path) -> None:
    """True and false are the scale 0 to 1; missing ids of a float column do not change the others."""
    frame = pd.DataFrame({"user": [1.0, 2.0, 3.0], "movie": ["a", "a", "b"], "rating": [True, False, True]})
    frame.to_parquet(tmp_path / "ratings.parquet")

    data = read_dataset(tmp_path / "ratings.parquet")

    assert data.scale == RatingScale(0.0, 1.0, 1.0)
    assert data.user_ids == ["1", "2", "3"]

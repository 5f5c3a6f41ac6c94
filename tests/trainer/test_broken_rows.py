"""Broken rows are skipped by a stated rule with file, line and reason, or the file is refused; never a traceback."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.errors import DataError
from trainer.readers import ReadOptions, read_dataset

HEADER = "userId,movieId,rating,timestamp"
NO_SERVICE = "which no service takes: skipped"
LENIENT = ReadOptions(max_broken_share=0.5)


def _ratings(*extra: str | bytes, num_good: int = 10) -> bytes:
    good = [f"{user},{1 + user % 3},{1 + user % 5},{1000 + user}" for user in range(num_good)]
    lines = [line.encode() if isinstance(line, str) else line for line in (HEADER, *good, *extra)]
    return b"\n".join(lines) + b"\n"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("77,1,3", "not 4 columns"),
        ("77,1,3,1000,9", "not 4 columns"),
        (b"77,1\xff,3,1000", "not UTF-8"),
        ("77,1,47,1000", "rating off the scale 1 to 5 in steps of 1"),
        ("77,1,0,1000", "rating off the scale"),
        ("77,1,3.3,1000", "rating off the scale"),
        ("77,1,nan,1000", "rating is not a number"),
        ("77,1,inf,1000", "rating is not a number"),
        ("77,1,,1000", "rating is not a number"),
        ("77,1,good,1000", "rating is not a number"),
        ("77,1,3,yesterday", "time is not one of seconds since 1970"),
        ("77,1,3,-5", "time is not one of"),
        ("77,1,3,", "time is not one of"),
        (",1,3,1000", "no user or no movie"),
        ("77,,3,1000", "no user or no movie"),
        ("77,999,3,1000", "movie that the movies file lacks"),
        (f"{'7' * 129},1,3,1000", f"user id over 128 bytes of UTF-8 or with a control character, {NO_SERVICE}"),
        (f"{'ü' * 65},1,3,1000", f"(line 12: user '{'ü' * 40}'... of 130 bytes)"),
        ("7\t7,1,3,1000", r"(line 12: user '7\t7')"),
        (f"77,{'1' * 129},3,1000", f"movie id over 128 bytes of UTF-8 or with a control character, {NO_SERVICE}"),
        ("77,1\x852,3,1000", r"(line 12: movie '1\x852')"),
    ],
)
def test_a_broken_row_is_skipped_and_named(folder_of: Callable[..., Path], row: str | bytes, reason: str) -> None:
    """One broken row costs itself only; the notes give file, line, reason and count."""
    files = {"ratings.csv": _ratings(row, "8,2,4,2000"), "movies.csv": "movieId,title,genres\n1,A,\n2,B,\n3,C,\n"}

    data = read_dataset(folder_of(files), LENIENT)

    (note,) = [note for note in data.notes if "skipped" in note]
    assert "ratings.csv: 1 x" in note
    assert reason in note
    assert "line 12:" in note
    assert len(data.interactions) == 11
    assert "77" not in data.user_ids


@pytest.mark.parametrize("file", ["movies", "users"])
def test_an_id_that_no_service_takes_is_named_in_the_files_beside(folder_of: Callable[..., Path], file: str) -> None:
    """With its file, line and limit: it could be trained on, and never be published."""
    long, role = "9" * 129, file[:-1]
    lines = {"movies": ["movieId,title,genres", "1,A,", "2,B,", "3,C,"], "users": ["userId,gender", "1,F", "2,M"]}
    lines[file].append(long + "," * lines[file][0].count(","))
    files = {f"{name}.csv": "\n".join(rows) + "\n" for name, rows in lines.items()}

    data = read_dataset(folder_of({"ratings.csv": _ratings(), **files}), LENIENT)

    (note,) = [note for note in data.notes if "skipped" in note]
    assert f"{file}.csv: 1 x {role} id over 128 bytes of UTF-8" in note
    assert f"line {len(lines[file])}: {role} '{'9' * 40}'... of 129 bytes" in note
    assert long not in [*data.user_ids, *data.movies.movie_ids]


def test_the_longest_id_that_a_service_takes_is_read(folder_of: Callable[..., Path]) -> None:
    """128 bytes, however many letters they are."""
    longest = ["u" * 128, "ü" * 64]

    data = read_dataset(folder_of({"ratings.csv": _ratings(*(f"{user},1,3,5" for user in longest))}))

    assert set(longest) <= set(data.user_ids)


def test_lines_are_right_after_blank_and_malformed_ones(folder_of: Callable[..., Path]) -> None:
    """Blank lines and rows of the wrong width do not shift the line of a later broken row."""
    ratings = _ratings("", "1,2", "9,3,47,5000", "", "a,b,c,d,e,f", "9,2,nan,5000", "")

    data = read_dataset(folder_of({"ratings.csv": ratings}), LENIENT)

    shown = " ".join(data.notes)
    assert "2 x not 4 columns: skipped (line 13: '1,2'; line 16: 'a,b,c,d,e,f')" in shown
    assert "line 14: user '9', movie '3', rating '47'" in shown
    assert "line 17: user '9', movie '2', rating 'nan'" in shown


def test_lines_are_right_where_quoted_fields_span_lines(folder_of: Callable[..., Path]) -> None:
    """A line break inside quotes counts as a line of the file."""
    ratings = 'user,movie,rating,review\n1,a,3,"fine\nreally\nfine"\n2,b,4,short\n3,a,bad,"x\ny"\n1,c,5,\n'

    data = read_dataset(folder_of({"ratings.csv": ratings}), LENIENT)

    assert "line 6: user '3', movie 'a', rating 'bad'" in " ".join(data.notes)
    assert len(data.interactions) == 3


def test_of_repeated_ratings_the_newest_stays(folder_of: Callable[..., Path]) -> None:
    """A movie rated again keeps its newest rating; among equal times the last in the file; nothing counts as broken."""
    ratings = f"{HEADER}\n1,1,5,300\n1,1,1,200\n2,1,2,100\n2,1,4,100\n2,2,3,100\n"

    data = read_dataset(folder_of({"ratings.csv": ratings}), ReadOptions(max_broken_share=0.0))

    assert data.interactions.ratings.tolist() == [5.0, 4.0, 3.0]
    (note,) = [note for note in data.notes if "newest rating stays" in note]
    assert "2 x" in note
    assert "line 3:" in note
    assert "line 4:" in note


def test_too_many_broken_rows_refuse_the_file(folder_of: Callable[..., Path]) -> None:
    """Above the stated share the file is refused with all reasons and the option that sets the limit."""
    folder = folder_of({"ratings.csv": _ratings("1,2,47,5000", "1,2,x,5000")})

    with pytest.raises(DataError, match="2 of 12 rows are broken") as refusal:
        read_dataset(folder)

    assert "--max-broken" in str(refusal.value)
    assert "line 12" in str(refusal.value)
    assert "line 13" in str(refusal.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"ratings.csv": ""}, "ratings.csv: is empty"),
        ({"u.data": ""}, "u.data: is empty"),
        ({"ratings.csv": HEADER + "\n"}, "ratings.csv: has no rows"),
        ({"ratings.csv": "1,2,3,4\n1,3,4,5\n"}, "no column is known to hold the user or the movie ids"),
        ({"ratings.csv": "user,user,movie\n1,1,1\n"}, "a column name occurs twice"),
        ({"ratings.csv": HEADER.encode("utf-16")}, "UTF-16"),
        ({"ratings.csv": b"us\xe9r,movie\n1,1\n"}, "the column names are not UTF-8"),
        ({"ratings.parquet": "no parquet"}, "not a readable Parquet file"),
        ({"ratings.csv": _ratings(), "u.data": "1\t1\t1\t1\n"}, "more than one file may hold the ratings"),
        ({"readme.md": "nothing here"}, "holds no ratings file"),
        ({"ratings.csv": _ratings(), "movies.csv": "movieId,title,genres\n"}, "movies.csv: has no rows"),
        ({"ratings.csv": _ratings(), "movies.csv": ""}, "movies.csv: is empty"),
    ],
)
def test_an_unusable_file_is_refused_with_the_cure(
    folder_of: Callable[..., Path], files: dict[str, str | bytes], message: str
) -> None:
    """What cannot be read at all is an error that names the file."""
    folder = folder_of(files)

    with pytest.raises(DataError, match=message):
        read_dataset(folder)


def test_repeated_and_nameless_users_are_skipped(folder_of: Callable[..., Path]) -> None:
    """A users file keeps the first row of an id."""
    files = {"ratings.csv": _ratings(), "users.csv": "userId,gender\n1,F\n2,M\n1,M\n,F\n"}

    data = read_dataset(folder_of(files), LENIENT)

    assert data.profiles.genders[data.user_ids.index("1")] == "F"
    notes = " ".join(data.notes)
    assert "user id stood further up: skipped (line 4: user '1')" in notes
    assert "no user id: skipped (line 5" in notes


def test_users_whom_the_users_file_lacks_have_no_profile(folder_of: Callable[..., Path]) -> None:
    """Ratings of an unlisted user count; the user follows the listed ones with an unknown profile."""
    files = {"ratings.csv": _ratings(num_good=3), "users.csv": "userId,gender,age\n2,M,33\n"}

    data = read_dataset(folder_of(files))

    assert data.user_ids == ["2", "0", "1"]
    assert data.profiles.genders == ["M", None, None]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=300))
def test_no_bytes_at_all_end_in_a_traceback(folder_of: Callable[..., Path], junk: bytes) -> None:
    """Whatever stands in the files, reading ends in data or in an error for a person."""
    for name in ("ratings.csv", "ratings.dat", "u.data", "movies.csv", "users.csv", "ratings.parquet"):
        files = {name: junk} if name.startswith(("ratings", "u.")) else {"ratings.csv": _ratings(), name: junk}
        folder = folder_of(files)
        with suppress(DataError):
            read_dataset(folder, ReadOptions(max_broken_share=1.0))
        for written in folder.iterdir():
            written.unlink()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_junk_between_good_rows_costs_no_good_row(folder_of: Callable[..., Path], junk: list[bytes]) -> None:
    """Lines of junk without quotes are skipped one by one and the good rows after them survive."""
    lines = [line.translate(None, b'"\r\n') for line in junk]
    folder = folder_of({"ratings.csv": _ratings(*lines, "8,2,4,2000")})

    data = read_dataset(folder, ReadOptions(max_broken_share=1.0))

    assert {f"{user}" for user in range(10)} <= set(data.user_ids)
    row = data.interactions.event_times_ms == 2_000_000
    assert row.any()


def test_a_stray_quote_costs_no_other_row(folder_of: Callable[..., Path]) -> None:
    """A quote that is never closed does not swallow the rows below it."""
    folder = folder_of({"ratings.csv": _ratings('77,"1,3,1000', "8,2,4,2000", 'x,"3,9,3000', "9,1,4,4000")})

    data = read_dataset(folder, LENIENT)

    assert set(data.interactions.event_times_ms[-3:].tolist()) == {1_000_000, 2_000_000, 4_000_000}
    assert "line 14: user 'x', movie '3', rating '9'" in " ".join(data.notes)


def test_lines_are_right_in_files_without_header(folder_of: Callable[..., Path]) -> None:
    """The first line of u.data is line 1."""
    folder = folder_of({"u.data": "1\t1\t9\t100\n1\t2\t3\n1\t3\t4\t100\n1\t4\tx\t100\n1\t5\t4\t100\n2\t5\t4\t100\n"})

    data = read_dataset(folder, LENIENT)

    notes = " ".join(data.notes)
    assert "line 1: user '1', movie '1', rating '9'" in notes
    assert "line 2: '1\\t2\\t3'" in notes
    assert "line 4: user '1', movie '4', rating 'x'" in notes

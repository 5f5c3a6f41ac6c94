"""A snapshot is read as it was written, whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.toy_dataset import toy_dataset
from tests.trainer.command_runs import run
from tests.trainer.store_snapshots.toy_about import ABOUT
from trainer.durable_files import hash_of
from trainer.errors import DataError
from trainer.readers.read_options import ReadOptions
from trainer.rebuild.retention import prune_snapshots
from trainer.rebuild.taking import base_of_data
from trainer.snapshot import take_snapshot
from trainer.store_snapshots.events import Events, merge
from trainer.store_snapshots.folder import Holdings, SnapshotError, SnapshotFolder, read_holdings
from two_tower import strict_json
from two_tower.registry import Registry
from two_tower.serving import RatingScale


@pytest.fixture
def folder(tmp_path: Path) -> SnapshotFolder:
    """The snapshots of a registry that has none."""
    return SnapshotFolder(Registry(tmp_path))


@pytest.fixture
def holdings() -> Holdings:
    """Users and movies of whom some things are not known; ratings from before the newest event."""
    data = toy_dataset(num_users=20)
    base = base_of_data(data, data.interactions).holdings
    again = base.watched.newest.take(np.arange(30))
    unrated = replace(again, times_ms=again.times_ms + 7, ratings=np.full(30, np.nan, np.float32))
    watched = merge(Events.joined([base.watched.as_events(), unrated]))
    bags = {"cast": [("Ann", "Bob") if row % 2 else () for row in range(len(data.movies))]}
    available = np.arange(len(data.movies)) % 5 > 0
    return replace(base, watched=watched, movies=replace(data.movies, bags=bags, available=available))


def test_inspect_describes_it(folder: SnapshotFolder, holdings: Holdings) -> None:
    """Columns that only a snapshot has, such as lists of genres, are what they are; unrated rows spoil no mean."""
    folder.write(ABOUT, holdings)
    ratings = holdings.watched.ratings

    ran = run("inspect", folder.path_of(ABOUT.name))

    assert ran.status == 0, ran.err
    assert str(folder.path_of(ABOUT.name)) in ran.out.replace("\n", "")
    assert "taken 1970-01-01 00:00:00 UTC" in ran.out
    assert f"{len(ratings):,} (" in ran.out
    assert f"as kept; mean {np.nanmean(ratings):.2f}" in ran.out
    assert "genres" in ran.out
    assert f"--data {folder.path_of(ABOUT.name)}" in ran.out


def test_it_is_read_as_it_was_written(folder: SnapshotFolder, holdings: Holdings) -> None:
    """Every column, absent values too; and what it says of itself."""
    about = folder.write(ABOUT, holdings)

    found = read_holdings(folder.path_of(ABOUT.name))

    assert folder.about(ABOUT.name) == about
    assert (found.user_ids, found.zips) == (holdings.user_ids, holdings.zips)
    assert list(found.profiles.genders) == list(holdings.profiles.genders)
    np.testing.assert_array_equal(found.profiles.ages, holdings.profiles.ages)
    for name in ("movie_ids", "titles", "genres", "bags"):
        assert getattr(found.movies, name) == getattr(holdings.movies, name), name
    np.testing.assert_array_equal(found.movies.years, holdings.movies.years)
    np.testing.assert_array_equal(found.movies.available, holdings.movies.available)
    for name in ("rated_times_ms", "rated_hashes", "ratings"):
        np.testing.assert_array_equal(getattr(found.watched, name), getattr(holdings.watched, name))
    for name in ("users", "movies", "times_ms", "hashes", "ratings"):
        np.testing.assert_array_equal(getattr(found.watched.newest, name), getattr(holdings.watched.newest, name))


@pytest.mark.parametrize(
    ("file", "column"),
    [("watched", "user_id"), ("watched", "event_time_ms"), ("users", "user_id"), ("users", "age"), ("movies", "bags")],
)
@pytest.mark.parametrize("change", ["dropped", "text", "lists", "fewer rows"])
def test_tables_of_other_code_are_refused(
    folder: SnapshotFolder, holdings: Holdings, file: str, column: str, change: str
) -> None:
    """Each has its hash in about.json, but a column lacks or is of another type, or names who is not there."""
    about = folder.write(ABOUT, holdings)
    path = folder.path_of(about.name) / f"{file}.parquet"
    table = pq.read_table(path)
    place, values = table.column_names.index(column), pa.array(["x"] * len(table))
    altered = {
        "dropped": table.drop_columns([column]),
        "text": table.set_column(place, column, values),
        "lists": table.set_column(place, column, pa.array([[1.5]] * len(table))),
        "fewer rows": table.slice(0, 1).set_column(place, column, values[:1]),
    }[change]
    pq.write_table(altered, path)
    noted = replace(about, sha256={**about.sha256, path.name: hash_of(path)})
    (path.parent / "about.json").write_text(json.dumps(strict_json.encode(noted)))

    with pytest.raises(SnapshotError, match="its tables are not those of format 1"):
        read_holdings(path.parent)


def test_commands_take_it_as_data(folder: SnapshotFolder, holdings: Holdings) -> None:
    """So that what was trained on it can be evaluated and published again."""
    folder.write(ABOUT, holdings)

    snapshot = take_snapshot(str(folder.path_of(ABOUT.name)), ReadOptions())

    assert (snapshot.data.name, snapshot.taken_at_ms, snapshot.data.scale) == ("toy", 5, ABOUT.scale)
    assert len(snapshot.data.interactions) == len(holdings.watched)


def test_nothing_may_be_stated_of_how_to_read_it(folder: SnapshotFolder, holdings: Holdings) -> None:
    """What is said of files would be passed over in silence."""
    folder.write(ABOUT, holdings)
    stated = ReadOptions({"user": "uid"}, scale=RatingScale(1, 5, 1), movie_bags=("cast",))

    with pytest.raises(DataError, match="leave out --columns, --scale, --movie-bag"):
        take_snapshot(str(folder.path_of(ABOUT.name)), stated)


@pytest.mark.parametrize("name", ["watched.parquet", "users.parquet", "movies.parquet"])
def test_an_altered_file_is_found_out(folder: SnapshotFolder, holdings: Holdings, name: str) -> None:
    """By its hash; the message names it."""
    folder.write(ABOUT, holdings)
    path = folder.path_of(ABOUT.name) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(SnapshotError, match=f"{name} does not match its hash"):
        read_holdings(folder.path_of(ABOUT.name))


def test_a_half_written_one_is_not_seen_and_goes(folder: SnapshotFolder, holdings: Holdings) -> None:
    """What a killed process left is not listed, and is removed when the next one is written."""
    partial = folder.path_of(".20250101-000000-000.partial-1")
    partial.mkdir(parents=True)
    (partial / "about.json").write_text("{}")

    assert folder.names() == []
    folder.write(ABOUT, holdings)

    assert [path.name for path in folder.path_of(".").iterdir()] == [ABOUT.name]


def test_another_format_is_refused(folder: SnapshotFolder, holdings: Holdings) -> None:
    """By name, and not by what fails first."""
    folder.write(ABOUT, holdings)
    path = folder.path_of(ABOUT.name) / "about.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))

    with pytest.raises(SnapshotError, match=r"is of format \('marquee-snapshot', 2\)"):
        folder.about(ABOUT.name)


def test_the_newest_are_kept_and_none_that_holds_the_forgotten(folder: SnapshotFolder, holdings: Holdings) -> None:
    """As many as asked for, but nothing older than one that forgot somebody."""
    for day in range(1, 6):
        folder.write(replace(ABOUT, name=f"2026010{day}-000000-000", num_deleted=int(day == 3)), holdings)

    assert prune_snapshots(folder, 4) == ["20260101-000000-000", "20260102-000000-000"]
    assert prune_snapshots(folder, 2) == ["20260103-000000-000"]
    assert folder.names() == ["20260104-000000-000", "20260105-000000-000"]

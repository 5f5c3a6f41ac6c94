"""Holdouts take the rows that they are defined to take, and no row serves on two sides."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.utils.data

from trainer.dataset import Dataset, Interactions
from trainer.errors import HoldoutError
from trainer.readers import read_dataset
from trainer.splits import Split, boundary_of_newest, parse_holdout, split
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale
from two_tower.user_columns import Profiles


def _dataset(users: list[int], movies: list[int], times_s: list[int] | None) -> Dataset:
    num_users, num_movies = max(users) + 1, max(movies) + 1
    times = np.asarray(times_s or [0] * len(users), np.int64) * 1000
    return Dataset(
        name="hand-made",
        user_ids=[f"u{row}" for row in range(num_users)],
        profiles=Profiles.unknown(num_users),
        zips=[None] * num_users,
        movies=MovieColumns(
            [f"m{row}" for row in range(num_movies)],
            [""] * num_movies,
            np.full(num_movies, np.nan, np.float32),
            [()] * num_movies,
        ),
        interactions=Interactions(
            np.asarray(users, np.int32), np.asarray(movies, np.int32), np.full(len(users), 3, np.float32), times
        ),
        scale=RatingScale(1.0, 5.0, 1.0),
        has_times=times_s is not None,
    )


def _pairs(rows: Interactions) -> list[tuple[int, int]]:
    return list(zip(rows.user_rows.tolist(), rows.movie_rows.tolist(), strict=True))


def _is_partition(parts: Split, dataset: Dataset) -> bool:
    sides = [*_pairs(parts.train), *_pairs(parts.test), *(_pairs(parts.validation) if parts.validation else [])]
    return sorted(sides) == sorted(_pairs(dataset.interactions))


@pytest.fixture
def timed() -> Dataset:
    """Three users with 10, 5 and 2 rows; each watches movie n at time n, written into the file backwards."""
    users = [0] * 10 + [1] * 5 + [2] * 2
    movies = [*range(10), *range(5), *range(2)]
    return _dataset(users[::-1], movies[::-1], movies[::-1])


@pytest.mark.parametrize(
    "text", ["random:0.1", "temporal:0.2", "newest:0.2", "after:12", "leave-last", "every:3", "none"]
)
def test_every_row_is_on_exactly_one_side(timed: Dataset, text: str) -> None:
    """The parts together are the data, with nothing twice."""
    assert _is_partition(split(timed, parse_holdout(text), seed=3), timed)


def test_random_is_the_first_of_the_seeded_permutation(timed: Dataset) -> None:
    """Anyone can reproduce the split with one line of numpy."""
    rows = np.random.default_rng(7).permutation(17)[:3]

    parts = split(timed, parse_holdout("random:0.2"), seed=7)

    assert _pairs(parts.test) == _pairs(timed.interactions.take(np.sort(rows)))


def test_temporal_takes_each_users_latest(timed: Dataset) -> None:
    """A fifth of ten, five and two rows is two, one and none."""
    parts = split(timed, parse_holdout("temporal:0.2"), seed=0)

    assert sorted(_pairs(parts.test)) == [(0, 8), (0, 9), (1, 4)]


def test_newest_takes_what_is_later_than_one_moment(timed: Dataset) -> None:
    """A quarter of 17 rows are 4; the fifth newest has time 5 and stays with its moment: everything after it is out."""
    parts = split(timed, parse_holdout("newest:0.25"), seed=0)

    assert sorted(_pairs(parts.test)) == [(0, 6), (0, 7), (0, 8), (0, 9)]
    assert parts.test.event_times_ms.min() > parts.train.event_times_ms.max()


def test_after_takes_what_is_later_than_the_moment_that_is_named(timed: Dataset) -> None:
    """So that two data sets, one of which goes on, can be divided at the same moment."""
    moment = boundary_of_newest(timed.interactions, 0.25)

    named = split(timed, parse_holdout(f"after:{moment}"), seed=0)
    by_share = split(timed, parse_holdout("newest:0.25"), seed=0)

    assert named.test.event_times_ms.tolist() == by_share.test.event_times_ms.tolist()
    assert named.test.event_times_ms.min() > moment >= named.train.event_times_ms.max()
    with pytest.raises(HoldoutError, match="epoch milliseconds"):
        parse_holdout("after:noon")


def test_newest_needs_times() -> None:
    """Without times nothing is newer; those that would work are named."""
    with pytest.raises(HoldoutError, match="no times"):
        split(_dataset([0, 0, 1], [0, 1, 0], None), parse_holdout("newest:0.3"), seed=0)


def test_none_learns_from_every_row(timed: Dataset) -> None:
    """For settings that were judged before."""
    parts = split(timed, parse_holdout("none"), seed=0)

    assert (len(parts.train), len(parts.test)) == (17, 0)


def test_leave_last_takes_the_latest_and_the_one_before(timed: Dataset) -> None:
    """The latest row is the test, the one before it validation; a user with two rows keeps both."""
    parts = split(timed, parse_holdout("leave-last"), seed=0)

    assert sorted(_pairs(parts.test)) == [(0, 9), (1, 4)]
    assert parts.validation is not None
    assert sorted(_pairs(parts.validation)) == [(0, 8), (1, 3)]


def test_ties_of_time_are_drawn_by_the_seed() -> None:
    """Among equal times the seed decides, the same way each time, and every row has its turn."""
    tied = _dataset([0] * 5, [0, 1, 2, 3, 4], [9, 9, 9, 9, 1])

    drawn = [_pairs(split(tied, parse_holdout("leave-last"), seed).test)[0][1] for seed in range(40)]
    again = [_pairs(split(tied, parse_holdout("leave-last"), seed).test)[0][1] for seed in range(40)]

    assert drawn == again
    assert set(drawn) == {0, 1, 2, 3}


def test_untimed_data_leaves_one_out_at_random() -> None:
    """Without times leave-last draws a row and says so; temporal is refused with what would work."""
    untimed = _dataset([0] * 5, [0, 1, 2, 3, 4], None)

    drawn = {_pairs(split(untimed, parse_holdout("leave-last"), seed).test)[0][1] for seed in range(60)}
    notes = split(untimed, parse_holdout("leave-last"), 0).notes

    assert drawn == {0, 1, 2, 3, 4}
    assert "at random" in notes[0]
    with pytest.raises(HoldoutError, match=r"has no times.*random:F, leave-last.*every:N"):
        split(untimed, parse_holdout("temporal:0.1"), 0)


def test_every_takes_each_nth_row_of_the_file(timed: Dataset) -> None:
    """Rows 0, N, 2N in file order."""
    parts = split(timed, parse_holdout("every:8"), seed=0)

    assert _pairs(parts.test) == _pairs(timed.interactions.take(np.asarray([0, 8, 16])))


def test_a_file_lists_the_rows(timed: Dataset, tmp_path: Path) -> None:
    """Held-out rows are found by user and movie, whatever else the file says of them."""
    listed = tmp_path / "held-out.csv"
    listed.write_text("user,movie,rating\nu0,m3,1\nu1,m2,5\n")

    parts = split(timed, parse_holdout(str(listed)), seed=0)

    assert sorted(_pairs(parts.test)) == [(0, 3), (1, 2)]
    assert _is_partition(parts, timed)


def test_a_file_of_other_rows_is_refused(timed: Dataset, tmp_path: Path) -> None:
    """A row that the data lacks is named with its line."""
    listed = tmp_path / "held-out.csv"
    listed.write_text("user,movie,rating\nu0,m3,1\nu1,m9,5\n")

    with pytest.raises(HoldoutError, match=r"line 3: hand-made has no rating of user 'u1' for movie 'm9'"):
        split(timed, parse_holdout(str(listed)), seed=0)


@pytest.mark.parametrize(
    "text", ["random", "random:0", "random:1", "random:x", "temporal:-1", "every:1", "every:1.5", "latest", "nan:0.1"]
)
def test_malformed_holdouts_are_refused(text: str) -> None:
    """The message repeats what was written and gives an example that works."""
    with pytest.raises(HoldoutError, match=text):
        parse_holdout(text)


@pytest.mark.parametrize(
    "text",
    ["random:0.1", "torch:0.2", "temporal:0.25", "newest:0.3", "leave-last", "every:20", "none"],
)
def test_a_holdout_writes_as_it_reads(text: str) -> None:
    """What a manifest records can be typed again."""
    assert str(parse_holdout(text)) == text


def test_the_split_of_a_notebook_is_drawn_as_torch_draws_it() -> None:
    """The rows that random_split leaves to the second part, with the notebook's seed."""
    data = _dataset([row // 5 for row in range(50)], [row % 7 + row // 5 for row in range(50)], None)
    torch.manual_seed(1337)
    _, second = torch.utils.data.random_split(torch.utils.data.TensorDataset(torch.zeros(50)), [40, 10])

    parts = split(data, parse_holdout("torch:0.2"), seed=1337)

    held_out = sorted(second.indices)
    assert parts.test.user_rows.tolist() == data.interactions.user_rows[held_out].tolist()
    assert parts.test.movie_rows.tolist() == data.interactions.movie_rows[held_out].tolist()


def test_a_side_without_rows_is_refused() -> None:
    """Too little data is an error that names the holdout."""
    tiny = _dataset([0, 1], [0, 1], [1, 2])

    with pytest.raises(HoldoutError, match="leave-last: leaves no row to be judged on"):
        split(tiny, parse_holdout("leave-last"), 0)


@pytest.mark.real_data
def test_official_splits_are_found_in_the_data(real_data: Callable[[str], Path]) -> None:
    """u1.test of MovieLens 100K holds out its 20,000 rows and leaves those of u1.base."""
    folder = real_data("ml-100k")

    parts = split(read_dataset(folder), parse_holdout(str(folder / "u1.test")), seed=0)

    assert (len(parts.train), len(parts.test)) == (80_000, 20_000)
    assert parts.notes == ()

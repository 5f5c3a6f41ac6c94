"""A fit is planned into the memory that there is, and says what it gave up for that."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.toy_dataset import toy_dataset
from trainer.errors import DataError
from trainer.fits import fit_function
from trainer.fits.marquee_memory import DataSize, fit_into, needed_bytes
from trainer.fits.marquee_options import Options
from trainer.machine_memory import memory_bytes

GIB = 1 << 30
ML_25M = DataSize(160_000, 60_000, 25_000_000, 25_000_000, 10_000, has_times=True)
ML_1M = DataSize(6_040, 3_706, 900_000, 900_000, 2_000, has_times=False)


def test_data_of_ml_25ms_shape_fits_into_16_gib_by_a_narrower_tower_alone() -> None:
    """What is changed is said, with what it would have taken."""
    options, notes = fit_into(ML_25M, Options(), 16 * GIB)

    assert max(needed_bytes(ML_25M, options).values()) < 0.9 * 16 * GIB
    assert options.machine_share == 0
    assert options.hidden_size == 750
    assert "machine_share is 0.0 instead of 0.5: a fit would take 16." in notes[0]
    assert "hidden_size is 750 instead of its default" in notes[1]


def test_smaller_machines_give_up_more() -> None:
    """A narrower tower too; and nothing that fits is touched."""
    options, notes = fit_into(ML_25M, Options(), 10 * GIB)

    assert options.hidden_size is not None
    assert 100 <= options.hidden_size < 750
    assert len(notes) == 2
    assert options.implicit_movies == Options().implicit_movies


def test_each_tower_takes_its_part() -> None:
    """Members stand side by side where they are compressed."""
    one, two = (needed_bytes(ML_25M, Options(towers=towers))["compression"] for towers in (1, 2))

    assert two - one == 5 * 8 * (160_000 + 60_000) * 1000


def test_closed_forms_over_many_movies_shrink() -> None:
    """A person may ask for more movies than there is room for."""
    asked = Options(untimed_movies=50_000, implicit_movies=50_000)
    untimed = DataSize(160_000, 60_000, 5_000_000, 0, 5_000, has_times=False)

    options, notes = fit_into(untimed, asked, 16 * GIB)

    assert 1000 <= options.untimed_movies < 50_000
    assert options.implicit_movies == 50_000  # without ratings it is not solved
    assert "untimed_movies is" in notes[0]


def test_lists_that_heed_no_times_are_planned_as_those_of_data_without() -> None:
    """The closed form of the head with times is not solved then."""
    timed = DataSize(160_000, 60_000, 5_000_000, 0, 5_000, has_times=True)

    planned = needed_bytes(timed, Options(ranking_timed=False))

    assert planned == needed_bytes(replace(timed, has_times=False), Options())
    assert planned != needed_bytes(timed, Options())


def test_times_that_are_not_there_are_told_of_before_anything_is_fitted() -> None:
    """The plan asks whether they count, as the fit does."""
    untimed = DataSize(100, 50, 2000, 2000, 50, has_times=False)

    with pytest.raises(DataError, match="ranking_timed=true"):
        fit_into(untimed, Options(ranking_timed=True), 16 * GIB)


def test_ordinary_data_on_an_ordinary_machine_is_left_alone() -> None:
    """ML-1M with its defaults takes less than 4 GiB."""
    assert fit_into(ML_1M, Options(), 4 * GIB) == (Options(), ())


def test_where_nothing_is_left_to_give_two_tower_is_named() -> None:
    """The refusal says what is lacking, before an hour of fitting."""
    with pytest.raises(DataError, match=r"marquee needs .* GiB for its .*: train --model two-tower"):
        fit_into(ML_25M, Options(), 4 * GIB)


def test_a_data_set_is_measured_by_what_was_watched() -> None:
    """60 users, 39 movies with a row, 15 rows each."""
    size = DataSize.of(toy_dataset(timed=False))

    assert size == DataSize(60, 39, 900, 900, 15, has_times=False)
    assert DataSize.of(toy_dataset(rated=False)).num_rated == 0


def test_this_machine_has_room_for_a_toy() -> None:
    """The plan is asked before each training, and changes nothing here."""
    plan = fit_function("marquee").fit_to_machine

    assert plan is not None
    assert plan(toy_dataset(), Options()) == (Options(), ())


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    """The smaller of machine and container; "max" and a missing file are no limit."""
    (tmp_path / "limit").write_text("1073741824\n")
    (tmp_path / "none").write_text("max\n")

    assert memory_bytes((tmp_path / "limit", tmp_path / "none")) == GIB
    assert memory_bytes((tmp_path / "none", tmp_path / "absent")) > GIB

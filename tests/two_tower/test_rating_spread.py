"""A table by number of ratings answers for models that cannot tell how sure they are."""

from dataclasses import fields, replace

import pytest

from two_tower.errors import MismatchedCheckpointError
from two_tower.golden import Golden
from two_tower.manifest import Manifest, TrainingRecord, dump, parse
from two_tower.rating_spread import RatingSpread


def manifest_with(record: TrainingRecord, spread: RatingSpread | None) -> Manifest:
    known = {field.name: getattr(record, field.name) for field in fields(TrainingRecord)}
    written = Manifest(
        **known,
        version="v1",
        model="mean",
        config={},
        weights_sha256="w" * 64,
        vocabularies_sha256="v" * 64,
        golden=Golden((), ()),
    )
    return replace(written, rating_spread=spread)


def test_a_count_takes_the_row_that_it_falls_into() -> None:
    """Lower edges belong to their row, and the last row has no end."""
    spread = RatingSpread((0, 1, 5), (1.2, 1.0, 0.8))

    assert spread.deviations_of([0, 1, 4, 5, 10_000]) == pytest.approx([1.2, 1.0, 1.0, 0.8, 0.8])


def test_a_manifest_with_a_table_comes_back(record: TrainingRecord) -> None:
    """Written and read, the table is what it was."""
    manifest = manifest_with(record, RatingSpread((0, 20), (1.1, 0.9)))

    assert parse(dump(manifest)) == manifest


def test_a_manifest_without_a_table_does_not_mention_it(record: TrainingRecord) -> None:
    """So that code from before there were tables reads it too."""
    content = dump(manifest_with(record, None))

    assert b"rating_spread" not in content
    assert parse(content).rating_spread is None


@pytest.mark.parametrize(
    ("spread", "problem"),
    [
        (RatingSpread((), ()), "0 counts"),
        (RatingSpread((0, 5), (1.0,)), "2 counts and 1 deviations"),
        (RatingSpread((1, 5), (1.0, 1.0)), "do not ascend from 0"),
        (RatingSpread((0, 0), (1.0, 1.0)), "do not ascend from 0"),
        (RatingSpread((0, 5), (1.0, -1.0)), "not all above 0"),
    ],
)
def test_a_table_that_is_none_is_refused(record: TrainingRecord, spread: RatingSpread, problem: str) -> None:
    """A manifest from elsewhere must not answer with nonsense."""
    with pytest.raises(MismatchedCheckpointError, match=problem):
        parse(dump(manifest_with(record, spread)))

"""What a report says of a model is true of it, for both serving forms and for data that lacks half of everything."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.evaluation import Evaluation
from trainer.report.findings import FINDINGS_FILE, Findings, dump, read
from trainer.report.judged import bands_of, intervals_of, reliability_of
from trainer.report.movies import title_of
from trainer.report.page import REPORT_FILE
from trainer.snapshot import Snapshot, hash_of_data
from trainer.training import Outcome, Request, train
from two_tower.registry import Registry

QUICK = {
    "two-tower-history": ["epochs=8"],
    "marquee": ["hidden_size=16", "tower_epochs=2", "ranking_epochs=2", "ranking_cuts=3", "ranking_size=8"],
}


def trained(data: Dataset, registry: Path, model: str, **options: object) -> Outcome:
    snapshot = Snapshot(data, registry, hash_of_data(data), 0)
    return train(snapshot, Registry(registry), Request(model=model, options=QUICK[model], **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A neural model of users of two tastes."""
    data = toy_dataset(num_users=200)
    return trained(data, tmp_path_factory.mktemp("registry"), "two-tower-history", holdout="random:0.2")


@pytest.fixture(scope="module")
def findings(outcome: Outcome) -> Findings:
    """What its report says."""
    return read(outcome.folder)


def test_the_report_lies_beside_the_checkpoint(outcome: Outcome) -> None:
    """A page for people and the same figures for programs."""
    assert {REPORT_FILE, FINDINGS_FILE} <= {path.name for path in outcome.folder.iterdir()}


def test_figures_of_the_fit_become_curves(findings: Findings) -> None:
    """One point an epoch, the loss going down."""
    (name, points), *_ = findings.curves.items()

    assert name == "training mse"
    assert len(points) == 8
    assert points[-1][0] == 1.0
    assert points[-1][1] < points[0][1]


def test_a_report_whose_table_has_other_rows_than_genres_is_refused(findings: Findings, tmp_path: Path) -> None:
    """It is damaged; the message names what does not fit."""
    ragged = replace(findings, genre_cosines=(findings.genre_cosines[0], ()))
    (tmp_path / FINDINGS_FILE).write_bytes(dump(ragged))

    with pytest.raises(DataError, match=r"damaged: report\.genre_cosines"):
        read(tmp_path)


def test_a_title_of_a_megabyte_is_cut() -> None:
    """A report of hundreds of such could not be read again."""
    movies = replace(toy_dataset().movies, titles=["x" * 1_000_000] * 40)

    assert title_of(movies, 0) == f"{'x' * 200}… (1960)"


def test_every_held_out_rating_is_in_one_band(findings: Findings, outcome: Outcome) -> None:
    """Bands by known ratings and by popularity hold all of them, and their errors are those of the metrics."""
    metrics = outcome.manifest.metrics
    for bands in (findings.by_known, findings.by_popularity):
        assert sum(band.num_ratings for band in bands) == metrics.num_ratings
        squared = sum(band.num_ratings * band.rmse**2 for band in bands) / metrics.num_ratings
        assert metrics.rmse == pytest.approx(squared**0.5)


def test_movies_and_genres_are_all_there(findings: Findings) -> None:
    """39 movies were watched; ten of each end, ten neighbourhoods without the movie itself, a map of all."""
    assert len(findings.best_movies) == len(findings.worst_movies) == 10
    stars = [movie.stars for movie in (*findings.best_movies, *findings.worst_movies[::-1])]
    assert stars == sorted(stars, reverse=True)
    assert findings.genres == ("Comedy", "Drama")
    assert findings.genre_cosines[0][0] == findings.genre_cosines[1][1] == 1
    assert len(findings.neighbourhoods) == 10
    for each in findings.neighbourhoods:
        assert each.title not in {neighbour.title for neighbour in each.neighbours}
    assert len(findings.movie_map) == 39
    assert all("(" in point.title for point in findings.movie_map)


def test_strangers_are_asked_as_often_as_there_are_events(findings: Findings) -> None:
    """Nobody has 20 events to show."""
    assert [each.known for each in findings.strangers] == [0, 1, 2, 5, 10]


@pytest.mark.parametrize(("rated", "timed"), [(False, True), (False, False)])
def test_a_model_of_data_without_ratings_has_a_report_too(tmp_path: Path, rated: bool, timed: bool) -> None:
    """What needs stars is left out; the map and the neighbours are there."""
    outcome = trained(toy_dataset(rated=rated, timed=timed), tmp_path, "marquee", holdout="random:0.2")

    findings = read(outcome.folder)

    assert (findings.reliability, findings.by_known, findings.best_movies) == ((), (), ())
    assert findings.movie_map
    assert findings.neighbourhoods
    assert findings.strangers[0].ndcg_at_10 is not None


def test_nothing_held_out_and_nothing_known_of_movies_are_no_obstacle(tmp_path: Path) -> None:
    """A report of a model that learnt from all rows, of movies without genre, title or year."""
    data = toy_dataset()
    movies = replace(data.movies, titles=[""] * 40, genres=[()] * 40, years=np.full(40, np.nan, np.float32))

    outcome = trained(replace(data, movies=movies), tmp_path, "two-tower-history", holdout="none")

    findings = read(outcome.folder)
    assert findings.strangers == ()
    assert findings.genres == ()
    assert findings.neighbourhoods[0].title.startswith("m")


def test_no_report_is_written_if_none_is_wanted(tmp_path: Path) -> None:
    """And who reads it is told what else to do."""
    outcome = trained(toy_dataset(), tmp_path, "two-tower-history", reported=False)

    with pytest.raises(DataError, match="without a report; give --data"):
        read(outcome.folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"title": 3}'])
def test_a_damaged_report_is_said_to_be_damaged(tmp_path: Path, content: bytes) -> None:
    """It is for people, so whoever edited it is told."""
    (tmp_path / FINDINGS_FILE).write_bytes(content)

    with pytest.raises(DataError, match=r"report\.json"):
        read(tmp_path)


def test_findings_come_back_from_their_file(findings: Findings, tmp_path: Path) -> None:
    """Written and read, nothing is lost."""
    (tmp_path / FINDINGS_FILE).write_bytes(dump(findings))

    assert read(tmp_path) == findings


def test_a_calibrated_model_is_said_to_be_calibrated(outcome: Outcome) -> None:
    """Errors drawn with deviation 1 about predictions of deviation 1: every interval holds what it should."""
    rng = np.random.default_rng(0)
    n = 20_000
    predicted = rng.uniform(1, 5, n).astype(np.float32)
    rows = outcome.evaluation.held_out
    rows = replace(
        rows,
        user_rows=np.zeros(n, np.int32),
        movie_rows=np.zeros(n, np.int32),
        ratings=(predicted + rng.normal(0, 1, n)).astype(np.float32),
        event_times_ms=np.zeros(n, np.int64),
    )
    evaluation: Evaluation = replace(outcome.evaluation, held_out=rows, predicted=predicted, unclipped=predicted)
    deviations = np.ones(n, np.float32)

    for interval in intervals_of(evaluation, deviations):
        assert interval.actual == pytest.approx(interval.nominal, abs=0.01)
    for group in reliability_of(evaluation):
        assert group.actual == pytest.approx(group.predicted, abs=0.1)
    (band,) = bands_of(evaluation, deviations, np.full(n, 7), (0, 5, 10))
    assert (band.name, band.num_ratings) == ("5 to 9", n)
    assert band.covered == pytest.approx(0.8, abs=0.01)
    assert band.rmse == pytest.approx(1, abs=0.02)

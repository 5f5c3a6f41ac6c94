"""What a fit reports on the way is kept for the report, and a loss that is no number ends it."""

import math

import pytest

from tests.toy_dataset import toy_dataset
from trainer.errors import DivergedError
from trainer.fits import fit_function
from trainer.fits.curves import CurveRecorder, tell


def test_figures_are_kept_by_name_and_passed_on() -> None:
    """Each with the share of the training that was done; calls without figures are passed on too."""
    told: list[tuple[object, ...]] = []
    recorder = CurveRecorder(lambda *report: told.append(report))

    recorder(1, 4, "epoch 1 of 2", {"loss": 3.0})
    recorder(2, 4, "thinking")
    recorder(4, 4, "epoch 2 of 2", {"loss": 2.0, "validation rmse": 0.9})

    assert recorder.curves == {"loss": [(0.25, 3.0), (1.0, 2.0)], "validation rmse": [(1.0, 0.9)]}
    assert [report[:3] for report in told] == [(1, 4, "epoch 1 of 2"), (2, 4, "thinking"), (4, 4, "epoch 2 of 2")]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training_with_its_epoch(value: float) -> None:
    """Whoever waits is told at once, and what to try."""
    recorder = CurveRecorder(lambda *report: None)

    with pytest.raises(DivergedError, match=r"epoch 3 of 5.*training mse is (nan|inf).*smaller learning rate"):
        recorder(3, 5, "epoch 3 of 5", {"training mse": value})


def test_a_stage_tells_whoever_records_the_fit() -> None:
    """Where progress stood last; before and after, nobody listens and nothing happens."""
    recorder = CurveRecorder(lambda *report: None)

    tell("loss", 9.0)
    with recorder.listening():
        recorder(1, 4, "first stage")
        tell("loss", 3.0)
        recorder(3, 4, "second stage")
        tell("loss", 2.0)
    tell("loss", math.nan)

    assert recorder.curves == {"loss": [(0.25, 3.0), (0.75, 2.0)]}


def test_marquees_stages_have_curves() -> None:
    """The tower's error and the retrieval head's cross-entropy, one point an epoch, both going down."""
    made = fit_function("marquee")
    recorder = CurveRecorder(lambda *report: None)
    options = made.options_class(hidden_size=16, tower_epochs=6, ranking_epochs=6, ranking_size=8, machine_share=0.0)

    with recorder.listening():
        made.fit(toy_dataset(), options, seed=0, progress=recorder)

    assert len(recorder.curves) == 2
    for points in recorder.curves.values():
        assert len(points) % 6 == 0
        assert points[5][1] < points[0][1]

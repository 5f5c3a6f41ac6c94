"""What a fit reports on the way is kept for the report, and a loss that is no number ends it."""

import math

import pytest

from trainer.errors import DivergedError
from trainer.fits.curves import CurveRecorder


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

"""tfrs-simple and tfrs-titles go on where they were killed and end as if they had not been."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.toy_dataset import toy_dataset
from trainer.fits import fit_function, silent
from trainer.fits.options import parse_options
from trainer.fits.training_state import TrainingState

CHOOSING = ("coverage=1", "batch_size=100", "epochs=6", "patience=2", "validation_share=0.2")


class KilledError(Exception):
    """Someone switched it off."""


def tensors(model: str, options: Sequence[str], state: TrainingState | None, killed_in: int = 0) -> dict[str, Tensor]:
    """Trains on toy data; killed in an epoch, it ends before what it did there is kept."""
    fit = fit_function(model)
    told: list[str] = []

    def progress(done: int, total: int, message: str, figures: object = None) -> None:
        told.append(message)
        if message.startswith(f"epoch {killed_in} "):
            raise KilledError

    kept = {} if state is None else {"state": state}
    parsed = parse_options(fit.options_class, options)
    found: dict[str, Tensor] = fit.fit(
        toy_dataset(), parsed, seed=3, progress=progress if killed_in else silent, **kept
    ).tensors()
    return found


@pytest.mark.parametrize("model", ["tfrs-simple", "tfrs-titles"])
@pytest.mark.parametrize("options", [CHOOSING, ("coverage=1", "batch_size=100", "epochs=4")])
@pytest.mark.parametrize("killed_in", [1, 3])
def test_a_killed_training_ends_as_if_it_had_not_been(
    tmp_path: Path, model: str, options: Sequence[str], killed_in: int
) -> None:
    """Weights, optimiser, chance, the best epoch so far and the learning rate's step are all where they were."""
    path = tmp_path / "state"
    whole = tensors(model, options, None)

    with pytest.raises(KilledError):
        tensors(model, options, TrainingState(path, "this", resume=False), killed_in)
    resumed = tensors(model, options, TrainingState(path, "this", resume=True))

    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_training_that_was_over_is_not_gone_on_with(tmp_path: Path) -> None:
    """Killed after its last epoch and before its checkpoint, it has the same weights at once."""
    path = tmp_path / "state"
    whole = tensors("tfrs-simple", CHOOSING, TrainingState(path, "this", resume=False))
    before = path.read_bytes()

    resumed = tensors("tfrs-simple", CHOOSING, TrainingState(path, "this", resume=True))

    assert path.read_bytes() == before
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

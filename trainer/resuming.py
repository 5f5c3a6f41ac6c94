"""Finds the state that a training keeps between epochs. Knows the registry's folder; knows no weight and no model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from trainer.errors import TrainerError
from trainer.fits import Fit
from trainer.fits.training_state import TrainingState
from two_tower.manifest import TrainedRows

FOLDER = ".training"
"""Beside the checkpoints; a name that no version can have."""


class NotResumableError(TrainerError):
    """A training was to go on that is done in one go."""


def state_of_training(
    fit: Fit,
    registry: Path,
    model: str,
    options: Mapping[str, object],
    seed: int,
    rows: TrainedRows,
    *,
    resume: bool,
) -> TrainingState | None:
    """Returns where the training is kept: by its model, options, seed and rows, so that no other is ever gone on with.

    None for a model that is made in one go.

    Raises:
        NotResumableError: Such a model was to be resumed.
    """
    if not fit.keeps_state:
        if resume:
            raise NotResumableError(
                f"--resume: {model} is made in one go; two-tower, tfrs-simple and tfrs-titles are kept after each epoch"
            )
        return None
    told = json.dumps([model, dict(options), seed, rows.holdout, rows.sha256], sort_keys=True)
    identity = hashlib.sha256(told.encode()).hexdigest()
    return TrainingState(registry / FOLDER / f"{model}-{identity[:16]}.safetensors", identity, resume=resume)

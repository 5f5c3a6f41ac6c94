"""Keeps a training on disk between epochs, so that it can go on. Knows weights and an optimiser; knows no model.

One safetensors file, written aside, fsynced and renamed: whoever is killed leaves the last whole epoch.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer.errors import TrainerError

_WEIGHTS, _OPTIMISER, _BESIDE = "weights/", "optimiser/", "beside/"


class StateError(TrainerError):
    """A state cannot be read or written, or is of another training."""


class TrainingState:
    """The state of one training. What it belongs to is told by its `identity`: data, rows, options, seed."""

    def __init__(self, path: Path, identity: str, *, resume: bool) -> None:
        """Takes the file; unless `resume`, what it holds already is not looked at."""
        self._path = path
        self._identity = identity
        self._resume = resume
        self.beside: dict[str, Tensor] = {}
        """Tensors that were saved beside the network, once `restore` has found some."""
        self.told: dict[str, Any] = {}
        """The same of JSON values."""

    def restore(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Sets weights and optimiser to those of the last epoch kept and returns how many epochs were done.

        Raises:
            StateError: The file is damaged or of another training.
        """
        if not self._resume or not self._path.exists():
            return 0
        try:
            with safe_open(self._path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise StateError(
                f"{self._path}: cannot be read ({error}); without --resume training starts anew"
            ) from error
        if about["identity"] != self._identity:
            raise StateError(
                f"{self._path}: is of another training (other data, holdout, options or seed); without --resume "
                "training starts anew"
            )
        weights = {name.removeprefix(_WEIGHTS): t for name, t in tensors.items() if name.startswith(_WEIGHTS)}
        network.load_state_dict(weights, strict=True)
        kept = optimiser.state_dict()
        kept["state"] = _nested({n.removeprefix(_OPTIMISER): t for n, t in tensors.items() if n.startswith(_OPTIMISER)})
        optimiser.load_state_dict(kept)
        self.beside = {name.removeprefix(_BESIDE): t for name, t in tensors.items() if name.startswith(_BESIDE)}
        self.told = about.get("told", {})
        return int(about["epoch"])

    def save(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        epoch: int,
        *,
        beside: Mapping[str, Tensor] | None = None,
        told: Mapping[str, Any] | None = None,
    ) -> None:
        """Keeps what was reached after an epoch.

        Args:
            network: Its weights are kept.
            optimiser: Its memory is kept.
            epoch: Epochs done.
            beside: Further tensors.
            told: Further JSON values.

        Raises:
            StateError: The file cannot be written.
        """
        tensors = {_WEIGHTS + name: tensor for name, tensor in network.state_dict().items()}
        for number, entries in optimiser.state_dict()["state"].items():
            tensors |= {f"{_OPTIMISER}{number}/{name}": tensor for name, tensor in entries.items()}
        tensors |= {_BESIDE + name: tensor for name, tensor in (beside or {}).items()}
        about = {"identity": self._identity, "epoch": epoch, "told": dict(told or {})}
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        aside = self._path.with_suffix(".writing")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            save_file(whole, aside, metadata={"state": json.dumps(about)})
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(self._path)
        except (SafetensorError, OSError) as error:
            raise StateError(f"{self._path}: cannot be written ({error})") from error

    def discard(self) -> None:
        """Removes what was kept: the training is over."""
        self._path.unlink(missing_ok=True)


def _nested(tensors: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        number, _, entry = name.partition("/")
        state.setdefault(int(number), {})[entry] = tensor
    return state

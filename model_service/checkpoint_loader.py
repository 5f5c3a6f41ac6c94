"""Finds, reads and checks the checkpoint that a label names. Knows the registry; knows no catalogue and no request."""

import structlog
import torch

from two_tower import checkpoint as checkpoint_form
from two_tower.checkpoint import Checkpoint
from two_tower.registry import Registry

_log = structlog.get_logger(__name__)


class NoCheckpointError(Exception):
    """The label names nothing yet."""


class CheckpointLoader:
    """Loads one label of one registry onto one device."""

    def __init__(self, registry: Registry, label: str, device: torch.device) -> None:
        self._registry = registry
        self._label = label
        self._device = device

    def load(self, known: Checkpoint | None = None) -> Checkpoint:
        """Returns the checkpoint that the label names now, once it answers its golden users as it did when written.

        Args:
            known: What was loaded before; returned as it is if the label still names it.

        Raises:
            NoCheckpointError: The label names nothing yet.
            RegistryError: The label or the version it names cannot be read.
            CheckpointError: The checkpoint cannot be served.
        """
        version = self._registry.label(self._label)
        if version is None:
            raise NoCheckpointError(f"no checkpoint of {self._registry.path} is labelled {self._label!r} yet")
        if known is not None and known.version == version:
            return known
        checkpoint = checkpoint_form.load(self._registry.path_of(version), self._device)
        checkpoint_form.self_check(checkpoint)
        _log.info(
            "checkpoint",
            model_version=checkpoint.version,
            model=checkpoint.manifest.model,
            label=self._label,
            device=str(self._device),
        )
        return checkpoint

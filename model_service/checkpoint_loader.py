"""Reads and checks a version of the registry. Knows folders and the device; knows no catalogue and no request."""

import torch

from two_tower import checkpoint as checkpoint_form
from two_tower.checkpoint import Checkpoint
from two_tower.registry import Registry


class CheckpointLoader:
    """Loads versions of one registry onto one device."""

    def __init__(self, registry: Registry, device: torch.device) -> None:
        self._registry = registry
        self._device = device

    def load(self, version: str) -> Checkpoint:
        """Returns a checkpoint, once it answers its golden users as it did when it was written.

        Raises:
            RegistryError: The version cannot be found.
            CheckpointError: The checkpoint cannot be served.
        """
        checkpoint = checkpoint_form.load(self._registry.path_of(version), self._device)
        checkpoint_form.self_check(checkpoint)
        return checkpoint

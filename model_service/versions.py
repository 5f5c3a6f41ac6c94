"""Tells whether the model that a request wants is the one that answers. Knows versions and labels; knows no model."""

import asyncio

from marquee.v1 import model_service_pb2

from model_service.generations import Generations
from service_runtime.errors import FailedPrecondition
from two_tower.errors import InvalidNameError, RegistryError
from two_tower.registry import Registry


class Versions:
    """The one resident version, and the labels of the registry."""

    def __init__(self, registry: Registry, generations: Generations) -> None:
        self._registry = registry
        self._generations = generations

    async def require(self, selector: model_service_pb2.ModelSelector) -> None:
        """Refuses a request that wants another version than the resident one.

        Raises:
            FailedPrecondition: Says which is resident.
            Unavailable: None is yet.
        """
        kind = selector.WhichOneof("selector")
        if kind is None:
            return
        resident = self._generations.current().checkpoint.version
        if kind == "model_version":
            wanted: str | None = selector.model_version
            asked = f"version {selector.model_version[:80]!r}"
        else:
            wanted = await asyncio.to_thread(self._version_of, selector.label)
            asked = f"label {selector.label[:80]!r} ({f'version {wanted}' if wanted else 'which names no version'})"
        if wanted != resident:
            raise FailedPrecondition(
                f"{asked} is not resident; version {resident} is",
                reason="MODEL_NOT_RESIDENT",
                metadata={"resident_model_version": resident},
            )

    def _version_of(self, label: str) -> str | None:
        try:
            return self._registry.label(label)
        except (InvalidNameError, RegistryError):
            return None

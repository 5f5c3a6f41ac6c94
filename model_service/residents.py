"""Holds the models that are in memory, all over one catalogue. Knows versions; never changes."""

from collections.abc import Mapping
from dataclasses import dataclass

from model_service.catalogue import Catalogue
from model_service.generation import Generation


@dataclass(frozen=True, slots=True, eq=False)
class Residents:
    """What requests can be answered from.

    Attributes:
        serving: Answers the requests that name no model.
        by_version: All of them, `serving` too.
    """

    serving: Generation
    by_version: Mapping[str, Generation]

    @property
    def catalogue(self) -> Catalogue:
        """The movies of all of them."""
        return self.serving.catalogue

    def of(self, version: str | None) -> Generation | None:
        """Returns the generation of a version, None if it is not resident; without a version the one that serves."""
        return self.serving if version is None else self.by_version.get(version)

    def with_model(self, generation: Generation, *, serves: bool) -> "Residents":
        """Returns these and one more, which must be over the same catalogue."""
        version = generation.checkpoint.version
        return Residents(generation if serves else self.serving, {**self.by_version, version: generation})

    def only(self, versions: set[str]) -> "Residents":
        """Returns those of some versions, and always the one that serves."""
        kept = versions | {self.serving.checkpoint.version}
        return Residents(self.serving, {version: each for version, each in self.by_version.items() if version in kept})

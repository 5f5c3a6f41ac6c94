"""Puts one checkpoint after another into a registry, as a trainer does that never ends. Knows folders, not answers."""

import shutil
from collections.abc import Sequence
from dataclasses import replace

from two_tower import manifest as manifest_form
from two_tower.checkpoint import MANIFEST, read_manifest
from two_tower.registry import STABLE, Registry

_KEPT = 4


class FreshVersions:
    """New versions without end, each a copy of one of a few trained ones, under a name that nothing has served yet.

    Attributes:
        names: Of all that ever took the label, oldest first.
    """

    def __init__(self, registry: Registry, trained: Sequence[str]) -> None:
        """Stores what is copied, in turn."""
        self.names: list[str] = []
        self._registry = registry
        self._trained = list(trained)

    def like(self, name: str) -> int:
        """Returns the place of the trained version that a version is a copy of."""
        return self.names.index(name) % len(self._trained)

    def publish(self) -> str:
        """Writes the next version, gives it the label, removes one that nobody can need any more; returns its name."""
        number = len(self.names)
        source = self._registry.path / self._trained[number % len(self._trained)]
        name = f"fresh-{number:06d}"
        aside = self._registry.path / f".{name}.copy"
        shutil.copytree(source, aside)
        manifest = replace(read_manifest(source), version=name)
        (aside / MANIFEST).write_bytes(manifest_form.dump(manifest))
        aside.rename(self._registry.path / name)
        self._registry.set_label(STABLE, name, reason="benchmark")
        self.names.append(name)
        for old in self.names[:-_KEPT][-1:]:
            shutil.rmtree(self._registry.path / old)
        return name

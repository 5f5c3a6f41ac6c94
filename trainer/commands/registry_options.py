"""The options by which every command is told its checkpoint. Knows their texts and what they name."""

from pathlib import Path
from typing import Annotated

import typer

from two_tower.errors import UnknownVersionError
from two_tower.registry import STABLE, Registry

RegistryOption = Annotated[Path, typer.Option("--registry", metavar="DIR", help="Folder that holds the checkpoints.")]
CheckpointOption = Annotated[
    str, typer.Option("--checkpoint", metavar="VERSION", help="Version of the checkpoint, or a label that names one.")
]


DEFAULT_CHECKPOINT = STABLE


def resolve_version(registry: Registry, version_or_label: str) -> str:
    """Returns the version that a person named.

    Raises:
        UnknownVersionError: It is neither a version nor a label of this registry; lists what there is.
    """
    versions, labels = registry.versions(), registry.labels()
    if version_or_label in versions:
        return version_or_label
    if version_or_label in labels:
        return labels[version_or_label]
    held = ", ".join([*sorted(labels), *reversed(versions[-5:])]) or "nothing yet: train a checkpoint first"
    raise UnknownVersionError(
        f"the registry {registry.path} has no version or label {version_or_label!r}; it has {held}"
    )

"""The command that removes checkpoints that nobody needs: registry gc."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from trainer.commands.registry_options import RegistryOption
from trainer.registry_pruning import checkpoints_and_others, remove_version, superfluous_versions
from two_tower.registry import Registry

_AN_HOUR_S = 3600.0


def gc_command(
    registry: RegistryOption,
    keep: Annotated[
        int, typer.Option("--keep", min=1, help="Newest versions to keep, and as many former ones of each label.")
    ] = 3,
    youngest_s: Annotated[
        float, typer.Option("--youngest-s", min=0, help="Younger versions stay: somebody may be about to label them.")
    ] = _AN_HOUR_S,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Removes checkpoints that no label names, tries, or may be rolled back to."""
    store = Registry(registry)
    versions = superfluous_versions(store, keep, youngest_s, datetime.now(UTC))
    for version in versions:
        if not dry_run:
            remove_version(store, version)
        typer.echo(f"{version}: {'would go' if dry_run else 'removed'}")
    checkpoints, others = checkpoints_and_others(store)
    for name in others:
        typer.echo(f"{name}: left alone, it holds no manifest that can be read")
    typer.echo(f"{len(checkpoints) - (len(versions) if dry_run else 0)} versions stay")

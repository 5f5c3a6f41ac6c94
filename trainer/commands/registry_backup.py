"""The commands registry backup and registry restore, and the group that registry gc belongs to as well."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.commands.registry_gc import gc_command
from trainer.commands.registry_options import RegistryOption
from trainer.registry_backup import Copied, RegistryBackupError, copy_registry
from two_tower.registry import Registry

FolderArgument = Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder of the backup.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to an application."""
    commands = typer.Typer(help="Copies a registry away and back, and tidies it up.", no_args_is_help=True)
    commands.command("backup", short_help="Copies what the backup lacks.")(backup_command)
    commands.command("restore", short_help="Copies what the registry lacks.")(restore_command)
    commands.command("gc", short_help="Removes checkpoints that nobody needs.")(gc_command)
    app.add_typer(commands, name="registry")


def backup_command(backup: FolderArgument, registry: RegistryOption) -> None:
    """Copies what the backup lacks; labels that moved since the last time move there too."""
    _tell(copy_registry(Registry(registry), Registry(backup), newer_wins=True), backup)


def restore_command(backup: FolderArgument, registry: RegistryOption) -> None:
    """Copies what the registry lacks; labels that it has stay as they are."""
    _tell(copy_registry(Registry(backup), Registry(registry), newer_wins=False), registry)


def _tell(copied: Copied, folder: Path) -> None:
    labels = ", ".join(copied.labels) or "none"
    typer.echo(f"{folder}: {copied.num_new} copied, {copied.num_there} there already; labels written: {labels}")
    if copied.failed:
        raise RegistryBackupError("not copied:\n" + "\n".join(copied.failed))

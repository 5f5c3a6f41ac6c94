"""The command that looks at a registry: inspect-checkpoint."""

from typing import Annotated

import typer
from rich.table import Table

from trainer.commands.registry_options import RegistryOption, resolve_version
from trainer.commands.terminal import Terminal
from trainer.moments import moment_text
from two_tower import checkpoint as checkpoints
from two_tower.registry import STABLE, LabelChange, Registry


def register(app: typer.Typer) -> None:
    """Adds the command to an application."""
    app.command("inspect-checkpoint", short_help="Shows what a checkpoint says about itself.")(
        inspect_checkpoint_command
    )


def inspect_checkpoint_command(
    registry: RegistryOption,
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Version of the checkpoint, or a label that names one.")
    ] = STABLE,
) -> None:
    """Shows what a checkpoint says about itself, and whether it can be served."""
    store = Registry(registry)
    folder = store.path_of(resolve_version(store, version))
    manifest = checkpoints.read_manifest(folder)
    labels = [name for name, labelled in store.labels().items() if labelled == manifest.version]
    metrics, rows, scale = manifest.metrics, manifest.trained_rows, manifest.rating_scale
    facts = {
        "model": manifest.model,
        "labels": ", ".join(labels) or "none",
        "made": moment_text(manifest.created_at_ms),
        "commit": manifest.commit or "unknown",
        "data": f"{manifest.data_name}, as of {moment_text(manifest.snapshot_time_ms)}",
        "data hash": manifest.data_sha256,
        "trained on": f"{rows.count:,} rows: all but {rows.holdout}, seed {rows.seed}",
        "data until": moment_text(manifest.data_until_ms) if manifest.has_times else "no times",
        "scale": f"{scale.low:g} to {scale.high:g} by {scale.step:g}" if scale else "no ratings",
        "rmse, mae": f"{_number(metrics.rmse)}, {_number(metrics.mae)} on {metrics.num_ratings:,} ratings",
        "ndcg@10, recall@10": f"{_number(metrics.ndcg_at_10)}, {_number(metrics.recall_at_10)} of "
        f"{metrics.num_users:,} users",
        "options": ", ".join(f"{name}={value}" for name, value in manifest.options.items()),
        "libraries": ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()),
        "history": "\n".join(_change(name, change) for name in labels for change in store.label_history(name)[-3:]),
        "size": f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.1f} MB",
    }
    table = Table(title=manifest.version, show_header=False)
    for name, fact in facts.items():
        table.add_row(name, fact)
    Terminal().print(table)
    checkpoints.self_check(checkpoints.load(folder))
    typer.echo("It loads, and answers its golden users as it did when it was made.")


def _change(label: str, change: LabelChange) -> str:
    return f"{moment_text(change.set_at_ms)}: {label} -> {change.version}, {change.reason or 'no reason given'}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"

"""The command that sends features to feature_service: publish."""

from typing import Annotated

import typer
from marquee.client.channel import open_sync_channel
from marquee.client.credentials import Credentials

from trainer.commands.data_options import (
    DEFAULT_MAX_BROKEN,
    ColumnsOption,
    DataOption,
    MaxBrokenOption,
    MovieBagOption,
    MoviesOption,
    ScaleOption,
    UsersOption,
    read_options,
)
from trainer.commands.progress_bar import progress_bar
from trainer.commands.registry_options import DEFAULT_CHECKPOINT, CheckpointOption, RegistryOption, resolve_version
from trainer.publishing import publish
from trainer.snapshot import divide_again, take_snapshot
from two_tower import checkpoint as checkpoints
from two_tower.registry import Registry


def register(app: typer.Typer) -> None:
    """Adds the command to an application."""
    app.command("publish")(publish_command)


def publish_command(
    data: DataOption,
    registry: RegistryOption,
    checkpoint: CheckpointOption = DEFAULT_CHECKPOINT,
    feature_service: Annotated[
        str, typer.Option("--feature-service", metavar="HOST:PORT", help="Where feature_service listens.")
    ] = "127.0.0.1:50051",
    all_rows: Annotated[
        bool, typer.Option("--all", help="Held-out rows too; marks the store as not for evaluation.")
    ] = False,
    columns: ColumnsOption = "",
    users: UsersOption = None,
    movies: MoviesOption = None,
    scale: ScaleOption = "",
    max_broken: MaxBrokenOption = DEFAULT_MAX_BROKEN,
    movie_bag: MovieBagOption = None,
) -> None:
    """Sends movies, profiles and the histories of exactly the rows that a checkpoint was trained on."""
    store = Registry(registry)
    manifest = checkpoints.read_manifest(store.path_of(resolve_version(store, checkpoint)))
    with (
        progress_bar("reading") as progress,
        open_sync_channel(feature_service, credentials=Credentials.from_environment()) as channel,
    ):
        snapshot = take_snapshot(data, read_options(columns, users, movies, scale, max_broken, movie_bag))
        parts = divide_again(snapshot, manifest)
        rows = snapshot.data.interactions if all_rows else parts.train
        sent = publish(channel, snapshot.data, rows, not_for_evaluation=all_rows, progress=progress)
    known = sent.num_entries - sent.num_applied
    skipped = f"; {known:,} were there already, or newer ones in their place" if known else ""
    typer.echo(
        f"published {snapshot.data.name} for {manifest.version}: {sent.num_movies:,} movies, {sent.num_profiles:,} "
        f"profiles, {sent.num_histories:,} histories with {sent.num_entries:,} entries ({sent.num_applied:,} kept "
        f"anew{skipped})"
    )
    if all_rows:
        typer.echo("The store now holds held-out rows and is marked as not for evaluation.")
    if not sent.numbers_equal_rows:
        typer.echo("The store held other movies before, so its catalogue numbers differ from the rows of the data.")

"""The command that sends features to feature_service: publish."""

from typing import Annotated

import grpc
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
from trainer.commands.service_options import DEFAULT_FEATURE_SERVICE, FeatureServiceOption
from trainer.dataset import Dataset, Interactions
from trainer.errors import TrainerError
from trainer.fits import Progress
from trainer.publishing import publish
from trainer.readers.mapped_columns import are_mapped
from trainer.rebuild.lock import only_one
from trainer.rebuild.publication import keep_published
from trainer.rebuild.store_reading import StoreReader
from trainer.snapshot import divide_again, take_snapshot
from two_tower import checkpoint as checkpoints
from two_tower.errors import RegistryError
from two_tower.registry import Registry


def register(app: typer.Typer) -> None:
    """Adds the command to an application."""
    app.command("publish", short_help="Sends what a checkpoint knows to feature_service.")(publish_command)


def publish_command(
    data: DataOption,
    registry: RegistryOption,
    checkpoint: CheckpointOption = DEFAULT_CHECKPOINT,
    feature_service: FeatureServiceOption = DEFAULT_FEATURE_SERVICE,
    all_rows: Annotated[
        bool, typer.Option("--all", help="Held-out rows too; marks the store as not for evaluation.")
    ] = False,
    kept: Annotated[
        bool,
        typer.Option("--snapshot/--no-snapshot", help="Keep what was published in the registry, for rebuild to go on."),
    ] = True,
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
        note = _keep(store, channel, snapshot.data, rows, progress) if kept else ""
    known = sent.num_entries - sent.num_applied
    skipped = f"; {known:,} were there already, or histories are full of newer ones" if known else ""
    typer.echo(
        f"published {snapshot.data.name} for {manifest.version}: {sent.num_movies:,} movies, {sent.num_profiles:,} "
        f"profiles, {sent.num_histories:,} histories with {sent.num_entries:,} entries ({sent.num_applied:,} kept "
        f"anew{skipped})"
    )
    if all_rows:
        typer.echo("The store now holds held-out rows and is marked as not for evaluation.")
    if not sent.numbers_equal_rows:
        typer.echo("The store held other movies before, so its catalogue numbers differ from the rows of the data.")
    if note:
        typer.echo(note)


def _keep(store: Registry, channel: grpc.Channel, data: Dataset, rows: Interactions, progress: Progress) -> str:
    """Keeps what was published; returns what there is to say."""
    if are_mapped(rows):
        return "No snapshot for `rebuild` was kept: it holds all rows in memory, for which these are too many."
    try:
        with only_one(store):
            about = keep_published(store, StoreReader(channel), data, rows, progress=progress)
    except (TrainerError, RegistryError) as error:
        return f"No snapshot for `rebuild` was kept: {error}"
    return f"`rebuild` goes on from snapshot {about.name}: {about.num_rows:,} rows."

"""The command that makes a fresh stack answer: bootstrap. Puts together what the other commands do, each step once."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import grpc
import typer
from marquee.client.channel import open_sync_channel
from marquee.client.credentials import Credentials

from trainer.commands.data_options import read_options
from trainer.commands.progress_bar import progress_bar
from trainer.commands.registry_options import RegistryOption
from trainer.commands.service_options import DEFAULT_FEATURE_SERVICE, FeatureServiceOption
from trainer.data_cache import DATASET_NAMES
from trainer.download import Downloader, licence_of
from trainer.fits import Progress
from trainer.publishing import publish
from trainer.readers.mapped_columns import are_mapped
from trainer.rebuild.lock import only_one
from trainer.rebuild.plan import Plan
from trainer.rebuild.publication import keep_published
from trainer.rebuild.rebuilding import Rebuild
from trainer.rebuild.store_reading import StoreReader
from trainer.snapshot import Snapshot, divide_again, take_snapshot
from trainer.store_snapshots.folder import SnapshotFolder
from trainer.synthesis.dataset_synthesis import SynthesisPlan
from trainer.synthesis.folder_writer import write_synthetic
from trainer.training import DEFAULT_MODEL, Request, train
from two_tower import checkpoint as checkpoints
from two_tower.registry import STABLE, Registry

SYNTHETIC = "synthetic"
"""Says that data is to be made instead of fetched."""

_PUBLISHED_FILE = "published.json"


def register(app: typer.Typer) -> None:
    """Adds the command to an application."""
    app.command("bootstrap", short_help="Makes a fresh stack answer: data, model, features.")(bootstrap_command)


def bootstrap_command(
    registry: RegistryOption,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            help=f"{SYNTHETIC}, the name of a MovieLens set, or a folder, zip or ratings file.",
        ),
    ] = SYNTHETIC,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", metavar="DIR", help="Keeps made and fetched data, and what was published.")
    ] = Path("data"),
    feature_service: FeatureServiceOption = DEFAULT_FEATURE_SERVICE,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="Which model, as --model of train.")
    ] = DEFAULT_MODEL,
    retrain: Annotated[
        bool, typer.Option("--retrain", help=f"Publish the data again and rebuild: {STABLE} moves if that is no worse.")
    ] = False,
) -> None:
    """Does what is still to be done until a model_service can answer: data, training, publishing."""
    # As the first process of a container it would never see a SIGTERM that it does not ask for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    store = Registry(registry)
    store.require_writable()
    with (
        progress_bar("data") as progress,
        open_sync_channel(feature_service, credentials=Credentials.from_environment()) as channel,
    ):
        # Asked first, because a feature_service that cannot be reached should not cost a training.
        epoch = StoreReader(channel).info().store_epoch
        version = store.label(STABLE)
        if version is not None and not retrain and _is_published(store, data_dir, epoch, version):
            # Without the lock: whoever rebuilds at this moment is no reason not to start.
            typer.echo(f"{STABLE} names {version}: nothing to train")
            typer.echo("its features are published: nothing to publish")
            return

        def read() -> Snapshot:
            return take_snapshot(_source(data, data_dir, progress), read_options())

        with only_one(store):
            if not (retrain and version is not None and _retrain(store, channel, read, Plan(model=model), progress)):
                _begin(store, channel, read, data_dir, model, None if retrain else version, progress)


def _is_published(store: Registry, data_dir: Path, epoch: str, version: str) -> bool:
    """Says whether the store holds what a checkpoint was trained on.

    One that a rebuild made was trained on a snapshot, and what that holds is in the store that it was taken of.
    """
    note = data_dir / _PUBLISHED_FILE
    there = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    if SnapshotFolder(store).newest() is not None:
        return bool(there.get("store_epoch") == epoch)
    return bool(there == {"store_epoch": epoch, "version": version})


def _begin(
    store: Registry,
    channel: grpc.Channel,
    read: Callable[[], Snapshot],
    data_dir: Path,
    model: str,
    version: str | None,
    progress: Progress,
) -> None:
    """Trains unless there is a version, publishes, and labels what was trained."""
    reader, newest = StoreReader(channel), SnapshotFolder(store).newest()
    if version is None:
        typer.echo(f"training {model}: minutes")
        snapshot = read()
        version = train(snapshot, store, Request(model), progress).manifest.version
        typer.echo(f"trained {version} on {snapshot.data.name}")
        rows = divide_again(snapshot, checkpoints.read_manifest(store.path_of(version))).train
    else:
        typer.echo(f"{STABLE} names {version}: nothing to train")
        if newest is not None:
            snapshot = take_snapshot(str(SnapshotFolder(store).path_of(newest)), read_options())
            rows = snapshot.data.interactions
        else:
            snapshot = read()
            rows = divide_again(snapshot, checkpoints.read_manifest(store.path_of(version))).train
    sent = publish(channel, snapshot.data, rows, progress=progress)
    if not are_mapped(rows):
        # Whatever store this is, it is the one that has just been filled.
        keep_published(store, reader, snapshot.data, rows, resync=newest is not None, progress=progress)
    data_dir.mkdir(parents=True, exist_ok=True)
    now_there = {"store_epoch": reader.info().store_epoch, "version": version}
    (data_dir / _PUBLISHED_FILE).write_text(json.dumps(now_there), encoding="utf-8")
    typer.echo(f"published {sent.num_movies:,} movies and {sent.num_histories:,} histories")
    # Only now: whoever follows the label finds the features that its checkpoint was made from.
    if store.label(STABLE) != version:
        checkpoints.self_check(checkpoints.load(store.path_of(version)))
        store.set_label(STABLE, version, reason="forced: trained again by bootstrap")
        typer.echo(f"{STABLE} names {version} now; services that follow it take it up")


def _retrain(
    store: Registry, channel: grpc.Channel, read: Callable[[], Snapshot], plan: Plan, progress: Progress
) -> bool:
    """Publishes all of the data, and lets a model of it take the label through the gate; says whether that is possible.

    It is not for data without times, nor in a registry that has no snapshot: there is nothing to compare on.
    """
    if SnapshotFolder(store).newest() is None or not (snapshot := read()).data.has_times:
        return False
    data, reader = snapshot.data, StoreReader(channel)
    publish(channel, data, data.interactions, not_for_evaluation=True, progress=progress)
    keep_published(store, reader, data, data.interactions, progress=progress)
    result = Rebuild(store, reader, plan, progress=progress).run()
    typer.echo(f"{result.outcome}: {result.reason}")
    typer.echo(f"{STABLE} names {result.version}")
    return True


def _source(data: str, data_dir: Path, progress: Progress) -> str:
    """Returns where the data lies, after making or fetching it if it is not there yet."""
    if data == SYNTHETIC:
        plan, folder = SynthesisPlan(), data_dir / SYNTHETIC
        if not folder.exists():
            aside = folder.with_name(f"{SYNTHETIC}.partial")
            write_synthetic(plan, aside)
            aside.rename(folder)
        return str(folder)
    if data in DATASET_NAMES and not Path(data).exists():
        downloader = Downloader(
            data_dir, on_progress=lambda done, total: progress(done, total or 0, f"fetching {data}")
        )
        archive = downloader.fetch(data)
        typer.echo(licence_of(archive))
        return str(archive)
    return data

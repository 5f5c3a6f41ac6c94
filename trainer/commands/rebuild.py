"""The command that closes the loop: rebuild, once or as a service, and what it says of itself."""

import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from marquee.client.channel import open_sync_channel
from marquee.client.credentials import Credentials
from rich.table import Table

from service_runtime import logs
from service_runtime.metrics import Metrics
from service_runtime.metrics_server import MetricsServer
from service_runtime.settings import OFF
from trainer.commands.data_options import (
    DEFAULT_MAX_BROKEN,
    ColumnsOption,
    MaxBrokenOption,
    MovieBagOption,
    MoviesOption,
    ScaleOption,
    UsersOption,
    read_options,
)
from trainer.commands.progress_bar import progress_bar
from trainer.commands.registry_options import RegistryOption
from trainer.commands.service_options import DEFAULT_FEATURE_SERVICE, FeatureServiceOption
from trainer.commands.terminal import Terminal
from trainer.errors import TrainerError
from trainer.fits import Progress, fit_function, silent
from trainer.fits.options import parse_options
from trainer.moments import moment_text
from trainer.rebuild.journal import Journal, Result
from trainer.rebuild.lock import is_running, only_one
from trainer.rebuild.measures import STEPS, RebuildMeasures
from trainer.rebuild.plan import DEFAULT_EXPORT_NAME, DEFAULT_KEEP, JUDGED_SHARE, Plan
from trainer.rebuild.rebuilding import Rebuild, Told, ignore
from trainer.rebuild.service import due_ms, parse_duration, rebuild_for_ever
from trainer.rebuild.store_reading import StoreReader
from trainer.rebuild.taking import Base, base_of_data
from trainer.snapshot import take_snapshot
from trainer.store_snapshots.folder import SnapshotFolder
from two_tower.registry import STABLE, Registry


def register(app: typer.Typer) -> None:
    """Adds the command to an application."""
    app.command("rebuild", short_help="Trains on what happened since, once or regularly.")(rebuild_command)


def rebuild_command(
    registry: RegistryOption,
    feature_service: FeatureServiceOption = DEFAULT_FEATURE_SERVICE,
    label: Annotated[str, typer.Option("--label", metavar="LABEL", help="The label that the winner takes.")] = STABLE,
    every: Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="Go on for ever, beginning every 90s, 30m, 6h or 1d.")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only say how far the last rebuild came.")] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="What to train. Default: model and settings of what has the label."
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Sets an option of --model; may be given again."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="As --data of train, for the first snapshot, if nothing that was published made one.",
        ),
    ] = None,
    judged: Annotated[
        float, typer.Option("--judge-on", min=0.001, max=0.5, help="Share of all rows, the newest, to compare on.")
    ] = JUDGED_SHARE,
    force: Annotated[
        str, typer.Option("--force", metavar="REASON", help="Compare nothing; the reason goes into the history.")
    ] = "",
    resync: Annotated[
        bool, typer.Option("--resync", help="Go on although the event log lacks events or is of another store.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html beside the checkpoint, to look at.")
    ] = True,
    keep: Annotated[
        int, typer.Option("--keep", min=1, help="Snapshots, and former versions of a label, to keep.")
    ] = DEFAULT_KEEP,
    export_name: Annotated[
        str,
        typer.Option(
            "--export-name", metavar="NAME", help="Holds the event log back; one for each registry of a store."
        ),
    ] = DEFAULT_EXPORT_NAME,
    metrics: Annotated[
        str, typer.Option("--metrics", metavar="HOST:PORT", help="With --every: where /metrics is served.")
    ] = OFF,
    columns: ColumnsOption = "",
    users: UsersOption = None,
    movies: MoviesOption = None,
    scale: ScaleOption = "",
    max_broken: MaxBrokenOption = DEFAULT_MAX_BROKEN,
    movie_bag: MovieBagOption = None,
) -> None:
    """Trains on what happened since, and labels what is no worse on the newest rows than what has the label."""
    store = Registry(registry)
    every_s = None if every is None else parse_duration(every)
    if status:
        return _show_status(store, every_s)
    store.label(label)
    if options and model is None:
        raise TrainerError("--set needs --model: without it the settings of what has the label are taken")
    if model is not None:
        parse_options(fit_function(model).options_class, options or [])
    reading = read_options(columns, users, movies, scale, max_broken, movie_bag)
    plan = Plan(
        label=label,
        model=model,
        options=tuple(options or ()),
        judged_share=judged,
        forced=force.strip(),
        resync=resync,
        reported=report,
        keep=keep,
        export_name=export_name,
    )

    def first() -> Base:
        assert data is not None
        snapshot = take_snapshot(data, reading)
        return base_of_data(snapshot.data, snapshot.data.interactions)

    def once(begins: Told, progress: Progress) -> Result:
        with only_one(store), open_sync_channel(feature_service, credentials=Credentials.from_environment()) as channel:
            given = None if data is None else first
            return Rebuild(store, StoreReader(channel), plan, first=given, begins=begins, progress=progress).run()

    # As the first process of a container it would never see a SIGTERM that it does not ask for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if every_s is None:
        with progress_bar("reading") as progress:
            result = once(ignore, progress)
        return _tell(result)
    if plan.forced or plan.resync:
        raise TrainerError("--force and --resync are for once: run them without --every")
    return _serve(store, every_s, metrics, lambda begins: once(begins, silent))


def _serve(store: Registry, every_s: float, listen: str, once: Callable[[Told], Result]) -> None:
    logs.configure("INFO")
    store.require_writable()
    journal, metrics = Journal(store), Metrics("trainer")
    measures = RebuildMeasures(metrics, journal, every_s)

    def do() -> Result:
        outcome = "failed"
        try:
            result = once(measures.step)
            outcome = result.outcome
            return result
        finally:
            measures.ended(outcome)
            measures.step(STEPS[0])

    with MetricsServer(metrics, listen):
        rebuild_for_ever(do, journal, every_s)


def _show_status(store: Registry, every_s: float | None) -> None:
    record, snapshots = Journal(store).read(), SnapshotFolder(store)
    running = is_running(store)
    table = Table(title=f"rebuilds of {store.path}", show_header=False)
    if record.run is not None:
        run = record.run
        come = [f"{name} {value}" for name in ("snapshot", "candidate", "refitted") if (value := getattr(run, name))]
        state = "running" if running else "interrupted; the next rebuild goes on with it"
        now = f"{state}, since {moment_text(run.started_at_ms)}: {', '.join(come) or 'reading'}"
    else:
        now = "beginning" if running else "nothing is under way"
    table.add_row("now", now)
    newest = snapshots.newest()
    if newest is None:
        table.add_row("snapshot", "none yet")
    else:
        about = snapshots.about(newest)
        lacking = ", some may be missing (resync)" if about.resynced else ""
        table.add_row("snapshot", f"{newest}: {about.num_rows:,} rows, {about.num_events:,} events read{lacking}")
    if every_s is not None:
        table.add_row("next", moment_text(due_ms(record, every_s)) if record.results else "at once")
    for result in record.results[-3:]:
        table.add_row(moment_text(result.started_at_ms), f"{result.outcome}: {result.reason}")
    Terminal().print(table)


def _tell(result: Result) -> None:
    if result.figures:
        table = Table(title=f"{result.candidate} against what had the label")
        for head in ("metric", "new", "old", "gain", "95% interval"):
            table.add_column(head, justify="left" if head == "metric" else "right")
        for each in result.figures:
            interval = f"{each.low:+.4f} to {each.high:+.4f}"
            table.add_row(each.metric, f"{each.new:.4f}", f"{each.old:.4f}", f"{each.gain:+.4f}", interval)
        Terminal().print(table)
    typer.echo(f"snapshot {result.snapshot}: {result.num_rows:,} rows, {result.num_deleted:,} users forgotten")
    typer.echo(f"{result.outcome}: {result.reason}")
    typer.echo(f"{result.label} names {result.version or 'nothing'}")
    if result.outcome == "refused":
        # For cron: a gate that held is nothing that went wrong, and nothing to overlook either.
        raise typer.Exit(3)

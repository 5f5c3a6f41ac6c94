"""The command that lets a checkpoint take a label: promote."""

from typing import Annotated

import typer
from rich.table import Table

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
from trainer.commands.registry_options import RegistryOption, resolve_version
from trainer.commands.terminal import Terminal
from trainer.promotion import (
    Difference,
    PromotionError,
    compare,
    find_later_rows,
    reason_of,
    refit,
    require_all_movies,
    require_better,
)
from trainer.snapshot import take_snapshot
from two_tower import checkpoint as checkpoints
from two_tower.registry import STABLE, Registry


def register(app: typer.Typer) -> None:
    """Adds the command to an application."""
    app.command("promote", short_help="Lets a checkpoint take a label if it is no worse.")(promote_command)


def promote_command(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Version of the checkpoint, or a label that names one.")
    ],
    registry: RegistryOption,
    label: Annotated[str, typer.Option("--label", metavar="LABEL", help="The label that it is to take.")] = STABLE,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="As --data of train: goes on after what both were trained on."),
    ] = None,
    refitted: Annotated[
        bool,
        typer.Option("--refit/--no-refit", help="Train its settings on all rows of the data, and label that."),
    ] = True,
    force: Annotated[
        str | None,
        typer.Option("--force", metavar="REASON", help="Compare and refit nothing; the reason goes into the history."),
    ] = None,
    columns: ColumnsOption = "",
    users: UsersOption = None,
    movies: MoviesOption = None,
    scale: ScaleOption = "",
    max_broken: MaxBrokenOption = DEFAULT_MAX_BROKEN,
    movie_bag: MovieBagOption = None,
) -> None:
    """Points a label at a checkpoint if on later rows it is no worse than the one that has the label."""
    store = Registry(registry)
    resolved, before = resolve_version(store, version), store.label(label)
    candidate = checkpoints.load(store.path_of(resolved))
    checkpoints.self_check(candidate)
    if force is not None:
        if not force.strip():
            raise PromotionError("--force needs a reason: it is what the label's history will say")
        store.set_label(label, resolved, reason=f"forced: {force.strip()}")
        return _tell(label, before, resolved)
    if before is None:
        store.set_label(label, resolved, reason="the first checkpoint under this label")
        return _tell(label, before, resolved)
    if before == resolved:
        raise PromotionError(f"{label} names {resolved} already")
    if data is None:
        raise PromotionError(
            f"{label} names {before}: --data is needed to compare the two on; or give a reason not to: --force REASON"
        )
    incumbent = checkpoints.load(store.path_of(before))
    if not refitted:
        # Else it is the refitted one that must know them: a candidate knows none that were new in its held-out rows.
        require_all_movies(candidate, incumbent)
    with progress_bar("reading") as progress:
        snapshot = take_snapshot(data, read_options(columns, users, movies, scale, max_broken, movie_bag))
        rows = find_later_rows(snapshot, candidate.manifest, incumbent.manifest)
        differences = compare(candidate, incumbent, snapshot.data, rows)
        _show(f"{resolved} against {before}, {rows.described}", differences)
        require_better(differences)
        winner = resolved
        if refitted:
            winner = refit(snapshot, store, candidate.manifest, label, progress).version
            require_all_movies(checkpoints.load(store.path_of(winner)), incumbent)
    store.set_label(label, winner, reason=reason_of(differences, rows, before, resolved if refitted else None))
    return _tell(label, before, winner)


def _show(title: str, differences: list[Difference]) -> None:
    table = Table(title=title)
    for head in ("metric", "new", "old", "gain", "95% interval"):
        table.add_column(head, justify="left" if head == "metric" else "right")
    for each in differences:
        gain = each.gain
        figures = (
            f"{each.new:.4f}",
            f"{each.old:.4f}",
            f"{gain.difference:+.4f}",
            f"{gain.low:+.4f} to {gain.high:+.4f}",
        )
        table.add_row(each.metric, *figures)
    Terminal().print(table)


def _tell(label: str, before: str | None, after: str) -> None:
    typer.echo(f"{label}: {before or 'nothing'} -> {after}; services that follow it take it up")

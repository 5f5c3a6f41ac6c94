"""Does a rebuild, step after step: snapshot, candidate, judgement, refit, label. Knows their order; knows no model.

Each step is durable before the journal says so, and is found again if the process was killed in between: a snapshot by
being the newest, a checkpoint by the data, rows and settings that its manifest names, the label by what it names.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from trainer.errors import TrainerError
from trainer.fits import Progress, silent
from trainer.promotion import (
    MIN_ROWS,
    Difference,
    PromotionError,
    compare,
    find_later_rows,
    require_all_movies,
    require_better,
)
from trainer.rebuild.journal import Figure, Journal, Result, Run
from trainer.rebuild.plan import Plan, judged_after_ms, num_later
from trainer.rebuild.retention import prune_snapshots, prune_versions
from trainer.rebuild.store_reading import StoreReader
from trainer.rebuild.taking import Base, take
from trainer.snapshot import Snapshot, hash_of_data
from trainer.store_snapshots.data import read_snapshot_data
from trainer.store_snapshots.folder import About, SnapshotFolder, read_holdings
from trainer.training import DEFAULT_MODEL, Request, options_of, train
from two_tower import checkpoint as checkpoints
from two_tower.errors import TwoTowerError
from two_tower.manifest import Manifest
from two_tower.registry import Registry

_log = structlog.get_logger(__name__)

Told = Callable[[str], None]
"""Is told the name of a step."""


class NoSnapshotError(TrainerError):
    """There is nothing to go on from."""


def ignore(step: str) -> None:
    """A `Told` that nobody hears."""


@dataclass(frozen=True, slots=True)
class _Material:
    """What the steps after the snapshot work on."""

    about: About
    snapshot: Snapshot
    incumbent: Manifest | None


class Rebuild:
    """One rebuild of one registry; who starts it holds the lock."""

    def __init__(
        self,
        registry: Registry,
        reader: StoreReader,
        plan: Plan,
        *,
        first: Callable[[], Base] | None = None,
        begins: Told = ignore,
        told: Told = ignore,
        progress: Progress = silent,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Stores what to do.

        Args:
            registry: Holds checkpoints, snapshots and the journal.
            reader: The store.
            plan: What to do.
            first: Gives what the first snapshot goes on from, if there is none yet.
            begins: Told what is done next: reading, training, comparing or refitting.
            told: Told of each step once it is durable, and before the journal says so.
            progress: Told how far a step is.
            now: The wall clock.
        """
        self._registry = registry
        self._reader = reader
        self._plan = plan
        self._first = first
        self._begins = begins
        self._told = told
        self._progress = progress
        self._now = now
        self._snapshots = SnapshotFolder(registry)
        self._journal = Journal(registry)

    def run(self) -> Result:
        """Does what is left to do of a rebuild that was killed, or all of one.

        A failure that a person can act on is kept in the journal and raised again.

        Raises:
            TrainerError: The store, the data or the settings do not allow it.
            TwoTowerError: The registry cannot be used.
        """
        run = self._left() or self._begin()
        try:
            run = self._snapshot(run)
            outcome, reason, run = self._decide(run)
        except Exception as error:
            self._close(self._journal.read().run or run, "failed", f"{type(error).__name__}: {error}")
            raise
        result = self._close(run, outcome, reason)
        prune_versions(self._registry, self._journal, self._plan.keep)
        return result

    def _left(self) -> Run | None:
        """Returns what was under way when its process was killed, if going on with it is what is wanted now."""
        run = self._journal.read().run
        if run is None or run.snapshot is None:
            return None
        wanted = self._wanted()
        asked = [(each.label, each.model, each.options, each.forced) for each in (run, wanted)]
        same = asked[0] == asked[1] and run.snapshot == self._snapshots.newest()
        unmoved = self._registry.label(run.label) in {run.incumbent, run.refitted}
        if same and unmoved:
            return run
        if run.candidate or run.refitted:
            # What it made is known to the journal, so that it goes one day.
            self._close(run, "failed", "given up: it was interrupted, and something else was wanted then")
        return None

    def _begin(self) -> Run:
        return self._journal.note(self._wanted())

    def _wanted(self) -> Run:
        plan = self._plan
        return Run(
            label=plan.label,
            model=plan.model,
            options=list(plan.options) if plan.model is not None else None,
            forced=plan.forced,
            started_at_ms=int(self._now().timestamp() * 1000),
            figures=[],
        )

    def _snapshot(self, run: Run) -> Run:
        if run.snapshot is not None:
            self._advance(run.snapshot)
            return run
        self._begins("reading")
        before = self._snapshots.newest()
        base = self._first_base() if before is None else self._base_of(before)
        taken = take(self._reader, base, self._now(), resync=self._plan.resync, progress=self._progress)
        about = self._snapshots.write(taken.about, taken.holdings)
        self._told("snapshot")
        incumbent = self._registry.label(run.label)
        run = self._journal.note(replace(run, snapshot=about.name, incumbent=incumbent))
        self._told("journal of snapshot")
        self._advance(about.name)
        return run

    def _advance(self, name: str) -> None:
        """Lets go of the log up to a snapshot, which is durable, and of older snapshots."""
        self._reader.register(self._plan.export_name, self._snapshots.about(name).position)
        self._told("position")
        prune_snapshots(self._snapshots, self._plan.keep)

    def _first_base(self) -> Base:
        if self._first is None:
            raise NoSnapshotError(
                f"{self._registry.path} holds no snapshot to go on from; `publish` and `bootstrap` write one, or name "
                "data for the first: --data DATA"
            )
        return self._first()

    def _base_of(self, name: str) -> Base:
        about = self._snapshots.about(name)
        return Base(about, about.data_name, about.scale, read_holdings(self._snapshots.path_of(name)))

    def _decide(self, run: Run) -> tuple[str, str, Run]:
        """Returns the outcome, why, and how far it came."""
        material = self._material(run)
        if run.refitted is not None and self._registry.label(run.label) == run.refitted:
            return "promoted", self._registry.label_history(run.label)[-1].reason, run
        if run.forced or material.incumbent is None:
            reason = f"forced: {run.forced}" if run.forced else "the first checkpoint under this label"
            return self._promote(self._refit(run, material), material, reason)
        if not (material.snapshot.data.has_times and material.incumbent.has_times):
            return "refused", "there are no times, so no row is later than another: --force REASON promotes", run
        after_ms = judged_after_ms(material.snapshot.data, material.incumbent, self._plan.judged_share)
        later = num_later(material.snapshot.data, after_ms)
        if later < MIN_ROWS:
            return "nothing_new", f"{later:,} rows are later than {run.incumbent} knows; {MIN_ROWS} are needed", run
        run = self._candidate(run, material, after_ms)
        try:
            run = self._compare(run, material)
        except PromotionError as error:
            return "refused", str(error), self._journal.read().run or run
        run = self._refit(run, material)
        figures = ", ".join(f"{each.metric} {each.new:.4f} (was {each.old:.4f})" for each in run.figures)
        return self._promote(run, material, f"rebuilt over {run.incumbent}, {run.compared_on}: {figures}")

    def _material(self, run: Run) -> _Material:
        assert run.snapshot is not None
        folder = self._snapshots.path_of(run.snapshot)
        about, data = read_snapshot_data(folder)
        incumbent = None
        if run.incumbent is not None:
            incumbent = checkpoints.read_manifest(self._registry.path_of(run.incumbent))
        return _Material(about, Snapshot(data, folder, hash_of_data(data), about.taken_at_ms), incumbent)

    def _candidate(self, run: Run, material: _Material, after_ms: int) -> Run:
        if run.candidate is not None:
            return run
        self._begins("training")
        request = self._request(run, material.incumbent, f"after:{after_ms}")
        version = self._made(run, material, replace(request, calibrated=False, reported=False))
        self._told("candidate")
        run = self._journal.note(replace(run, candidate=version))
        self._told("journal of candidate")
        return run

    def _compare(self, run: Run, material: _Material) -> Run:
        """Compares the candidate with what has the label, and keeps the figures whatever they say.

        Raises:
            PromotionError: It is worse, or there is nothing to compare on.
        """
        assert run.candidate is not None
        assert run.incumbent is not None
        self._begins("comparing")
        candidate, incumbent = (
            checkpoints.load(self._registry.path_of(version)) for version in (run.candidate, run.incumbent)
        )
        rows = find_later_rows(material.snapshot, candidate.manifest, incumbent.manifest)
        differences = compare(candidate, incumbent, material.snapshot.data, rows)
        figures = [_figure(each) for each in differences]
        run = self._journal.note(replace(run, figures=figures, compared_on=rows.described))
        self._told("comparison")
        require_better(differences)
        return run

    def _refit(self, run: Run, material: _Material) -> Run:
        """Trains on all rows; what knows too few movies raises."""
        if run.refitted is None:
            self._begins("refitting")
            request = self._request(run, material.incumbent, "none")
            version = self._made(run, material, replace(request, reported=self._plan.reported))
            self._told("refit")
            run = self._journal.note(replace(run, refitted=version))
            self._told("journal of refit")
        return run

    def _promote(self, run: Run, material: _Material, reason: str) -> tuple[str, str, Run]:
        assert run.refitted is not None
        refitted = checkpoints.load(self._registry.path_of(run.refitted))
        checkpoints.self_check(refitted)
        if run.incumbent is not None and not run.forced:
            try:
                incumbent = checkpoints.load(self._registry.path_of(run.incumbent))
                require_all_movies(refitted, incumbent, forgotten=material.about.forgotten_movies)
            except PromotionError as error:
                return "refused", str(error), run
        moved_to = self._registry.label(run.label)
        if moved_to != run.incumbent:
            return "refused", f"{run.label} was moved to {moved_to} meanwhile", run
        self._registry.set_label(run.label, run.refitted, reason=reason)
        self._told("label")
        return "promoted", reason, run

    def _request(self, run: Run, incumbent: Manifest | None, holdout: str) -> Request:
        if run.model is not None or incumbent is None:
            return Request(run.model or DEFAULT_MODEL, holdout, options=run.options or (), label=None)
        return Request(
            incumbent.model,
            holdout,
            incumbent.seed,
            options=[f"{name}={value}" for name, value in incumbent.options.items()],
            label=None,
            calibrated=incumbent.rating_spread is not None,
        )

    def _made(self, run: Run, material: _Material, request: Request) -> str:
        """Trains a checkpoint, unless the process that was killed had made it already."""
        for version in reversed(self._registry.versions()):
            try:
                manifest = checkpoints.read_manifest(self._registry.path_of(version))
            except TwoTowerError as error:
                _log.warning("a checkpoint of the registry cannot be read", version=version, error=str(error))
                continue
            if manifest.created_at_ms < run.started_at_ms:
                break
            same = (manifest.model, manifest.trained_rows.holdout, manifest.seed, manifest.data_sha256)
            wanted = (request.model, request.holdout, request.seed, material.snapshot.sha256)
            if same == wanted and manifest.options == options_of(material.snapshot, request):
                return version
        return train(material.snapshot, self._registry, request, self._progress).manifest.version

    def _close(self, run: Run, outcome: str, reason: str) -> Result:
        about = self._snapshots.about(run.snapshot) if run.snapshot is not None else None
        return self._journal.close(
            Result(
                outcome=outcome,
                reason=reason,
                label=run.label,
                version=self._registry.label(run.label),
                started_at_ms=run.started_at_ms,
                ended_at_ms=int(self._now().timestamp() * 1000),
                snapshot=run.snapshot,
                candidate=run.candidate,
                refitted=run.refitted,
                num_rows=about.num_rows if about else 0,
                num_events=about.num_events if about else 0,
                num_deleted=about.num_deleted if about else 0,
                figures=run.figures,
            )
        )


def _figure(difference: Difference) -> Figure:
    gain = difference.gain
    return Figure(
        metric=difference.metric,
        new=difference.new,
        old=difference.old,
        gain=gain.difference,
        low=gain.low,
        high=gain.high,
    )

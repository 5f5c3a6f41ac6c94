"""Makes a checkpoint: divide, fit, judge, write, prove. Knows the order of these steps; knows no model by name."""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np

from trainer.calibration import calibrate, tells_deviations
from trainer.dataset import Dataset, Interactions
from trainer.errors import DivergedError, TrainerError
from trainer.evaluation import Evaluation, evaluate
from trainer.fits import Fit, Progress, fit_function, silent
from trainer.fits.curves import CurveRecorder
from trainer.fits.divergence import DivergedFitError
from trainer.fits.options import parse_options
from trainer.fits.training_state import TrainingState
from trainer.histories import HISTORY_WINDOW
from trainer.popularity import popularity_of
from trainer.processes import started_together
from trainer.profile_check import require_profiles
from trainer.readers.mapped_columns import are_mapped
from trainer.report.findings import FINDINGS_FILE, dump
from trainer.report.making import find
from trainer.report.page import REPORT_FILE, page_of
from trainer.resuming import state_of_training
from trainer.snapshot import JudgedOn, Parts, Snapshot, default_holdout, divide
from two_tower import checkpoint, golden
from two_tower.manifest import Manifest, TrainingRecord
from two_tower.models import model_class
from two_tower.rating_spread import RatingSpread
from two_tower.registry import STABLE, Registry
from two_tower.serving import Model

DEFAULT_MODEL = "marquee"

_LIBRARIES = ("numpy", "safetensors", "scipy", "torch")


@dataclass(frozen=True, slots=True)
class Request:
    """What to make.

    Attributes:
        model: Name of the model.
        holdout: How rows are held out, as on a command line; None lets the data decide.
        seed: Seed of the split and of the fit.
        judged_on: Which held-out rows to be judged on.
        options: "field=value" texts for the fit.
        label: The label that the checkpoint gets if no checkpoint has it yet; None gives it none.
        calibrated: Whether to measure how far ratings scatter about predictions, which takes a second fit, where the
            model cannot tell.
        reported: Whether to write report.html and report.json beside the checkpoint.
        resume: Whether to go on with a training of the same data, rows, options and seed that was interrupted.
        require_profile: Whether to refuse data in which a user lacks gender, age or occupation.
    """

    model: str = DEFAULT_MODEL
    holdout: str | None = None
    seed: int = 0
    judged_on: JudgedOn = "test"
    options: Sequence[str] = ()
    label: str | None = STABLE
    calibrated: bool = True
    reported: bool = True
    resume: bool = False
    require_profile: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was made.

    Attributes:
        folder: The checkpoint.
        manifest: What it says about itself.
        evaluation: What it said of the held-out rows.
        labelled: Whether it got the label.
        notes: What was decided on the way, one sentence each, for a person.
    """

    folder: Path
    manifest: Manifest
    evaluation: Evaluation
    labelled: bool
    notes: tuple[str, ...]


def train(snapshot: Snapshot, registry: Registry, request: Request, progress: Progress = silent) -> Outcome:
    """Makes a checkpoint and puts it into the registry.

    Raises:
        TrainerError: The request does not fit the data.
        TwoTowerError: There is no such model, or the registry cannot be used.
    """
    fit = fit_function(request.model)
    options = parse_options(fit.options_class, request.options)
    takes_label = request.label is not None and registry.label(request.label) is None
    data = snapshot.data
    if request.require_profile:
        require_profiles(data)
    holdout = request.holdout or default_holdout(data)
    parts = divide(snapshot, holdout, request.seed, request.judged_on)
    changes: tuple[str, ...] = ()
    if fit.fit_to_machine is not None:
        options, changes = fit.fit_to_machine(replace(data, interactions=parts.train), options)
    state = _state(fit, registry, request, parts, options)
    try:
        fitted = _fit(fit, request, data, parts.train, options, progress, state)
    except DivergedFitError as error:
        if error.model is None:
            raise
        kept = _Fitted(error.model, None, {})
        manifest = _write(snapshot, registry, request, parts, kept, asdict(options), progress)[1]
        raise DivergedError(f"{error}. Checkpoint {manifest.version} holds them; no label names it") from error
    folder, manifest, evaluation = _write(snapshot, registry, request, parts, fitted, asdict(options), progress)
    if state is not None:
        state.discard()
    if takes_label:
        assert request.label is not None
        registry.set_label(request.label, manifest.version, reason="the first checkpoint under this label")
    return Outcome(folder, manifest, evaluation, takes_label, (*data.notes, *parts.notes, *changes))


def options_of(snapshot: Snapshot, request: Request) -> dict[str, object]:
    """Returns what the manifest of a training says that its fit was told: with defaults, and for this machine.

    Raises:
        TrainerError: The request does not fit the data.
    """
    fit = fit_function(request.model)
    options = parse_options(fit.options_class, request.options)
    if fit.fit_to_machine is not None:
        parts = divide(snapshot, request.holdout or default_holdout(snapshot.data), request.seed, request.judged_on)
        options, _ = fit.fit_to_machine(replace(snapshot.data, interactions=parts.train), options)
    return asdict(options)


def require_model_of_processes(model: str) -> None:
    """Refuses a model that one process makes where torchrun started several.

    Raises:
        TrainerError: It does.
    """
    if started_together()[0] > 1 and not fit_function(model).in_processes:
        raise TrainerError(f"{model} is trained by one process: start it without torchrun, or train two-tower")


def take_part(snapshot: Snapshot, registry: Registry, request: Request) -> None:
    """Trains along with the first of several processes, which makes the checkpoint.

    Raises:
        TrainerError: The request does not fit the data, or the model is trained by one process.
    """
    fit = fit_function(request.model)
    options = parse_options(fit.options_class, request.options)
    if request.require_profile:
        require_profiles(snapshot.data)
    parts = divide(snapshot, request.holdout or default_holdout(snapshot.data), request.seed, request.judged_on)
    state = _state(fit, registry, request, parts, options)
    _fit(fit, request, snapshot.data, parts.train, options, silent, state)


def _state(fit: Fit, registry: Registry, request: Request, parts: Parts, options: Any) -> TrainingState | None:
    return state_of_training(
        fit, registry.path, request.model, asdict(options), request.seed, parts.trained_rows, resume=request.resume
    )


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What came of the fits.

    Attributes:
        model: The model.
        spread: Its table of deviations, if it needs one.
        curves: The figures that its fit reported.
    """

    model: Model
    spread: RatingSpread | None
    curves: Mapping[str, Sequence[tuple[float, float]]]


def _fit(
    fit: Fit,
    request: Request,
    data: Dataset,
    train: Interactions,
    options: Any,
    progress: Progress,
    state: TrainingState | None,
) -> _Fitted:
    """Makes the table of deviations, if one is wanted and the model needs one, and then the model."""
    # Calibration and report look at all rows at once, which data on disk is too large for.
    calibrated = (
        request.calibrated
        and not are_mapped(train)
        and data.scale is not None
        and not tells_deviations(model_class(request.model))
    )
    spread, before = None, 1 if calibrated else 0
    if calibrated:

        def report_clone(done: int, total: int, message: str, figures: Mapping[str, float] | None = None) -> None:
            progress(done, 2 * total, f"calibrating: {message}", figures)

        spread = calibrate(fit.fit, data, train, options, seed=request.seed, progress=CurveRecorder(report_clone))

    def report(done: int, total: int, message: str, figures: Mapping[str, float] | None = None) -> None:
        progress(before * total + done, (before + 1) * total, message, figures)

    recorder = CurveRecorder(report)
    kept = {} if state is None else {"state": state}
    with recorder.listening():
        model = fit.fit(replace(data, interactions=train), options, seed=request.seed, progress=recorder, **kept)
    return _Fitted(model, spread, recorder.curves)


def _write(
    snapshot: Snapshot,
    registry: Registry,
    request: Request,
    parts: Parts,
    fitted: _Fitted,
    options: dict[str, object],
    progress: Progress,
) -> tuple[Path, Manifest, Evaluation]:
    """Judges a model, writes its checkpoint and proves it."""
    data, model = snapshot.data, fitted.model
    vocabulary = model.vocabularies()["movies"]
    popularity = popularity_of(data, parts.train, vocabulary)
    evaluation = evaluate(
        *(model, data, parts.train, parts.held_out),
        protocol=parts.trained_rows.holdout,
        popularity=popularity.over(vocabulary, data.movies.movie_ids),
        progress=progress,
    )
    now = datetime.now(UTC)
    record = _record(snapshot, parts, evaluation, options, request.seed, now)
    record = replace(record, rating_spread=fitted.spread)
    version = registry.new_version(now)
    beside: dict[str, bytes] = {}
    if request.reported and not are_mapped(parts.train):
        progress(1, 1, "drawing the report")
        findings = find(model, version, record, data, parts.train, evaluation, fitted.curves)
        beside = {REPORT_FILE: page_of(findings), FINDINGS_FILE: dump(findings)}
    golden_answers = _golden(model, data, parts.train, record)
    folder = checkpoint.write(registry.path, version, model, record, golden_answers, beside, popularity)
    # A checkpoint that cannot be read back must not be found out by the service.
    written = checkpoint.load(folder)
    checkpoint.self_check(written)
    return folder, written.manifest, evaluation


def _record(
    snapshot: Snapshot,
    parts: Parts,
    evaluation: Evaluation,
    options: dict[str, object],
    seed: int,
    now: datetime,
) -> TrainingRecord:
    data = snapshot.data
    return TrainingRecord(
        data_name=data.name,
        data_sha256=snapshot.sha256,
        has_times=data.has_times,
        data_until_ms=int(parts.train.event_times_ms.max(initial=0)) if data.has_times else 0,
        snapshot_time_ms=snapshot.taken_at_ms,
        trained_rows=parts.trained_rows,
        rating_scale=data.scale,
        metrics=evaluation.metrics,
        options=options,
        seed=seed,
        history_window=HISTORY_WINDOW,
        libraries={"python": platform.python_version(), **{name: version_of(name) for name in _LIBRARIES}},
        commit=commit_of_code(),
        created_at_ms=int(now.timestamp() * 1000),
    )


def _golden(model: Model, data: Dataset, train: Interactions, record: TrainingRecord) -> golden.Golden:
    watched = np.unique(train.movie_rows)
    # Golden movies are spread over the catalogue, and those nobody watched say little of the weights.
    movies = data.movies
    chosen = [int(row) for row in watched]
    some = replace(
        movies,
        movie_ids=[movies.movie_ids[row] for row in chosen],
        titles=[movies.titles[row] for row in chosen],
        years=movies.years[watched],
        genres=[movies.genres[row] for row in chosen],
        bags={name: [bag[row] for row in chosen] for name, bag in movies.bags.items()},
        available=None,
    )
    user_id = data.user_ids[int(train.user_rows[0])]
    return golden.make(model, some, data.profiles, user_id, record.data_until_ms)


def commit_of_code() -> str | None:
    """Returns the commit of this code, None where it is not under version control."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None

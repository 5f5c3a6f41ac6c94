"""Searches a model's options on rows that are neither trained on nor tested on. Knows Optuna; no model by name.

The test rows are taken away first, and what is left is divided again by the same rule: what the search looks at is to
the test as the test is to serving. A search is kept in a file, trial by trial, and goes on where it was stopped.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy.exc

from trainer.dataset import Dataset
from trainer.errors import HoldoutError, TrainerError
from trainer.evaluation import evaluate
from trainer.fits import Progress, fit_function, silent
from trainer.fits.options import parse_options
from trainer.search_space import Choice, Range, Space
from trainer.snapshot import Snapshot, default_holdout, divide, holdout_rule, require_holdout
from trainer.splits import Split, parse_holdout, split

Metric = Literal["rmse", "ndcg"]

_NO_TEST = "--holdout none: nothing would be left for a test; random:0.1 would do"


class TuningError(TrainerError):
    """A search cannot be made or gone on with; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Search:
    """What to search.

    Attributes:
        model: Name of the model.
        space: Options and their ranges.
        fixed: "field=value" texts of options that stay.
        metric: What to judge by: "rmse" is to be low, "ndcg" (at 10) high.
        holdout: How test rows, and again validation rows, are held out; None lets the data decide.
        seed: Of both splits, of the fits and of the search.
        trials: So many in all, those of earlier runs included.
        timeout_s: No trial begins after so long; None for as long as it takes.
        storage: File that keeps the trials; None forgets them at the end.
    """

    model: str
    space: Space
    fixed: Sequence[str] = ()
    metric: Metric = "rmse"
    holdout: str | None = None
    seed: int = 0
    trials: int = 20
    timeout_s: float | None = None
    storage: Path | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a search.

    Attributes:
        options: "field=value" texts of the best trial, those that were fixed included.
        value: Its metric on validation rows.
        default_value: That of the defaults, None if their trial failed or did not come up.
        trials: Trials that ended with a value, those of earlier runs included.
        failed: Trials that ended without one.
        holdout: How rows were held out.
    """

    options: tuple[str, ...]
    value: float
    default_value: float | None
    trials: int
    failed: int
    holdout: str


def tune(snapshot: Snapshot, search: Search, progress: Progress = silent) -> Found:
    """Runs the trials that are still to be made.

    Raises:
        TrainerError: The search does not fit the data, its file cannot be used, or no trial ended with a value.
    """
    holdout = search.holdout or default_holdout(snapshot.data)
    data, parts = without_test_rows(snapshot, holdout, search.seed)
    if search.metric == "rmse" and data.scale is None:
        raise TuningError(f"{data.name} has no ratings to have an rmse; search by --metric ndcg")
    fit = fit_function(search.model)
    defaults = parse_options(fit.options_class, search.fixed)
    study = _open(snapshot, search, holdout)
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        # Of a search that was killed: one file is searched by one process at a time.
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(_default_values(search.space, asdict(defaults)), user_attrs={"is_default": True})

    def judge(trial: optuna.Trial) -> float:
        chosen = [_text(name, _suggest(trial, name, each)) for name, each in search.space.items()]
        options = parse_options(fit.options_class, [*search.fixed, *chosen])
        told = _prefixed(trial, search, progress)
        model = fit.fit(replace(data, interactions=parts.train), options, seed=search.seed, progress=told)
        metrics = evaluate(model, data, parts.train, parts.test, protocol=holdout).metrics
        value = metrics.rmse if search.metric == "rmse" else metrics.ndcg_at_10
        if value is None or not math.isfinite(value):
            raise TuningError(f"{search.model} gives no {search.metric} on these rows")
        return value

    left = search.trials - len(_ended(study))
    if left > 0:
        study.optimize(judge, n_trials=left, timeout=search.timeout_s, catch=(TrainerError,))
    return _found(study, search, holdout)


def require_rows_to_choose_by(holdout: str | None, source: str) -> None:
    """Refuses before minutes of reading what no data could be divided by for a search; None lets the data decide.

    Raises:
        DataError: There is no such source.
        HoldoutError: The holdout is none of the forms, its file does not exist, or it holds nothing out.
    """
    require_holdout(holdout, source)
    if holdout == "none":
        raise HoldoutError(_NO_TEST)


def without_test_rows(snapshot: Snapshot, holdout: str, seed: int) -> tuple[Dataset, Split]:
    """Returns a data set that lacks the test rows, and its rows to learn from and to be judged on.

    Raises:
        HoldoutError: The data cannot be divided that way.
    """
    rule = holdout_rule(holdout, snapshot.path)
    if rule.kind == "none":
        raise HoldoutError(_NO_TEST)
    rest = divide(snapshot, holdout, seed).train
    data = replace(snapshot.data, interactions=rest)
    if rule.kind == "leave-last":
        chosen = divide(snapshot, holdout, seed, "validation")
        return data, Split(chosen.train, chosen.held_out)
    if rule.kind == "file":
        # Its rows are gone now; what its rule was is not known.
        rule = parse_holdout(default_holdout(data))
    return data, split(data, rule, seed)


def _open(snapshot: Snapshot, search: Search, holdout: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    what = {
        "model": search.model,
        "space": {name: str(each) for name, each in search.space.items()},
        "fixed": sorted(search.fixed),
        "metric": search.metric,
        "holdout": holdout,
        "seed": search.seed,
        "data": snapshot.sha256,
    }
    name = f"{search.model}-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]}"
    if search.storage is not None and not search.storage.absolute().parent.is_dir():
        raise TuningError(f"--storage {search.storage}: there is no folder {search.storage.absolute().parent}")
    try:
        return optuna.create_study(
            storage=None if search.storage is None else f"sqlite:///{search.storage}",
            study_name=name,
            load_if_exists=True,
            direction="minimize" if search.metric == "rmse" else "maximize",
            sampler=optuna.samplers.TPESampler(seed=search.seed),
        )
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:
        raise TuningError(f"--storage {search.storage}: is no file of trials, or cannot be written") from error


def _suggest(trial: optuna.Trial, name: str, each: Range | Choice) -> Any:
    if isinstance(each, Choice):
        return trial.suggest_categorical(name, each.values)
    if each.whole:
        return trial.suggest_int(name, math.ceil(each.low), math.floor(each.high), log=each.log)
    return trial.suggest_float(name, each.low, each.high, log=each.log)


def _text(name: str, value: Any) -> str:
    """Returns "field=value"; what is tried is what is printed, so a number has four digits in both."""
    return f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"


def _default_values(space: Space, defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns the defaults that lie within the space; one that is None, or outside, is drawn."""
    return {
        name: defaults[name]
        for name, each in space.items()
        if (isinstance(each, Choice) and defaults[name] in each.values)
        or (isinstance(each, Range) and defaults[name] is not None and each.low <= defaults[name] <= each.high)
    }


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL)
    return study.get_trials(deepcopy=False, states=ended)


def _found(study: optuna.Study, search: Search, holdout: str) -> Found:
    complete = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    failed = len(_ended(study)) - len(complete)
    if not complete:
        raise TuningError(f"none of {failed} trials ended with a value; train once with --set to see why")
    best = study.best_trial
    default = next((trial.value for trial in complete if trial.user_attrs.get("is_default")), None)
    options = (*search.fixed, *(_text(name, value) for name, value in best.params.items()))
    assert best.value is not None
    return Found(options, best.value, default, len(complete), failed, holdout)


def _prefixed(trial: optuna.Trial, search: Search, progress: Progress) -> Callable[..., None]:
    def report(done: int, total: int, message: str, figures: object = None) -> None:
        progress(trial.number * total + done, search.trials * total, f"trial {trial.number + 1}: {message}")

    return report

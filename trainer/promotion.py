"""Decides whether a checkpoint may take a label from another one, and makes what takes it. Knows no model by name.

The gate: both are asked about the same rows, which neither was trained on and which are later than all that either was
trained on. The new one is refused if on any metric it is worse by more than chance explains, if it is worse on all, if
it knows fewer movies, or if it does not answer its golden users as it did when it was written.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.comparison.bootstrap import Interval, UserSums, paired_interval
from trainer.dataset import Dataset, Interactions
from trainer.errors import TrainerError
from trainer.evaluation import Evaluation, evaluate
from trainer.fits import Progress, silent
from trainer.metrics import ndcg_of_each
from trainer.moments import moment_text
from trainer.snapshot import Snapshot, divide_again, pair_numbers
from trainer.training import Request, train
from two_tower.checkpoint import Checkpoint
from two_tower.manifest import Manifest
from two_tower.registry import Registry

MIN_ROWS = 100
"""Rows below which nothing is compared: the RMSE of so many is known to 7% (standard error of a deviation, 1/√2n)."""


class PromotionError(TrainerError):
    """A checkpoint may not take the label; the message says why and what would be right."""


@dataclass(frozen=True, slots=True)
class LaterRows:
    """Rows to compare on.

    Attributes:
        known: What stands in the users' histories.
        later: What both are asked about.
        described: Which rows these are, for a person.
    """

    known: Interactions
    later: Interactions
    described: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of both.

    Attributes:
        metric: Its name.
        new: Of the checkpoint that wants the label.
        old: Of the one that has it.
        gain: How much better the new one is, with its 95% interval: above 0 is better, whatever the metric.
    """

    metric: str
    new: float
    old: float
    gain: Interval

    @property
    def proven_worse(self) -> bool:
        """Says whether chance does not explain that the new one is worse."""
        return self.gain.high < 0


def find_later_rows(snapshot: Snapshot, new: Manifest, old: Manifest) -> LaterRows:
    """Returns rows that neither checkpoint can have learnt from.

    With times: those after the later one's `data_until`, of whatever data is given. Without times nothing is later, and
    the rows that the splits of both held out stand in; so both must come from this very data.

    Raises:
        PromotionError: There are too few.
        OtherDataError: The data has no times, and one of the two was trained on other data.
    """
    data = snapshot.data
    rows = data.interactions
    if not data.has_times:
        divided = [divide_again(snapshot, manifest) for manifest in (new, old)]
        keys = pair_numbers(rows, len(data.movies))
        learnt = [np.isin(keys, pair_numbers(parts.train, len(data.movies))) for parts in divided]
        is_later, is_known = ~(learnt[0] | learnt[1]), learnt[0] & learnt[1]
        described = f"held out by both ({new.trained_rows.holdout} and {old.trained_rows.holdout})"
        advice = "train both with the same --holdout and --seed"
    elif not (new.has_times and old.has_times):
        without = new.version if not new.has_times else old.version
        raise PromotionError(
            f"{without} was trained on data without times, so no row of {data.name} is known to be later; train again, "
            "or give the reason why it should have the label: --force REASON"
        )
    else:
        until_ms = max(new.data_until_ms, old.data_until_ms)
        is_later = rows.event_times_ms > until_ms
        is_known = ~is_later
        described = f"after {moment_text(until_ms)}"
        advice = "give data that goes on, or train both with --holdout newest:0.1"
    num_later = int(is_later.sum())
    if num_later < MIN_ROWS:
        raise PromotionError(
            f"nothing to compare on: {num_later:,} rows of {data.name} are {described}, and at least {MIN_ROWS} are "
            f"needed; {advice}"
        )
    return LaterRows(rows.take(is_known), rows.take(is_later), f"{num_later:,} rows {described}")


def compare(new: Checkpoint, old: Checkpoint, data: Dataset, rows: LaterRows) -> list[Difference]:
    """Asks both about the rows.

    Raises:
        PromotionError: The new one answers only half of what the old one does.
    """
    asked = [
        evaluate(
            *(each.model, data, rows.known, rows.later),
            protocol=rows.described,
            window=each.manifest.history_window,
            popularity=each.popularity_over(data.movies.movie_ids),
        )
        for each in (new, old)
    ]
    if asked[0].metrics.rmse is None and asked[1].metrics.rmse is not None:
        raise PromotionError(f"{new.version} predicts no ratings, and {old.version} does")
    differences = []
    pairs = [(_squared_errors(each), _gains(each)) for each in asked]
    for place, (metric, sign) in enumerate((("rmse", -1.0), ("ndcg_at_10", 1.0))):
        values = [getattr(each.metrics, metric) for each in asked]
        if None in values:
            continue
        interval = paired_interval([pairs[0][place]], [pairs[1][place]])
        low, high = sorted((sign * interval.low, sign * interval.high))
        differences.append(Difference(metric, values[0], values[1], Interval(sign * interval.difference, low, high)))
    return differences


def require_better(differences: Sequence[Difference]) -> None:
    """Lets pass what is proven worse on no metric and is not behind on all of them.

    Raises:
        PromotionError: It is worse; says by how much.
    """
    worse = [each for each in differences if each.proven_worse]
    if not worse and differences and all(each.gain.difference < 0 for each in differences):
        worse = list(differences)
    if worse:
        figures = "; ".join(
            f"{each.metric} {each.new:.4f} against {each.old:.4f} (gain {each.gain.difference:+.4f}, 95% interval "
            f"{each.gain.low:+.4f} to {each.gain.high:+.4f})"
            for each in worse
        )
        raise PromotionError(f"it is worse: {figures}")


def require_all_movies(new: Checkpoint, old: Checkpoint, *, forgotten: Collection[str] = ()) -> None:
    """Lets pass what knows as many movies as its predecessor.

    Args:
        new: The checkpoint that wants the label.
        old: The one that has it.
        forgotten: Movies that need not be known any more: only people watched them who were deleted.

    Raises:
        PromotionError: It knows fewer; names some that it lacks.
    """
    known, before = (set(each.model.vocabularies().get("movies", [""])) for each in (new, old))
    before -= set(forgotten) - known
    if len(known) < len(before):
        lost = sorted(before - known)
        raise PromotionError(
            f"{new.version} knows {len(known) - 1:,} movies and {old.version} {len(before) - 1:,}: it lacks "
            f"{', '.join(repr(each) for each in lost[:3])}{' and others' if len(lost) > 3 else ''}"
        )


def refit(
    snapshot: Snapshot, registry: Registry, manifest: Manifest, label: str, progress: Progress = silent
) -> Manifest:
    """Trains a checkpoint with the settings of another one on all rows.

    Raises:
        TrainerError: The settings do not fit the data or this code.
    """
    options = [f"{name}={value}" for name, value in manifest.options.items()]
    request = Request(
        manifest.model,
        "none",
        manifest.seed,
        options=options,
        label=label,
        calibrated=manifest.rating_spread is not None,
    )
    return train(snapshot, registry, request, progress).manifest


def reason_of(differences: Sequence[Difference], rows: LaterRows, old: str, refitted_from: str | None) -> str:
    """Returns what the label's history says of a promotion."""
    figures = ", ".join(f"{each.metric} {each.new:.4f} (was {each.old:.4f})" for each in differences)
    refitted = f"; refitted on all rows with the settings of {refitted_from}" if refitted_from else ""
    return f"promoted over {old} on {rows.described}: {figures}{refitted}"


def _squared_errors(evaluation: Evaluation) -> UserSums:
    rows = evaluation.held_out
    errors = np.square(evaluation.predicted.astype(np.float64) - rows.ratings)
    rated = ~np.isnan(errors)
    places = np.searchsorted(evaluation.users, rows.user_rows[rated])
    num_users = len(evaluation.users)
    totals = np.bincount(places, errors[rated], num_users).astype(np.float64)
    counts = np.bincount(places, minlength=num_users).astype(np.float64)
    return UserSums(evaluation.users, totals, counts, is_root=True)


def _gains(evaluation: Evaluation) -> UserSums:
    return UserSums(evaluation.users, ndcg_of_each(*evaluation.relevance()), np.ones(len(evaluation.users)))

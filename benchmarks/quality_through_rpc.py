"""Is what callers get as good as what the trainer measured?

Trains, publishes, serves; asks every held-out pair through BatchPredictRatings and every user through BatchTopK; and
compares answer by answer with the trainer's own evaluation. Before that it makes sure that no held-out pair is in the
store, and afterwards, as a negative control, that this would have been noticed: after `publish --all` the same look
must find them.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from marquee.client.channel import open_sync_channel
from marquee.client.columns import UserRows, decode_user_columns
from marquee.v1 import (
    feature_service_pb2,
    feature_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.record import record
from deploy.local.stack import LocalStack
from deploy.local.trainer_commands import run_trainer
from trainer.dataset import Dataset, Interactions
from trainer.evaluation import Evaluation, evaluate, user_columns
from trainer.histories import HistoryLayout
from trainer.metrics import ndcg_at_k, recall_at_k, rmse
from trainer.readers import read_dataset
from trainer.splits import Split, parse_holdout, split
from two_tower.checkpoint import Checkpoint, load
from two_tower.registry import Registry
from two_tower.scoring import rank_scores

TOLERANCE = 1e-4
RANKS = 10
FOLDER = Path(".run/quality_through_rpc")
TIMEOUT_S = 60.0
PAIRS_A_CALL = 4096
PAIR_USERS_A_CALL = 1000
RANKED_USERS_A_CALL = 200
READ_USERS_A_CALL = 250


class UnequalError(Exception):
    """What was served is not what the trainer measured, or the look for leaks failed."""


@dataclass(frozen=True, slots=True)
class Lists:
    """Top-k lists of B users: catalogue numbers and scores, best first. int64 [B, k], float32 [B, k]."""

    movies: NDArray[np.int64]
    scores: NDArray[np.float32]


def batches(length: int, size: int) -> Iterator[slice]:
    """Yields slices that cover a length."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def pair_batches(rows: Interactions) -> Iterator[NDArray[np.int64]]:
    """Yields rows, ordered by user, in batches that BatchPredictRatings takes."""
    order = np.argsort(rows.user_rows, kind="stable")
    start = 0
    while start < len(order):
        chosen = order[start : start + PAIRS_A_CALL]
        new_user = np.diff(rows.user_rows[chosen], prepend=-1) != 0
        chosen = chosen[np.cumsum(new_user) <= PAIR_USERS_A_CALL]
        yield chosen
        start += len(chosen)


def served_ratings(
    model: model_service_pb2_grpc.ModelServiceStub, data: Dataset, rows: Interactions
) -> NDArray[np.float32]:
    """Asks for the rating of every row."""
    ratings = np.full(len(rows), np.nan, np.float32)
    for chosen in pair_batches(rows):
        users, user_indices = np.unique(rows.user_rows[chosen], return_inverse=True)
        movies, movie_indices = np.unique(rows.movie_rows[chosen], return_inverse=True)
        answer = model.BatchPredictRatings(
            model_service_pb2.BatchPredictRatingsRequest(
                user_ids=[data.user_ids[row] for row in users],
                movie_ids=[data.movies.movie_ids[row] for row in movies],
                user_indices=user_indices.tolist(),
                movie_indices=movie_indices.tolist(),
            ),
            timeout=TIMEOUT_S,
        )
        if any(status != model_service_pb2.ROW_STATUS_OK for status in answer.statuses):
            raise UnequalError("BatchPredictRatings did not answer every held-out pair")
        ratings[chosen] = answer.ratings
    return ratings


def served_lists(model: model_service_pb2_grpc.ModelServiceStub, data: Dataset, users: NDArray[np.integer]) -> Lists:
    """Asks for the best movies of every user."""
    number_of = {movie_id: number for number, movie_id in enumerate(data.movies.movie_ids)}
    movies = np.full((len(users), RANKS), -1, np.int64)
    scores = np.full((len(users), RANKS), -np.inf, np.float32)
    for part in batches(len(users), RANKED_USERS_A_CALL):
        answer = model.BatchTopK(
            model_service_pb2.BatchTopKRequest(
                users=[model_service_pb2.UserSelector(user_id=data.user_ids[row]) for row in users[part]], k=RANKS
            ),
            timeout=TIMEOUT_S,
        )
        for place, result in enumerate(answer.results, part.start):
            movies[place, : len(result.movies)] = [number_of[each.movie_id] for each in result.movies]
            scores[place, : len(result.movies)] = [each.score for each in result.movies]
    return Lists(movies, scores)


def measured_scores(
    checkpoint: Checkpoint, data: Dataset, train: Interactions, users: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Returns the trainer's own ranking scores of all movies for some users. float32 [B, M]."""
    movies = checkpoint.model.embed_movies(data.movies)
    layout = HistoryLayout(train, len(data.user_ids), checkpoint.manifest.history_window)
    embeddings = checkpoint.model.embed_users(user_columns(data, layout, users), movies)
    scores: NDArray[np.float32] = rank_scores(checkpoint.model, embeddings, movies).cpu().numpy()
    return scores


def compare_lists(served: Lists, measured: Evaluation, scores: NDArray[np.float32]) -> dict[str, float]:
    """Holds two sets of lists against each other; movies whose scores are within the tolerance may change places.

    Raises:
        UnequalError: They differ by more than that.
    """
    places = np.arange(len(scores))[:, None]
    theirs = np.where(measured.lists[:, :RANKS] >= 0, scores[places, measured.lists[:, :RANKS]], -np.inf)
    ours = np.where(served.movies >= 0, scores[places, served.movies], -np.inf)
    both = np.isfinite(theirs) & np.isfinite(ours)
    if not np.array_equal(np.isfinite(theirs), np.isfinite(ours)):
        raise UnequalError("served lists are longer or shorter than the trainer's")
    score_gap = float(np.abs(served.scores - ours)[both].max())
    rank_gap = float(np.abs(theirs - ours)[both].max())
    if max(score_gap, rank_gap) > TOLERANCE:
        raise UnequalError(f"served scores differ by {score_gap:.2e}, ranks by {rank_gap:.2e} in score")
    return {
        "max_score_difference": score_gap,
        "max_score_difference_at_a_rank": rank_gap,
        "lists_that_differ_by_ties": int((served.movies != measured.lists[:, :RANKS]).any(axis=1).sum()),
    }


def stored_rows(
    features: feature_service_pb2_grpc.FeatureServiceStub, user_ids: Sequence[str]
) -> Iterator[tuple[slice, UserRows]]:
    """Reads users with their histories and seen sets."""
    for part in batches(len(user_ids), READ_USERS_A_CALL):
        answer = features.BatchGetUsers(
            feature_service_pb2.BatchGetUsersRequest(
                user_ids=user_ids[part], view=feature_service_pb2.USER_VIEW_COLUMNS, include_seen=True
            ),
            timeout=TIMEOUT_S,
        )
        rows = decode_user_columns(answer.columns)
        if rows.seen_omitted is None or rows.seen_omitted.any():
            raise UnequalError("seen sets are missing from the answer: nothing can be said about leaks")
        yield part, rows


def num_leaked(features: feature_service_pb2_grpc.FeatureServiceStub, data: Dataset, held_out: Interactions) -> int:
    """Counts held-out pairs that stand in a stored history or seen set."""
    width = len(data.movies)
    pairs = held_out.user_rows.astype(np.int64) * width + held_out.movie_rows
    leaked: set[int] = set()
    for part, rows in stored_rows(features, data.user_ids):
        assert rows.seen_offsets is not None
        assert rows.seen_numbers is not None
        for offsets, numbers in ((rows.offsets, rows.movie_numbers), (rows.seen_offsets, rows.seen_numbers)):
            users = part.start + np.repeat(np.arange(len(rows)), np.diff(offsets))
            leaked.update(np.intersect1d(users * width + numbers, pairs).tolist())
    return len(leaked)


def served_metrics(
    data: Dataset, held_out: Interactions, ratings: NDArray[np.float32], served: Lists, users: NDArray[np.integer]
) -> dict[str, float]:
    """Computes the metrics anew from what was served."""
    width = len(data.movies)
    pairs = held_out.user_rows.astype(np.int64) * width + held_out.movie_rows
    hits = np.isin(users[:, None].astype(np.int64) * width + served.movies, pairs) & (served.movies >= 0)
    relevant = np.bincount(held_out.user_rows, minlength=len(data.user_ids))[users]
    rated = ~np.isnan(held_out.ratings)
    return {
        "rmse": rmse(ratings[rated], held_out.ratings[rated]),
        "ndcg_at_10": ndcg_at_k(hits, relevant),
        "recall_at_10": recall_at_k(hits, relevant),
    }


def compare(stack: LocalStack, checkpoint: Checkpoint, data: Dataset, parts: Split) -> dict[str, Any]:
    """Asks the running services everything and returns the figures.

    Raises:
        UnequalError: Something differs.
    """
    measured = evaluate(
        checkpoint.model, data, parts.train, parts.test, protocol="", window=checkpoint.manifest.history_window
    )
    with open_sync_channel(stack.model_address) as channel:
        model = model_service_pb2_grpc.ModelServiceStub(channel)
        ratings = served_ratings(model, data, parts.test)
        lists = served_lists(model, data, measured.users)
    rating_gap = float(np.abs(ratings - measured.predicted).max())
    if not rating_gap <= TOLERANCE:
        raise UnequalError(f"served ratings differ by up to {rating_gap:.2e} stars")
    figures = compare_lists(lists, measured, measured_scores(checkpoint, data, parts.train, measured.users))
    metrics = served_metrics(data, parts.test, ratings, lists, measured.users)
    for name, value in metrics.items():
        expected = getattr(measured.metrics, name)
        if not abs(value - expected) <= TOLERANCE:
            raise UnequalError(f"{name} is {value:.6f} as served and {expected:.6f} as measured by the trainer")
    return {
        "pairs": len(parts.test),
        "users": len(measured.users),
        "max_rating_difference": rating_gap,
        **figures,
        **{f"served_{name}": round(value, 6) for name, value in metrics.items()},
        **{f"trainer_{name}": round(getattr(measured.metrics, name), 6) for name in metrics},
    }


def learnt_and_held_out(data: Dataset, holdout: str, seed: int) -> Split:
    """Divides the data as train does: rows to choose options by are learnt from in the end (docs/decisions/0004)."""
    parts = split(data, parse_holdout(holdout), seed)
    width, rows = len(data.movies), data.interactions
    pairs, held_out = (each.user_rows.astype(np.int64) * width + each.movie_rows for each in (rows, parts.test))
    return replace(parts, train=rows.take(~np.isin(pairs, held_out)), validation=None)


def check(console: Console, source: str, model: str, holdout: str, seed: int) -> dict[str, Any]:
    """Runs the whole comparison for one model.

    Raises:
        UnequalError: Something differs, or a leak was found, or the negative control found none.
    """
    folder = FOLDER / model
    registry = Registry(folder / "registry")
    at = ("--registry", str(registry.path))
    run_trainer(console, "train", "--data", source, *at, "--model", model, "--holdout", holdout, "--seed", str(seed))
    (version,) = registry.versions()
    checkpoint = load(registry.path_of(version))
    data = read_dataset(source)
    parts = learnt_and_held_out(data, holdout, seed)
    stack = LocalStack.on_free_ports(folder, registry.path)
    publish = ("publish", *at, "--checkpoint", version, "--data", source, "--feature-service", stack.feature_address)
    with stack.feature_service(), open_sync_channel(stack.feature_address) as channel:
        features = feature_service_pb2_grpc.FeatureServiceStub(channel)
        run_trainer(console, *publish)
        if leaked := num_leaked(features, data, parts.test):
            raise UnequalError(f"{leaked} held-out pairs are in the store after publish")
        with stack.model_service():
            figures = compare(stack, checkpoint, data, parts)
        run_trainer(console, *publish, "--all")
        leaked = num_leaked(features, data, parts.test)
        if leaked != len(parts.test):
            raise UnequalError(
                f"negative control: of {len(parts.test)} pairs published by --all only {leaked} were noticed"
            )
        info = features.GetStoreInfo(feature_service_pb2.GetStoreInfoRequest(), timeout=TIMEOUT_S)
        if not info.not_for_evaluation:
            raise UnequalError("publish --all did not mark the store as not for evaluation")
    return {**figures, "leaked_after_publish": 0, "leaked_after_publish_all": leaked}


def main() -> int:
    """Parses the command line, compares every model, records and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a folder or zip; ml-100k of MARQUEE_DATA, else synthetic data")
    parser.add_argument("--model", action="append", help="default: marquee and two-tower-history")
    parser.add_argument("--holdout", default="temporal:0.1")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    source: str | None = arguments.data
    if source is None and "MARQUEE_DATA" in os.environ:
        source = str(Path(os.environ["MARQUEE_DATA"]) / "ml-100k")
    if source is None:
        source = str(FOLDER / "data")
        run_trainer(console, "synthesize", source)
    figures: dict[str, Any] = {"data": Path(source).name, "holdout": arguments.holdout, "seed": arguments.seed}
    try:
        for model in arguments.model or ["marquee", "two-tower-history"]:
            figures[model] = check(console, source, model, arguments.holdout, arguments.seed)
    except UnequalError as error:
        console.print(f"[red]{error}[/]", highlight=False)
        return 1
    console.print_json(data=figures)
    console.print(f"Written to {record('quality_through_rpc', figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

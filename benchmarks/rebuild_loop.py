"""Does the loop close? From the first 80% of a data set's time to a checkpoint of all of it, served.

A model is trained on what happened in the first 80% of time, published and served by real processes (Redis,
feature_service, model_service). The rest then happens: new movies and users are upserted, events written, one user asks
to be forgotten. `trainer rebuild` does what is left. Its candidate has learnt from all but the last 5% of time and is
compared on these with the old model, which is told the same histories; both are asked what neither has seen. What is
served in the end is the refit on everything.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.client.channel import open_sync_channel
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import (
    feature_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    movie_pb2,
    user_pb2,
)
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.record import record
from deploy.local.stack import LocalStack
from deploy.local.trainer_commands import run_trainer
from trainer.dataset import Dataset, Interactions
from trainer.publishing import publish
from trainer.readers import read_dataset
from trainer.rebuild.journal import Journal, Result
from trainer.rebuild.publication import keep_published
from trainer.rebuild.store_reading import StoreReader
from trainer.snapshot import Snapshot, hash_of_data
from trainer.splits import boundary_of_newest
from trainer.training import DEFAULT_MODEL, Request, train
from two_tower.checkpoint import load
from two_tower.registry import STABLE, Registry

FOLDER = Path(".run/rebuild_loop")
LATER_SHARE = 0.2
TIMEOUT_S = 60.0
TAKEN_UP_WITHIN_S = 180.0
EVENTS_A_CALL = 1000
MOVIES_A_CALL = 500
USERS_A_CALL = 1000


class LoopError(Exception):
    """The loop did not close; the message says where."""


class Story:
    """A data set, divided into what has happened and what is still to come."""

    def __init__(self, data: Dataset) -> None:
        rows = data.interactions
        is_later = rows.event_times_ms > boundary_of_newest(rows, LATER_SHARE)
        self.data = data
        self.first, self.later = rows.take(~is_later), rows.take(is_later)
        self.new_movies = np.setdiff1d(self.later.movie_rows, self.first.movie_rows)
        self.new_users = np.setdiff1d(self.later.user_rows, self.first.user_rows)

    def so_far(self) -> Dataset:
        """Returns what has happened, with nobody and nothing in it that is still to come."""
        data = self.data
        users, user_rows = np.unique(self.first.user_rows, return_inverse=True)
        movies, movie_rows = np.unique(self.first.movie_rows, return_inverse=True)
        return replace(
            data,
            user_ids=[data.user_ids[row] for row in users],
            profiles=data.profiles.take(users),
            zips=[data.zips[row] for row in users],
            movies=replace(
                data.movies,
                movie_ids=[data.movies.movie_ids[row] for row in movies],
                titles=[data.movies.titles[row] for row in movies],
                years=data.movies.years[movies],
                genres=[data.movies.genres[row] for row in movies],
            ),
            interactions=replace(
                self.first, user_rows=user_rows.astype(np.int32), movie_rows=movie_rows.astype(np.int32)
            ),
        )


def parts(rows: NDArray[np.integer], size: int) -> list[NDArray[np.integer]]:
    """Divides rows into calls."""
    return np.array_split(rows, max(1, -(-len(rows) // size)))


def happen(features: feature_service_pb2_grpc.FeatureServiceStub, story: Story) -> float:
    """Upserts the new movies and users and writes the events; returns the seconds that the events took."""
    data = story.data
    for some in parts(story.new_movies, MOVIES_A_CALL):
        movies = [
            movie_pb2.Movie(
                movie_id=data.movies.movie_ids[row],
                title=data.movies.titles[row],
                year=None if np.isnan(data.movies.years[row]) else int(data.movies.years[row]),
                genres=data.movies.genres[row],
            )
            for row in some
        ]
        upserts = [pb2.MovieUpsert(movie=movie) for movie in movies]
        features.BatchUpsertMovies(pb2.BatchUpsertMoviesRequest(movies=upserts), timeout=TIMEOUT_S)
    for some in parts(story.new_users, USERS_A_CALL):
        users = [
            pb2.UserUpsert(
                user_id=data.user_ids[row],
                profile=user_pb2.UserProfile(
                    gender=data.profiles.genders[row],
                    age=None if np.isnan(data.profiles.ages[row]) else int(data.profiles.ages[row]),
                    occupation=data.profiles.occupations[row],
                ),
            )
            for row in some
        ]
        features.BatchUpsertUsers(pb2.BatchUpsertUsersRequest(users=users), timeout=TIMEOUT_S)
    by_time = np.argsort(story.later.event_times_ms, kind="stable")
    began = time.perf_counter()
    for some in parts(by_time, EVENTS_A_CALL):
        request = pb2.WriteEventsRequest(events=[_event(data, story.later, row) for row in some.tolist()])
        results = features.WriteEvents(request, timeout=TIMEOUT_S).results
        refused = [result for result in results if result.status == pb2.EVENT_STATUS_REFUSED]
        if refused:
            raise LoopError(f"an event was refused: {refused[0].message}")
    return time.perf_counter() - began


def _event(data: Dataset, rows: Interactions, row: int) -> pb2.Event:
    time_ms = int(rows.event_times_ms[row])
    stars = float(rows.ratings[row])
    user, movie = int(rows.user_rows[row]), int(rows.movie_rows[row])
    return pb2.Event(
        event_id=f"{user}/{movie}",
        user_id=data.user_ids[user],
        movie_id=data.movies.movie_ids[movie],
        rating=None if np.isnan(stars) else stars,
        event_time=Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000),
    )


def ask(address: str, story: Story, deleted: str) -> dict[str, Any]:
    """Asks a running model_service who it is and what it knows."""
    data = story.data
    some_user = data.user_ids[int(story.first.user_rows[0])]
    with open_sync_channel(address) as channel:
        model = model_service_pb2_grpc.ModelServiceStub(channel)
        selector = model_service_pb2.UserSelector(user_id=some_user)
        answer = model.TopK(model_service_pb2.TopKRequest(user=selector, k=10), timeout=TIMEOUT_S)
        cold, unknown = 0, 0
        for row in story.new_movies.tolist():
            request = model_service_pb2.PredictRatingRequest(user=selector, movie_id=data.movies.movie_ids[row])
            try:
                cold += model.PredictRating(request, timeout=TIMEOUT_S).cold
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
                unknown += 1
        forgotten = model_service_pb2.UserSelector(user_id=deleted)
        source = model.TopK(model_service_pb2.TopKRequest(user=forgotten, k=10), timeout=TIMEOUT_S).source
    return {
        "model_version": answer.model_version,
        "new_movies_unknown": unknown,
        "new_movies_cold": cold,
        "new_movies_known": len(story.new_movies) - unknown - cold,
        "source_of_the_deleted_user": model_service_pb2.AnswerSource.Name(source),
    }


def wait_for(address: str, version: str) -> float:
    """Returns after how many seconds a version answers.

    Raises:
        LoopError: It does not within a time that a busy machine may take to load it.
    """
    began = time.perf_counter()
    nobody = model_service_pb2.UserSelector(inline_user=model_service_pb2.InlineUser())
    with open_sync_channel(address) as channel:
        model = model_service_pb2_grpc.ModelServiceStub(channel)
        while time.perf_counter() - began < TAKEN_UP_WITHIN_S:
            answer = model.TopK(model_service_pb2.TopKRequest(user=nobody, k=1), timeout=TIMEOUT_S)
            if answer.model_version == version:
                return time.perf_counter() - began
            time.sleep(0.1)
    raise LoopError(f"model_service answers from {answer.model_version}, and {version} has the label")


def close_the_loop(console: Console, source: Path, model: str) -> dict[str, Any]:
    """Runs all of it and returns the figures.

    Raises:
        LoopError: A step did not come to what it should.
    """
    story = Story(read_dataset(source))
    registry = Registry(FOLDER / "registry")
    known = story.so_far()
    deleted = known.user_ids[int(known.interactions.user_rows[0])]
    console.print(f"{len(known.interactions):,} rows have happened, {len(story.later):,} are to come")
    snapshot = Snapshot(known, source, hash_of_data(known), int(time.time() * 1000))
    before = train(snapshot, registry, Request(model, "none", reported=False)).manifest
    stack = LocalStack.on_free_ports(FOLDER, registry.path)
    with stack.feature_service(), open_sync_channel(stack.feature_address) as channel:
        features = feature_service_pb2_grpc.FeatureServiceStub(channel)
        publish(channel, known, known.interactions)
        keep_published(registry, StoreReader(channel), known, known.interactions)
        with stack.model_service(device="cpu"):
            asked = {"at_first": ask(stack.model_address, story, deleted)}
            wrote_s = happen(features, story)
            features.DeleteUser(pb2.DeleteUserRequest(user_id=deleted), timeout=TIMEOUT_S)
            asked["after_the_events"] = ask(stack.model_address, story, deleted)
            began = time.perf_counter()
            where = ("--registry", str(registry.path), "--feature-service", stack.feature_address)
            run_trainer(console, "rebuild", *where, "--no-report")
            rebuilt_s = time.perf_counter() - began
            # It follows the label: nobody starts it anew.
            taken_up_s = wait_for(stack.model_address, registry.label(STABLE) or "")
            asked["after_the_rebuild"] = ask(stack.model_address, story, deleted)
    result = Journal(registry).read().results[-1]
    require_closed(registry, result, before.version, asked, deleted)
    return {
        "data": source.name,
        "model": model,
        "rows_at_first": len(known.interactions),
        "events_after": len(story.later),
        "new_users": len(story.new_users),
        "new_movies": len(story.new_movies),
        "rows_compared_on": registry.label_history(STABLE)[-1].reason,
        "comparison": [{name: _rounded(value) for name, value in asdict(each).items()} for each in result.figures],
        "rows_trained_on_in_the_end": load(registry.path_of(result.version or "")).manifest.trained_rows.count,
        "seconds_writing_events": round(wrote_s, 1),
        "seconds_rebuilding": round(rebuilt_s, 1),
        "seconds_until_taken_up": round(taken_up_s, 1),
        "asked": asked,
    }


def require_closed(registry: Registry, result: Result, before: str, asked: dict[str, Any], deleted: str) -> None:
    """Lets pass what was promoted for being better, is served, and knows what it should and nobody it should not.

    Raises:
        LoopError: Says what is not so.
    """
    if result.outcome != "promoted":
        raise LoopError(f"the rebuild was {result.outcome}: {result.reason}")
    # Better by more than chance explains, and worse by no more than it does: what only differs by chance says nothing.
    if not any(each.low > 0 for each in result.figures) or any(each.high < 0 for each in result.figures):
        raise LoopError(f"the new one does not beat the old one: {result.figures}")
    after = asked["after_the_rebuild"]
    served = [asked[name]["model_version"] for name in ("at_first", "after_the_events", "after_the_rebuild")]
    if served != [before, before, result.version]:
        raise LoopError(f"{served} were served, one after the other; {result.version} has the label")
    if after["new_movies_cold"] or after["new_movies_unknown"]:
        raise LoopError(f"the new checkpoint does not know all new movies: {after}")
    if load(registry.path_of(result.version or "")).model.knows_users([deleted]).any():
        raise LoopError("the deleted user is in the new checkpoint")


def _rounded(value: object) -> object:
    return round(value, 5) if isinstance(value, float) else value


def show(console: Console, figures: dict[str, Any]) -> None:
    """Prints what it came to."""
    table = Table(title=f"{figures['data']}: the last 5% of time, new against old {figures['model']}")
    for heading in ("metric", "new", "old", "gain", "95% interval"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for each in figures["comparison"]:
        interval = f"{each['low']:+.4f} to {each['high']:+.4f}"
        numbers = (f"{each['new']:.4f}", f"{each['old']:.4f}", f"{each['gain']:+.4f}", interval)
        table.add_row(each["metric"], *numbers)
    console.print(table)
    served = Table(title=f"What is served, asked about {figures['new_movies']} movies that were new")
    for heading in ("", "model version", "unknown", "cold", "known", "the deleted user"):
        served.add_column(heading, justify="left" if heading in ("", "model version") else "right")
    for moment, each in figures["asked"].items():
        counts = (str(each[f"new_movies_{kind}"]) for kind in ("unknown", "cold", "known"))
        source = each["source_of_the_deleted_user"].removeprefix("ANSWER_SOURCE_")
        served.add_row(moment.replace("_", " "), each["model_version"], *counts, source)
    console.print(served)


def main(arguments: Sequence[str]) -> int:
    """Parses the command line, closes the loop, records and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of a data set with times, for example ml-100k")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args(arguments)
    console = Console()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    figures = close_the_loop(console, options.data, options.model)
    show(console, figures)
    console.print(f"recorded in {record('rebuild_loop', figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How long does it take to load a million users with 50 events each, and what memory does each process need for it?

    python benchmarks/bulk_load.py [--users 1000000] [--entries 50] [--movies 10000] [--interrupted 100000]

Sends profiles and histories as `trainer publish` does, with as many calls under way, to a feature_service on a Redis
that keeps an append-only file. Users are made while they are sent and never lie in memory all at once. Afterwards some
are read back and compared. Then, in an empty store, a loader is killed halfway and the load is started again: how much
of it is skipped, and is the store as it would be otherwise?
"""

import argparse
import multiprocessing
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
from marquee.client.channel import open_sync_channel
from marquee.client.columns import decode_user_columns, import_requests
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc, movie_pb2

from benchmarks.process_usage import cpu_s, cpu_with_children_s, peak_bytes
from benchmarks.record import record
from benchmarks.store_processes import RunningRedis, RunningService, feature_service, redis_server
from benchmarks.synthetic_users import SyntheticUsers
from trainer.call_pipeline import pipelined
from trainer.commands.progress_bar import progress_bar
from trainer.publishing import CALL_TIMEOUT_S, CALLS_IN_FLIGHT

FOLDER = Path(".run/bulk_load")
MOVIES_A_CALL = 500
BLOCKS_READ_BACK = 20

Stub = feature_service_pb2_grpc.FeatureServiceStub
Report = Callable[[int], None]


class UnequalError(Exception):
    """What is stored is not what was sent."""


def profile_requests(users: SyntheticUsers) -> Iterator[pb2.BatchUpsertUsersRequest]:
    """Yields the requests that load profiles."""
    for block in users.blocks():
        upserts = zip(block.user_ids, block.profiles, strict=True)
        yield pb2.BatchUpsertUsersRequest(
            users=[pb2.UserUpsert(user_id=user_id, profile=profile) for user_id, profile in upserts]
        )


def history_requests(users: SyntheticUsers) -> Iterator[pb2.ImportHistoriesRequest]:
    """Yields the requests that load histories."""
    movie_ids = _movie_ids(users)
    for block in users.blocks():
        size, entries = block.movie_rows.shape
        yield from import_requests(
            block.user_ids,
            np.arange(size + 1) * entries,
            movie_ids,
            block.movie_rows.ravel(),
            block.ratings.ravel(),
            block.event_times_ms.ravel(),
        )


def load_movies(stub: Stub, users: SyntheticUsers) -> None:
    """Makes the catalogue; a movie's number is then its row."""
    movie_ids = _movie_ids(users)
    for start in range(0, len(movie_ids), MOVIES_A_CALL):
        movies = [movie_pb2.Movie(movie_id=movie_id) for movie_id in movie_ids[start : start + MOVIES_A_CALL]]
        stub.BatchUpsertMovies(
            pb2.BatchUpsertMoviesRequest(movies=[pb2.MovieUpsert(movie=movie) for movie in movies]),
            timeout=CALL_TIMEOUT_S,
        )


def load_profiles(stub: Stub, users: SyntheticUsers, report: Report) -> None:
    """Loads all profiles."""
    done = 0
    for request, _ in pipelined(
        stub.BatchUpsertUsers, profile_requests(users), num_in_flight=CALLS_IN_FLIGHT, timeout_s=CALL_TIMEOUT_S
    ):
        done += len(request.users)
        report(done)


def load_histories(stub: Stub, users: SyntheticUsers, report: Report) -> tuple[int, int]:
    """Loads all histories; returns how many entries were applied and how many were there."""
    done = applied = unchanged = 0
    for request, response in pipelined(
        stub.ImportHistories, history_requests(users), num_in_flight=CALLS_IN_FLIGHT, timeout_s=CALL_TIMEOUT_S
    ):
        applied += response.num_applied
        unchanged += response.num_unchanged
        done += len(request.user_ids)
        report(done)
    return applied, unchanged


def read_back(stub: Stub, users: SyntheticUsers) -> int:
    """Compares some blocks of users with what was sent; returns how many users these were."""
    step = max(1, -(-users.num_users // 1000 // BLOCKS_READ_BACK))
    num_users = 0
    for number, block in enumerate(users.blocks()):
        if number % step:
            continue
        request = pb2.BatchGetUsersRequest(user_ids=block.user_ids, view=pb2.USER_VIEW_COLUMNS)
        rows = decode_user_columns(stub.BatchGetUsers(request, timeout=CALL_TIMEOUT_S).columns)
        # Newest first, of the same moment the higher number.
        order = np.lexsort((-block.movie_rows, -block.event_times_ms), axis=1)
        expected = [
            np.take_along_axis(part, order, axis=1).ravel()
            for part in (block.movie_rows, block.ratings, block.event_times_ms)
        ]
        found = (rows.movie_numbers, rows.ratings, rows.event_times_ms)
        for wanted, there in zip(expected, found, strict=True):
            if not np.array_equal(np.asarray(wanted), np.asarray(there)):
                raise UnequalError(f"histories of block {number} were not stored as they were sent")
        if list(rows.profiles) != block.profiles:
            raise UnequalError(f"profiles of block {number} were not stored as they were sent")
        num_users += len(block.user_ids)
    return num_users


class Stopwatch:
    """Measures what a phase of a load takes, of this process and of the two that it loads into."""

    def __init__(self, redis: RunningRedis, service: RunningService, users: SyntheticUsers) -> None:
        self._redis, self._service, self._users = redis, service, users
        self.figures: dict[str, Any] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[Report]:
        """Measures a block; gives what draws its progress."""
        before, started = self._cpu_s(), time.perf_counter()
        with progress_bar(name) as progress:
            yield lambda done: progress(done, self._users.num_users, name)
        wall_s = time.perf_counter() - started
        spent = {part: after - before[part] for part, after in self._cpu_s().items()}
        self.figures[name] = {
            "wall_s": round(wall_s, 1),
            "users_per_s": round(self._users.num_users / wall_s),
            "cpu_us_per_user": {part: round(1e6 * each / self._users.num_users, 1) for part, each in spent.items()},
        }
        print(name, self.figures[name], flush=True)

    def _cpu_s(self) -> dict[str, float]:
        return {
            "loader": time.process_time(),
            "feature_service": cpu_s(self._service.pid),
            # With the children that write the append-only file anew.
            "redis": cpu_with_children_s(self._redis.pid),
        }


def whole_load(users: SyntheticUsers, folder: Path) -> dict[str, Any]:
    """Loads everything once; returns times and memory."""
    with (
        redis_server(folder / "redis", append_only=True) as redis,
        redis.client() as client,
        feature_service(redis, folder / "feature_service.log") as service,
        open_sync_channel(service.address) as channel,
    ):
        stub = Stub(channel)
        load_movies(stub, users)
        empty = client.info("memory")["used_memory"]
        watch = Stopwatch(redis, service, users)
        with watch.phase("profiles") as report:
            load_profiles(stub, users, report)
        with watch.phase("histories") as report:
            applied, unchanged = load_histories(stub, users, report)
        if applied + unchanged != users.num_users * users.num_entries:
            raise UnequalError(f"{applied} entries were applied and {unchanged} were not")
        num_read = read_back(stub, users)
        used = client.info("memory")["used_memory"] - empty
        return {
            "phases": watch.figures,
            "wall_s": round(sum(phase["wall_s"] for phase in watch.figures.values()), 1),
            "peak_memory_mib": {
                "loader": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
                "feature_service": peak_bytes(service.pid) >> 20,
                "redis": peak_bytes(redis.pid) >> 20,
            },
            "redis": f"{client.info('server')['redis_version']}, {client.info('memory')['mem_allocator']}",
            "redis_bytes_per_user": round(used / users.num_users),
            "append_only_file_mib": sum(each.stat().st_size for each in (folder / "redis").rglob("*.aof")) >> 20,
            "entries_sent_twice": unchanged,  # after a failure that passed
            "users_read_back_and_equal": num_read,
        }


def interrupted_load(users: SyntheticUsers, folder: Path) -> dict[str, Any]:
    """Kills a loader of histories halfway and loads again; returns what was skipped."""
    with (
        redis_server(folder / "redis", append_only=True) as redis,
        feature_service(redis, folder / "feature_service.log") as service,
        open_sync_channel(service.address) as channel,
    ):
        stub = Stub(channel)
        load_movies(stub, users)
        load_profiles(stub, users, lambda _: None)
        acknowledged = _killed_at(users.num_users // 2, service.address, users)
        watch = Stopwatch(redis, service, users)
        with watch.phase("histories again") as report:
            applied, unchanged = load_histories(stub, users, report)
        if applied + unchanged != users.num_users * users.num_entries or unchanged == 0 or applied == 0:
            raise UnequalError(f"{applied} entries were applied and {unchanged} were not")
        with watch.phase("all there") as report:
            applied_again, _ = load_histories(stub, users, report)
        if applied_again:
            raise UnequalError(f"{applied_again} entries were applied that should be there")
        return {
            "users": users.num_users,
            "users_acknowledged_when_killed": acknowledged,
            "entries_acknowledged_when_killed": acknowledged * users.num_entries,
            "entries_skipped": unchanged,
            "entries_applied": applied,
            "phases": watch.figures,
            "users_read_back_and_equal": read_back(stub, users),
        }


def _killed_at(num_users: int, address: str, users: SyntheticUsers) -> int:
    """Runs a loader until so many users are acknowledged, kills it, and returns how many were."""
    spawning = multiprocessing.get_context("spawn")
    acknowledged = spawning.Value("q", 0)
    loader = spawning.Process(target=_load_in_a_process, args=(address, users, acknowledged))
    loader.start()
    while acknowledged.value < num_users:
        if not loader.is_alive():
            raise UnequalError("the loader ended before it could be killed")
        time.sleep(0.01)
    loader.kill()
    loader.join()
    return int(acknowledged.value)


def _load_in_a_process(address: str, users: SyntheticUsers, acknowledged: "Synchronized[int]") -> None:
    def report(done: int) -> None:
        acknowledged.value = done

    with open_sync_channel(address) as channel:
        load_histories(Stub(channel), users, report)


def _movie_ids(users: SyntheticUsers) -> list[str]:
    return [f"movie-{row}" for row in range(users.num_movies)]


def main() -> None:
    """Loads, and writes the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--entries", type=int, default=50)
    parser.add_argument("--movies", type=int, default=10_000)
    parser.add_argument("--interrupted", type=int, default=100_000, help="users of the load that is killed")
    given = parser.parse_args()
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    users = SyntheticUsers(given.users, given.entries, given.movies)
    figures: dict[str, Any] = {
        "users": given.users,
        "entries_per_user": given.entries,
        "movies": given.movies,
        "calls_in_flight": CALLS_IN_FLIGHT,
        "whole": whole_load(users, FOLDER / "whole"),
    }
    smaller = SyntheticUsers(given.interrupted, given.entries, given.movies)
    figures["interrupted"] = interrupted_load(smaller, FOLDER / "interrupted")
    print(record("bulk_load", figures))


if __name__ == "__main__":
    main()

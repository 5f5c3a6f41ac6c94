"""What does it cost to read the features of users, beside Feast's Python feature server and plain HGETALL?

    make feast && python benchmarks/feature_reads.py [--users 10000] [--entries 50] [--rounds 9]

All systems hold the same users, each in a redis-server of its own, and are asked in turn, some calls at a time, by one
caller who waits for each answer. Processor time is that of the serving process and of its Redis; with HGETALL it is the
caller who reads. Our columns carry what model_service reads for a list of recommendations: profile, history, all movies
ever watched; Feast is asked for the same. The answer of Feast is not parsed, ours is.
"""

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from marquee.client.channel import open_sync_channel
from marquee.client.columns import decode_user_columns
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc

from benchmarks import feast_store, user_hashes
from benchmarks.bulk_load import load_histories, load_movies, load_profiles
from benchmarks.feast_store import FeastServer, feast_server, load_feast
from benchmarks.process_usage import cpu_with_children_s
from benchmarks.record import record
from benchmarks.store_processes import feature_service, redis_server
from benchmarks.synthetic_users import SyntheticUsers

FOLDER = Path(".run/feature_reads")
SIZES = {1: 300, 10: 200, 50: 100, 100: 100, 1000: 8}
"""Users in a request, and how many such requests are one turn of ours; others take fewer, for they take longer."""
MAX_USERS_WITH_SEEN = 250
MAX_ENTRIES_FULL = 20_000
TIMEOUT_S = 60.0
GOAL_CPU_RATIO = 10.0
GOAL_P99_MS = 3.0

Read = Callable[[], object]


@dataclass(slots=True)
class Reader:
    """One way to read users.

    Attributes:
        name: Of the way.
        prepare: Makes the read of some users, so that making the request is not measured.
        server: Process that serves, None where the caller itself reads.
        redis: Process of its Redis.
        share: How many of the calls of a turn it takes.
    """

    name: str
    prepare: Callable[[Sequence[str]], Read]
    server: int | None
    redis: int
    share: float = 1.0

    def cpu_s(self) -> dict[str, float]:
        """Returns the processor time used so far, by part."""
        server = time.process_time() if self.server is None else cpu_with_children_s(self.server)
        return {"server": server, "redis": cpu_with_children_s(self.redis)}


@dataclass(slots=True)
class Measured:
    """What the turns of one reader at one size came to.

    Attributes:
        seconds: Of each call.
        cpu_s: In all, by part.
        num_users: Read in all.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=lambda: {"server": 0.0, "redis": 0.0})
    num_users: int = 0

    def figures(self) -> dict[str, Any]:
        """Returns the figures that are written down."""
        per_user = {part: 1e6 * each / self.num_users for part, each in self.cpu_s.items()}
        return {
            "p50_ms": round(1e3 * statistics.median(self.seconds), 3),
            "p99_ms": round(1e3 * float(np.quantile(self.seconds, 0.99)), 3),
            "calls": len(self.seconds),
            "cpu_us_per_user": {part: round(each, 1) for part, each in per_user.items()},
            "cpu_us_per_user_in_all": round(sum(per_user.values()), 1),
        }


def turn(reader: Reader, user_ids: Sequence[str], size: int, num_calls: int, into: Measured, rng: Any) -> None:
    """Makes some calls, each for other users."""
    reads = [
        reader.prepare([user_ids[at] for at in rng.choice(len(user_ids), size, replace=False)])
        for _ in range(num_calls)
    ]
    before = reader.cpu_s()
    for read in reads:
        started = time.perf_counter()
        read()
        into.seconds.append(time.perf_counter() - started)
    for part, after in reader.cpu_s().items():
        into.cpu_s[part] += after - before[part]
    into.num_users += size * num_calls


def our_reads(stub: feature_service_pb2_grpc.FeatureServiceStub, entries: int) -> dict[str, Any]:
    """Returns how feature_service is read: as columns with the movies ever watched, and as messages."""

    def read(requests: Sequence[pb2.BatchGetUsersRequest]) -> None:
        # What one call does not take is asked for at the same time, as model_service does.
        calls = [stub.BatchGetUsers.future(request, timeout=TIMEOUT_S) for request in requests]
        for request, call in zip(requests, calls, strict=True):
            answer = call.result()
            if request.view == pb2.USER_VIEW_COLUMNS:
                decode_user_columns(answer.columns)

    def columns(user_ids: Sequence[str]) -> Read:
        requests = [
            pb2.BatchGetUsersRequest(
                user_ids=user_ids[at : at + MAX_USERS_WITH_SEEN], view=pb2.USER_VIEW_COLUMNS, include_seen=True
            )
            for at in range(0, len(user_ids), MAX_USERS_WITH_SEEN)
        ]
        return lambda: read(requests)

    def full(user_ids: Sequence[str]) -> Read:
        most = MAX_ENTRIES_FULL // entries
        requests = [
            pb2.BatchGetUsersRequest(user_ids=user_ids[at : at + most], view=pb2.USER_VIEW_FULL, history_limit=entries)
            for at in range(0, len(user_ids), most)
        ]
        return lambda: read(requests)

    return {"marquee, columns": columns, "marquee, messages": full}


def feast_read(server: FeastServer) -> Callable[[Sequence[str]], Read]:
    """Returns how Feast is read."""
    fields = (*feast_store.PROFILE, *feast_store.HISTORY, *feast_store.WATCHED)

    def prepare(user_ids: Sequence[str]) -> Read:
        body = server.request(user_ids, fields)
        return lambda: server.read(body)

    return prepare


def measure(users: SyntheticUsers, rounds: int, folder: Path) -> dict[str, Any]:
    """Loads all systems and asks them in turn."""
    user_ids = [user_id for block in users.blocks() for user_id in block.user_ids]
    with ExitStack() as stack:
        ours = stack.enter_context(redis_server(folder / "redis", append_only=False))
        service = stack.enter_context(feature_service(ours, folder / "feature_service.log"))
        channel = stack.enter_context(open_sync_channel(service.address))
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        load_movies(stub, users)
        load_profiles(stub, users, lambda _: None)
        load_histories(stub, users, lambda _: None)
        theirs = stack.enter_context(redis_server(folder / "redis-of-feast", append_only=False))
        load_feast(users, folder / "feast", theirs.port)
        server = stack.enter_context(feast_server(folder / "feast"))
        plain = stack.enter_context(redis_server(folder / "redis-of-hashes", append_only=False))
        client = stack.enter_context(plain.client())
        user_hashes.load_hashes(client, users)

        def hashes(read: Callable[..., object]) -> Callable[[Sequence[str]], Read]:
            return lambda ids: lambda: read(client, [user_hashes.key_of(user_id) for user_id in ids])

        readers = [
            *(Reader(name, how, service.pid, ours.pid) for name, how in our_reads(stub, users.num_entries).items()),
            Reader("feast", feast_read(server), server.pid, theirs.pid, share=0.15),
            Reader("hgetall", hashes(user_hashes.read_each), None, plain.pid, share=0.3),
            Reader("hgetall, one pipeline", hashes(user_hashes.read_together), None, plain.pid, share=0.3),
        ]
        rng = np.random.default_rng(0)
        figures: dict[str, Any] = {}
        for size, num_calls in SIZES.items():
            found = {reader.name: Measured() for reader in readers}
            for reader in readers:
                turn(reader, user_ids, size, max(2, num_calls // 20), Measured(), rng)
            for number in range(rounds):
                # Nobody is always the one who comes after the slowest.
                for reader in readers[number % len(readers) :] + readers[: number % len(readers)]:
                    turn(reader, user_ids, size, max(2, round(num_calls * reader.share)), found[reader.name], rng)
            figures[str(size)] = {name: each.figures() for name, each in found.items()}
            print(size, figures[str(size)], flush=True)
        redis_info = client.info("server")["redis_version"]
    return {"redis": redis_info, "users_per_request": figures}


def main() -> None:
    """Measures, and writes the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--entries", type=int, default=50)
    parser.add_argument("--movies", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    found = measure(SyntheticUsers(given.users, given.entries, given.movies), given.rounds, FOLDER)
    at_50, at_100 = found["users_per_request"]["50"], found["users_per_request"]["100"]
    ratio = at_50["feast"]["cpu_us_per_user_in_all"] / at_50["marquee, columns"]["cpu_us_per_user_in_all"]
    p99_ms = at_100["marquee, columns"]["p99_ms"]
    goals = {
        "cpu_of_feast_over_ours_at_50": {"goal": GOAL_CPU_RATIO, "found": round(ratio, 1)},
        "p99_ms_at_100": {"goal": GOAL_P99_MS, "found": p99_ms},
    }
    print(goals)
    print(
        record(
            "feature_reads",
            {"users": given.users, "entries_per_user": given.entries, "rounds": given.rounds, "goals": goals, **found},
        )
    )


if __name__ == "__main__":
    main()
